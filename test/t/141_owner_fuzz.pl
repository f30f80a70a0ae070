# The tables' owner, who is no superuser, alters them at random while mail
# flows: nothing crashes, nothing spins, the state says what is wrong, and once
# it is undone every message has gone where it should.
#
# POSTMARK_FUZZ_SEED repeats a run, as far as the order of things allows.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use File::Temp;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use PostmarkSandbox;
use PostmarkCluster;
use PostmarkExtra;

my $ROUNDS = 30 * PostmarkCluster::load();
my $SECONDS = 10 * PostmarkCluster::load();
my $seed = $ENV{POSTMARK_FUZZ_SEED} // int(rand(2**31));
srand($seed);
note("POSTMARK_FUZZ_SEED=$seed");

my $sandbox = PostmarkSandbox->new();
my $node = PostmarkCluster->new('main', sandbox => $sandbox);
my $start = PostmarkExtra::log_position($node);

my $OURS = q(FROM pg_class r JOIN pg_depend d ON d.objid = r.oid
	AND d.classid = 'pg_class'::regclass AND d.deptype = 'e'
	JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'postmark_connector');
$node->sql(<<"SQL");
CREATE ROLE owner LOGIN;
GRANT CREATE ON SCHEMA public TO owner;
CREATE SCHEMA elsewhere AUTHORIZATION owner;
DO \$\$
DECLARE
	name text;
BEGIN
	FOR name IN SELECT relname $OURS WHERE relkind IN ('r', 'S') LOOP
		EXECUTE format('ALTER TABLE %I OWNER TO owner', name);
	END LOOP;
END
\$\$;
SQL
# Of a generated one the type is not given back in this way.
my @columns = map { [ split /\|/ ] } split /\n/, $node->sql(<<"SQL");
SELECT r.relname, a.attname, format_type(a.atttypid, NULL), a.attnotnull
$OURS JOIN pg_attribute a ON a.attrelid = r.oid
WHERE r.relkind = 'r' AND a.attnum > 0 AND a.attgenerated = ''
ORDER BY 1, a.attnum
SQL
my @tables = do { my %seen; grep { !$seen{$_}++ } map { $_->[0] } @columns };

# Runs statements as the owner; what fails, fails
sub as_owner
{
	my ($sql) = @_;
	return $node->psql(
		'postgres',
		"SET client_min_messages = error; SET lock_timeout = '5s'; $sql",
		stdout => \my $out,
		stderr => \my $err,
		extra_params => [ '-U', 'owner' ]);
}

sub pick { return $_[ int(rand(@_)) ]; }

# What can be done and undone without losing anything: what it is, how it is
# undone, and whether it is such that the table may not be used
my %types = (
	text => [ 'varchar', 'text', 'x' ],
	integer => [ 'bigint', 'integer', 'x' ],
	bigint => [ 'numeric', 'bigint', 'x' ],
	jsonb => [ 'text', 'jsonb', 'x::jsonb' ],
	boolean => [ 'integer', 'boolean', 'x::boolean' ],
	uuid => [ 'text', 'uuid', 'x::uuid' ],
	oid => [ 'bigint', 'oid', 'x::oid' ],
	smallint => [ 'integer', 'smallint', 'x' ],
	'bigint[]' => [ 'text[]', 'bigint[]', 'x::bigint[]' ],
	'timestamp with time zone' =>
	  [ 'timestamptz(6)', 'timestamptz', 'x' ],
	bytea => [ 'text', 'bytea', "x::bytea" ],);
