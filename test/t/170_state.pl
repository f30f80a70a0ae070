# The state of a connector says what is: each state is brought about, seen, and
# seen to end.

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
	init => { allows_streaming => 1 });
$node->wait_worker;

my $number = 0;

sub queue
{
	my ($n, %opts) = @_;
	return $node->enqueue($n, prefix => 'q' . ++$number . 'x', %opts);
}

# Waits for a state whose detail, and hint, match
sub wait_state_saying
{
	my ($state, $detail, $hint, $connector) = @_;
	$connector //= 'default';
	return $node->poll_query_until(
		'postgres',
		"SELECT state = '$state' AND coalesce(detail, '') ~ '$detail' AND coalesce(hint, '') ~ '$hint'"
		  . " FROM postmark_status WHERE connector = '$connector'");
}

sub wait_well
{
	my ($what, $connector) = @_;
	$connector //= 'default';
	return ok(
		$node->poll_query_until(
			'postgres',
			"SELECT state = 'running' AND detail IS NULL FROM postmark_status WHERE connector = '$connector'"
		),
		"$what: running again");
}

wait_well('at first');

#
# The worker's transactions
#

$node->sql(
	'ALTER TABLE postmark_intents ADD CONSTRAINT odd CHECK (false) NOT VALID');
queue(2);
ok( wait_state_saying('backing_off', 'constraint "odd" of table', 'log'),
	'a constraint that somebody added: the state names it');
my ($code, $out, $err) =
  $node->psql('postgres', "SELECT postmark_flush('10ms')");
like(
	$err,
	qr/connector "default" does not send: its state is backing_off\nDETAIL:.*constraint "odd"/,
	'a flush that times out says which connector does not send');
$node->sql('ALTER TABLE postmark_intents DROP CONSTRAINT odd');
ok($node->wait_finished, 'a constraint: all is sent once it is gone');
wait_well('a constraint');

$node->sql('SELECT postmark_pause()');
queue(2);
my $holder = $node->background_psql('postgres');
$holder->query_safe(
	'BEGIN; SELECT FROM postmark_queue FOR UPDATE');
$node->sql('SELECT postmark_resume()');
ok(wait_state_saying('backing_off', 'messages that are due wait', 'pg_locks'),
	'rows that somebody has locked: seen');
$holder->query_safe('COMMIT');
ok($node->wait_finished, 'locked rows: all is sent once the lock is gone');
wait_well('locked rows');

$node->sql('SELECT postmark_pause()');
queue(2);
$holder->query_safe('BEGIN; LOCK TABLE postmark_queue IN EXCLUSIVE MODE');
$node->sql('SELECT postmark_resume()');
ok(wait_state_saying('backing_off', 'has a table of the extension locked', ''),
	'a table that somebody has locked: seen');
$holder->query_safe('COMMIT');
ok($node->wait_finished, 'a locked table: all is sent once the lock is gone');
wait_well('a locked table');
$holder->quit;

$node->sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
$node->reload;
$node->poll_query_until('postgres',
	"SELECT current_setting('synchronous_standby_names') = 'nobody'");
$node->sql('SET synchronous_commit = local; '
	  . PostmarkCluster::enqueue_sql(2, prefix => 'sync'));
ok( wait_state_saying('backing_off', 'synchronous standby',
		'synchronous_standby_names'),
	'a synchronous standby is missing: the state says so');
is( $node->sql(q(
SELECT format('%s, %s: %s', state, query, wait_event) FROM pg_stat_activity WHERE backend_type = 'postmark_connector worker')),
	'active, store results and claim messages: SyncRep',
	'and pg_stat_activity what the worker does meanwhile');
$node->sql(
	'ALTER SYSTEM RESET synchronous_standby_names');
$node->reload;
ok($node->wait_finished, 'no standby is waited for: all is sent');
wait_well('a synchronous standby');

#
# What Postmark says
#

$node->configure(
	connector => 'odd',
	templates => [ { usageType => 'Register', templateAlias => 'nowhere' } ]);
queue(1, connector => 'odd');
ok(wait_state_saying('backing_off', '1101', 'postmark_check', 'odd'),
	'a missing template: the state says so');
