# Trouble that concerns a connector as a whole: nothing is lost, no attempt is
# spent, and it goes on by itself.

use strict;
use warnings FATAL => 'all';

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

sub most_attempts
{
	my ($prefix) = @_;
	return $node->sql(
		"SELECT max(attempts) FROM postmark_messages WHERE email LIKE '$prefix%'"
	);
}

# Requests that send, since a number
sub sends { return $sandbox->requests(path => '/email/batch*', since => $_[0] // 0); }

#
# Retry-After
#

foreach my $case (
	[ '429 with Retry-After', { status => 429, retry_after => 2 }, 2 ],
	[
		'429 with a date as Retry-After',
		{ status => 429, retry_after_date => 3 }, 2
	],
	[ '503 with Retry-After', { status => 503, retry_after => 2 }, 2 ])
{
	my ($name, $action, $seconds) = @$case;
	my $prefix = 'ra' . ($name =~ s/\W//gr) . '-';
	my $since = $sandbox->last_request;

	$sandbox->rule(path => '/email*', times => 1, action => $action);
	$node->enqueue(1, prefix => lc $prefix);
	ok($node->wait_state('backing_off'), "$name: the connector backs off");
	like(status_column('detail'), qr/\w/, "$name: and says why");
	$node->enqueue(1200, prefix => lc $prefix, from => 2);
	ok($node->wait_finished, "$name: it goes on by itself");
	my ($first, @others) = sends($since);
	my ($second) = sort map { $_->{received_us} } @others;
	cmp_ok(
		($second - $first->{answered_us}) / 1e6,
		'>=',
		$seconds - ($name =~ /date/ ? 0.1 : 0.005),
		"$name: not before its time");
	cmp_ok(($second - $first->{answered_us}) / 1e6,
		'<', $seconds + 3, "$name: nor long after");
	is(most_attempts(lc $prefix),
		1, "$name: one attempt, the one that succeeded");
	is(status_column('state'), 'running', "$name: the connector runs again");
	is(status_column("coalesce(detail, '')"),
		'', "$name: and shows no trouble");
	$sandbox->clear_rules;
}

# Without it: attempts are few, and one at a time
my $since = $sandbox->last_request;
my $rule = $sandbox->rule(path => '/email*', action => { status => 503 });
my $requests = $sandbox->counts->{requests}{'/email/batchWithTemplates'};
$node->enqueue(4000, prefix => 'maintenance');
ok($sandbox->wait_requests($requests + 10, path => '/email/batch*', timeout => 20),
	'503: it is tried again');
$sandbox->clear_rules($rule);
my @refused = grep { $_->{outcome} eq '503' } sends($since);
ok($node->wait_finished, '503: it goes on by itself');
is(most_attempts('maintenance'), 1, '503: no attempt is spent');

#
# Nobody there
#

$sandbox->stop;
$node->enqueue(700, prefix => 'refused');
ok($node->wait_state('backing_off'),
	'a refused connection makes the connector back off');
like(status_column('detail'), qr/connect/i, 'and it says why');
is( $node->sql(
		q(SELECT count(*) FROM postmark_messages WHERE email LIKE 'refused%' AND attempts = 0 AND status IN ('queued', 'deferred', 'sending'))
	),
	700,
	'all messages are still there, without an attempt');
$sandbox->restart;
ok($node->wait_finished, 'once somebody is there it goes on by itself');
is(most_attempts('refused'), 1, 'no attempt was spent on it');
$node->accounted('nothing was lost, nothing sent twice');

# A connection that was kept is gone
$sandbox->restart;
$node->enqueue(10, prefix => 'kept');
ok($node->wait_finished,
	'a kept connection that is dead delays messages only');
$node->accounted('and each arrives once');

#
# The token
#

$sandbox->config(tokens => ['another-token']);
$node->enqueue(600, prefix => 'token');
ok($node->wait_state('blocked'), 'a bad token blocks the connector');
like(status_column('detail'), qr/401|token/i, 'detail says what is wrong');
like(status_column('hint'), qr/postmark_set_token/, 'hint says what to do');
is(status_column('queued'), 600, 'the messages are queued');
is( $node->sql(
		q(SELECT DISTINCT attempts FROM postmark_messages WHERE email LIKE 'token%')
	),
	0,
	'no attempt is spent');

# Mended by the right token: at once
my $probes = $sandbox->counts->{requests}{'/server'} // 0;
$node->sql("SELECT postmark_set_token('another-token')");
ok( PostmarkCluster::until_true(
		sub {
			$node->sql(
				q(SELECT count(*) FROM postmark_messages WHERE email LIKE 'token%' AND status = 'sent')
			) == 600;
		},
		2.5),
	'postmark_set_token makes it go on at once');
is(status_column('state'), 'running', 'and it runs');

# Mended at Postmark: by itself
$sandbox->config(tokens => ['third-token']);
$node->enqueue(20, prefix => 'itself');
ok($node->wait_state('blocked'), 'it is blocked again');
my $attempts = scalar(sends(0));
$sandbox->config(tokens => [ 'another-token', 'third-token' ]);
ok($node->wait_finished, 'what is mended at Postmark is found by a probe');
is(status_column('state'), 'running', 'and the connector runs by itself');
is(most_attempts('itself'), 1, 'no attempt was spent');

# Without anything to send, too
$sandbox->config(tokens => ['third-token']);
my $id = $node->sql(
	q(SELECT postmark_enqueue('expires@t.example', 'Register', '493021', '{"link": "https://s3cret.example"}', expires_in => '2 s'))
);
ok($node->wait_state('blocked'), 'it is blocked a third time');
ok($node->wait_status($id, 'expired'),
	'a message expires while the connector is blocked');
$sandbox->config(tokens => ['another-token']);
$node->sql("SELECT postmark_set_token('another-token')");
$node->enqueue(1, prefix => 'afterexpiry');
ok($node->wait_finished, 'the connector goes on');
is(scalar(grep { $_->[1] eq 'expires@t.example' } $sandbox->ids),
	0, 'the expired message is never sent');
is( $node->sql(
		"SELECT (SELECT count(*) FROM postmark_queue WHERE id = $id) + (SELECT count(*) FROM postmark_deferred WHERE id = $id)"
	),
	0,
	'and no longer queued');
is( $node->sql(
		"SELECT count(*) FROM postmark_history WHERE id = $id AND code IS NULL AND payload IS NULL"
	),
	1,
	'and its code and payload are gone');

#
# Settings that are none of its own
#

# Whatever changes for others, and the end of it: when a message of another
# connector has arrived, the worker knows all of it.
my $changes = 0;

sub change_others
{
	PostmarkExtra::reload($node, history_retention => ++$changes . ' d');
	$node->configure(
		connector => 'bystander',
		token => 'another-token',
		config => { tag => "change $changes" });
	$node->enqueue(1, prefix => "bystander$changes-", connector => 'bystander');
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok(
		PostmarkCluster::until_true(
			sub { grep { $_->[1] =~ /^bystander$changes-/ } $sandbox->ids }),
		'the worker has read what changed for others');
}

# Requests that carry a token, since a number; the sandbox tells its beginning
sub of_token
{
	my ($token, $since) = @_;
	my $shown = substr($token, 0, 4) . '***';
	return grep { $_->{token} eq $shown } $sandbox->requests(since => $since);
}

$node->configure(token => 'own-token');
$sandbox->config(tokens => [ 'own-token', 'another-token' ]);
$since = $sandbox->last_request;
$sandbox->rule(path => '/email*', times => 1, action => { status => 429, retry_after => 4 });
$node->enqueue(1, prefix => 'others');
ok($node->wait_state('backing_off'), 'a connector backs off');
change_others();
$node->configure(token => 'own-token', config => { tag => 'mine' });
change_others();
ok($node->wait_finished, 'it goes on by itself');
my ($limited, $next) = of_token('own-token', $since);
cmp_ok(($next->{received_us} - $limited->{answered_us}) / 1e6,
	'>=', 3.995, 'at the time that Retry-After said, whatever changed');

# Another token may be good for requests at once
$sandbox->rule(path => '/email*', times => 1, action => { status => 429, retry_after => 60 });
$node->enqueue(1, prefix => 'newtoken');
ok($node->wait_state('backing_off'), 'it backs off again');
$node->configure(token => 'another-token');
ok($node->wait_finished, 'and goes on at once with another token');

# postmark_resume, of the connector that it names
$sandbox->rule(path => '/email*', times => 1, action => { status => 429, retry_after => 60 });
$since = $sandbox->last_request;
$node->enqueue(1, prefix => 'resumed');
ok($node->wait_state('backing_off'), 'it backs off a third time');
$node->sql("SELECT postmark_resume('bystander')");
change_others();
is($node->sql("SELECT status FROM postmark_messages WHERE email = 'resumed1\@t.example'"),
	'queued', 'postmark_resume of another connector changes nothing');
$node->sql("SELECT postmark_resume()");
ok($node->wait_finished, 'its own ends the waiting');

# A refused configuration is looked at again when its own settings change
$node->configure(token => 'bad-token');
$since = $sandbox->last_request;
$node->enqueue(1, prefix => 'badtoken');
ok($node->wait_state('blocked'), 'a bad token blocks it');
change_others();
change_others();
my ($refused, @early) = of_token('bad-token', $since);
@early =
  grep { $_->{received_us} - $refused->{answered_us} < 4_900_000 } @early;
is(scalar(@early), 0, 'what changes for others causes no probe');
$since = $sandbox->last_request;
$node->configure(token => 'bad-token', config => { tag => 'changed' });
ok( PostmarkCluster::until_true(
		sub { scalar(of_token('bad-token', $since)) }, 2.5),
	'a change of its own does at once');
$node->configure(token => 'another-token');
ok($node->wait_finished, 'the right token ends it');
$sandbox->clear_rules;
PostmarkExtra::reload($node, history_retention => undef);

#
# Paused by hand
#

$node->sql("SELECT postmark_pause(reason => 'maintenance of our own')");
$node->enqueue(5, prefix => 'paused');
ok($node->wait_state('paused'), 'a connector can be paused');
like(status_column('detail'), qr/maintenance of our own/,
	'and shows the reason');
$node->sql("SELECT postmark_set_token('another-token')");
$node->configure(token => 'another-token');
$node->sql('SELECT pg_reload_conf()');
$node->sql(
	'SELECT pg_terminate_backend(worker_pid) FROM postmark_status');
$node->restart;
$node->wait_worker;

# Another connector is served after all of that: then the first would have
# been, too
$node->configure(connector => 'other', token => 'another-token');
$node->enqueue(1, prefix => 'other', connector => 'other');
ok( $node->poll_query_until(
		'postgres',
		q(SELECT status = 'sent' FROM postmark_messages WHERE email = 'other1@t.example')
	),
	'another connector is served');
is(status_column('state'),
	'paused',
	'token, settings, reload, a new worker and a restart lift no pause');
is( $node->sql(
		q(SELECT string_agg(DISTINCT status, ' ') FROM postmark_messages WHERE email LIKE 'paused%')
	),
	'queued',
	'nothing of it is sent');
$node->sql('SELECT postmark_resume()');
ok($node->wait_finished, 'postmark_resume does');

$node->accounted(
	'all messages arrived once', only => qr/^(?!expires)/);
$node->stop;
done_testing();
