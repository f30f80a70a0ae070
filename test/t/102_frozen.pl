# A server that stood still for a while may find that a standby took over and
# sent its messages: it looks before it sends.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

use PostmarkSandbox;
use PostmarkCluster;

my $n = 3000;
my $sandbox = PostmarkSandbox->new();
my $primary = PostmarkCluster->new(
	'primary',
	sandbox => $sandbox,
	init => { allows_streaming => 1 },
	conf => <<'CONF');
postmark_connector.request_timeout = '2 s'
postmark_connector.batch_size = 50
postmark_connector.max_in_flight = 2
CONF
ok($primary->wait_worker, 'the primary has a worker');
$primary->enqueue(1, prefix => 'first');
ok($primary->wait_finished, 'it sends, and knows its timeline');

$primary->backup('copy');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'copy', has_streaming => 1);
$standby->start;

# In the midst of a drain, all processes of the primary are stopped
my $slow =
  $sandbox->rule(path => '/email/batch*', action => { latency => 0.1 });
$primary->enqueue($n);
$primary->wait_for_catchup($standby);
ok($sandbox->wait_messages(300), 'the drain is under way');
my ($postmaster) = split /\n/, slurp_file($primary->data_dir . '/postmaster.pid');
my @stopped = ($postmaster, split ' ', qx(ps -o pid= --ppid $postmaster));
kill STOP => @stopped;
my $since = time();
ok($sandbox->wait_for(idle => 1), 'the primary stands still');
cmp_ok($sandbox->counts->{distinct}, '<', $n, 'it has not sent all');

$standby->promote;
$sandbox->clear_rules($slow);
ok( $standby->poll_query_until(
		'postgres',
		q(SELECT count(*) = 0 FROM postmark_messages WHERE status IN ('queued', 'deferred', 'sending'))
	),
	'the standby sends what is left');
is($sandbox->counts->{distinct}, $n + 1, 'Postmark has all of them');
is($sandbox->counts->{duplicates}, 0, 'none twice');

# No less than a gap must be to be noticed
usleep(100_000) while time() < $since + 7;
kill CONT => reverse @stopped;
ok($primary->wait_finished, 'the primary goes on');
is( $primary->sql(
		q(SELECT string_agg(DISTINCT status, ' ') FROM postmark_messages)),
	'sent',
	'it finds all messages sent');
is($sandbox->counts->{duplicates}, 0, 'and has sent none of them');

# What comes in from then on is its own
$primary->enqueue(10, prefix => 'later');
ok($primary->wait_finished, 'it sends new messages');
is($sandbox->counts->{distinct}, $n + 11, 'all of them');

$standby->stop;
$primary->stop;
done_testing();
