# What one connector takes of sockets and memory, another one must not miss.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use PostmarkSandbox;
use PostmarkCluster;
use PostmarkExtra;

# Few descriptors: about thirteen requests at a time
my $CONNECTORS = 30;

my $sandbox = PostmarkSandbox->new();
my $node = PostmarkCluster->new(
	'main',
	sandbox => $sandbox,
	conf => "max_files_per_process = 110\npostmark_connector.batch_size = 1\n");

my @names = map { "c$_" } 1 .. $CONNECTORS;
$sandbox->config(tokens => [ 'sandbox-token', map { "token-$_" } @names ]);
$node->configure(connector => $_, token => "token-$_") foreach @names;

sub sent
{
	my ($pattern) = @_;
	return $node->sql(
		"SELECT count(*) FROM postmark_messages WHERE email LIKE '$pattern' AND status = 'sent'"
	);
}

# States other than running, as long as something is to be sent
sub troubles
{
	my %troubles;
	PostmarkCluster::until_true(
		sub {
			my $states = $node->sql(
				q(SELECT string_agg(DISTINCT state || coalesce(': ' || detail, ''), ', ') FROM postmark_status WHERE state <> 'running')
			);
			$troubles{$states} = 1 if $states ne '';
			return $node->sql(
				q(SELECT count(*) FROM postmark_messages WHERE status IN ('queued', 'deferred', 'sending'))
			) == 0;
		});
	return join ', ', sort keys %troubles;
}

#
# More requests than there are descriptors
#

my $rule = $sandbox->rule(path => '/email*', action => { latency => 0.3 });
$node->sql(join ';',
	map { PostmarkCluster::enqueue_sql(8, prefix => "many-$_-", connector => $_) }
	  @names);
is(troubles(), '', 'no connector is in trouble for our own shortage');
ok($node->wait_finished, 'all is sent');
is($node->sql('SELECT max(attempts) FROM postmark_messages'),
	1, 'with one attempt each');
cmp_ok($sandbox->counts->{max_in_flight},
	'>', 5, 'with what descriptors there are');
cmp_ok($sandbox->counts->{max_in_flight}, '<', 20, 'and no more');
$node->accounted('each arrived once');
$sandbox->clear_rules($rule);

#
# Slow connectors that would take them all
#

PostmarkExtra::reload(
	$node,
	max_in_flight => 64,
	request_timeout => '10 min');
$sandbox->rule(
	token => "token-$_",
	path => '/email*',
	action => { latency => 600 }) foreach @names[ 0 .. 3 ];
$node->enqueue(100, prefix => "slow-$_-", connector => $_)
  foreach @names[ 0 .. 3 ];
ok($sandbox->wait_for(in_flight => 5), 'slow requests are under way');
$node->enqueue(1, prefix => "code-$_-", connector => $_)
  foreach @names[ 4 .. 9 ];
ok(PostmarkCluster::until_true(sub { sent('code-%') == 6 }),
	'codes of other connectors are sent meanwhile');
is(sent('slow-%'), 0, 'and did not wait for them');
is( $node->sql(
		q(SELECT count(*) FROM postmark_status WHERE state <> 'running')),
	0,
	'nobody is in trouble');
is(sent('slow-%'), 0, 'the slow ones are still under way');
$sandbox->clear_rules;
$node->sql("SELECT postmark_pause('$_')") foreach @names[ 0 .. 3 ];
$node->sql(
	'SELECT pg_terminate_backend(worker_pid) FROM postmark_status LIMIT 1');
$node->sql('SELECT postmark_cancel(id) FROM postmark_queue');

#
# Large bodies of a slow connector: of this text six times as much is sent
#

my $roomy = PostmarkCluster->new(
	'roomy',
	sandbox => $sandbox,
	conf => "postmark_connector.request_timeout = '10 min'\n");
$sandbox->config(tokens => [ 'sandbox-token', 'slow-token' ]);
$roomy->configure(connector => 'slow', token => 'slow-token');
$sandbox->rule(
	token => 'slow-token',
	path => '/email*',
	action => { latency => 600 });
$roomy->enqueue(
	100,
	prefix => 'large',
	connector => 'slow',
	payload => q(jsonb_build_object('x', repeat(chr(1), 40000))));
ok( PostmarkCluster::until_true(
		sub {
			$roomy->sql(
				q(SELECT in_flight FROM postmark_status WHERE connector = 'slow')
			) > 8;
		}),
	'large bodies are under way');
my $id =
  $roomy->sql("SELECT postmark_enqueue('small\@t.example', 'SignIn', '493021')");
ok($roomy->wait_status($id, 'sent'), 'another connector is not held up');
is( $roomy->sql(
		q(SELECT count(*) FROM postmark_messages WHERE connector = 'slow' AND status = 'sent')
	),
	0,
	'until they are answered');

my $log = slurp_file($node->logfile) . slurp_file($roomy->logfile);
unlike($log, qr/TRAP|PANIC|terminated by signal/, 'nothing crashed');
$node->stop('immediate');
$roomy->stop('immediate');
done_testing();
