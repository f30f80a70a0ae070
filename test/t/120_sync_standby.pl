# With a synchronous standby the worker's own commits wait for that, and the
# server resets the latch meanwhile: nothing that was announced then is lost.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use PostmarkSandbox;
use PostmarkCluster;
use PostmarkExtra;

my $sandbox = PostmarkSandbox->new();
my $primary = PostmarkCluster->new(
	'primary',
	sandbox => $sandbox,
	init => { allows_streaming => 1 });
$primary->wait_worker;
$primary->backup('copy');

# A standby that streams under its own name
sub new_standby
{
	my ($name) = @_;
	my $standby = PostgreSQL::Test::Cluster->new($name);
	$standby->init_from_backup($primary, 'copy', has_streaming => 1);
	$standby->start;
	$primary->poll_query_until('postgres',
		"SELECT count(*) = 1 FROM pg_stat_replication WHERE application_name = '$name' AND state = 'streaming'"
	);
	return $standby;
}

# Sessions of ours do not wait for the standby, whatever the worker does.
sub enqueue
{
	my ($node, $address) = @_;
	return $node->safe_psql('postgres',
		"SET synchronous_commit = local; SELECT postmark_enqueue('$address', 'Register', '000000')"
	);
}

sub arrived
{
	my ($address) = @_;
	return PostmarkCluster::until_true(
		sub { scalar(() = $sandbox->messages(recipient => $address)) }, 30);
}

# How often the worker went to sleep
sub sleeps
{
	my ($pid) = @_;
	my ($n) = slurp_file("/proc/$pid/status") =~
	  /^voluntary_ctxt_switches:\s*(\d+)/m;
	return $n;
}

# Have the worker commit, with nothing to do afterwards, and keep that commit
# waiting for a standby that does not answer, while $meanwhile happens; once
# the worker has taken note of it in its sleep, the standby goes on.
my $rounds = 0;

sub while_committing
{
	my ($node, $standby, $meanwhile) = @_;
	my $address = 'held' . ++$rounds . '@t.example';
	my $requests =
	  $sandbox->counts->{requests}{'/email/batchWithTemplates'} // 0;
	my $worker = $node->worker_pid;
	my $receiver = $standby->safe_psql('postgres',
		'SELECT pid FROM pg_stat_wal_receiver');
	my $rule = $sandbox->rule(
		path => '/email*',
		recipient => $address,
		action => { latency => 1 });

	enqueue($node, $address);
	$sandbox->wait_requests($requests + 1,
		path => '/email/batchWithTemplates');
	kill STOP => $receiver;
	ok( $node->poll_query_until(
			'postgres',
			"SELECT wait_event = 'SyncRep' FROM pg_stat_activity WHERE pid = $worker"
		),
		'the worker waits for the standby');
	my $before = sleeps($worker);
	$meanwhile->();
	PostmarkCluster::until_true(sub { sleeps($worker) > $before });
	kill CONT => $receiver;
	$sandbox->clear_rules($rule);
	return;
}

my $standby = new_standby('standby');
$primary->append_conf('postgresql.conf', "synchronous_standby_names = '*'");
$primary->reload;
$primary->poll_query_until('postgres',
	"SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state = 'sync'");

enqueue($primary, 'first@t.example');
ok(arrived('first@t.example'), 'with a synchronous standby a message is sent');
ok($primary->wait_finished, 'and its result is stored');

while_committing($primary, $standby,
	sub { enqueue($primary, 'meanwhile@t.example') });
ok(arrived('meanwhile@t.example'),
	'a message that was committed while the worker waited for the standby is sent'
);
ok($primary->wait_finished, 'the queue drains');

while_committing(
	$primary,
	$standby,
	sub {
		$primary->append_conf('postgresql.conf',
			'postmark_connector.worker = off');
		$primary->reload;
	});
ok($primary->wait_state('no_worker'), 'so is a new configuration heard of');
$primary->append_conf('postgresql.conf', 'postmark_connector.worker = on');
$primary->reload;
ok($primary->wait_worker, 'also the next one');

# A commit that waits for long: the worker can't say so
my $log = -s $primary->logfile;
while_committing(
	$primary,
	$standby,
	sub {
		ok( $primary->wait_for_log(
				qr/WARNING: .*the worker of database "postgres" waits for a synchronous standby/,
				$log),
			'the log says that the worker waits for a standby');
	});
ok( $primary->wait_for_log(
		qr/LOG: .*the worker of database "postgres" goes on/, $log),
	'and that it goes on');
ok($primary->wait_finished, 'as it does');
is( scalar(
		() = slurp_file($primary->logfile) =~ /waits for a synchronous standby/g
	),
	1,
	'the log says it once');

# After a promotion, where commits wait until they are applied
my $other = new_standby('other');
$primary->wait_for_catchup($_) foreach $standby, $other;
$primary->stop('immediate');
$standby->append_conf('postgresql.conf', <<'CONF');
synchronous_standby_names = '*'
synchronous_commit = remote_apply
CONF
$standby->reload;
$standby->promote;
$other->enable_streaming($standby);
$other->restart;
$standby->poll_query_until('postgres',
	"SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state = 'sync'");
bless $standby, 'PostmarkCluster';
ok($standby->wait_worker, 'a promoted standby with a standby of its own');
while_committing($standby, $other,
	sub { enqueue($standby, 'promoted@t.example') });
ok(arrived('promoted@t.example'), 'sends what is committed, too');
ok($standby->wait_finished, 'and all of it is stored');
is(scalar(() = $sandbox->ids(duplicates => 1)), 0, 'nothing was sent twice');

done_testing();
