# The worker wakes at COMMIT, for whatever was committed in whatever way, and
# for nothing else.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

use PostmarkSandbox;
use PostmarkCluster;

my $sandbox = PostmarkSandbox->new();
my $node = PostmarkCluster->new(
	'main',
	sandbox => $sandbox,
	conf => <<'CONF');
max_prepared_transactions = 10
autovacuum = off
CONF

# Who got a mail, sorted
sub recipients
{
	my ($glob) = @_;
	return [ sort grep { /$glob/ } map { $_->[1] } $sandbox->ids ];
}

# Waits until a message that is queued now has arrived: what was committed
# before it and has not, will not.
my $fences = 0;

sub fence
{
	my $address = 'fence' . ++$fences . '@t.example';
	$node->sql("SELECT postmark_enqueue('$address', 'Register', '000000')");
	return PostmarkCluster::until_true(
		sub {
			scalar(() = $sandbox->messages(recipient => $address, render => 0));
		});
}

#
# Nothing to do
#

$node->sql(
	"SELECT postmark_enqueue('first\@t.example', 'Register', '000000')");
ok($sandbox->wait_messages(1), 'a committed message is sent');
ok($node->wait_finished, 'and its result is stored');

# How often the processes were given a processor
sub switches
{
	my $sum = '';
	foreach my $pid (@_)
	{
		my $status = slurp_file("/proc/$pid/status");
		$sum .= "$pid: $_ " foreach $status =~ /ctxt_switches:\s*(\d+)/g;
	}
	return $sum;
}

my @ours = ($node->worker_pid, $node->launcher_pid);
is(scalar(grep { defined } @ours), 2, 'there are a worker and a launcher');

# Lets them fall asleep: quiet for 100 ms.  One that polls more often than that
# never does.
sub asleep
{
	my $before = switches(@ours);

	return PostmarkCluster::until_true(
		sub {
			my $was = $before;
			usleep(100_000);
			$before = switches(@ours);
			return $was eq $before;
		},
		10);
}

ok(asleep(), 'worker and launcher fall asleep');
my $lsn = $node->sql('SELECT pg_current_wal_insert_lsn()');
my $xid = $node->sql('SELECT pg_snapshot_xmax(pg_current_snapshot())');
my $before = switches(@ours);
my $quiet_since = time();
PostmarkCluster::until_true(
	sub { switches(@ours) ne $before || time() > $quiet_since + 3 }, 4);
is(switches(@ours), $before,
	'idle worker and launcher are not woken once in three seconds');
# The server itself notes every 15 s which transactions run.
ok( PostmarkCluster::until_true(
		sub {
			my $was = $lsn;

			$lsn = $node->sql('SELECT pg_current_wal_insert_lsn()');
			return 1 if $lsn eq $was;
			sleep 3;
			return 0;
		},
		10),
	'idle writes no WAL');
is($node->sql('SELECT pg_snapshot_xmax(pg_current_snapshot())'),
	$xid, 'idle takes no transaction id');

# Nor for messages that it would let lie.  Of the first it takes note, to see
# ten seconds later what has expired.
$node->sql('SELECT postmark_pause()');
$node->enqueue(1, prefix => 'paused-first');
ok(asleep(), 'it falls asleep while its connector is paused');
$before = switches(@ours);
$node->enqueue(1, from => $_, prefix => 'paused-next') foreach 1 .. 20;
is(switches(@ours), $before, 'messages of a paused connector do not wake it');
$node->sql('SELECT postmark_resume()');
ok($sandbox->wait_messages(22), 'once it goes on they are sent');

#
# Transactions
#

$node->sql(<<'SQL');
BEGIN;
SELECT postmark_enqueue('rolled-back@t.example', 'Register', '000000');
ROLLBACK;
SQL
ok(fence(), 'the worker goes on after a rolled-back transaction');
is_deeply(recipients(qr/^rolled-back/),
	[], 'a rolled-back message is not sent');

$node->sql(<<'SQL');
BEGIN;
SELECT postmark_enqueue('sp-kept@t.example', 'Register', '000000');
SAVEPOINT s;
SELECT postmark_enqueue('sp-gone@t.example', 'Register', '000000');
ROLLBACK TO s;
SELECT postmark_enqueue('sp-after@t.example', 'Register', '000000');
SAVEPOINT t;
SELECT postmark_enqueue('sp-released@t.example', 'Register', '000000');
RELEASE t;
COMMIT;
SQL
ok(fence(), 'the worker goes on after savepoints');
is_deeply(
	recipients(qr/^sp-/),
	[qw(sp-after@t.example sp-kept@t.example sp-released@t.example)],
	'of savepoints, what was rolled back to is not sent, the rest is');

