# Under a load that never lets the queue run empty its files stay bounded, also
# where autovacuum never comes.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use PostmarkSandbox;
use PostmarkCluster;
use PostmarkExtra;

# A vacuum comes after this many messages of 8 kB: 128 MB
my $ROUND = 17_000;

my $sandbox = PostmarkSandbox->new();
my $node = PostmarkCluster->new(
	'main',
	sandbox => $sandbox,
	conf => "log_min_messages = debug1\nautovacuum = off\n");
$node->configure(connector => 'other');

my $size = "pg_total_relation_size('postmark_queue')";
my $vacuum = q(backend_type = 'postmark_connector vacuum');
my $total = 0;

sub vacuums
{
	return $node->sql(
		q(SELECT vacuum_count FROM pg_stat_all_tables WHERE relid = 'postmark_queue'::regclass)
	);
}

sub wait_vacuums
{
	my ($count) = @_;
	return $node->poll_query_until('postgres',
		"SELECT vacuum_count >= $count FROM pg_stat_all_tables WHERE relid = 'postmark_queue'::regclass"
	);
}

# Sends a round of messages, and so much is dead then
sub send_round
{
	$node->enqueue(
		$ROUND,
		from => $total + 1,
		payload =>
		  q{(SELECT jsonb_build_object('s', string_agg(md5(g::text), '')) FROM generate_series(1, 250) g)}
	);
	$total += $ROUND;
	return $node->poll_query_until('postgres',
		"SELECT count(*) = $total FROM postmark_history");
}

# Something stays, so that the files are never given back
$node->sql(q(SELECT postmark_pause('other')));
$node->enqueue(1, connector => 'other', prefix => 'stays');

ok(send_round(), 'the first messages are sent');
ok(wait_vacuums(1), 'the queue is vacuumed');
my $first = $node->sql("SELECT $size");
cmp_ok($first, '>', 100_000_000, 'they took that much');

foreach my $round (2 .. 3)
{
	ok(send_round(), "round $round: its messages are sent");
	ok(wait_vacuums($round), "round $round: the queue is vacuumed");
}
cmp_ok($node->sql("SELECT $size"),
	'<', 2 * $first, 'three times as many messages do not take twice as much');

# A snapshot that sees what was sent
my $session = $node->background_psql('postgres');
my $since = -s $node->logfile;
my $before = vacuums();
$session->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
$session->query_safe('SELECT 1');
ok(send_round(), 'messages are sent while a snapshot is held');
$node->enqueue(1, prefix => 'seen');
ok( $node->wait_for_log(
		qr/the queue is not vacuumed: a snapshot may see/, $since),
	'the worker sees that nothing is to be gained');
is(vacuums(), $before, 'and vacuums nothing');
$session->query_safe('COMMIT');
$session->quit;
my $after = 0;
PostmarkCluster::until_true(
	sub {
		$node->enqueue(1, prefix => 'after' . ++$after . '-');
		return vacuums() > $before;
	});
cmp_ok(vacuums(), '>', $before, 'it does once the snapshot is gone');

# A vacuum that takes long is in nobody's way: it would take hours at this pace
$node->append_conf('postgresql.conf',
	"vacuum_cost_delay = '100ms'\nvacuum_cost_limit = 1\n");
$node->reload;

sub slow_vacuum
{
	send_round();
	PostmarkCluster::until_true(
		sub {
			$node->enqueue(1, prefix => 'slow' . ++$after . '-');
			return $node->sql(
				"SELECT count(*) FROM pg_stat_activity WHERE $vacuum") == 1;
		});
	return;
}

$total = $node->sql('SELECT count(*) FROM postmark_history');
slow_vacuum();
ok( $node->poll_query_until(
		'postgres',
		q(SELECT count(*) = 1 FROM postmark_queue)),
	'messages go on while it runs');

my $begun = time;
$node->safe_psql('template1', 'ALTER DATABASE postgres RENAME TO shop');
$node->safe_psql('template1', 'ALTER DATABASE shop RENAME TO postgres');
cmp_ok(time - $begun, '<', 5, 'the database can be renamed while it runs');
is($node->sql("SELECT count(*) FROM pg_stat_activity WHERE $vacuum"),
	0, 'it has ended for that');

$node->wait_worker;

$total = $node->sql('SELECT count(*) FROM postmark_history');
slow_vacuum();
$begun = time;
$node->stop('fast');
cmp_ok(time - $begun, '<', 10, 'and with the server');

done_testing();