my @changes = (
	sub {
		my ($table, $column, $type) = @{ pick(@columns) };
		my ($other, $back, $cast) = @{ $types{$type} };
		$cast =~ s/x/$column/;
		my $there = $type eq 'boolean' || $type eq 'bytea'
		  || $type eq 'jsonb' || $type eq 'uuid' || $type eq 'bigint[]'
		  ? "USING $column" . "::$other" : '';
		return ("ALTER TABLE $table ALTER $column TYPE $other $there",
			"ALTER TABLE $table ALTER $column TYPE $back USING $cast", $table);
	},
	sub {
		my ($table, $column) = @{ pick(grep { $_->[3] eq 't' } @columns) };
		return ("ALTER TABLE $table ALTER $column DROP NOT NULL",
			"ALTER TABLE $table ALTER $column SET NOT NULL", $table);
	},
	sub {
		my ($table, $column) = @{ pick(@columns) };
		return ("ALTER TABLE $table RENAME $column TO another",
			"ALTER TABLE $table RENAME another TO $column", $table);
	},
	sub {
		my $table = pick(@tables);
		return ("ALTER TABLE $table RENAME TO another",
			"ALTER TABLE another RENAME TO $table", $table);
	},
	sub {
		my $table = pick(@tables);
		return ("ALTER TABLE $table ADD another text DEFAULT 'x'",
			"ALTER TABLE $table DROP another");
	},
	sub {
		my $table = pick(@tables);
		return ("CREATE TABLE elsewhere.child () INHERITS ($table)",
			"DROP TABLE elsewhere.child", $table);
	},
	sub {
		return ('ALTER TABLE postmark_queue DISABLE TRIGGER postmark_queue_row',
			'ALTER TABLE postmark_queue ENABLE ALWAYS TRIGGER postmark_queue_row');
	},
	sub {
		my $table = pick(@tables);
		return ("ALTER TABLE $table SET UNLOGGED", "ALTER TABLE $table SET LOGGED");
	},
	sub {
		my ($table, $column) = @{ pick(@columns) };
		return ("CREATE INDEX fuzz ON $table ((md5($column" . "::text))) WHERE length($column" . "::text) <> 3",
			"DROP INDEX fuzz");
	},
	sub {
		my ($table, $column) = @{ pick(@columns) };
		return ("ALTER TABLE $table ADD CONSTRAINT fuzz CHECK (length($column" . "::text) < 5) NOT VALID",
			"ALTER TABLE $table DROP CONSTRAINT fuzz");
	},
	sub {
		my $table = pick(@tables);
		return ("CREATE FUNCTION elsewhere.fuzz() RETURNS trigger LANGUAGE plpgsql AS \$f\$ BEGIN RETURN NULL; END \$f\$;"
			  . "CREATE TRIGGER fuzz AFTER INSERT OR DELETE ON $table FOR EACH ROW EXECUTE FUNCTION elsewhere.fuzz()",
			"DROP TRIGGER fuzz ON $table; DROP FUNCTION elsewhere.fuzz()");
	},
	sub { return ('VACUUM FULL ' . pick(@tables), 'SELECT') },
	sub {
		my $table = pick(@tables);
		return ("ALTER TABLE $table ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
			"ALTER TABLE $table DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY");
	});

# Mail that flows meanwhile: statements that may fail, for as long as it takes
my $script = File::Temp->new(SUFFIX => '.sql');
foreach my $i (1 .. 20000)
{
	print $script PostmarkCluster::enqueue_sql(1, from => $i);
	print $script "INSERT INTO postmark_queue (email, usage_type) VALUES ('i$i\@t.example', 'SignIn');\n"
	  if $i % 7 == 0;
	print $script "SELECT postmark_issue_code('c$i\@t.example', 'SignIn'); SELECT postmark_verify_code('c$i\@t.example', 'SignIn', '1');\n"
	  if $i % 5 == 0;
}
$script->flush;
my $flow_log = File::Temp->new;
my $flow = IPC::Run::start(
	[
		$node->installed_command('psql'), '-XAtq', '-d',
		$node->connstr('postgres'), '-f', $script->filename
	],
	'<' => \undef,
	'>' => File::Spec->devnull,
	'2>' => $flow_log->filename);

my $worker = $node->worker_pid;
my ($done, $unclear, $undone) = (0, 0, 1);
my $deadline = time() + $SECONDS;
foreach my $round (1 .. $ROUNDS)
{
	last if time() > $deadline;
	my ($change, $undo, $table) = pick(@changes)->();

	# One that is refused is none, for instance on a column of a view
	next if as_owner($change) != 0;
	$done++;
	my $state = $node->sql('SELECT DISTINCT state, detail FROM postmark_status');
	if ($table && $state !~ /^unconfigured\|.*"\Q$table\E"/)
	{
		$unclear++;
		diag("$change: $state");
	}
	$undone = as_owner($undo) == 0 or diag("cannot be undone: $undo");
	last unless $undone;
}
ok($undone, 'what was done is undone');
cmp_ok($done, '>=', 3, "$done changes were made");
is($unclear, 0, 'whenever a table could not be used, the state named it');
is($node->worker_pid, $worker, 'it is the same worker still');

