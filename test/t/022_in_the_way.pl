# What is in the way of one message, or of one connector, is in no other's, and
# costs no processor time while it lasts.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use POSIX ();
use Test::More;
use Time::HiRes qw(time);

use PostmarkSandbox;
use PostmarkCluster;
use PostmarkExtra;

my $sandbox = PostmarkSandbox->new();
my $node = PostmarkCluster->new(
	'main',
	sandbox => $sandbox,
	conf =>
	  "autovacuum = off\npostmark_connector.request_timeout = '10 s'\n");
$node->configure(connector => 'other');
my $session = $node->background_psql('postgres');
my $session_pid = $session->query_safe('SELECT pg_backend_pid()');

# A JSON object of 240 kB
my $large =
  q{(SELECT jsonb_build_object('s', string_agg(md5(g::text), '')) FROM generate_series(1, 7500) g)};

# Queues messages for later, and lets them go once all of them are due
sub enqueue_deferred
{
	my ($n, $prefix, $payload, $between) = @_;
	$payload //= 'NULL';
	$node->sql('SELECT postmark_pause()');
	$node->sql(<<"SQL");
INSERT INTO app_messages (id, email)
SELECT postmark_enqueue(s.email, 'Register', '000000', payload => $payload,
		send_after => clock_timestamp() + interval '0.5 s'), s.email
FROM (SELECT format('$prefix%s\@t.example', i) AS email
	FROM generate_series(1, $n) i OFFSET 0) s
SQL
	$node->poll_query_until('postgres',
		"SELECT count(*) = $n AND bool_and(due_at < now()) FROM postmark_deferred WHERE email LIKE '$prefix%'"
	) or die 'the messages are not deferred';
	$between->() if $between;
	$node->sql('SELECT postmark_resume()');
	return;
}

sub sent
{
	my ($prefix, $n) = @_;
	return $node->poll_query_until('postgres',
		"SELECT count(*) = $n FROM postmark_history WHERE email LIKE '$prefix%' AND status = 'sent'"
	);
}

sub worker_is_blocked
{
	return $node->poll_query_until('postgres',
		"SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type = 'postmark_connector worker' AND $session_pid = ANY (pg_blocking_pids(pid))"
	);
}

# Which part of a processor the worker takes between now and when the code
# given returns, which must be a second or so
sub load_while
{
	my ($code) = @_;
	my $pid = $node->worker_pid;
	my $ticks = sub {
		my @stat = split ' ', slurp_file("/proc/$pid/stat") =~ s/.*\) //r;
		return $stat[11] + $stat[12];
	};
	my ($since, $before) = (time(), $ticks->());

	$code->();
	return ($ticks->() - $before) / POSIX::sysconf(POSIX::_SC_CLK_TCK()) /
	  (time() - $since);
}

#
# A row in flight that somebody has locked
#

my $rule = $sandbox->rule(
	recipient => 'held*',
	action => { latency => 1 });
$node->enqueue(1, prefix => 'held');
ok($sandbox->wait_for(in_flight => 1), 'a message is under way');
$session->query_safe('BEGIN');
$session->query_safe(
	q(SELECT count(*) FROM (SELECT FROM postmark_queue WHERE email LIKE 'held%' FOR UPDATE) x)
);
ok(worker_is_blocked(), 'its result cannot be stored, for its row is locked');
$node->enqueue(3, connector => 'other', prefix => 'free');
ok(sent('free', 3), 'another connector\'s messages are sent meanwhile');
is( $node->sql(
		q(SELECT status FROM postmark_messages WHERE email LIKE 'held%')),
	'sending',
	'while the row is still locked');
$session->query_safe('COMMIT');
ok(sent('held', 1), 'its own result is stored in the end');
$sandbox->clear_rules($rule);

#
# Deferred messages in flight that fill a request each
#

$rule = $sandbox->rule(recipient => 'large*', action => { latency => 2 });
my $load = load_while(
	sub {
		enqueue_deferred(12, 'large', $large);
		ok($sandbox->wait_for(in_flight => 3),
			'large deferred messages are sent at the same time');
		ok($sandbox->wait_for(idle => 1), 'and answered');
	});
cmp_ok($load, '<', 0.6, 'the worker sleeps while they are under way');
ok(sent('large', 12), 'all of them are sent');
$sandbox->clear_rules($rule);

#
# As many request bodies as there may be
#

