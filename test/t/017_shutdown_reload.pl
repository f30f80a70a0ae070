# A shutdown waits for no network, and a reload takes effect at once.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use PostmarkSandbox;
use PostmarkCluster;

my $sandbox = PostmarkSandbox->new();
my $node = PostmarkCluster->new(
	'main',
	sandbox => $sandbox,
	conf => "postmark_connector.request_timeout = '5 s'\n");

sub batches { return $sandbox->counts->{requests}{'/email/batchWithTemplates'} // 0; }

#
# Shutdown
#

foreach my $case (
	[ 'not accepted yet', { latency => 30, status => 500 } ],
	[ 'accepted already', { latency_after => 30 } ])
{
	my ($name, $action) = @$case;
	my $prefix = 'stop' . ($name =~ s/\W//gr);

	my $rule = $sandbox->rule(path => '/email*', action => $action);
	my $before = batches();
	$node->enqueue(4000, prefix => $prefix);
	ok( $sandbox->wait_requests($before + 8, path => '/email/batch*'),
		"$name: eight requests are under way");
	# Their bodies have been read
	ok( $name =~ /already/
		? $sandbox->wait_for(distinct => $sandbox->counts->{distinct} || 4000)
		: 1,
		"$name: as far as they are to be");
	my $start = time();
	$node->stop('fast');
	cmp_ok(time() - $start, '<', 2,
		"$name: a fast shutdown does not wait for them");
	$sandbox->clear_rules;
	$node->start;
	ok($node->wait_finished, "$name: afterwards all messages are finished");
	is( $node->sql(
			"SELECT string_agg(DISTINCT status, ' ') FROM postmark_messages WHERE email LIKE '$prefix%'"
		),
		'sent',
		"$name: as sent");
}
$node->accounted('each message arrived once');

# pg_terminate_backend of a worker that waits for the network
my $rule = $sandbox->rule(
	path => '/email*',
	times => 1,
	action => { latency => 30, status => 500 });
my $since = batches();
$node->enqueue(10, prefix => 'terminated');
ok($sandbox->wait_requests($since + 1, path => '/email/batch*'),
	'a request is under way');
my $pid = $node->worker_pid;
my $start = time();
$node->sql("SELECT pg_terminate_backend($pid)");
ok(PostmarkCluster::until_true(sub { !kill 0 => $pid }, 5),
	'pg_terminate_backend ends the worker');
cmp_ok(time() - $start, '<', 1, 'within a second');
ok($node->wait_finished, 'its request is looked up and sent again');

#
# Reload
#

sub reload_with
{
	my ($setting) = @_;
	$node->append_conf('postgresql.conf', "postmark_connector.$setting\n");
	$node->reload;
	return;
}

# api_url
my $second = PostmarkSandbox->new();
reload_with("api_url = '" . $second->url . "'");
$node->enqueue(3, prefix => 'second');
ok($second->wait_messages(3), 'api_url takes effect');
ok($node->wait_finished, 'and results are stored');
reload_with("api_url = '" . $sandbox->url . "'");

# batch_size and max_in_flight
reload_with('batch_size = 10');
reload_with('max_in_flight = 3');
$rule = $sandbox->rule(path => '/email*', action => { latency => 0.1 });
my $last = $sandbox->last_request;
$node->enqueue(100, prefix => 'sized');
ok($node->wait_finished, 'messages are finished with other sizes');
my @requests = $sandbox->requests(
	path => '/email/batch*',
	since => $last);
is_deeply([ map { scalar @{ $_->{body}{Messages} } } @requests ],
	[ (10) x 10 ], 'batch_size takes effect');
my @changes = sort { $a->[0] <=> $b->[0] || $a->[1] <=> $b->[1] }
  map { ([ $_->{received_us}, 1 ], [ $_->{answered_us}, -1 ]) } @requests;
my ($now, $most) = (0, 0);
foreach my $change (@changes)
{
	$now += $change->[1];
	$most = $now if $now > $most;
}
is($most, 3, 'max_in_flight takes effect');
$sandbox->clear_rules;

# request_timeout, of the worker
reload_with("request_timeout = '500 ms'");
$sandbox->rule(
	path => '/email*',
	times => 1,
	action => { latency_after => 30 });
$start = time();
$node->enqueue(3, prefix => 'timeout');
ok($node->wait_finished, 'a request that takes too long is given up');
cmp_ok(time() - $start, '<', 5, 'request_timeout takes effect');
reload_with("request_timeout = '30 s'");

# settle_time
reload_with("settle_time = '1500 ms'");
$sandbox->rule(
	path => '/email*',
	times => 1,
	action => { drop => 'after_accept' });
$last = $sandbox->last_request;
$node->configure();
$node->enqueue(3, prefix => 'settled');
ok($node->wait_finished, 'a request in doubt is looked up');
my ($send) =
  $sandbox->requests(path => '/email/batch*', since => $last);
my ($search) =
  $sandbox->requests(path => '/messages/outbound', since => $last);
cmp_ok(($search->{received_us} - $send->{received_us}) / 1e6,
	'>=', 1.49, 'settle_time takes effect');
reload_with("settle_time = '200 ms'");

# token_directory
my $directory = PostgreSQL::Test::Utils::tempdir();
open my $file, '>', "$directory/filed" or die "$directory/filed: $!";
print $file "sandbox-token\n";
close $file;
chmod 0600, "$directory/filed";
reload_with("token_directory = '$directory'");
my $json = $node->connector_json();
$json =~ s/"serverToken":"[^"]*",?//;
$json =~ s/,\}$/}/;
ok( $node->poll_query_until(
		'postgres', "SELECT current_setting('postmark_connector.token_directory') = '$directory'"
	),
	'token_directory is set');
$node->sql("SELECT postmark_configure(\$j\$$json\$j\$, 'filed')");
$node->enqueue(3, prefix => 'filed', connector => 'filed');
ok($node->wait_finished, 'token_directory takes effect');

# worker
reload_with('worker = off');
ok( $node->poll_query_until(
		'postgres',
		q(SELECT bool_and(worker_pid IS NULL AND state = 'no_worker') FROM postmark_status)
	),
	'worker = off ends the worker');
$node->psql('postgres',
	q(INSERT INTO app_messages SELECT postmark_enqueue('workerless@t.example', 'Register', '000000'), 'workerless@t.example')
);
reload_with('worker = on');
ok($node->wait_finished, 'worker = on starts one, which sends');

# history_retention
is( $node->sql('SELECT count(*) > 0 FROM postmark_history'),
	't', 'there is history');
$node->sql(
	q(UPDATE postmark_history SET finished_at = finished_at - interval '2 min' WHERE email LIKE 'sized%')
);
reload_with("history_retention = '1 min'");
ok( $node->poll_query_until(
		'postgres',
		q(SELECT count(*) = 0 FROM postmark_history WHERE email LIKE 'sized%')
	),
	'history_retention takes effect');
is( $node->sql(
		q(SELECT count(*) FROM postmark_history WHERE email LIKE 'filed%')),
	3,
	'and what is younger is kept');

is($sandbox->counts->{duplicates}, 0, 'nothing was sent twice');
$node->stop;
done_testing();
