# Answers that are not Postmark's, and refusals that are no message's fault:
# nothing is failed for them.

use strict;
use warnings FATAL => 'all';

use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use PostmarkSandbox;
use PostmarkCluster;
use PostmarkExtra;

my $sandbox = PostmarkSandbox->new();
my $node = PostmarkCluster->new('main', sandbox => $sandbox);

sub status_column
{
	my ($column) = @_;
	return $node->sql(
		"SELECT $column FROM postmark_status WHERE connector = 'default'");
}

sub batches
{
	return $sandbox->counts->{requests}{'/email/batchWithTemplates'} // 0;
}

sub failed
{
	return $node->sql(
		"SELECT count(*) FROM postmark_messages WHERE status = 'failed'");
}

# How many messages a request had
sub sizes
{
	my ($since) = @_;
	return map { scalar @{ $_->{body}{Messages} } }
	  $sandbox->requests(path => '/email/batch*', since => $since);
}

#
# A proxy or filter on the way
#

my $page =
  "<html>\n <head><title>403 Forbidden</title></head>\n <body>Access denied: 493021 sandbox-token</body></html>";

foreach my $case (
	[ 403, $page, 'text/html' ],
	[ 400, 'Bad Request', 'text/plain' ],
	[ 422, '', 'application/json' ],
	[ 404, '{"error": "no route"}', 'application/json' ],
	[ 413, $page, 'text/html' ],
	[ 418, $page, 'text/html' ])
{
	my ($status, $body, $type) = @$case;
	my $name = "HTTP $status without an ErrorCode";
	my $before = batches();

	# It lets through what asks, and refuses what sends
	$sandbox->rule(
		path => '/email*',
		action => {
			status => $status,
			body => $body,
			headers => { 'Content-Type' => $type }
		});
	$node->sql(<<"SQL");
INSERT INTO app_messages (id, email)
SELECT postmark_enqueue(s.email, 'Register', '493021'), s.email
FROM (SELECT format('s$status-%s\@t.example', i) AS email
	FROM generate_series(1, 1000) i OFFSET 0) s;
SQL
	ok($node->wait_state('blocked'), "$name blocks the connector");
	my $detail = status_column('detail');
	like($detail, qr/HTTP status $status: this is not Postmark's API/,
		"$name: it says what that is not");
	like($detail, qr/\Q$type\E/, "$name: and what media type it has");
	like($detail, qr/"403 Forbidden Access denied: \*\*\*/,
		"$name: and shows its first words, without secrets")
	  if $body eq $page;
	unlike($detail, qr/sandbox-token|493021/, "$name: no secret is shown");
	like(status_column('hint'), qr/api_url and proxy/,
		"$name: the hint is where to look");
	is($node->sql("SELECT count(*) FROM postmark_messages WHERE attempts = 0 AND email LIKE 's$status-%' AND status = 'queued'"),
		1000, "$name: all messages are queued, without an attempt")
	  or diag($node->sql('SELECT status, count(*) FROM postmark_messages GROUP BY 1'));
	cmp_ok(batches() - $before, '<', 80, "$name: after a few requests");

	$sandbox->clear_rules;
	$node->sql('SELECT postmark_resume()');
	ok($node->wait_finished, "$name: it goes on");
}
is(failed(), 0, 'nothing was failed by what is not Postmark');
$node->accounted('and each message arrived once');

# postmark_send says the same
$sandbox->rule(
	path => '/email*',
	action => {
		status => 403,
		body => $page,
		headers => { 'Content-Type' => 'text/html' }
	});
my $error = PostmarkExtra::error_of($node,
	"SELECT postmark_send('one\@example.com', 'Register', '493021')");
