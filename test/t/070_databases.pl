# One worker for each database that has the extension, whatever is done to
# databases and to the extension.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use PostmarkSandbox;
use PostmarkCluster;
use PostmarkExtra;

my $sandbox = PostmarkSandbox->new();
my $node = PostmarkCluster->new('main', sandbox => $sandbox);
$node->wait_worker;

# The processes of the worker of a database, by pg_stat_activity
sub workers
{
	my ($database) = @_;
	return $node->sql(
		"SELECT count(*) FROM pg_stat_activity WHERE datname = '$database' AND backend_type ~ 'postmark.*worker'"
	);
}

# Queue a message in a database and wait until it has arrived.
my $sent = 0;

sub sends
{
	my ($database, $name, $schema) = @_;
	my $address = 'sends' . ++$sent . '@t.example';

	$node->safe_psql($database,
		'SELECT '
		  . ($schema ? "$schema." : '')
		  . "postmark_enqueue('$address', 'Register', '000000')");
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok(
		PostmarkCluster::until_true(
			sub { scalar(() = $sandbox->messages(recipient => $address)) }),
		$name);
}

# A statement that a worker must not be in the way of: succeeds in good time.
sub prompt
{
	my ($name, $sql, $database) = @_;
	my $began = time();
	my $error =
	  PostmarkExtra::error_of($node, $sql, database => $database // 'postgres');

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($error->{sqlstate}, '', "$name works") or diag($error->{err});
	cmp_ok(time() - $began, '<', 3, "$name does not wait for the worker");
	return;
}

sub new_database
{
	my ($database) = @_;
	$node->sql("CREATE DATABASE $database");
	$node->prepare_database($database);
	$node->wait_worker($database);
	return;
}

#
# A worker where there is the extension, and only there
#

is(workers('postgres'), 1, 'the database with the extension has one worker');
$node->sql('CREATE DATABASE second');
$node->prepare_database('second');
ok($node->wait_worker('second'),
	'a database that gets the extension later gets a worker');
sends('second', 'which sends');
sends('postgres', 'the first database sends, too');
isnt($node->worker_pid, $node->worker_pid('second'),
	'each has a process of its own');
$node->sql('CREATE DATABASE bare');
ok( $node->poll_query_until(
		'postgres',
		"SELECT count(*) = 2 FROM pg_stat_activity WHERE backend_type ~ 'postmark.*worker'"
	),
	'a database without the extension has none');

# A rolled-back CREATE EXTENSION
$node->safe_psql('bare', 'BEGIN; CREATE EXTENSION postmark_connector; ROLLBACK');
sends('second', 'a rolled-back CREATE EXTENSION disturbs nobody');
is(workers('bare'), 0, 'and starts nothing');

# The launcher is asked for several things before it looks: it forgets none of
# them.  First too much else happens to databases, then in too many of them.
$node->sql('CREATE DATABASE churn');
foreach my $case (
	[ 'CREATE DATABASE', sub { $node->sql('CREATE DATABASE newest') } ],
	[
		'many a CREATE EXTENSION',
		sub {
			$node->safe_psql('churn',
				'CREATE EXTENSION postmark_connector; DROP EXTENSION postmark_connector;'
				  x 17);
		}
	])
{
	my ($name, $before) = @$case;

	$node->safe_psql('bare', 'CREATE EXTENSION postmark_connector');
	$node->configure(database => 'bare');
	ok($node->wait_worker('bare'), 'a database has the extension');
	$node->safe_psql('bare', 'DROP EXTENSION postmark_connector');
	ok( $node->poll_query_until(
			'postgres',
			"SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = 'bare' AND backend_type ~ 'postmark'"
		),
		'and no more');
	$node->poll_query_until('postgres',
		"SELECT wait_event_type = 'Extension' FROM pg_stat_activity WHERE backend_type = 'postmark_connector launcher'"
	);
	my $launcher = $node->launcher_pid;
	kill STOP => $launcher;
	$before->();
	$node->safe_psql('bare', 'CREATE EXTENSION postmark_connector');
	kill CONT => $launcher;
	$node->configure(database => 'bare');
	ok($node->wait_worker('bare'),
		"CREATE EXTENSION after $name, both before the launcher looked");
	$node->safe_psql('bare', 'DROP EXTENSION postmark_connector');
}
$node->sql("DROP DATABASE $_") foreach qw(churn newest);

# A worker that was killed
my $pid = $node->worker_pid('second');
$node->sql("SELECT pg_terminate_backend($pid, 5000)");
sends('second', 'a terminated worker is replaced');
isnt($node->worker_pid('second'), $pid, 'by another process');

#
# DROP DATABASE
#

prompt('DROP DATABASE', 'DROP DATABASE second');
is(workers('second'), 0, 'its worker is gone');
sends('postgres', 'other databases go on after DROP DATABASE');

new_database('second');
prompt('DROP DATABASE WITH (FORCE)', 'DROP DATABASE second WITH (FORCE)');

# … while a request hangs
new_database('second');
$sandbox->rule(path => '/email*', recipient => 'hang@*', action => { latency => 60 });
my $requests = $sandbox->counts->{requests}{'/email/batchWithTemplates'} // 0;
$node->safe_psql('second',
	"SELECT postmark_enqueue('hang\@t.example', 'Register', '000000')");
$sandbox->wait_requests($requests + 1, path => '/email/batchWithTemplates');
prompt('DROP DATABASE while a request hangs', 'DROP DATABASE second');
$sandbox->clear_rules;
sends('postgres', 'other databases go on after it');

# … by somebody who may not
new_database('second');
$node->sql('CREATE ROLE nobody LOGIN');
$pid = $node->worker_pid('second');
foreach my $sql (
	'DROP DATABASE second',
	'DROP DATABASE second WITH (FORCE)',
	'ALTER DATABASE second RENAME TO third',
	'ALTER DATABASE second SET TABLESPACE pg_default',
	'CREATE DATABASE third TEMPLATE second')
{
	is(PostmarkExtra::error_of($node, $sql, user => 'nobody')->{sqlstate},
		'42501', "$sql is refused for lack of rights");
}
is($node->worker_pid('second'), $pid, 'and the same worker goes on');

# … while somebody is connected
my $session =
  PostmarkExtra::background($node, '\c second', "SET application_name = 'guest'",
	'SELECT pg_sleep(600)');
my $guest = PostmarkExtra::running($node, 'guest');
is( PostmarkExtra::error_of($node, 'DROP DATABASE second')->{sqlstate},
	'55006', 'DROP DATABASE is refused while a session is connected');
$node->sql("SELECT pg_terminate_backend($guest, 5000)");
$session->finish;
ok($node->wait_worker('second'), 'after which the worker is back');
sends('second', 'and sends');

# … in a transaction, which is an error
is( PostmarkExtra::error_of($node, 'BEGIN; DROP DATABASE second')->{sqlstate},
	'25001', 'DROP DATABASE in a transaction is an error');
sends('second', 'that the worker survives');

#
# RENAME, SET TABLESPACE
#

prompt('ALTER DATABASE RENAME', 'ALTER DATABASE second RENAME TO renamed');
sends('renamed', 'the worker is back after RENAME');
prompt('CREATE TABLESPACE', <<'SQL');
SET allow_in_place_tablespaces = on;
CREATE TABLESPACE elsewhere LOCATION '';
SQL
prompt('ALTER DATABASE SET TABLESPACE',
	'ALTER DATABASE renamed SET TABLESPACE elsewhere');
sends('renamed', 'the worker is back after SET TABLESPACE');
prompt('ALTER DATABASE SET TABLESPACE back',
	'ALTER DATABASE renamed SET TABLESPACE pg_default');

#
# A copy
#

# Unsent messages at the time of the copy
$sandbox->rule(
	path => '/email*',
	recipient => 'copied*',
	action => { status => 503 });
$node->safe_psql('renamed',
	"SELECT postmark_enqueue('copied1\@t.example', 'Register', '000000')");
$node->safe_psql('renamed',
	"SELECT postmark_enqueue('copied2\@t.example', 'Register', '000000', send_after => now() + '1 s')"
);
prompt('CREATE DATABASE TEMPLATE', 'CREATE DATABASE copy TEMPLATE renamed');
ok( $node->poll_query_until(
		'copy', "SELECT state = 'copied' FROM postmark_status"),
	'the copy is in state copied');
like(
	$node->safe_psql('copy', 'SELECT hint FROM postmark_status'),
	qr/postmark_resume/,
	'the hint says what to do');
$node->safe_psql('copy',
	"SELECT postmark_enqueue('copied3\@t.example', 'Register', '000000')");
$sandbox->clear_rules;
ok($node->wait_finished('renamed'), 'the original sends its messages');
is( $node->safe_psql('copy', "SELECT count(*) FROM postmark_messages WHERE email LIKE 'copied%' AND status <> 'sent'"),
	3,
	'the copy keeps its own and those it was copied with');
is_deeply(
	[ sort map { $_->[1] } grep { $_->[1] =~ /copied/ } $sandbox->ids ],
	[ 'copied1@t.example', 'copied2@t.example' ],
	'each was sent once, by the original');
sends('postgres', 'time passes');
is(scalar(() = $sandbox->messages(recipient => 'copied3@t.example')),
	0, 'the copy sends nothing of its own either');
is( $node->safe_psql(
		'copy',
		"SELECT postmark_send('sync\@t.example', 'Register', '000000') IS NOT NULL"
	),
	't',
	'postmark_send works in a copy');
$node->safe_psql('copy', 'SELECT postmark_resume()');
ok( PostmarkCluster::until_true(
		sub { scalar(() = $sandbox->messages(recipient => 'copied3@t.example')) }
	),
	'after postmark_resume the copy sends');
ok($node->wait_finished('copy'), 'all of it');
is($node->safe_psql('copy', 'SELECT state FROM postmark_status'),
	'running', 'and runs');
sends('renamed', 'so does the original');
prompt('DROP DATABASE of the copy', 'DROP DATABASE copy');

#
# ALLOW_CONNECTIONS
#

my $position = PostmarkExtra::log_position($node);
$node->sql('ALTER DATABASE renamed ALLOW_CONNECTIONS false');
$node->sql(
	"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = 'renamed'"
);
sends('postgres', 'a database without connections disturbs nobody');
is(workers('renamed'), 0, 'it has no worker');
cmp_ok(
	scalar(() = PostmarkExtra::log_since($node, $position) =~ /FATAL/g),
	'<=', 3, 'and the log is not filled with attempts');
$node->sql('ALTER DATABASE renamed ALLOW_CONNECTIONS true');
ok($node->wait_worker('renamed'), 'when it has connections again it has one');
sends('renamed', 'which sends');
$node->sql('DROP DATABASE renamed');

#
# The extension: dropped, created again, moved
#

prompt('TRUNCATE postmark_queue', 'TRUNCATE postmark_queue');
sends('postgres', 'the worker goes on after TRUNCATE');

$sandbox->rule(path => '/email*', recipient => 'slow@*', times => 1, action => { latency => 1 });
$requests = $sandbox->counts->{requests}{'/email/batchWithTemplates'};
$node->sql("SELECT postmark_enqueue('slow\@t.example', 'Register', '000000')");
$sandbox->wait_requests($requests + 1, path => '/email/batchWithTemplates');
prompt('TRUNCATE while a message is sent', 'TRUNCATE postmark_queue');
$sandbox->clear_rules;
sends('postgres', 'the worker goes on after that, too');

$position = PostmarkExtra::log_position($node);
$node->sql('CREATE DATABASE again');
foreach my $round (1 .. 30)
{
	$node->safe_psql('again', 'CREATE EXTENSION postmark_connector');
	if ($round % 10 == 0)
	{
		$node->configure(database => 'again');
		sends('again', "round $round of CREATE EXTENSION sends");
	}
	$node->safe_psql('again', 'DROP EXTENSION postmark_connector');
}
ok( $node->poll_query_until(
		'postgres',
		"SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = 'again' AND backend_type ~ 'postmark'"
	),
	'after the last DROP EXTENSION there is no worker');
unlike(
	PostmarkExtra::log_since($node, $position),
	qr/(?:ERROR|FATAL|PANIC): /,
	'none of it was an error');
sends('postgres', 'the worker of the other database goes on');

# A schema of its own
$node->safe_psql('again', 'CREATE SCHEMA "Mail"');
$node->safe_psql('again',
	'CREATE EXTENSION postmark_connector SCHEMA "Mail"');
$node->safe_psql('again',
		'SELECT "Mail".postmark_configure($config$'
	  . $node->connector_json
	  . '$config$)');
sends('again', 'in a schema of its own the extension sends', '"Mail"');
$pid = $node->safe_psql('again',
	'SELECT worker_pid FROM "Mail".postmark_status');
$node->safe_psql('again', 'ALTER SCHEMA "Mail" RENAME TO post');
sends('again', 'so it does after ALTER SCHEMA RENAME', 'post');
is( $node->safe_psql('again', 'SELECT worker_pid FROM post.postmark_status'),
	$pid, 'with the same worker');
is( $node->safe_psql(
		'again',
		"SELECT post.postmark_send('renamed\@t.example', 'Register', '000000') IS NOT NULL"
	),
	't',
	'postmark_send, too');

# Settings of the database that would hurt a session
$node->sql("ALTER DATABASE again SET $_")
  foreach (
	"statement_timeout = '1ms'",
	"lock_timeout = '1ms'",
	"idle_in_transaction_session_timeout = '1ms'",
	"default_transaction_read_only = on",
	"default_transaction_isolation = 'serializable'",
	"search_path = 'nowhere'",
	"session_replication_role = replica",
	"row_security = off",
	"enable_indexscan = off",
	"synchronous_commit = off",
	"postmark_connector.request_timeout = '2s'");
$node->sql("SELECT pg_terminate_backend($pid, 5000)");
my $hostile = <<'SQL';
SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET default_transaction_read_only = off;
SQL
$node->safe_psql('again',
	$hostile
	  . "SELECT post.postmark_enqueue('hostile' || i || '\@t.example', 'Register', '000000') FROM generate_series(1, 600) i"
);
ok( PostmarkCluster::until_true(
		sub {
			600 == grep { $_->[1] =~ /^hostile/ } $sandbox->ids;
		}),
	'settings of the database cannot weaken the worker');
is( scalar(
		grep { $_->[1] =~ /^hostile/ } $sandbox->ids(duplicates => 1)),
	0,
	'nothing is sent twice');
{
	local $ENV{PGOPTIONS} =
	  '-c statement_timeout=0 -c default_transaction_isolation=read\ committed';
	ok( $node->poll_query_until(
		'again',
		"SELECT count(*) = 600 FROM post.postmark_messages WHERE email LIKE 'hostile%' AND status = 'sent'"
		),
		'and all of it is stored');
}

$node->safe_psql('again', $hostile . 'DROP SCHEMA post CASCADE');
ok( $node->poll_query_until(
		'postgres',
		"SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = 'again' AND backend_type ~ 'postmark'"
	),
	'DROP SCHEMA CASCADE ends the worker');
$node->sql('DROP DATABASE again');

# DROP OWNED
$node->sql('CREATE ROLE boss SUPERUSER LOGIN');
$node->sql('CREATE DATABASE owned');
is( PostmarkExtra::error_of(
		$node, 'CREATE EXTENSION postmark_connector',
		database => 'owned',
		user => 'boss')->{sqlstate},
	'',
	'another superuser creates the extension');
$node->configure(database => 'owned');
sends('owned', 'it sends');
$node->safe_psql('owned', <<'SQL');
CREATE ROLE app;
CREATE TABLE signup (email text, code text);
CREATE TRIGGER mail AFTER INSERT ON signup FOR EACH ROW
	EXECUTE FUNCTION postmark_enqueue_trigger('email', 'Register', 'code');
ALTER TABLE signup OWNER TO app;
GRANT EXECUTE ON FUNCTION postmark_enqueue TO app;
DROP OWNED BY app;
SQL
sends('owned', 'DROP OWNED of an application does not disturb it');
prompt('DROP OWNED of the owner', 'DROP OWNED BY boss CASCADE', 'owned');
ok( $node->poll_query_until(
		'postgres',
		"SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = 'owned' AND backend_type ~ 'postmark'"
	),
	'after which there is no worker');

#
# The setting postmark_connector.worker
#

PostmarkExtra::reload($node, worker => 'off');
ok($node->wait_state('no_worker'), 'worker = off ends the worker');
like(
	$node->sql('SELECT hint FROM postmark_status'),
	qr/on/, 'the hint says to set it to on');
is(workers('postgres'), 0, 'its process is gone');
my $twice = PostmarkExtra::error_of($node, <<'SQL');
SELECT postmark_enqueue('off1@t.example', 'Register', '000000');
SELECT postmark_enqueue('off2@t.example', 'Register', '000000');
SQL
is($twice->{sqlstate}, '', 'queueing goes on');
is(scalar(() = $twice->{err} =~ /WARNING: /g),
	1, 'with one warning a session');
PostmarkExtra::reload($node, worker => 'on');
ok($node->wait_finished, 'worker = on sends what was queued meanwhile');
ok($node->wait_state('running'), 'the state is running');

$node->stop;
my $log = slurp_file($node->logfile);
unlike($log, qr/PANIC|TRAP|was terminated by signal/, 'nothing crashed');
like(
	$log,
	qr/LOG: .*no database has a worker: postmark_connector\.worker is off.*LOG: .*databases have workers again/s,
	'worker = off, and on, is in the log');

#
# Too few processes
#

my $poor = PostmarkCluster->new(
	'poor',
	sandbox => $sandbox,
	conf => "max_worker_processes = 1\nmax_logical_replication_workers = 0\n");
$poor->wait_state('no_worker');
ok( $poor->poll_query_until(
		'postgres',
		"SELECT hint ~ 'max_worker_processes' FROM postmark_status"),
	'with too few worker processes the hint names max_worker_processes');
is($poor->sql('SELECT state FROM postmark_status'),
	'no_worker', 'the state is no_worker');
$twice = PostmarkExtra::error_of($poor, <<'SQL');
SELECT postmark_enqueue('poor1@t.example', 'Register', '000000');
SELECT postmark_enqueue('poor2@t.example', 'Register', '000000');
SQL
like($twice->{err}, qr/max_worker_processes/, 'queueing warns of it');
is(scalar(() = $twice->{err} =~ /WARNING: /g), 1, 'once a session');
is( $poor->sql(
		"SELECT postmark_send('poor\@t.example', 'Register', '000000') IS NOT NULL"
	),
	't',
	'postmark_send works all the same');
$poor->sql('CREATE DATABASE other');
$poor->sql('CREATE DATABASE another');
cmp_ok(
	scalar(
		() = slurp_file($poor->logfile) =~ /WARNING: .*could not start a worker/g
	),
	'<=', 2,
	'the log says so once');
$poor->append_conf('postgresql.conf', 'max_worker_processes = 8');
$poor->restart;
ok($poor->wait_finished, 'with enough of them all is sent');
$poor->stop;

#
# Not preloaded
#

my $plain = PostmarkCluster->new(
	'plain',
	sandbox => $sandbox,
	conf => "shared_preload_libraries = ''\n");
is($plain->sql('SELECT state FROM postmark_status'),
	'no_worker', 'without preload there is no worker');
like(
	$plain->sql('SELECT hint FROM postmark_status'),
	qr/shared_preload_libraries/,
	'the hint says why');
is( $plain->sql(
		"SELECT postmark_send('plain\@t.example', 'Register', '000000') IS NOT NULL"
	),
	't',
	'postmark_send works');
is( $plain->sql("SELECT bool_and(ok) FROM postmark_check()"),
	't', 'so does postmark_check');
is( $plain->sql("SELECT postmark_test('plain\@t.example') IS NOT NULL"),
	't', 'and postmark_test');
$twice = PostmarkExtra::error_of($plain, <<'SQL');
SELECT postmark_enqueue('plain1@t.example', 'Register', '000000');
SELECT postmark_enqueue('plain2@t.example', 'Register', '000000');
SQL
is($twice->{sqlstate}, '', 'postmark_enqueue queues');
like($twice->{err}, qr/shared_preload_libraries/, 'and warns');
is(scalar(() = $twice->{err} =~ /WARNING: /g), 1, 'once a session');
is($plain->sql("SELECT postmark_cancel(1)"), 't', 'postmark_cancel works');
is($plain->sql("SELECT postmark_flush('10 s')"),
	'f', 'postmark_flush does not wait for nothing');
prompt_plain('DROP DATABASE of another database');
$plain->adjust_conf('postgresql.conf', 'shared_preload_libraries',
	"'postmark_connector'");
$plain->restart;
ok($plain->wait_finished, 'once preloaded what was queued is sent');
is(scalar(() = $sandbox->messages(recipient => 'plain2@t.example')),
	1, 'once');
is(scalar(() = $sandbox->messages(recipient => 'plain1@t.example')),
	0, 'and what was cancelled is not');

sub prompt_plain
{
	my ($name) = @_;
	$plain->sql('CREATE DATABASE other');
	is( PostmarkExtra::error_of($plain, 'DROP DATABASE other')->{sqlstate},
		'', "$name works");
	return;
}

# More databases than the launcher starts workers for at a time
my $many = PostmarkCluster->new(
	'many',
	sandbox => $sandbox,
	conf => "max_worker_processes = 32\n");
foreach my $i (1 .. 14)
{
	$many->sql("CREATE DATABASE many$i");
	$many->safe_psql("many$i", 'CREATE EXTENSION postmark_connector');
}
$many->restart;
ok( $many->poll_query_until(
		'postgres',
		q(SELECT count(DISTINCT datid) = 15 FROM pg_stat_activity WHERE backend_type = 'postmark_connector worker')
	),
	'after a restart each of many databases gets its worker');

done_testing();
