# What reaches the worker from a transaction, and what a flush knows of it.

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
my $node = PostmarkCluster->new(
	'main',
	sandbox => $sandbox,
	conf => "max_prepared_transactions = 5\n");
$node->wait_worker;

#
# Savepoints
#

my $queue = q(SELECT postmark_enqueue('sp@t.example', 'Register', '000000'));
is( PostmarkExtra::error_of($node, <<"SQL")->{sqlstate}, '', 'a message that was rolled back does not keep a flush out');
BEGIN;
SAVEPOINT a;
$queue;
SAVEPOINT b;
$queue;
RELEASE b;
ROLLBACK TO a;
SELECT postmark_flush('0 s');
COMMIT;
SQL
foreach my $kept (
	"$queue; SAVEPOINT a; $queue; ROLLBACK TO a",
	"SAVEPOINT a; $queue; RELEASE a; SAVEPOINT b; $queue; ROLLBACK TO b",
	"SAVEPOINT a; SAVEPOINT b; $queue; RELEASE b; SAVEPOINT c; $queue; ROLLBACK TO c; RELEASE a")
{
	is( PostmarkExtra::error_of($node,
			"BEGIN; $kept; SELECT postmark_flush('0 s')")->{sqlstate},
		'55000',
		'one that was not does');
}

$node->sql('SELECT postmark_pause()');
my $id = $node->sql($queue);
$node->sql(<<"SQL");
BEGIN;
SAVEPOINT a;
SELECT postmark_cancel($id);
ROLLBACK TO a;
PREPARE TRANSACTION 'not cancelled';
COMMIT PREPARED 'not cancelled';
SQL
is( $node->sql("SELECT status FROM postmark_messages WHERE id = $id"),
	'queued', 'a cancel that was rolled back keeps nobody from PREPARE');
is( PostmarkExtra::error_of($node,
		"BEGIN; SAVEPOINT a; SELECT postmark_cancel($id); RELEASE a; PREPARE TRANSACTION 'no'")
	  ->{sqlstate},
	'0A000',
	'one that was not does');
$node->sql('SELECT postmark_resume()');
ok($node->wait_finished, 'the queue drains');

# A connector that is to wait for an hour, unless it is resumed
$node->configure(connector => 'c2');
my $away = $sandbox->rule(
	path => '/email*',
	recipient => 'away@t.example',
	action => { status => 503, retry_after => 3600 });
$node->sql(
	"SELECT postmark_enqueue('away\@t.example', 'Register', '000000', connector => 'c2')"
);
ok($node->wait_state('backing_off', 'c2'), 'a connector backs off');
my $tried = $sandbox->counts->{requests}{'/email/batchWithTemplates'};
$node->sql(<<'SQL');
BEGIN;
SAVEPOINT a;
SELECT postmark_resume('c2');
ROLLBACK TO a;
SELECT postmark_enqueue('fence@t.example', 'Register', '000000');
COMMIT;
SQL
ok($sandbox->wait_requests($tried + 1, path => '/email/batchWithTemplates'),
	'of a transaction with a rolled-back resume the message is sent');
$node->poll_query_until('postgres',
	"SELECT status = 'sent' FROM postmark_messages WHERE email = 'fence\@t.example'"
);
is($sandbox->counts->{requests}{'/email/batchWithTemplates'},
	$tried + 1, 'and nothing of that connector is tried');
$sandbox->clear_rules;
$node->sql("BEGIN; SAVEPOINT a; SELECT postmark_resume('c2'); RELEASE a; COMMIT");
ok($node->wait_finished, 'a resume of a subtransaction that stays counts');

#
# A flush after what mended a connector
#

foreach my $round (1 .. 3)
{
	$sandbox->config(tokens => ["token$round"]);
	$node->sql($queue);
	ok($node->wait_state('blocked'), 'a connector is blocked');
	my $error = PostmarkExtra::error_of($node, "SELECT postmark_flush('60 s')");
	like($error->{out}, qr/^f$/m, 'a flush does not wait for it');
	like($error->{err},
		qr/NOTICE: .*"default" does not send: its state is blocked.*DETAIL: .*HINT: /s,
		'and says why');
	is( $node->sql(
			"SELECT postmark_set_token('token$round'); SELECT postmark_flush('60 s')"
		),
		"\nt",
		'right after that was mended it waits until the mail is sent');
}

# What does not mend it is found out, and does not hold it up either
$sandbox->config(tokens => ['none']);
$node->sql($queue);
ok($node->wait_state('blocked'), 'a connector is blocked again');
my $begun = time();
is( $node->sql(
		"SELECT postmark_set_token('wrong'); SELECT postmark_flush('60 s')"),
	"\nf",
	'after a change that mends nothing a flush gives up');
cmp_ok(time() - $begun, '<', 30, 'once the worker has tried');

$node->stop;
done_testing();
