# The files of the queue are given back when it runs empty, and nothing that
# is in it, or may be, is lost for it.

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
	conf => "log_min_messages = debug1\nautovacuum = off\nwal_level = logical\n");
$node->configure(connector => 'other');

my $size = "pg_total_relation_size('postmark_queue')";
my $total = 0;

# Fills the files: 850 messages of 24 kB that do not compress
sub fill
{
	my (%opts) = @_;
	my $payload =
	  q{jsonb_build_object('s', (SELECT string_agg(md5(g::text), '') FROM generate_series(1, 750) g))};

	$node->sql('SELECT postmark_pause()');
	$node->enqueue(
		850,
		from => $total + 1,
		payload => $payload,
		%opts);
	$total += 850;
	cmp_ok($node->sql("SELECT $size"), '>', 16_000_000, 'the queue is large');

	# One that has just given space back would not do so again for a minute
	PostmarkExtra::reload($node, worker => 'off');
	PostmarkCluster::until_true(sub { !defined $node->worker_pid });
	PostmarkExtra::reload($node, worker => undef);
	$node->wait_worker;
	$node->sql('SELECT postmark_resume()');
	return;
}

sub given_back
{
	return $node->poll_query_until('postgres', "SELECT $size < 1000000");
}

# Waits until the worker says that it keeps the files
sub kept
{
	my ($since, $why) = @_;
	return $node->wait_for_log(qr/disk space is not given back: $why/, $since);
}

fill();
ok(given_back(), 'the files of an empty queue are small again');
ok($node->wait_finished, 'all messages are finished');
$node->accounted('each message arrived once');

my @cases = (
	[
		'a snapshot',
		qr/a snapshot may see/,
		[ 'BEGIN ISOLATION LEVEL REPEATABLE READ', 'SELECT 1' ],
		['COMMIT']
	],
	[
		'an open transaction that queued a message',
		qr/a transaction that writes to it is open|a snapshot may see/,
		[ 'BEGIN', PostmarkCluster::enqueue_sql(1, prefix => 'late') ],
		['COMMIT']
	],
	[
		'a publication',
		qr/a publication publishes/,
		['CREATE PUBLICATION p FOR TABLE postmark_queue'],
		['DROP PUBLICATION p']
	],
	[
		'a reader',
		qr/it is in use/,
		[ 'BEGIN', 'SELECT count(*) FROM postmark_queue WHERE id < 0' ],
		['COMMIT'],
	]);

my $session = $node->background_psql('postgres');
foreach my $case (@cases)
{
	my ($name, $why, $before, $after) = @$case;
	my $since = -s $node->logfile;

	$session->query_safe($_) foreach @$before;
	fill();
	ok($node->wait_finished, "$name: all that is committed is finished");
	kept($since, $why);
	cmp_ok($node->sql("SELECT $size"), '>', 16_000_000,
		"$name: the files are kept");
	$session->query_safe($_) foreach @$after;
	ok(given_back(), "$name: they are given back when that is over");
}
ok( $node->poll_query_until(
		'postgres',
		q(SELECT count(*) = 1 FROM postmark_history WHERE email = 'late1@t.example' AND status = 'sent')
	),
	'the open transaction\'s message was sent');

# Messages that stay
my $since = -s $node->logfile;
$node->sql(q(SELECT postmark_pause('other')));
$node->enqueue(100, connector => 'other', prefix => 'stays');
fill();
$node->poll_query_until('postgres',
	"SELECT count(*) = 100 FROM postmark_queue");
kept($since, qr/there are messages in it/);
is($node->sql('SELECT count(*) FROM postmark_queue'),
	100, 'a paused connector\'s messages are still there');
$node->sql(q(SELECT postmark_resume('other')));
ok($node->wait_finished, 'and are sent once it goes on');

# Messages that come and go meanwhile, all with ids that are lower than the
# sequence's last
foreach my $round (1 .. 3)
{
	fill();
	my @traffic = map {
		my $n = $_;
		$node->later(
			'postgres',
			map {
				(PostmarkCluster::enqueue_sql(1, prefix => "single$round-$n-$_-"),
					'SELECT pg_sleep(0.02)')
			} 1 .. 50)
	} 1 .. 2;
	ok(given_back(), "round $round: the files are given back in traffic");
	foreach my $traffic (@traffic)
	{
		my ($status, undef, $errors) = $traffic->finish;
		ok(!$status, "round $round: the traffic met no error")
		  or diag($errors);
	}
	ok($node->wait_finished, "round $round: all messages are finished");
}
$node->accounted('each message arrived once');

$session->quit;
$node->stop;
done_testing();
