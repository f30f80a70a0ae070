# Many messages through one worker, with faults mixed in at random: at the end
# the queue is empty, the history complete, and the worker no larger than
# before.  POSTMARK_TEST_LOAD multiplies the number of messages, 50 makes it a
# million; POSTMARK_TEST_SEED repeats a run.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use JSON::PP ();
use Test::More;

use PostmarkSandbox;
use PostmarkCluster;

my $rounds = 10;
my $per_round = 2000 * PostmarkCluster::load();
my $total = $rounds * $per_round;
my $seed = $ENV{POSTMARK_TEST_SEED} // int(rand(2**31));
srand($seed);
note("POSTMARK_TEST_SEED=$seed repeats this run");

# None of them is final for a message; each happens a few times.
my @faults = (
	{ drop => 'before_accept' },
	{ drop => 'after_accept' },
	{ status => 500, body => '' },
	{ status => 500, body => '', accept => JSON::PP::true() },
	{ status => 503, body => '' },
	{ status => 429, body => '', retry_after => 1 },
	{ garble => 'truncated' },
	{ garble => 'not_json' },
	{ drop_results => 3 },
	{ without_error_code => JSON::PP::true() },
	{ latency => 0.3 });

my $sandbox = PostmarkSandbox->new();
my $node = PostmarkCluster->new('main', sandbox => $sandbox);
ok($node->wait_worker, 'there is a worker');

sub worker_size
{
	my ($line) = grep { /^RssAnon:/ }
	  split /\n/, slurp_file('/proc/' . $node->worker_pid . '/status');
	my ($kilobytes) = $line =~ /(\d+)/;
	return $kilobytes;
}

sub worker_descriptors
{
	my @open = glob('/proc/' . $node->worker_pid . '/fd/*');
	return scalar(@open);
}

my $worker = $node->worker_pid;
my ($size, $descriptors);
for my $round (1 .. $rounds)
{
	my $fault = $faults[ int(rand(@faults)) ];
	my $times = 1 + int(rand(3));

	note("round $round: " . join(' ', %$fault) . ", $times times");
	$sandbox->rule(
		path => '/email/batch*',
		skip => int(rand(3)),
		times => $times,
		action => $fault);
	$node->sql(
		"INSERT INTO postmark_queue (email, usage_type)
		 SELECT 'r$round-' || i || '\@t.example', 'Register' FROM generate_series(1, $per_round) i"
	);
	$node->poll_query_until('postgres',
		'SELECT count(*) = ' . $round * $per_round . " FROM postmark_history")
	  or last;
	$sandbox->clear_rules;

	# What it once needed for its largest batches it may keep
	($size, $descriptors) = (worker_size(), worker_descriptors())
	  if $round == $rounds / 2;
}

is($node->worker_pid, $worker, 'the worker is the same');
is( $node->sql(
		'SELECT (SELECT count(*) FROM postmark_queue) + (SELECT count(*) FROM postmark_deferred) + (SELECT count(*) FROM postmark_intents)'
	),
	0,
	'the queue is empty');
is( $node->sql(
		"SELECT count(*), count(DISTINCT message_id), count(DISTINCT email) FROM postmark_history WHERE status = 'sent'"
	),
	"$total|$total|$total",
	'the history is complete, each message with a MessageID of its own');
my $counts = $sandbox->counts;
is($counts->{distinct}, $total, 'Postmark has every message');
is($counts->{duplicates}, 0, 'and none twice');

my $growth = worker_size() - $size;
note("the worker grew by $growth kB from $size kB");
cmp_ok($growth, '<', 8192, 'the worker does not grow');
cmp_ok($size + $growth, '<', 65536, 'it has less than 64 MB');
cmp_ok(worker_descriptors(), '<=', $descriptors + 8,
	'no descriptor is left open');

$node->stop;
done_testing();