$flow->kill_kill;
$flow->finish;

# A change that stays for a while: nothing spins
sub ticks
{
	my @stat = split ' ', slurp_file("/proc/$worker/stat") =~ s/.*\) //sr;
	return $stat[11] + $stat[12];
}
as_owner('ALTER TABLE postmark_deferred RENAME due_at TO another');
as_owner('ALTER TABLE postmark_history ALTER status DROP NOT NULL');
$node->sql(
	"SELECT postmark_enqueue('spin\@t.example', 'Register', expires_in => '1 hour')"
);
my ($begun, $ticks) = (time(), ticks());
$node->sql('SELECT 1 FROM postmark_status') foreach 1 .. 40;
my $share = (ticks() - $ticks) / 100 / (time() - $begun);
cmp_ok($share, '<', 0.1, 'the worker does not spin where it cannot go on');
as_owner('ALTER TABLE postmark_history ALTER status SET NOT NULL');
as_owner('ALTER TABLE postmark_deferred RENAME another TO due_at');

$node->sql('SELECT postmark_resume()');
ok($node->wait_finished, 'once all is undone the queue drains');
$node->accounted('every message has gone where it should',
	only => qr/^m\d/);
ok($node->wait_state('running'), 'the state says so');

# What cannot be undone: values that are others' bytes, columns that are gone
as_owner($_)
  foreach (
	"ALTER TABLE postmark_queue ALTER code TYPE bigint USING 4711",
	"ALTER TABLE postmark_history ALTER code TYPE bigint USING 4711",
	"ALTER TABLE postmark_deferred ALTER expires_at TYPE text",
	"ALTER TABLE postmark_settings ALTER config TYPE bigint USING 4711",
	"ALTER TABLE postmark_templates DROP expires_in",
	"ALTER TABLE postmark_secrets ALTER server_token TYPE bigint USING 4711",
	"ALTER TABLE postmark_codes ALTER hmac TYPE bigint USING 4711",
	"ALTER TABLE postmark_instance DROP timeline");
foreach my $sql (
	"SELECT postmark_enqueue('a\@t.example', 'SignIn', '1')",
	"INSERT INTO postmark_queue (email, usage_type) VALUES ('a\@t.example', 'SignIn')",
	"SELECT postmark_send('a\@t.example', 'SignIn', '1')",
	"SELECT postmark_issue_code('a\@t.example', 'SignIn')",
	"SELECT postmark_set_token('sandbox-token')",
	"SELECT postmark_config()",
	"SELECT postmark_pause()")
{
	is(PostmarkExtra::error_of($node, $sql)->{sqlstate},
		'PM001', "refused: $sql");
}
$node->sql('SELECT pg_terminate_backend(' . $node->worker_pid . ', 5000)');
ok( PostmarkCluster::until_true(
		sub { my $pid = $node->worker_pid; $pid && $pid != $worker }),
	'a worker that begins with such tables stays');
like(
	$node->sql('SELECT state, detail FROM postmark_status'),
	qr/^unconfigured\|column "/,
	'and the state is clear');
$node->sql('DROP EXTENSION postmark_connector CASCADE');
$node->sql('DROP TABLE app_messages');
$node->prepare_database('postgres');
$node->enqueue(1, prefix => 'again');
ok($node->wait_finished, 'the extension made anew works');

my $log = PostmarkExtra::log_since($node, $start);
unlike($log, qr/terminated by signal|PANIC|TRAP:|exited with exit code [2-9]/,
	'no process crashed');
my $lines = () = $log =~ /postmark_connector could not/g;
cmp_ok($lines, '<', 300, 'and the log is not full of it');

done_testing();