is($error->{sqlstate}, 'PM006', 'postmark_send is PM006');
like($error->{detail}, qr/not Postmark's API/, 'DETAIL says that it is not Postmark');
unlike($error->{detail}, qr/493021|sandbox-token/, 'without secrets');
$sandbox->clear_rules;

# A page in place of a yes: nobody knows
$sandbox->rule(
	path => '/email*',
	action => {
		status => 200,
		body => '<html>Welcome to our hotel</html>',
		headers => { 'Content-Type' => 'text/html' }
	});
$error = PostmarkExtra::error_of($node,
	"SELECT postmark_send('one\@example.com', 'Register', '493021')");
is($error->{sqlstate}, 'PM008', 'a page with HTTP 200 is PM008');
like($error->{detail}, qr/Welcome to our hotel.*may have been sent/,
	'DETAIL shows what came');
$sandbox->clear_rules;

# What is asked may be answered with secrets: none of it is shown
$sandbox->rule(path => '/server', action => { garble => 'cut' });
my $found = $node->sql(
	"SELECT detail FROM postmark_check() WHERE item = 'token'");
like($found, qr/not in the form.*application\/json/,
	'half of what Postmark tells of a server is no answer');
unlike($found, qr/"/, 'and none of it is shown');
$sandbox->clear_rules;

# A single message that is too large for what is on the way is its own fault
$sandbox->rule(path => '/email*', action => { status => 413, body => '' });
$error = PostmarkExtra::error_of($node,
	"SELECT postmark_send('one\@example.com', 'Register', '493021', jsonb_build_object('x', repeat('y', 20000)))"
);
is($error->{sqlstate}, 'PM005', '413 refuses a large message');
$sandbox->clear_rules;

#
# The brake: refusals that we did not think of
#

my $rule = $sandbox->rule(
	path => '/email*',
	action => { status => 422, error_code => 4711, message => 'Not today' });
my $since = $sandbox->last_request;
$node->enqueue(400, prefix => 'brake');
ok( $node->poll_query_until(
		'postgres',
		q(SELECT state = 'backing_off' AND detail LIKE '%Message after message%' FROM postmark_status)
	),
	'message after message refused puts the brake on');
like(status_column('detail'), qr/ErrorCode 4711: Not today/, 'it says why');
my $failed = failed();
cmp_ok($failed, '>=', 10, 'so many have failed by then');
cmp_ok($failed, '<=', 20, 'and not many more');
my $braked_at = $sandbox->last_request;
ok( $sandbox->wait_requests(
		batches() + 1,
		path => '/email/batch*',
		timeout => 60),
	'it goes on slowly');
is(scalar(grep { $_ != 1 } sizes($braked_at)), 0, 'with one message at a time');
cmp_ok(failed(), '<=', 30, 'the others wait');
$sandbox->clear_rules($rule);
ok($node->wait_finished, 'once one is accepted all go on');
is(status_column('state'), 'running', 'and nothing is said any more');

# Results that are refused one by one count as well
PostmarkExtra::reload($node, batch_size => 20);
$rule = $sandbox->rule(
	path => '/email*',
	action => { refuse => { error_code => 412, message => 'Pending' } });
$node->enqueue(1500, prefix => 'pending');
ok( $node->poll_query_until(
		'postgres',
		q(SELECT state = 'backing_off' AND detail LIKE '%412%Message after message%' FROM postmark_status)
	),
	'so does answer after answer that refuses all of its messages');
$sandbox->clear_rules($rule);
ok($node->wait_finished, 'it goes on');
cmp_ok(
	$node->sql(
		q(SELECT count(*) FROM postmark_messages WHERE email LIKE 'pending%' AND status = 'sent')
	),
	'>', 1000,
	'and did not fail all it had');
PostmarkExtra::reload($node, batch_size => undef);

# Where some are accepted there is no brake: one in ten is bad
my @bad = map { "some" . $_ * 10 . '@t.example' } 1 .. 30;
$sandbox->rule(
	recipient => 'some*0@t.example',
	action => { refuse => { error_code => 300, message => 'Bad' } });
my $position = PostmarkExtra::log_position($node);
$since = $sandbox->last_request;
$node->enqueue(300, prefix => 'some');
ok($node->wait_finished, 'bad ones among others are finished');
is($node->sql(q(SELECT count(*) FROM postmark_messages WHERE email LIKE 'some%' AND status = 'failed')),
	30, 'they alone are failed');
is(scalar(grep { $_ == 1 } sizes($since)), 0, 'and the others do not crawl');
$sandbox->clear_rules;

#
# Answers with HTTP 200 that refuse the configuration
#

$rule = $sandbox->rule(
	path => '/email*',
	action => { refuse => { error_code => 400, message => 'No such sender' } });
$since = $sandbox->last_request;
$node->enqueue(4000, prefix => 'sender');
ok($node->wait_state('blocked'), 'a refused sender blocks the connector');
ok($sandbox->wait_requests(($sandbox->counts->{requests}{'/server'} // 0) + 1,
		path => '/server'),
	'it is probed');
ok( PostmarkCluster::until_true(
		sub { my @s = sizes($since); grep { $_ == 1 } @s }),
	'the probe, which cannot tell, lets it try');
my @sizes = sizes($since);
shift @sizes while @sizes && $sizes[0] > 1;
cmp_ok(scalar(@sizes), '>=', 1, 'it tries');
is(scalar(grep { $_ != 1 } @sizes), 0, 'with one message');
ok($node->wait_state('blocked'), 'and is blocked again');
is($node->sql(q(SELECT max(attempts) FROM postmark_messages WHERE email LIKE 'sender%')),
	0, 'no attempt is spent');

# The next try is later than the first was: 5 to 10 seconds, then 10 to 20
my @probes = map { $_->{received_us} } $sandbox->requests(path => '/server', since => $since);
my $probed = @probes;
ok( PostmarkCluster::until_true(
		sub {
			@probes = map { $_->{received_us} }
			  $sandbox->requests(path => '/server', since => $since);
			@probes > $probed;
		},
		60),
	'it is probed again');
cmp_ok(($probes[-1] - $probes[-2]) / 1e6, '>', 9.9, 'after twice as long');
$sandbox->clear_rules($rule);
$node->sql('SELECT postmark_resume()');
ok($node->wait_finished, 'once the sender is there it goes on');

# All put off: the connector backs off, and does not ask for each message
$rule = $sandbox->rule(
	path => '/email*',
	action => { refuse => { error_code => 429, message => 'Slow down' } });
$node->enqueue(200, prefix => 'putoff');
ok($node->wait_state('backing_off'),
	'an answer that puts all its messages off makes the connector back off');
$sandbox->clear_rules($rule);
ok($node->wait_finished, 'and it goes on');

# One is in doubt and turns out to be sent, another one succeeds while the
# connector is closed for it: with nothing left to try, nothing is wrong
PostmarkExtra::reload($node, batch_size => 1);
foreach my $round (1 .. 3)
{
	$sandbox->rule(
		recipient => "doubtful$round-1\@t.example",
		action => { status => 500, accept => JSON::PP::true });
	$sandbox->rule(
		recipient => "doubtful$round-2\@t.example",
		action => { latency => 0.3 });
	$node->enqueue(2, prefix => "doubtful$round-");
	ok($node->wait_finished, "round $round: both are sent");
	ok($node->wait_state('running'), "round $round: nothing is wrong any more");
	$sandbox->clear_rules;
}

$node->accounted('each message arrived once or is accounted for');
my $log = slurp_file($node->logfile);
unlike($log, qr/TRAP|PANIC|terminated by signal/, 'nothing crashed');
unlike($log, qr/sandbox-token|493021/, 'no secret is in the log');
$node->stop;
done_testing();