$node->configure(connector => 'odd');
ok($node->wait_finished, 'a missing template: sent once another is named');
wait_well('a missing template', 'odd');

my $rule = $sandbox->rule(
	path => '/email*',
	times => 1,
	action => { drop => 'after_accept' });
queue(1);
ok($node->wait_finished, 'one dropped request: its message is found');
wait_well('one dropped request, and nothing else to send');

$sandbox->clear_rules;
$sandbox->rule(
	path => '/email*',
	action => {
		refuse => {
			error_code => 400,
			message => 'The From address is not a Sender Signature.'
		}
	});
queue(501);
ok(wait_state_saying('blocked', 'ErrorCode 400', 'sender signature'),
	'batches that are refused item by item: blocked');
$sandbox->clear_rules;
$node->sql('SELECT postmark_resume()');
ok($node->wait_finished, 'item by item: all are sent afterwards');
wait_well('item by item');

$sandbox->rule(
	path => '/email*',
	times => 1,
	action => { status => 429, retry_after => 600 });
queue(1501);
ok(wait_state_saying('backing_off', '429', 'maxRequestsPerSecond'),
	'a 429 while other requests succeed: backing off');
$sandbox->clear_rules;
$node->sql('SELECT postmark_resume()');
ok($node->wait_finished, '429: all are sent afterwards');
wait_well('429');

$sandbox->rule(
	path => '/email*',
	recipient => 'foreign@t.example',
	action => { refuse => { error_code => 412, message => 'Pending approval.' } });
$node->sql("SELECT postmark_enqueue('foreign\@t.example', 'Register', '493021')");
ok($node->wait_finished, 'an account that awaits approval: the message fails');
ok(wait_state_saying('blocked', '1 messages failed.*approval', 'ask Postmark'),
	'an account that awaits approval: the state says so');
is( $node->sql(
		"SELECT item, ok, detail ~ '1 messages failed.*Pending approval.*ask Postmark' FROM postmark_check() WHERE NOT ok"
	),
	'account|f|t',
	'an account that awaits approval: postmark_check says so');
queue(1);
ok($node->wait_finished, 'an account that awaits approval: other mail leaves');
is($node->sql('SELECT bool_and(ok) FROM postmark_check()'),
	't', 'an account that awaits approval: and postmark_check finds it well');
ok(wait_state_saying('running', '1 messages failed.*approval', 'ask Postmark'),
	'an account that awaits approval: a detail of it');
$sandbox->clear_rules;
is($node->sql("SELECT postmark_requeue_all('default', '1 hour')"),
	'1', 'an account that was approved: the message is requeued');
ok($node->wait_finished, 'an account that was approved: it is sent');
wait_well('an account that was approved');

#
# Where nobody has configured anything, or somebody has stopped it
#

# Waits until the columns of a connector's row are so, in SQL
sub wait_row
{
	my ($what, $condition, %opts) = @_;
	my $where = $opts{connector} // "= 'default'";
	return ok(
		$node->poll_query_until(
			$opts{database} // 'postgres',
			"SELECT ($condition) IS TRUE FROM postmark_status WHERE connector $where"
		),
		$what);
}

$node->sql('CREATE DATABASE node');
$node->sql('CREATE EXTENSION postmark_connector', 'node');
wait_row(
	'a database without a connector has a row that says so',
	q(state = 'unconfigured' AND detail = 'this database has no connector'
		AND hint ~ 'postmark_configure' AND worker_pid IS NOT NULL AND queued = 0
		AND sent_last_hour = 0 AND state_age >= '0' AND next_attempt_at IS NULL),
	database => 'node',
	connector => 'IS NULL');
is($node->sql('SELECT count(*) FROM postmark_status', 'node'),
	1, 'and no other row');
$node->configure(database => 'node');
is( $node->sql(
		q(SELECT string_agg(connector, ' ') FROM postmark_status), 'node'),
	'default',
	'a connector takes its place');
wait_row(
	'its age is its own',
	q(state = 'running' AND state_age < now() - (SELECT backend_start FROM pg_stat_activity WHERE pid = worker_pid)),
	database => 'node');