$node->sql(<<'SQL');
DO $$
BEGIN
	PERFORM postmark_enqueue('sub-outer@t.example', 'Register', '000000');
	BEGIN
		PERFORM postmark_enqueue('sub-caught@t.example', 'Register', '000000');
		RAISE EXCEPTION 'no';
	EXCEPTION WHEN raise_exception THEN
		BEGIN
			PERFORM postmark_enqueue('sub-handler@t.example', 'Register', '000000');
		EXCEPTION WHEN division_by_zero THEN
			NULL;
		END;
	END;
END
$$;
SQL
ok(fence(), 'the worker goes on after subtransactions');
is_deeply(
	recipients(qr/^sub-/),
	[qw(sub-handler@t.example sub-outer@t.example)],
	'of subtransactions, what an exception undid is not sent, the rest is');

# Only a subtransaction queues, nothing else would wake the worker
$node->sql(<<'SQL');
BEGIN;
SAVEPOINT s;
SELECT postmark_enqueue('only-sub@t.example', 'Register', '000000');
RELEASE s;
COMMIT;
SQL
ok( PostmarkCluster::until_true(
		sub { @{ recipients(qr/^only-sub/) } == 1 }, 10),
	'a message of a subtransaction alone wakes the worker');

#
# Other ways into the queue
#

$node->sql(<<'SQL');
COPY postmark_queue (email, usage_type, code) FROM stdin;
copy1@t.example	Register	000001
copy2@t.example	SignIn	000002
copy3@t.example	Register	000003
\.
SQL
ok( PostmarkCluster::until_true(
		sub { @{ recipients(qr/^copy/) } == 3 }, 10),
	'COPY into postmark_queue wakes the worker');

$node->sql(<<'SQL');
INSERT INTO postmark_queue (email, usage_type, code)
SELECT format('bulk%s@t.example', i), 'Register', '000000' FROM generate_series(1, 20) i
SQL
ok( PostmarkCluster::until_true(
		sub { @{ recipients(qr/^bulk/) } == 20 }, 10),
	'INSERT ... SELECT into postmark_queue wakes the worker');

$node->sql(<<'SQL');
SET session_replication_role = replica;
SELECT postmark_enqueue('replica1@t.example', 'Register', '000000');
INSERT INTO postmark_queue (email, usage_type, code)
VALUES ('replica2@t.example', 'Register', '000000');
SQL
ok( PostmarkCluster::until_true(
		sub { @{ recipients(qr/^replica/) } == 2 }, 10),
	'session_replication_role = replica changes nothing');

$node->sql(<<'SQL');
SET synchronous_commit = off;
SELECT postmark_enqueue('async@t.example', 'Register', '000000');
SQL
ok( PostmarkCluster::until_true(
		sub { @{ recipients(qr/^async/) } == 1 }, 10),
	'an asynchronous commit wakes the worker');

$node->sql(<<'SQL');
SELECT postmark_enqueue('later@t.example', 'Register', '000000',
	send_after => clock_timestamp() + interval '1 s')
SQL
my $due = $node->sql(
	"SELECT extract(epoch FROM due_at) FROM postmark_messages WHERE email = 'later\@t.example'"
);
ok( PostmarkCluster::until_true(
		sub { @{ recipients(qr/^later/) } == 1 }, 10),
	'a message with send_after is sent');
my ($later) = $sandbox->messages(recipient => 'later@t.example');
cmp_ok($later->{ReceivedUs} / 1e6, '>=', $due - 0.000001, '... not before');
cmp_ok($later->{ReceivedUs} / 1e6, '<', $due + 1, '... and not much after');

#
# Two-phase commit
#

$node->sql(<<'SQL');
BEGIN;
SELECT postmark_enqueue('2pc-commit@t.example', 'Register', '000000');
INSERT INTO postmark_queue (email, usage_type, code)
VALUES ('2pc-insert@t.example', 'Register', '000000');
PREPARE TRANSACTION 'to commit';
BEGIN;
SELECT postmark_enqueue('2pc-rollback@t.example', 'Register', '000000');
PREPARE TRANSACTION 'to roll back';
BEGIN;
SELECT postmark_enqueue('2pc-restart@t.example', 'Register', '000000');
PREPARE TRANSACTION 'to outlive a restart';
SQL
ok(fence(), 'the worker goes on past prepared transactions');
is_deeply(recipients(qr/^2pc/),
	[], 'what a prepared transaction queued is not sent');

$node->sql("ROLLBACK PREPARED 'to roll back'");
$node->sql("COMMIT PREPARED 'to commit'");
ok( PostmarkCluster::until_true(
		sub { @{ recipients(qr/^2pc/) } == 2 }, 10),
	'COMMIT PREPARED of another session wakes the worker');
