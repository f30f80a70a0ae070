# Messages of a connector that does not flow end at their time, codes and all,
# however many there are.

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
	conf => "autovacuum = off\n");
$node->wait_worker;
$node->configure(connector => 'flowing');
$node->sql('SELECT postmark_pause()');

my $n = 50000 * PostmarkCluster::load();

# Those that stay, in the way of those that do not; some of either are deferred
$node->enqueue($n / 5, prefix => 'stay', expires_in => "'1 hour'");
$node->sql(
	"SELECT postmark_enqueue('later' || i || '\@t.example', 'SignIn', '000000', send_after => now() + '5 s', expires_in => '1 hour') FROM generate_series(1, 100) i"
);
my $queued = time();
$node->enqueue($n, prefix => 'go', expires_in => "'12 s'");
$node->sql(
	"SELECT postmark_enqueue('gone' || i || '\@t.example', 'SignIn', '000000', send_after => now() + '1 s', expires_in => '8 s') FROM generate_series(1, 100) i"
);

# A worker that did a thousand a second would take most of a minute
sub left
{
	return $node->sql(
		"SELECT (SELECT count(*) FROM postmark_queue WHERE email LIKE 'go%') + (SELECT count(*) FROM postmark_deferred WHERE email LIKE 'go%')"
	);
}
ok( PostmarkCluster::until_true(
		sub { time() > $queued + 12 && left() < $n + 100 }),
	'messages of a paused connector begin to end at their time');
my $first = time();
my $address = 0;
ok( PostmarkCluster::until_true(
		sub {
			my $to = 'flow' . ++$address . '@t.example';
			$node->sql(
				"SELECT postmark_enqueue('$to', 'SignIn', '000000', connector => 'flowing')"
			);
			PostmarkCluster::until_true(
				sub { scalar(() = $sandbox->messages(recipient => $to)) });
			return left() == 0;
		}),
	'and soon all of them have ended');
cmp_ok($n / (time() - $first), '>', 1000, 'many more than a thousand a second');
is( $node->sql(
		"SELECT count(*) FROM postmark_history WHERE status = 'expired' AND email LIKE 'go%' AND code IS NULL"
	),
	$n + 100,
	'each is in the history, without its code');
is( $node->sql(
		"SELECT count(*) FROM postmark_messages WHERE status IN ('queued', 'deferred')"
	),
	$n / 5 + 100,
	'the others stay');

# One that comes in later with a shorter life
$node->sql(
	"SELECT postmark_enqueue('short\@t.example', 'SignIn', '000000', expires_in => '1 s')"
);
ok( $node->poll_query_until(
		'postgres',
		"SELECT status = 'expired' FROM postmark_messages WHERE email = 'short\@t.example'"
	),
	'one that comes in later ends, too');
$node->stop;
done_testing();
