
# A server gets the new library first, and each database the new objects later:
# until then the library serves those of 1.0, and ALTER EXTENSION UPDATE takes
# nothing from anybody, with mail under way and sessions that go on.

use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;

use PostmarkSandbox;
use PostmarkCluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $sandbox = PostmarkSandbox->new();
my $node = PostmarkCluster->new(
	'main',
	sandbox => $sandbox,
	prepare => 0,
	conf => "postmark_connector.batch_size = 20\n"
	  . "postmark_connector.max_in_flight = 2\n");

# Everything that belongs to the extension, a line a fact; but pg_attver, a
# number that the server itself gives each column.
my $catalog = <<'SQL';
SET search_path = pg_catalog;
WITH members AS (
	SELECT d.classid, d.objid
	  FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
	 WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
	   AND e.extname = 'postmark_connector'
), relations AS (
	SELECT c.* FROM pg_class c JOIN members m ON m.objid = c.oid AND m.classid = 'pg_class'::regclass
), functions AS (
	SELECT p.* FROM pg_proc p JOIN members m ON m.objid = p.oid AND m.classid = 'pg_proc'::regclass
), facts AS (
	SELECT 'member ' || pg_describe_object(classid, objid, 0) || ': '
			|| coalesce(obj_description(objid, classid::regclass::name), 'no comment') AS fact
	  FROM members
	UNION ALL
	SELECT format('relation %s: %s %s %s acl %s options %s rls %s', oid::regclass, relkind,
			relpersistence, pg_get_userbyid(relowner), relacl, reloptions, relrowsecurity)
	  FROM relations
	UNION ALL
	SELECT format('column %s.%s: %s %s collation %s not null %s identity %s generated %s default %s acl %s statistics %s storage %s options %s, %s',
			r.oid::regclass, attname, attnum, format_type(atttypid, atttypmod), attcollation,
			attnotnull, attidentity, attgenerated, pg_get_expr(adbin, adrelid), attacl,
			attstattarget, attstorage,
			(SELECT array_agg(o) FROM unnest(attoptions) AS o WHERE o !~ '^pg_attver='), coalesce(col_description(r.oid, attnum), 'no comment'))
	  FROM relations r JOIN pg_attribute a ON attrelid = r.oid AND attnum > 0 AND NOT attisdropped
	  LEFT JOIN pg_attrdef ON adrelid = r.oid AND adnum = attnum
	UNION ALL
	SELECT format('constraint %s.%s: %s', r.oid::regclass, conname, pg_get_constraintdef(k.oid))
	  FROM relations r JOIN pg_constraint k ON conrelid = r.oid
	UNION ALL
	SELECT format('index %s, %s', pg_get_indexdef(indexrelid), i.reloptions)
	  FROM relations r JOIN pg_index ON indrelid = r.oid JOIN pg_class i ON i.oid = indexrelid
	UNION ALL
	SELECT format('trigger %s, %s', pg_get_triggerdef(t.oid), tgenabled)
	  FROM relations r JOIN pg_trigger t ON tgrelid = r.oid AND NOT tgisinternal
	UNION ALL
	SELECT format('rule %s', pg_get_ruledef(u.oid))
	  FROM relations r JOIN pg_rewrite u ON ev_class = r.oid
	UNION ALL
	SELECT format('sequence %s: %s %s %s %s %s', r.oid::regclass, format_type(seqtypid, NULL),
			seqstart, seqincrement, seqcache, seqcycle)
	  FROM relations r JOIN pg_sequence ON seqrelid = r.oid
	UNION ALL
	SELECT format('function %s: %s acl %s owner %s', oid::regprocedure, pg_get_functiondef(oid),
			proacl, pg_get_userbyid(proowner))
	  FROM functions WHERE prokind IN ('f', 'p')
	UNION ALL
	SELECT format('extension: %s %s dumped %s', extversion, extrelocatable,
			(SELECT array_agg(c::text || ' ' || w ORDER BY c::text)
			   FROM (SELECT unnest(extconfig)::regclass AS c, unnest(extcondition) AS w) AS t))
	  FROM pg_extension WHERE extname = 'postmark_connector'
	UNION ALL
	SELECT format('initially %s: %s', pg_describe_object(p.classoid, p.objoid, p.objsubid), initprivs)
	  FROM pg_init_privs p JOIN members m ON m.objid = p.objoid AND m.classid = p.classoid
)
SELECT fact FROM facts ORDER BY fact COLLATE "C";
SQL

sub catalog { return [ split /\n/, $node->sql($catalog, $_[0]) ]; }