ok(fence(), 'the worker goes on after two-phase commit');
is_deeply(
	recipients(qr/^2pc/),
	[qw(2pc-commit@t.example 2pc-insert@t.example)],
	'and ROLLBACK PREPARED sends nothing');

# Of others' prepared transactions nobody is to hear, also while there is one
# of ours, and where the extension is not installed.
$node->sql('CREATE DATABASE bare');
foreach my $database ('postgres', 'bare')
{
	ok(asleep(), 'worker and launcher fall asleep again');
	$before = switches(@ours);
	$node->sql(<<'SQL', $database);
CREATE TABLE IF NOT EXISTS app_messages (id bigint, email text);
BEGIN;
INSERT INTO app_messages VALUES (1, 'other@t.example');
DELETE FROM app_messages WHERE email = 'other@t.example';
PREPARE TRANSACTION 'other';
COMMIT PREPARED 'other';
SQL
	is(switches(@ours), $before,
		"COMMIT PREPARED that is not about us wakes nobody in $database");
}

# Of whatever is about us they hear
$node->sql(<<'SQL');
BEGIN;
SELECT postmark_enqueue('2pc-later@t.example', 'Register', '000000',
	send_after => clock_timestamp() + interval '100 ms');
PREPARE TRANSACTION 'later';
COMMIT PREPARED 'later';
SQL
ok( PostmarkCluster::until_true(
		sub { @{ recipients(qr/^2pc-later/) } == 1 }, 10),
	'so is a deferred message of a prepared transaction sent');
$node->sql(<<'SQL', 'bare');
BEGIN;
CREATE EXTENSION postmark_connector;
PREPARE TRANSACTION 'extension';
COMMIT PREPARED 'extension';
SQL
$node->configure(database => 'bare');
ok($node->wait_worker('bare'),
	'after CREATE EXTENSION in a prepared transaction there is a worker');
$node->sql(<<'SQL', 'bare');
BEGIN;
DROP EXTENSION postmark_connector;
PREPARE TRANSACTION 'extension';
COMMIT PREPARED 'extension';
SQL
ok( $node->poll_query_until(
		'postgres',
		"SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = 'bare' AND backend_type ~ 'postmark'"
	),
	'after DROP EXTENSION there is none');

# As postmark_webhook notes an address that Postmark is to be asked about
$node->sql(<<'SQL');
BEGIN;
INSERT INTO postmark_inquiries VALUES ('default', 'outbound', '2pc@t.example', now());
PREPARE TRANSACTION 'inquiry';
COMMIT PREPARED 'inquiry';
SQL
ok( $node->poll_query_until('postgres',
		'SELECT count(*) = 0 FROM postmark_inquiries'),
	'what a prepared transaction wants to know is asked');

$sandbox->config(tokens => ['another-token']);
$node->enqueue(1, prefix => '2pc-token');
ok($node->wait_state('blocked'), 'the token is refused');
$node->sql(<<'SQL');
BEGIN;
SELECT postmark_set_token('another-token');
PREPARE TRANSACTION 'token';
COMMIT PREPARED 'token';
SQL
# That is seconds before the next probe
ok( PostmarkCluster::until_true(
		sub { @{ recipients(qr/^2pc-token/) } == 1 }, 2.5),
	'settings of a prepared transaction take effect at once');
$sandbox->config(tokens => [ 'sandbox-token', 'another-token' ]);

$node->restart;
ok(fence(), 'the worker is back after a restart');
$node->sql("COMMIT PREPARED 'to outlive a restart'");
ok( PostmarkCluster::until_true(
		sub { @{ recipients(qr/^2pc-restart/) } == 1 }, 10),
	'COMMIT PREPARED after a restart wakes the worker');

#
# Late commits
#

my $late = $node->background_psql('postgres');
$late->query_safe('BEGIN');
$late->query_safe(
	"SELECT postmark_enqueue('late-low\@t.example', 'Register', '000000')");
$node->enqueue(1500, prefix => 'early');
ok( PostmarkCluster::until_true(
		sub { @{ recipients(qr/^early/) } == 1500 }, 20),
	'an open transaction holds up nobody');
$late->query_safe(
	"SELECT postmark_enqueue('late-high\@t.example', 'Register', '000000')");
$late->query_safe('COMMIT');
$late->quit;
ok( PostmarkCluster::until_true(
		sub { @{ recipients(qr/^late-/) } == 2 }, 10),
	'a late commit of a lower id is found');