$node->sql("SELECT postmark_pause(reason => 'new templates')");
wait_row('paused by hand, and why', q(state = 'paused'
	AND detail = 'paused by hand: new templates' AND hint ~ 'postmark_resume'
	AND next_attempt_at IS NULL));
$node->sql(
	"UPDATE postmark_settings SET paused_at = now() - interval '3 days 1 hour' WHERE connector = 'default'"
);
wait_row('for how long', q(state = 'paused'
	AND state_age BETWEEN '3 days 1 hour' AND '3 days 2 hours'));
$node->sql('SELECT postmark_resume()');
wait_row('resumed: running, as of now',
	q(state = 'running' AND state_age < '1 hour'));

PostmarkExtra::reload($node, worker => 'off');
wait_row('the worker is switched off', q(state = 'no_worker'
	AND detail ~ 'worker is off' AND hint ~ 'on' AND worker_pid IS NULL
	AND next_attempt_at IS NULL));
PostmarkExtra::reload($node, worker => undef);
wait_row('the worker is switched on again: running', "state = 'running'");

$node->sql('CREATE DATABASE copy TEMPLATE postgres');
wait_row(
	'a copied database',
	q(state = 'copied' AND detail ~ 'copy of another one' AND hint ~ 'postmark_resume'
		AND next_attempt_at IS NULL),
	database => 'copy');
$node->sql('SELECT postmark_resume()', 'copy');
wait_row(
	'a copied database that is resumed runs',
	q(state = 'running' AND state_age < '1 hour'),
	database => 'copy');
$node->sql('DROP DATABASE copy');
$node->sql('DROP DATABASE node');

# When it is tried again, and how late what waits is
$sandbox->rule(
	path => '/email*',
	times => 1,
	action => { status => 503, retry_after => 500 });
queue(1);
wait_row('backing off: when the next attempt is', q(state = 'backing_off'
	AND next_attempt_at BETWEEN now() + interval '1 minute' AND now() + interval '500 s'
	AND overdue_age >= '0' AND state_age >= '0'));
$sandbox->clear_rules;
$node->sql('SELECT postmark_resume()');
ok($node->wait_finished, 'it is sent');
wait_row('running: no attempt is to come', q(state = 'running'
	AND next_attempt_at IS NULL AND overdue_age IS NULL));
$node->sql(
	"SELECT postmark_enqueue('later\@t.example', 'Register', '493021', send_after => now() + interval '1 hour')"
);
wait_row('a message for later is not overdue', q(state = 'running'
	AND next_attempt_at BETWEEN now() + interval '50 minutes' AND now() + interval '1 hour'
	AND overdue_age IS NULL AND oldest_age IS NOT NULL));
$node->sql("SELECT postmark_cancel_all('default')");
$node->sql('SELECT postmark_pause()');
$node->sql(
	"SELECT postmark_enqueue('later\@t.example', 'Register', '493021', send_after => clock_timestamp() + interval '10 ms')"
);
wait_row('but it is when its time is over', q(overdue_age BETWEEN '0' AND oldest_age));
$node->sql("SELECT postmark_cancel_all('default'); SELECT postmark_resume()");
wait_row('how long messages waited for their request',
	q(latency_p50 > '0' AND latency_p50 <= latency_p99));

# What is not committed is nobody's state
my $running_since = $node->sql(
	"SELECT clock_timestamp() - state_age + interval '10 ms' FROM postmark_status WHERE connector = 'default'"
);
$node->sql(
	'BEGIN; SELECT postmark_pause(); SELECT state FROM postmark_status; ROLLBACK');
wait_row('a pause that is rolled back was none',
	"state = 'running' AND clock_timestamp() - state_age <= '$running_since'");

#
# The token directory
#

my $directory = $node->basedir . '/tokens';
mkdir $directory or die "$directory: $!";
PostmarkExtra::reload($node, token_directory => $directory);
$node->configure(connector => 'filed');
$node->sql(
	"UPDATE postmark_secrets SET server_token = NULL WHERE connector = 'filed'");
queue(1, connector => 'filed');