#
# The objects of 1.0, served by the library of today
#
$node->sql("CREATE EXTENSION postmark_connector VERSION '1.0'");
$node->sql('CREATE TABLE app_messages (id bigint, email text)');
$node->configure;
is($node->sql('SELECT extversion FROM pg_extension WHERE extname ~ \'postmark\''),
	'1.0', 'the objects are those of 1.0');
is($node->sql('SELECT bool_and(ok) FROM postmark_check()'),
	't', '1.0: postmark_check');
like(
	$node->sql(
		"SELECT postmark_send('send\@t.example', 'Register', '123456')"),
	qr/^[0-9a-f-]{36}$/,
	'1.0: postmark_send');

$node->enqueue(3, prefix => 'first');
is($node->sql('SELECT postmark_flush()'), 't', '1.0: a queue that drains');
is( $node->sql(
		"SELECT DISTINCT status FROM postmark_messages WHERE email ~ 'first'"),
	'sent',
	'1.0: postmark_messages');
$node->sql(<<'SQL');
CREATE TABLE signup (email text, code text);
CREATE TRIGGER mail AFTER INSERT ON signup
	FOR EACH ROW EXECUTE FUNCTION postmark_enqueue_trigger('email', 'Register', 'code');
INSERT INTO signup VALUES ('trigger@t.example', '654321');
SQL
ok($sandbox->wait_for(messages => 5), '1.0: the trigger of a sign-up table');
my $later = $node->sql(
	"SELECT postmark_enqueue('later\@t.example', 'Register', '111111', send_after => now() + interval '1 day')"
);
my $cancelled = $node->sql(
	"SELECT postmark_enqueue('cancelled\@t.example', 'Register', '111111', send_after => now() + interval '1 day')"
);
is($node->sql("SELECT postmark_cancel($cancelled)"),
	't', '1.0: postmark_cancel');
$node->sql("SELECT postmark_issue_code('code\@t.example', 'Register')");
ok($sandbox->wait_for(messages => 6), '1.0: postmark_issue_code');
my ($mail) = $sandbox->messages(recipient => 'code@t.example', render => 0);
my $code = $mail->{Request}{TemplateModel}{code};
is( $node->sql(
		"SELECT postmark_verify_code('code\@t.example', 'Register', '"
		  . sprintf('%06d', ($code + 1) % 1_000_000) . "')"),
	'mismatch',
	'1.0: postmark_verify_code');
is($node->sql('SELECT state FROM postmark_status'),
	'running', '1.0: postmark_status');
$node->sql("SELECT postmark_pause(reason => 'stays')");
is($node->sql('SELECT count(*) FROM postmark_settings'),
	'1', '1.0: postmark_pause');
$node->sql('SELECT postmark_resume()');

