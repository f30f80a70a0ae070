# Out of memory: whichever allocation of a turn is refused, nothing crashes,
# and no message fails, is lost or goes out twice for it.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use PostmarkSandbox;
use PostmarkCluster;
use PostmarkExtra;
use PostmarkPreload;

my $sandbox = PostmarkSandbox->new();
my $preload = PostmarkPreload->new();
my $node = PostmarkCluster->new(
	'main',
	sandbox => $sandbox,
	start => 0,
	conf => "postmark_connector.request_timeout = '2s'\n");
$preload->start($node);
$node->prepare_database;
$node->wait_worker;

# A large body: its memory is asked for from the system
my $payload = q(jsonb_build_object('text', repeat(E'\\n', 120000)));

# Each of them once; in a small run every fourth
my $last = 0;
my $unheard = 0;
my $ended = 0;
my $pid = $node->worker_pid;
my $step = PostmarkCluster::load() == 1 ? 4 : 1;
for (my $n = 1; $n < 1000; $n += $step)
{
	$preload->refuse($pid, $n);
	$node->enqueue(2, from => 2 * $n, prefix => 'small');
	$node->sql(
		"SELECT postmark_enqueue('large$n\@t.example', 'Register', '000000', $payload)"
	) if $n % 3 == 0;
	if (!$node->wait_finished)
	{
		fail("after allocation $n was refused the queue drains");
		last;
	}
	$unheard = $preload->refused ? 0 : $unheard + 1;

	# It ended, in which nothing is wrong; the next one would have to wait
	# after some of those in a row, but for one that was told to end.
	if ($pid ne ($node->worker_pid // ''))
	{
		$ended++;
		PostmarkExtra::reload($node, worker => 'off');
		$node->wait_state('no_worker');
		PostmarkExtra::reload($node, worker => 'on');
		$node->wait_worker;
		$pid = $node->worker_pid;
	}
	$last = $n;
	last if $unheard == 4;
}
$preload->allow;
diag("allocations of a turn: $last; workers that ended: $ended");
cmp_ok($unheard, '==', 4, 'each allocation of a turn was refused once');
is( $node->sql(
		"SELECT count(*) FROM postmark_messages WHERE status <> 'sent'"),
	0,
	'no message failed for it');
$node->accounted('each arrived once', only => qr/^small/);
is(scalar(() = $sandbox->ids(duplicates => 1)), 0, 'none twice');
unlike(slurp_file($node->logfile),
	qr/PANIC|TRAP|was terminated by signal/, 'nothing crashed');

# As long as there is no memory for a body, nothing of it fails
my $id = $node->sql(
	"SELECT postmark_enqueue('starved\@t.example', 'Register', '000000', $payload)"
);
ok($node->wait_status($id, 'sent'), 'with memory a large message is sent');
$node->stop;
done_testing();