PostmarkExtra::reload($node, max_in_flight => 64);
$rule = $sandbox->rule(recipient => 'body*', action => { latency => 3 });
$node->sql('SELECT postmark_pause()');
$node->enqueue(100, prefix => 'body', payload => $large);
$node->sql('SELECT postmark_resume()');
ok($sandbox->wait_for(in_flight => 6), 'there are many large requests');
$load = load_while(
	sub {
		ok( $sandbox->wait_requests(
				20,
				path => '/email/batchWithTemplates'),
			'and more once some are answered');
	});
cmp_ok($load, '<', 0.6, 'the worker sleeps until then');
ok(sent('body', 100), 'all of them are sent');
$sandbox->clear_rules($rule);
PostmarkExtra::reload($node, max_in_flight => undef);

#
# Deferred messages that somebody has locked
#

PostmarkExtra::reload($node, batch_size => 2);
enqueue_deferred(
	5, 'queue', undef,
	sub {
		$session->query_safe('BEGIN');
		is( $session->query_safe(
				q(SELECT count(*) FROM (SELECT id FROM postmark_messages WHERE email IN ('queue1@t.example', 'queue2@t.example') ORDER BY id) m WHERE postmark_cancel(id))
			),
			2,
			'the first two are being cancelled');
	});
ok(sent('queue', 3), 'those behind them are sent');
$session->query_safe('ROLLBACK');
ok(sent('queue', 5), 'and they themselves, as it was undone');
PostmarkExtra::reload($node, batch_size => undef);

#
# A token that cannot be one
#

$node->sql(
	q(UPDATE postmark_secrets SET server_token = E'not-a\ntoken' WHERE connector = 'other')
);
$node->enqueue(1, connector => 'other', prefix => 'token');
$node->enqueue(3, prefix => 'others');
ok(sent('others', 3), 'a connector\'s unusable token stops no other one');
ok($node->wait_state('unconfigured', 'other'), 'the connector says so');
is( $node->sql(
		q(SELECT detail FROM postmark_status WHERE connector = 'other')),
	'the stored token has spaces, control characters or non-ASCII characters',
	'and what is wrong');
$node->sql(
	"SELECT postmark_set_token('$PostmarkCluster::TOKEN', 'other')");
ok(sent('token', 1), 'and goes on with another one');

#
# A worker that cannot read the queue when it starts
#

$rule = $sandbox->rule(recipient => 'start*', action => { latency_after => 600 });
# In this order: what the next worker finds first it can still read
enqueue_deferred(1, 'start-later');
ok($sandbox->wait_for(in_flight => 1), 'a request is under way');
$node->enqueue(1, prefix => 'start');
ok($sandbox->wait_for(in_flight => 2), 'and another one');
$sandbox->clear_rules($rule);
my $worker = $node->worker_pid;
my $searches = $sandbox->counts->{requests}{'/messages/outbound'} // 0;
my $since = -s $node->logfile;
$session->query_safe('BEGIN');
$session->query_safe('LOCK TABLE postmark_queue IN ACCESS EXCLUSIVE MODE');
$node->sql("SELECT pg_terminate_backend($worker)");
ok( $node->wait_for_log(qr/could not see what was under way: .*lock timeout/, $since),
	'the next worker cannot read what they are');
ok(worker_is_blocked(), 'and tries again');
$session->query_safe('COMMIT');
ok($node->wait_finished, 'they are finished once it can');
is( ($sandbox->counts->{requests}{'/messages/outbound'} // 0) - $searches,
	2, 'after one look each at what became of them');

#
# A failover after which Postmark cannot be asked
#

# What the server has when it starts may have been sent by another one
$session->quit;
$node->sql('SELECT postmark_pause()');
$node->enqueue(1, prefix => 'failover');
$node->sql('UPDATE postmark_instance SET timeline = 99');
$rule = $sandbox->rule(
	path => '/messages/outbound*',
	action => { status => 401 });
my $refused = $sandbox->rule(path => '/server', action => { status => 401 });
$node->restart;
$node->sql('SELECT postmark_resume()');
ok($node->wait_state('blocked'), 'the connector says that it is blocked');
is( $node->sql(
		q(SELECT count(*) FROM postmark_history WHERE email LIKE 'failover%')
	),
	0,
	'and sends nothing that was there before');
$sandbox->clear_rules($rule);
$sandbox->clear_rules($refused);
$node->sql('SELECT postmark_resume(connector) FROM postmark_settings');
ok(sent('failover', 1), 'it goes on once Postmark can be asked');
ok($node->wait_state('running'), 'and is running');

ok($node->wait_finished, 'all messages are finished');
$node->accounted('each message arrived once');
$node->stop;
done_testing();