#
# The update, while the queue drains and a session goes on
#
my $accepted = $sandbox->counts->{accepted};
$sandbox->rule(path => '/email*', action => { latency => 0.1 });
my $session = $node->background_psql('postgres');
my $row = 0;
my $queue_one = sub {
	$row++;
	$session->query_safe(
		"WITH m AS (SELECT postmark_enqueue('s$row\@t.example', 'Register', '222222') AS id)
		 INSERT INTO app_messages SELECT id, 's$row\@t.example' FROM m");
	return;
};
$queue_one->();
$node->enqueue(1500, prefix => 'under-way');
ok( PostmarkCluster::until_true(
		sub { $sandbox->counts->{accepted} > $accepted + 40 }),
	'mail is under way');
my $worker = $node->worker_pid;
$node->sql("ALTER EXTENSION postmark_connector UPDATE TO '1.1'");
cmp_ok($sandbox->counts->{accepted},
	'<', $accepted + 1500, 'and still is after ALTER EXTENSION UPDATE');
$queue_one->();
$node->enqueue(40, prefix => 'after');
$sandbox->clear_rules;
ok( $node->poll_query_until(
		'postgres',
		"SELECT count(*) = 0 FROM postmark_messages WHERE status = 'queued' OR (status = 'deferred' AND id <> $later)"
	),
	'the queue drains');
$session->quit;
is($node->worker_pid, $worker, 'the worker is the same process');

$node->sql("INSERT INTO app_messages SELECT id, email FROM postmark_messages
	WHERE email IN ('trigger\@t.example', 'code\@t.example')");
is($sandbox->counts->{duplicates}, 0, 'nothing went out twice');
is( $node->sql(
		"SELECT count(*) FROM app_messages a LEFT JOIN postmark_messages m USING (id) WHERE m.status IS DISTINCT FROM 'sent'"
	),
	'0',
	'every message that was queued is known as sent');

# What was there before
is($node->sql("SELECT status FROM postmark_messages WHERE id = $later"),
	'deferred', 'a message for later is still there');
is($node->sql("SELECT status FROM postmark_messages WHERE id = $cancelled"),
	'cancelled', 'so is what became of another');
is( $node->sql(
		"SELECT postmark_verify_code('code\@t.example', 'Register', '$code')"),
	'verified',
	'a code of 1.0 is good');
is( $node->sql('SELECT postmark_config()->>\'fromEmail\''),
	'Shop <no-reply@shop.example>',
	'the settings are the same');

#
# What others were given, or have made, of what an update replaces
#
$node->sql('CREATE DATABASE given');
$node->sql(<<'SQL', 'given');
CREATE EXTENSION postmark_connector VERSION '1.0';
CREATE ROLE looker;
GRANT SELECT ON postmark_status TO looker;
GRANT EXECUTE ON FUNCTION postmark_state TO looker;
CREATE VIEW dashboard AS SELECT connector, state, queued FROM postmark_status;
ALTER EXTENSION postmark_connector UPDATE TO '1.1';
SQL
$node->configure(database => 'given');
is( $node->sql(
		'SET ROLE looker; SELECT state IS NOT NULL, state_age IS NOT NULL FROM postmark_status',
		'given'),
	't|t',
	'who could read postmark_status reads what it has now');
is($node->sql('SELECT connector, queued FROM dashboard', 'given'),
	'default|0', 'a view made of it goes on');
my ($dump) = PostgreSQL::Test::Utils::run_command(
	[ 'pg_dump', '--schema-only', $node->connstr('given') ]);
like(
	$dump,
	qr/GRANT ALL ON FUNCTION public\.postmark_state\(.*\) TO looker/,
	'a dump has what was granted');
$node->sql('DROP DATABASE given');
$node->sql('DROP ROLE looker');

#
# What is added belongs to whom the rest does, who need not be a superuser
#
$node->sql('CREATE DATABASE kept');
$node->sql(<<'SQL', 'kept');
CREATE EXTENSION postmark_connector VERSION '1.0';
CREATE ROLE keeper;
DO $$
DECLARE
	object record;
BEGIN
	FOR object IN
		SELECT pg_describe_object(classid, objid, 0) AS name
		FROM pg_depend WHERE deptype = 'e' AND refclassid = 'pg_extension'::regclass
			AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'postmark_connector')
			AND classid IN ('pg_class'::regclass, 'pg_proc'::regclass)
	LOOP
		EXECUTE format('ALTER %s OWNER TO keeper', object.name);
	END LOOP;
END
$$;
ALTER EXTENSION postmark_connector UPDATE TO '1.1';
SQL
is( $node->sql(<<'SQL', 'kept'), 'keeper', 'the new objects have the owner of the old ones');
SELECT DISTINCT pg_get_userbyid(coalesce(relowner, proowner))
FROM pg_depend LEFT JOIN pg_class c ON classid = 'pg_class'::regclass AND c.oid = objid
	LEFT JOIN pg_proc p ON classid = 'pg_proc'::regclass AND p.oid = objid
WHERE deptype = 'e' AND refclassid = 'pg_extension'::regclass
	AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'postmark_connector')
	AND coalesce(relowner, proowner) IS NOT NULL
SQL
$node->configure(database => 'kept');
$node->sql("SELECT postmark_enqueue('kept\@t.example', 'Register', '1', dedup_key => 'k')",
	'kept');
is($node->sql('SELECT postmark_flush()', 'kept'), 't', 'mail leaves');
is($node->sql('SELECT state FROM postmark_status', 'kept'),
	'running', 'and the state says so');
$node->sql('DROP DATABASE kept');
$node->sql('DROP ROLE keeper');

#
# The catalogs are those of an installation of today
#
$node->sql('CREATE DATABASE fresh');
$node->sql("CREATE EXTENSION postmark_connector", 'fresh');
my $fresh = catalog('fresh');
cmp_ok(scalar @$fresh, '>', 200, 'the catalogs say a lot');
is_deeply(catalog('postgres'), $fresh,
	'an updated extension is like a new one');

#
# Objects that the library does not know
#
$node->sql(
	"UPDATE pg_extension SET extversion = '7.0' WHERE extname = 'postmark_connector'; ALTER TABLE postmark_queue ALTER email SET STATISTICS 0",
	'fresh');
my ($status, $out, $err) = $node->psql('fresh',
	"SELECT postmark_enqueue('a\@t.example', 'Register', '1')");
like(
	$err,
	qr/version 7\.0 of extension "postmark_connector" is not served by the library that is loaded\nDETAIL:  The library serves 1\.0 and 1\.1\.\nHINT:  .*ALTER EXTENSION postmark_connector UPDATE.*restart the server/,
	'what is newer than the library is refused, with what to do');

done_testing();
