# Databases made from others: what belongs to which, and what holds a process.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use PostmarkSandbox;
use PostmarkCluster;
use PostmarkExtra;

my $sandbox = PostmarkSandbox->new();
my $node = PostmarkCluster->new('main', sandbox => $sandbox);
$node->wait_worker;
$node->sql('CREATE DATABASE template');
$node->prepare_database('template');

sub workers
{
	my ($database) = @_;
	return $node->sql(
		"SELECT count(*) FROM pg_stat_activity WHERE datname = '$database' AND backend_type = 'postmark_connector worker'"
	);
}

sub queue_sql { return "SELECT postmark_enqueue('$_[0]\@t.example', 'Register', '000000')"; }

sub arrived
{
	my ($name) = @_;
	return PostmarkCluster::until_true(
		sub { scalar(() = $sandbox->messages(recipient => "$name\@t.example")) });
}

#
# A template without a message
#

$node->sql('CREATE DATABASE fresh TEMPLATE template');
$node->sql(queue_sql('fresh'), 'fresh');
ok(arrived('fresh'),
	'a database made from a template without messages sends its own');
is($node->sql('SELECT state FROM postmark_status', 'fresh'),
	'running', 'its state is running');

# Somebody queues, and changes his mind, before the worker has looked
$node->poll_query_until('postgres',
	"SELECT wait_event_type IN ('Extension', 'Activity') FROM pg_stat_activity WHERE backend_type = 'postmark_connector launcher'"
);
my $launcher = $node->launcher_pid;
kill STOP => $launcher;
$node->sql('CREATE DATABASE early TEMPLATE template STRATEGY file_copy');
$node->sql('BEGIN; ' . queue_sql('never') . '; ROLLBACK', 'early');
my $error = PostmarkExtra::error_of($node, queue_sql('early'), database => 'early');
unlike($error->{err}, qr/WARNING/, 'queueing in it at once warns of nothing');
isnt($node->sql('SELECT state FROM postmark_status', 'early'),
	'copied', 'nor is it a copy');
kill CONT => $launcher;
ok(arrived('early'), 'what was queued before its worker looked is sent');

#
# A copy of one with messages
#

$node->sql(queue_sql('original'), 'template');
ok(arrived('original'), 'the original sends');
ok($node->wait_finished('template'), 'and stores that');
my $position = PostmarkExtra::log_position($node);
$node->sql('CREATE DATABASE copy TEMPLATE template');
ok( PostmarkExtra::wait_for_log(
		$node, $position,
		qr/sends nothing from database "copy": it is a copy of another one/),
	'that a database is a copy is said in the log');
ok( $node->poll_query_until(
		'postgres',
		"SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = 'copy'"),
	'after which it has no process');
is($node->sql('SELECT state FROM postmark_status', 'copy'),
	'copied', 'its state is copied');
$error = PostmarkExtra::error_of(
	$node,
	queue_sql('copied1') . ";\n"
	  . queue_sql('copied2') . ";\n"
	  . "INSERT INTO postmark_queue (email, usage_type, code) VALUES ('copied3\@t.example', 'Register', '000000');",
	database => 'copy');
is($error->{sqlstate}, '', 'queueing in a copy goes on');
is(scalar(() = $error->{err} =~ /WARNING: .*copy of another one/g),
	1, 'with one warning a session');
$error = PostmarkExtra::error_of($node, "SELECT postmark_flush('20 s')",
	database => 'copy');
like($error->{out}, qr/^f$/m, 'a flush gives up at once');
like($error->{err}, qr/NOTICE: .*its state is copied/, 'and says why');

# Attempts are stored by a worker that ends again
$node->sql(
	"SELECT postmark_issue_code('guess\@t.example', 'Register')", 'copy');
is( $node->sql(
		"SELECT postmark_verify_code('guess\@t.example', 'Register', '0000000')",
		'copy'),
	'mismatch',
	'a code can be verified in a copy');
ok( $node->poll_query_until('copy', 'SELECT count(*) > 0 FROM postmark_attempts'),
	'what failed is stored');
ok( $node->poll_query_until(
		'postgres',
		"SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = 'copy' AND backend_type ~ 'postmark'"
	),
	'and no process stays');
is( scalar(
		() = PostmarkExtra::log_since($node, $position) =~
		  /sends nothing from database "copy"/g),
	1,
	'the log says once that it is a copy');

$node->sql('SELECT postmark_resume()', 'copy');
ok(arrived($_), "once resumed it sends $_") foreach qw(copied1 copied2 copied3);
is(workers('copy'), 1, 'by a worker that stays');
is(scalar(grep { $_->[1] =~ /never/ } $sandbox->ids),
	0, 'nothing else was sent');
is(scalar(() = $sandbox->ids(duplicates => 1)), 0, 'and nothing twice');

$node->stop;
done_testing();
