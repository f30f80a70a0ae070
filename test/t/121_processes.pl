# Worker processes where something is in their way: commands on databases that
# are cancelled, encodings, schemas, settings, too few processes.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use PostmarkSandbox;
use PostmarkCluster;
use PostmarkExtra;

my $sandbox = PostmarkSandbox->new();
my $node = PostmarkCluster->new(
	'main',
	sandbox => $sandbox,
	conf => "max_connections = 60\nmax_worker_processes = 40\n");
$node->wait_worker;

# Queue a message and wait until it has arrived.
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

#
# Commands on databases
#

# A command that is cancelled while it waits for the worker to end: one that
# does not, since it is stopped.
$node->sql('CREATE DATABASE second');
$node->prepare_database('second');
$node->wait_worker('second');
foreach my $command (
	'DROP DATABASE second',
	'ALTER DATABASE second RENAME TO third',
	'CREATE DATABASE third TEMPLATE second')
{
	my $pid = $node->worker_pid('second');
	kill STOP => $pid;
	my $session = $node->background_psql('postgres', on_error_stop => 0);
	$session->query("SET statement_timeout = '100ms'");
	my ($out, $err) = $session->query($command);
	kill CONT => $pid;
	ok($node->wait_worker('second'),
		"once $command was cancelled there is a worker again");
	sends('second', 'which sends');
	$session->quit;
}

# Many at once
my @names = map { "many$_" } 1 .. 20;
$node->sql("CREATE DATABASE $_") foreach @names;
foreach my $name (@names)
{
	$node->safe_psql($name, 'CREATE EXTENSION postmark_connector');
}
$node->poll_query_until('postgres',
	"SELECT count(*) = 22 FROM pg_stat_activity WHERE backend_type = 'postmark_connector worker'"
);
my @drops =
  map { PostmarkExtra::background($node, "DROP DATABASE $_") } @names;
is_deeply([ map { ($_->finish)[2] } @drops ],
	[ map { '' } @names ], 'many databases are dropped at the same time');

#
# What a database may be like
#

# An encoding that nothing converts to UTF-8, until PostgreSQL 19
my $position;

SKIP:
{
	skip 'PostgreSQL 19 has no such encoding', 3
	  if $node->sql("SELECT pg_char_to_encoding('MULE_INTERNAL')") < 0;
	$position = PostmarkExtra::log_position($node);
	$node->sql(
		"CREATE DATABASE mule ENCODING 'MULE_INTERNAL' LOCALE 'C' TEMPLATE template0");
	$node->prepare_database('mule');
	sends('mule', 'in a MULE_INTERNAL database ASCII is sent');
	is( PostmarkExtra::error_of(
			$node,
			"SELECT postmark_enqueue('ann\@t.example', 'Register', '000000', jsonb_build_object('name', convert_from('\\xc3a4', 'LATIN1')))",
			database => 'mule')->{sqlstate},
		'PM003',
		'and anything else refused');
	unlike(PostmarkExtra::log_since($node, $position),
		qr/exited with exit code/, 'its worker does not fail');
}

# A schema whose name means something to format()
$node->sql('CREATE DATABASE percent');
$node->safe_psql(
	'percent', q(
CREATE SCHEMA mail;
CREATE EXTENSION postmark_connector SCHEMA mail VERSION '1.0';
ALTER SCHEMA mail RENAME TO "a%b";
ALTER EXTENSION postmark_connector UPDATE;
));
$node->safe_psql('percent',
		'SELECT "a%b".postmark_configure($config$'
	  . $node->connector_json
	  . '$config$)');
sends('percent', 'a schema may be named a%b', '"a%b"');

# A time-out of the session, whichever this server has
my $timeouts = <<'SQL';
FROM pg_settings
WHERE context = 'user' AND unit IN ('us', 'ms', 's', 'min', 'h')
	AND name !~ '\.'
SQL
$node->sql('CREATE DATABASE hasty');
$node->prepare_database('hasty');
$node->wait_worker('hasty');
foreach my $name (
	split /\n/,
	$node->sql("SELECT name $timeouts AND name ~ '_timeout\$' ORDER BY name"))
{
	next if $name eq 'lock_timeout';
	$node->sql("ALTER DATABASE hasty SET $name = '1ms'");
}
my $pid = $node->worker_pid;
$node->sql(
	"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = 'hasty' AND backend_type = 'postmark_connector worker'"
);
$position = PostmarkExtra::log_position($node);
{
	local $ENV{PGOPTIONS} = join ' ', map { "-c $_=0" } split /\n/,
	  $node->sql("SELECT name $timeouts AND name ~ '_timeout\$'");
	$node->enqueue(50, database => 'hasty', prefix => 'hasty');
	ok($node->wait_finished('hasty'),
		'with all time-outs of the session at 1 ms the worker sends');
}
unlike(
	PostmarkExtra::log_since($node, $position),
	qr/due to .*timeout/,
	'and none of them ends it');

# Those are found by their names, so another name has to be looked at.
is( $node->sql(
		"SELECT string_agg(name, ' ' ORDER BY name) $timeouts AND name !~ '_timeout\$'"
	),
	'client_connection_check_interval tcp_keepalives_idle tcp_keepalives_interval vacuum_cost_delay',
	'no other setting of a session is a time-out');
$node->stop;

#
# No process left for the launcher
#

my $poor = PostmarkCluster->new(
	'poor',
	sandbox => $sandbox,
	conf => <<'CONF');
shared_preload_libraries = 'pg_prewarm, pg_stat_statements, postmark_connector'
max_worker_processes = 1
max_logical_replication_workers = 0
CONF
ok( $poor->poll_query_until(
		'postgres',
		"SELECT state = 'no_worker' AND hint ~ 'max_worker_processes' FROM postmark_status"
	),
	'without a process for the launcher the hint names max_worker_processes');
like(
	PostmarkExtra::error_of($poor,
		"SELECT postmark_enqueue('poor\@t.example', 'Register', '000000')")
	  ->{err},
	qr/max_worker_processes/,
	'queueing warns of it');
is($poor->sql("SELECT postmark_flush('20 s')"),
	'f', 'postmark_flush does not wait for what will not come');

# The hooks of a library that was loaded before ours are called, too
$poor->sql('CREATE EXTENSION pg_stat_statements');
$poor->sql('CREATE DATABASE counted');
is( $poor->sql(
		"SELECT calls FROM pg_stat_statements WHERE query = 'CREATE DATABASE counted'"
	),
	'1', 'pg_stat_statements sees the commands that we look at');
$poor->stop;

done_testing();