# Many of them, their ids spread over others that went before
my @sessions = map { $node->background_psql('postgres') } 1 .. 6;
foreach my $round (1 .. 4)
{
	my $i = 0;
	foreach my $session (@sessions)
	{
		$i++;
		$session->query_safe('BEGIN') if $round == 1;
		$session->query_safe(
			"SELECT postmark_enqueue('spread$i-$round\@t.example', 'Register', '000000')"
		);
		$node->enqueue(600, prefix => "between$round-$i-");
	}
}
ok( PostmarkCluster::until_true(
		sub { @{ recipients(qr/^between/) } == 4 * 6 * 600 }, 30),
	'six open transactions hold up nobody');
$_->query_safe('COMMIT') foreach reverse @sessions;
$_->quit foreach @sessions;
ok( PostmarkCluster::until_true(
		sub { @{ recipients(qr/^spread/) } == 24 }, 10),
	'scattered late commits are all found');

#
# Priorities
#

$node->configure(
	templates => [
		{
			usageType => 'SignIn',
			templateAlias => 'logto-sign-in',
			priority => 9
		},
		{
			usageType => 'OrganizationInvitation',
			templateAlias => 'logto-organization-invitation',
			priority => 1
		}
	]);
$node->append_conf('postgresql.conf', <<'CONF');
postmark_connector.max_in_flight = 1
postmark_connector.batch_size = 5
CONF
$node->reload;
ok(fence(), 'the worker goes on after a reload');

my $latency = $sandbox->rule(path => '/email*', action => { latency => 0.2 });
my $since = $sandbox->last_request;
my $begun = $sandbox->counts->{requests}{'/email/batchWithTemplates'};
$node->enqueue(
	50,
	prefix => 'bulk-mail',
	usage_type => 'OrganizationInvitation');
ok($sandbox->wait_requests($begun + 1, path => '/email/batch*'),
	'a bulk of low priority is under way');
$node->enqueue(1, prefix => 'urgent', usage_type => 'SignIn');
ok($node->wait_finished, 'all of it is sent');
$sandbox->clear_rules($latency);

my @order;
foreach my $request (
	$sandbox->requests(path => '/email/batch*', since => $since))
{
	my $to = join ' ', map { $_->{To} } @{ $request->{body}{Messages} };
	push @order, $to =~ /urgent/ ? 'urgent' : 'bulk'
	  if $to =~ /urgent|bulk-mail/;
}
my ($position) = grep { $order[$_] eq 'urgent' } 0 .. $#order;
is(scalar(@order), 11, 'the messages went in requests of five');
cmp_ok($position, '<=', 2, 'a message of high priority overtakes the bulk');

# Both there at once
$node->sql('SELECT postmark_pause()');
$node->enqueue(
	12,
	prefix => 'paused-low',
	usage_type => 'OrganizationInvitation');
$node->enqueue(3, prefix => 'paused-mid');
$node->enqueue(3, prefix => 'paused-high', usage_type => 'SignIn');
$since = $sandbox->last_request;
$node->sql('SELECT postmark_resume()');
ok($node->wait_finished, 'after a pause all of it is sent');
my @sequence;
foreach my $request (
	$sandbox->requests(path => '/email/batch*', since => $since))
{
	push @sequence,
	  map { $_->{To} =~ /paused-(\w+?)\d/ } @{ $request->{body}{Messages} };
}
is( join(' ', @sequence),
	join(' ', ('high') x 3, ('mid') x 3, ('low') x 12),
	'priorities go in their order');

#
# Rows that no trigger saw
#

$node->sql(<<'SQL');
BEGIN;
ALTER TABLE postmark_queue DISABLE TRIGGER ALL;
INSERT INTO postmark_queue (lane, id, created_at, expires_at, email, usage_type, code, connector)
SELECT number * 10 + 4, nextval('postmark_message_id_seq'), now(), now() + interval '10 min',
	'untriggered@t.example', 'Register', '000000', 'default'
FROM postmark_settings;
ALTER TABLE postmark_queue ENABLE ALWAYS TRIGGER postmark_queue_row;
COMMIT;
SQL

# The worker looks for such once a minute at most, too long to wait for in a
# small run; a new one looks at once.
$node->sql(
	'SELECT pg_terminate_backend(worker_pid) FROM postmark_status')
  if PostmarkCluster::load() == 1;
ok( PostmarkCluster::until_true(
		sub { @{ recipients(qr/^untriggered/) } == 1 }, 90),
	'a row inserted with triggers disabled is sent, too');

ok($node->wait_finished, 'the queue is empty in the end');
is($sandbox->counts->{duplicates}, 0, 'nothing was sent twice');
$node->accounted('what applications committed arrived once',
	only => qr/^(early|between|bulk-mail|urgent|paused)/);

$node->stop;
done_testing();