foreach my $case (
	[ undef, 'No such file' ],
	[ '', 'is empty' ],
	[ '  ', 'has spaces' ],
	[ "\xef\xbb\xbfsandbox-token", 'non-ASCII' ])
{
	my ($content, $words) = @$case;
	append_to_file("$directory/filed", $content) if defined $content;
	ok( wait_state_saying('unconfigured', "token missing: .*$words", '', 'filed'),
		"a token file: $words");
	unlink "$directory/filed";
}
append_to_file("$directory/filed", $PostmarkCluster::TOKEN);
ok($node->wait_finished, 'a token file that comes: the message is sent');
wait_well('a token file', 'filed');

#
# postmark_stats outlives the worker, and not the server
#

sub counted
{
	return $node->sql(q(
SELECT metric, value, since FROM postmark_stats()
WHERE connector = 'default' AND metric IN ('queued', 'sent', 'failed', 'cancelled', 'retried',
	'requests', 'answers_2xx', 'answers_4xx', 'bytes_sent', 'commit_to_request_count', 'commit_to_request_sum')
ORDER BY metric));
}

my $counted = counted();
like($counted, qr/^sent\|[1-9]\d{3}\|/m, 'thousands were sent');
is( $node->sql(q(
SELECT s.value - (SELECT count(*) FROM postmark_history h WHERE h.connector = s.connector AND h.status = s.metric)
FROM postmark_stats() s WHERE s.metric IN ('sent', 'expired', 'cancelled', 'suppressed') AND s.connector = 'default'
GROUP BY 1)),
	0,
	'as many of each as the history has, whatever befell them');
my $before = $node->worker_pid;
$node->sql("SELECT pg_terminate_backend($before)");
$node->poll_query_until('postgres',
	"SELECT max(worker_pid) <> $before FROM postmark_status");
is(counted(), $counted, 'they are the same after a restart of the worker');
my $since = $node->sql('SELECT clock_timestamp()');
$node->restart;
$node->wait_worker;
is( $node->sql(
		"SELECT sum(value), bool_and(since > '$since') FROM postmark_stats() WHERE metric IN ('sent', 'queued', 'requests')"
	),
	'0|t',
	'and begin anew, and say since when, after one of the server');

#
# pg_stat_activity
#

ok( $node->poll_query_until('postgres', q(
SELECT string_agg(backend_type || ': ' || state || ', ' || query, '; ' ORDER BY backend_type)
	= 'postmark_connector launcher: idle, seeing to databases; postmark_connector worker: idle, waiting for messages'
FROM pg_stat_activity WHERE backend_type LIKE 'postmark%')),
	'pg_stat_activity says that launcher and worker are idle');
SKIP:
{
	my $pid = $node->worker_pid;
	my $title = -r "/proc/$pid/cmdline" ? slurp_file("/proc/$pid/cmdline") : '';

	skip 'no /proc', 1 if $title eq '';
	like($title, qr/postmark_connector worker for database postgres\b/,
		"the worker's title names its database");
}
my $hold = $sandbox->rule(path => '/email*', times => 1, action => { latency => 4 });
queue(1);
ok( $node->poll_query_until('postgres', q(
SELECT state = 'active' AND query = 'sending 1 request of connector default'
FROM pg_stat_activity WHERE backend_type = 'postmark_connector worker')),
	'pg_stat_activity says what the worker sends');
$sandbox->clear_rules($hold);
ok($node->wait_finished, 'it is sent');

#
# The log
#

my $log = PostmarkExtra::log_since($node, 0);
foreach my $line (
	'WARNING:  postmark_connector: connector "default" of database "postgres" is blocked',
	'LOG:  postmark_connector: connector "default" of database "postgres" is backing_off',
	'LOG:  postmark_connector: connector "default" of database "postgres" is running',
	'WARNING:  postmark_connector: connector "filed" of database "postgres" is unconfigured',
	'WARNING:  postmark_connector: connector "odd" of database "postgres" is backing_off')
{
	like($log, qr/\Q$line\E\n/, "the log has: $line");
}
my %last;
my $repeated = 0;
while ($log =~ /postmark_connector: connector "(\w+)" of database "postgres" is (\w+)/g)
{
	$repeated++ if ($last{$1} // '') eq $2;
	$last{$1} = $2;
}
is($repeated, 0, 'the log says no state twice in a row');

$node->accounted('each message arrived once', only => qr/^q/);

done_testing();
