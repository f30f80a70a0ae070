# Whatever is killed, whenever: each committed message is delivered once, or
# accounted for, and what was not committed is not sent.

use strict;
use warnings FATAL => 'all';

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

use PostmarkSandbox;
use PostmarkCluster;
use PostmarkExtra;

my $seed = $ENV{POSTMARK_TEST_SEED} // time() % 1_000_000 | 0;
srand($seed);
diag("POSTMARK_TEST_SEED=$seed");

my $sandbox = PostmarkSandbox->new();

# As durable as in real life: a process that is killed takes no page of the
# operating system with it, so that fsync may stay off.
my $node = PostmarkCluster->new(
	'main',
	sandbox => $sandbox,
	conf =>
	  "postmark_connector.batch_size = 100\npostmark_connector.request_timeout = '2 s'\n");

my $total = 0;

# Queue, with the requests to Postmark under way for a while
sub fill
{
	my ($n) = @_;
	$node->enqueue($n, from => $total + 1);
	$total += $n;
	return;
}

sub kill_worker
{
	my ($signal) = @_;
	my $pid = $node->worker_pid;
	return 0 unless defined $pid;
	return kill $signal => $pid;
}

# Waits until the server answers; every backend may just have been killed.
sub server_answers
{
	return PostmarkCluster::until_true(
		sub { $node->psql('postgres', 'SELECT 1') == 0 });
}

