# One bad message never holds up another, one bad connector never another
# connector, one slow request never another request.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use PostmarkSandbox;
use PostmarkCluster;

my $sandbox = PostmarkSandbox->new();
$sandbox->config(tokens => [ 'sandbox-token', 'second-token' ]);
my $node = PostmarkCluster->new(
	'main',
	sandbox => $sandbox,
	conf => "postmark_connector.request_timeout = '3 s'\n");
$node->configure(connector => 'second', token => 'second-token');

sub batches { return $sandbox->counts->{requests}{'/email/batchWithTemplates'} // 0; }

#
# Poisoned batches
#

# The culprits among 500, and how many requests it may take to find them
foreach my $poison (
	[ '422 with ErrorCode 402', [250], { status => 422, error_code => 402 } ],
	[ '422 with ErrorCode 403', [1], { status => 422, error_code => 403 } ],
	[ '413', [500], { status => 413, error_code => 300 } ],
	[ '422 with ErrorCode 300', [333], { status => 422, error_code => 300 } ],
	[ '422 with ErrorCode 410', [2], { status => 422, error_code => 410 } ],
	[ 'two culprits', [ 100, 400 ], { status => 422, error_code => 402 } ])
{
	my ($name, $culprits, $action) = @$poison;
	my $prefix = 'p' . ($name =~ s/\W//gr) . '-';
	my @emails = map { lc("$prefix$_") . '@t.example' } @$culprits;

	$sandbox->rule(recipient => $_, action => $action) foreach @emails;
	my $before = batches();
	$node->enqueue(500, prefix => lc $prefix);
	ok($node->wait_finished, "$name: a batch with a culprit is finished");
	my $requests = batches() - $before;
	is( $node->sql(
			"SELECT string_agg(email, ' ' ORDER BY id) FROM postmark_messages WHERE status <> 'sent' AND email LIKE lower('$prefix%')"
		),
		join(' ', @emails),
		"$name: the culprit alone is not sent");
	is( $node->sql(
			"SELECT string_agg(DISTINCT status, ' ') FROM postmark_messages WHERE status <> 'sent' AND email LIKE lower('$prefix%')"
		),
		'failed',
		"$name: it is failed");

	# log2 of 500 is 9: 1 + 2 * 9 for one, and claims that were cut anyhow
	cmp_ok($requests, '<=', 24 * @$culprits,
		"$name: found in a logarithmic number of requests");
	$sandbox->clear_rules;
}
$node->accounted('all others arrived once');

#
# Two connectors
#

# Trouble of "second" while "default" sends
sub default_sends
{
	my ($name) = @_;
	my $prefix = 'd' . ($name =~ s/\W//gr) . '-';
	my $start = time();

	$node->enqueue(300, prefix => lc $prefix);
	my $sent = PostmarkCluster::until_true(
		sub {
			$node->sql(
				"SELECT count(*) FROM postmark_messages WHERE status = 'sent' AND email LIKE lower('$prefix%')"
			) == 300;
		},
		2);
	ok($sent, "$name of one connector does not delay another");
	is( $node->sql(
			"SELECT state FROM postmark_status WHERE connector = 'default'"),
		'running',
		"$name: and the other is running");
	return;
}

my $rule = $sandbox->rule(
	token => 'second-token',
	action => { status => 401 });
$node->enqueue(600, prefix => 'blocked', connector => 'second');
ok($node->wait_state('blocked', 'second'), '401 blocks a connector');
default_sends('401');
$sandbox->clear_rules($rule);
$node->sql("SELECT postmark_set_token('second-token', 'second')");
ok($node->wait_finished, 'after 401 it goes on');

$rule = $sandbox->rule(
	token => 'second-token',
	action => { status => 503, retry_after => 1 });
$node->enqueue(600, prefix => 'maintained', connector => 'second');
ok($node->wait_state('backing_off', 'second'),
	'503 makes a connector back off');
default_sends('503');
$sandbox->clear_rules($rule);
ok($node->wait_finished, 'after 503 it goes on');

# All of its requests hang, and are not accepted in the end
$rule = $sandbox->rule(
	token => 'second-token',
	path => '/email*',
	times => 8,
	action => { latency => 30, status => 500 });
$node->enqueue(4000, prefix => 'hangs', connector => 'second');
ok($sandbox->wait_for(in_flight => 8), 'eight requests of a connector hang');
default_sends('time-outs');
$sandbox->clear_rules;
ok($node->wait_finished, 'after time-outs it goes on');

#
# A slow request
#

$rule = $sandbox->rule(
	recipient => 'slow1@t.example',
	action => { latency => 2 });
$node->enqueue(1, prefix => 'slow');
ok($sandbox->wait_for(in_flight => 1), 'a request is slow');
my $start = time();
$node->enqueue(1000, prefix => 'quick');
ok( PostmarkCluster::until_true(
		sub {
			$node->sql(
				q(SELECT count(*) FROM postmark_messages WHERE status = 'sent' AND email LIKE 'quick%')
			) == 1000;
		},
		5),
	'others of the same connector are sent');
is( $node->sql(
		q(SELECT status FROM postmark_messages WHERE email = 'slow1@t.example')
	),
	'sending',
	'meanwhile');
ok($node->wait_finished, 'and it is finished, too');

$node->accounted('all messages arrived once');
is( $node->sql(
		q(SELECT count(*) FROM postmark_messages WHERE status = 'failed')),
	7,
	'nothing failed but the culprits');

#
# A result that cannot be stored
#

# The history refuses it, and has a row of its id already
my $position = -s $node->logfile;
my $id = $node->sql(<<'SQL');
ALTER TABLE postmark_history ADD CONSTRAINT never CHECK (email <> 'never@t.example');
BEGIN;
SELECT FROM postmark_enqueue('never@t.example', 'Register', '000000', expires_in => '1 hour');
INSERT INTO postmark_history (id, connector, email, usage_type, status, attempts, created_at, expires_at, finished_at)
VALUES (postmark_last_id(), 'default', 'earlier@t.example', 'Register', 'sent', 1, now(), now(), now());
COMMIT;
SELECT postmark_last_id();
SQL
$node->wait_for_log(qr/could not store .* violates check constraint "never"/,
	$position);
$node->enqueue(100, prefix => 'stored', connector => 'second');
ok( PostmarkCluster::until_true(
		sub {
			$node->sql(
				q(SELECT count(*) FROM postmark_messages WHERE status = 'sent' AND email LIKE 'stored%')
			) == 100;
		},
		5),
	'a result that cannot be stored does not delay another connector');
$node->sql('ALTER TABLE postmark_history DROP CONSTRAINT never');
ok( $node->poll_query_until(
		'postgres', "SELECT count(*) = 0 FROM postmark_queue WHERE id = $id"),
	'it is stored once that can be done, though the id is in the history');
is(scalar(() = $sandbox->messages(recipient => 'never@t.example')),
	1, 'the message was sent once');

$node->stop;
done_testing();
