# The wall clock is set back, as on a machine that booted with a wrong one:
# nothing waits for longer than it would have. And what is shown of the last
# minutes goes when they have passed.

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
my $node = PostmarkCluster->new('main', sandbox => $sandbox, start => 0);

$preload->set_clock(10 * 3600);
$preload->start($node);
$node->prepare_database;
$node->wait_worker;
$node->configure(connector => $_->[0], config => $_->[1])
  foreach [ 'slow', { maxRequestsPerSecond => 4 } ],
  [ 'away', {} ], [ 'busy', {} ], [ 'doubt', {} ], [ 'blocked', {} ],
  [ 'codes', { resendInterval => 40 } ];

sub queue
{
	my ($connector, $name) = @_;
	return $node->sql(
		"SELECT postmark_enqueue('$name\@t.example', 'Register', '000000', connector => '$connector', expires_in => '20 hours')"
	);
}

sub arrived
{
	my ($name, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok(
		PostmarkCluster::until_true(
			sub { scalar(() = $sandbox->messages(recipient => "$name\@t.example")) }
		),
		$what);
}

# One of each that waits
queue('slow', 'slow1');
arrived('slow1', 'a connector with maxRequestsPerSecond sends');
$sandbox->rule(
	path => '/email*',
	recipient => 'away@*',
	times => 1,
	action => { status => 503, retry_after => 5 });
$sandbox->rule(
	recipient => 'busy@*',
	times => 4,
	action => { refuse => { error_code => 100, message => 'Not now' } });
$sandbox->rule(
	path => '/email*',
	recipient => 'doubt@*',
	times => 1,
	action => { status => 500 });
queue('away', 'away');
queue('busy', 'busy');
queue('doubt', 'doubt');
ok($node->wait_state('backing_off', 'away'), 'a connector backs off');
ok( $node->poll_query_until(
		'postgres',
		"SELECT attempts > 0 FROM postmark_messages WHERE email = 'busy\@t.example'"
	),
	'a message is to be tried again');
my $issue =
  "SELECT postmark_issue_code('code\@t.example', 'Register', connector => 'codes')";
$node->sql($issue);

# Set right
$preload->set_clock(0);
queue('slow', "slow$_") foreach 2 .. 4;
arrived("slow$_", 'maxRequestsPerSecond allows the next ones') foreach 2 .. 4;
arrived('away', 'a back-off ends as if nothing had happened');
arrived('busy', 'a retry comes when it would have');
arrived('doubt', 'so does a look-up');
ok($node->wait_finished, 'all of it is finished');
my $error = PostmarkExtra::error_of($node, $issue);
is($error->{sqlstate}, 'PM007', 'the next code has to wait');
my ($seconds) = $error->{detail} =~ /(\d+) second/;
cmp_ok($seconds, '<=', 40, 'not longer than resendInterval');
is( $node->sql(
		"SELECT count(*) FROM postmark_sends WHERE sent_at > now() + interval '1 s'"
	),
	0,
	'nor longer for each time that it is asked for');

# A worker that finds a retry of the other clock's
$node->sql('SELECT postmark_pause($$busy$$)');
$sandbox->rule(
	recipient => 'again@*',
	times => 1,
	action => { refuse => { error_code => 100, message => 'Not now' } });
my $id = queue('default', 'again');
$node->poll_query_until('postgres',
	"SELECT attempts > 0 FROM postmark_messages WHERE id = $id");
$node->stop;
$preload->set_clock(-10 * 3600);
$preload->start($node);
arrived('again', 'a worker that starts after it was set back tries again, too');

# p50 and p99 are those of the last minutes
sub lately
{
	return $node->sql(
		q(SELECT latency_p50 <= latency_p99 FROM postmark_status WHERE connector = 'codes')
	);
}

$node->sql("ALTER SYSTEM SET timing_clock_source = 'system'")
  if $node->sql(
	"SELECT count(*) FROM pg_settings WHERE name = 'timing_clock_source'");
$node->stop;
$preload->start($node);
$node->wait_worker;
is(lately(), '', 'a server that has sent nothing knows no latency');
queue('codes', 'early');
arrived('early', 'it sends');
is(lately(), 't', 'and knows how long that took');
$preload->pass(240);
is(lately(), 't', 'so it does some minutes later');
$preload->pass(420);
is(lately(), '', 'but no more when they have passed');
queue('codes', 'late');
arrived('late', 'it sends again');
is(lately(), 't', 'and knows how long that took');
is( $node->sql(
		q(SELECT value FROM postmark_stats() WHERE connector = 'codes' AND metric = 'commit_to_request_count')
	),
	2,
	'while the statistics have both');

$node->stop;
done_testing();