my %ways = (
	'kill -9 of the worker' => sub {
		my $pid = $node->worker_pid;
		kill_worker('KILL');
		# The cluster restarts; until then the old state answers
		PostmarkCluster::until_true(
			sub {
				my ($ok, $out) = $node->psql('postgres',
					'SELECT max(worker_pid) FROM postmark_status');
				return $ok == 0 && ($out // '') ne $pid;
			});
		server_answers();
	},
	'an immediate shutdown' => sub {
		$node->stop('immediate');
		$node->start;
	},
	'a fast shutdown' => sub {
		$node->stop('fast');
		$node->start;
	},
	'kill -9 of the postmaster' => sub {
		my @pids = split /\n/,
		  $node->sql('SELECT pid FROM pg_stat_activity');
		$node->kill9;
		# Its children hold the shared memory until they notice
		PostmarkCluster::until_true(sub { !kill 0 => @pids });
		$node->start;
	},
	'pg_terminate_backend of the worker' => sub {
		$node->sql(
			'SELECT pg_terminate_backend(worker_pid) FROM postmark_status');
	},
	'pg_terminate_backend of the launcher' => sub {
		$node->sql(
			q(SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'postmark_connector launcher')
		);
	},
	'kill -9 of Postmark' => sub {
		$sandbox->kill9;
		$sandbox->restart;
		$sandbox->rule(path => '/email*',
			action => { latency => [ 0, 0.1 ], latency_after => [ 0, 0.1 ] });
	},);

# Requests take a while before and after the messages are accepted
sub slow_sandbox
{
	$sandbox->clear_rules;
	$sandbox->rule(
		path => '/email*',
		action => { latency => [ 0, 0.1 ], latency_after => [ 0, 0.1 ] });
	return;
}

slow_sandbox();

#
# Each way once, in the midst of a drain
#

foreach my $way (sort keys %ways)
{
	fill(2000);
	ok( PostmarkCluster::until_true(
			sub { $sandbox->counts->{distinct} > $total - 1900 }),
		"$way: the drain is under way");
	isnt(
		$node->sql(
			q(SELECT count(*) FROM postmark_messages WHERE status IN ('queued', 'deferred', 'sending'))
		),
		0,
		"$way: and not at its end");
	$ways{$way}->();
	ok($node->wait_finished, "$way: the drain is finished after it");
	is( $node->sql(
			q(SELECT string_agg(DISTINCT status, ' ') FROM postmark_messages)),
		'sent',
		"$way: all messages are sent");
	$node->accounted("$way: each message arrived once");
}

#
# How soon a worker is back
#

slow_sandbox();
fill(1000);
foreach my $who ('worker', 'launcher')
{
	my $pid = $node->worker_pid;
	my $since = time();
	$ways{"pg_terminate_backend of the $who"}->();
	ok( PostmarkCluster::until_true(
			sub {
				my ($ok, $out) = $node->psql('postgres',
					'SELECT max(worker_pid) FROM postmark_status');
				return $ok == 0 && $out ne '' && $out ne $pid;
			},
			10),
		"pg_terminate_backend of the $who: there is a new worker");
	my $numbered = $sandbox->counts->{requests}{'/email/batchWithTemplates'};
	fill(100);
	ok( $sandbox->wait_requests(
			$numbered + 1,
			path => '/email/batch*',
			timeout => 10),
		"pg_terminate_backend of the $who: it sends");
	cmp_ok(time() - $since, '<', 2,
		"pg_terminate_backend of the $who: within two seconds");
}
ok($node->wait_finished, 'the drain is finished');

#
# At random
#

# Sessions commit and roll back all the while; those that are disconnected by
# a crash do not know whether they committed, but app_messages does.
my @modes = sort grep { $_ ne 'kill -9 of Postmark' } keys %ways;
foreach my $round (1 .. 3 * PostmarkCluster::load())
{
	my $way = $modes[ int rand @modes ];
	my $n = 500 + int rand 1500;
	my $delay = rand 0.5;
	diag("round $round: $way after " . sprintf('%.3f', $delay) . " s of $n")
	  if PostmarkCluster::load() > 1;

	my @sessions;
	foreach my $session (1 .. 2)
	{
		my @statements;
		foreach my $i (1 .. 200)
		{
			push @statements, 'BEGIN',
			  PostmarkCluster::enqueue_sql(
				10,
				prefix => "r$round-$session-$i-"),
			  ($i % 4 ? 'COMMIT' : 'ROLLBACK');
		}
		push @sessions, $node->later('postgres', @statements);
	}
	fill($n);
	PostmarkCluster::until_true(
		sub {
			$node->sql(
				"SELECT count(*) > 0 FROM app_messages WHERE email LIKE 'r$round-%'"
			) eq 't';
		});
	usleep($delay * 1e6);
	$ways{$way}->();
	$_->finish foreach @sessions;
	server_answers();
	$node->wait_worker;
	ok($node->wait_finished, "round $round ($way): the queue drains");
	is( $node->sql(
			q(SELECT count(*) FROM app_messages WHERE email LIKE 'r%-4-%')),
		0,
		"round $round ($way): what was rolled back is not committed");
	$node->accounted("round $round ($way): each message arrived once")
	  or diag("POSTMARK_TEST_SEED=$seed");
}
cmp_ok(
	$node->sql(q(SELECT count(*) FROM app_messages WHERE email LIKE 'r%')),
	'>', 0, 'sessions did commit something');

#
# What is on its way is durable, whatever the configuration says by now
#

$sandbox->clear_rules;
$node->append_conf('postgresql.conf',
	"synchronous_commit = off\nwal_writer_delay = 10s\n");
PostmarkExtra::reload($node, batch_size => 99);
$sandbox->rule(path => '/email*', action => { latency_after => 600 });
my $posted = $sandbox->counts->{requests}{'/email/batchWithTemplates'};
fill(1);
ok($sandbox->wait_requests($posted + 1, path => '/email/batch*'),
	'a request is under way');
$node->stop('immediate');
$sandbox->clear_rules;
$node->start;
ok($node->wait_finished, 'its message is finished after a crash');
is($sandbox->counts->{requests}{'/email/batchWithTemplates'},
	$posted + 1, 'and was not sent again');
$node->accounted('each message arrived once');

is($node->sql('SELECT count(*) FROM postmark_intents'),
	0, 'nothing is in doubt in the end');

my $log = slurp_file($node->logfile);
unlike($log, qr/TRAP|PANIC/, 'nothing failed for other reasons');
unlike(
	$log,
	qr/terminated by signal (?!9)/,
	'nothing crashed for other reasons');

$node->stop;
done_testing();
