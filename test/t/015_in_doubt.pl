# A request whose outcome is unknown is looked up, and only what Postmark does
# not have is sent again.

use strict;
use warnings FATAL => 'all';

use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use PostmarkSandbox;
use PostmarkCluster;

my $sandbox = PostmarkSandbox->new();
my $node = PostmarkCluster->new(
	'main',
	sandbox => $sandbox,
	conf => "postmark_connector.request_timeout = '1 s'\n");

sub searches { return $sandbox->requests(path => '/messages/outbound', since => $_[0]); }
sub sends { return $sandbox->requests(path => '/email/batch*', since => $_[0]); }

sub message_ids_agree
{
	my ($prefix, $name) = @_;
	my %ids = map { $_->{Recipients}[0] => lc $_->{MessageID} }
	  $sandbox->messages(render => 0, limit => 3000);
	my @wrong =
	  grep { my ($email, $id) = split /\|/; ($ids{$email} // '') ne $id }
	  split /\n/,
	  $node->sql(
		"SELECT email, message_id FROM postmark_messages WHERE email LIKE '$prefix%'"
	  );
	return is_deeply(\@wrong, [], $name);
}

#
# Accepted, and not known to be
#

my $serial = 0;

# No backing off from before, nor the trying with one message that follows it,
# and a connection to keep
sub begin_anew
{
	$node->sql(q(SELECT postmark_resume()));
	$node->enqueue(1, prefix => 'anew' . ++$serial . '-');
	return $node->wait_finished;
}

# How many messages requests had together
sub messages_of
{
	my $n = 0;
	$n += scalar @{ $_->{body}{Messages} } foreach @_;
	return $n;
}

foreach my $case (
	[ 'reset after acceptance', { drop => 'after_accept' } ],
	[ 'closed after acceptance', { drop => 'after_accept', close => 'fin' } ],
	[
		'reset after acceptance on a kept connection',
		{ drop => 'after_accept' },
		reused => JSON::PP::true
	],
	[
		'closed after acceptance on a kept connection',
		{ drop => 'after_accept', close => 'fin' },
		reused => JSON::PP::true
	],
	[ '500 after acceptance', { status => 500, accept => JSON::PP::true } ],
	[ 'time-out after acceptance', { latency_after => 20 } ],
	[ 'truncated 200', { garble => 'truncated' } ])
{
	my ($name, $action, %rule) = @$case;
	my $prefix = 'accepted' . ++$serial . '-';

	begin_anew();
	my $since = $sandbox->last_request;
	my $id = $sandbox->rule(
		path => '/email*',
		times => 1,
		action => $action,
		%rule);
	$node->enqueue(20, prefix => $prefix);
	ok($node->wait_finished, "$name: the messages are finished");
	is( $node->sql(
			"SELECT string_agg(DISTINCT status, ' ') FROM postmark_messages WHERE email LIKE '$prefix%'"
		),
		'sent',
		"$name: as sent");
	is(scalar(sends($since)), 1, "$name: by one request");
	cmp_ok(scalar(searches($since)), '>=', 1, "$name: which was looked up");
	message_ids_agree($prefix, "$name: with the MessageIDs of Postmark");
	my ($request) = sends($since);
	my ($search) = searches($since);
	cmp_ok($search->{received_us} - $request->{received_us},
		'>=', 200_000, "$name: after the settling time");
	my $batch = $request->{body}{Messages}[0]{Metadata}{postmark_batch};
	like(
		ref $search->{query}
		? JSON::PP->new->encode($search->{query})
		: $search->{query},
		qr/$batch/,
		"$name: by its batch");
	$sandbox->clear_rules($id);
}

#
# The same in a stream that a search has to name
#

$node->sql(q(SELECT postmark_configure(postmark_config() || '{"messageStream": "broadcast"}')));
begin_anew();
{
	my $since = $sandbox->last_request;
	my $id = $sandbox->rule(
		path => '/email*',
		times => 1,
		action => { latency_after => 20 });
	$node->enqueue(20, prefix => 'stream');
	ok($node->wait_finished, 'another stream: the messages are finished');
	is(scalar(sends($since)), 1, 'another stream: by one request');
	cmp_ok(scalar(searches($since)), '>=', 1, 'another stream: which was looked up');
	$sandbox->clear_rules($id);
}

# The connector gets another stream while it is in doubt what it sent
begin_anew();
{
	my $since = $sandbox->last_request;
	my $sent = $sandbox->counts->{requests}{'/email/batchWithTemplates'};
	my $duplicates = $sandbox->counts->{duplicates};
	my $id = $sandbox->rule(
		path => '/email*',
		times => 1,
		action => { drop => 'after_accept' });
	my $lagging = $sandbox->rule(
		path => '/messages/outbound*',
		action => { status => 500 });
	$node->enqueue(20, prefix => 'moved');
	ok( $sandbox->wait_requests(
			$sent + 1, path => '/email/batchWithTemplates'),
		'a changed stream: a request is in doubt');
	$node->sql(q(SELECT postmark_configure(postmark_config() || '{"messageStream": "outbound"}')));
	$sandbox->clear_rules($lagging);
	ok($node->wait_finished, 'a changed stream: the messages are finished');
	is(scalar(sends($since)), 1, 'a changed stream: by one request');
	is($sandbox->counts->{duplicates},
		$duplicates, 'a changed stream: nothing was mailed twice');
	$sandbox->clear_rules($id);
}

#
# Not accepted, and not known to be
#

foreach my $case (
	[ 'reset before acceptance', { drop => 'before_accept' } ],
	[ 'closed before acceptance', { drop => 'before_accept', close => 'fin' } ],
	[ '500 without acceptance', { status => 500 } ],
	[ 'time-out before acceptance', { latency => 20, status => 500 } ])
{
	my ($name, $action) = @$case;
	my $prefix = 'unaccepted' . ++$serial . '-';

	begin_anew();
	my $since = $sandbox->last_request;
	my $id = $sandbox->rule(path => '/email*', times => 1, action => $action);
	$node->enqueue(20, prefix => $prefix);
	ok($node->wait_finished, "$name: the messages are finished");
	cmp_ok(scalar(searches($since)), '>=', 1, "$name: they were looked up");
	is(messages_of(sends($since)), 40, "$name: and sent again, once");
	message_ids_agree($prefix, "$name: with the MessageIDs of Postmark");
	$sandbox->clear_rules($id);
}
$node->accounted('so far each message arrived once');

#
# Some accepted, some not
#

begin_anew();
my $since = $sandbox->last_request;
$sandbox->rule(
	recipient => 'partly7@t.example',
	times => 1,
	action => { refuse => { error_code => 100, message => 'Not now' } });
$sandbox->rule(
	path => '/email*',
	times => 1,
	action => { garble => 'truncated' });
$node->enqueue(20, prefix => 'partly');
ok($node->wait_finished, 'partly accepted: the messages are finished');
is( join(' ', map { scalar @{ $_->{body}{Messages} } } sends($since)),
	'20 1', 'partly accepted: only what is missing is sent again');
$sandbox->clear_rules;

#
# Full requests, several at a time
#

begin_anew();
$since = $sandbox->last_request;
$sandbox->rule(
	path => '/email*',
	times => 3,
	action => { drop => 'after_accept' });
$node->enqueue(2000, prefix => 'full');
ok($node->wait_finished, 'full requests in doubt are finished');
my @sends = sends($since);
is(scalar(@sends), 4, 'none of them is sent again');
$sandbox->clear_rules;

#
# The search fails, or lags
#

begin_anew();
$since = $sandbox->last_request;
$sandbox->rule(
	path => '/email*',
	times => 1,
	action => { drop => 'after_accept' });
$sandbox->rule(
	path => '/messages/outbound',
	times => 2,
	action => { status => 500 });
$node->enqueue(20, prefix => 'searchfails');
ok($node->wait_finished, 'a search that fails is tried again');
is(scalar(searches($since)), 3, 'until it succeeds');
is(scalar(sends($since)), 1, 'and nothing is sent again meanwhile');
$sandbox->clear_rules;

# Others are sent while some are in doubt
begin_anew();
$sandbox->rule(
	recipient => 'doubtful1@t.example',
	times => 1,
	action => { drop => 'after_accept' });
my $search =
  $sandbox->rule(path => '/messages/outbound', action => { status => 503 });
my $asked = searches(0);
$node->enqueue(1, prefix => 'doubtful');
ok( $sandbox->wait_requests($asked + 1, path => '/messages/outbound'),
	'a message is in doubt');
$node->enqueue(30, prefix => 'meanwhile');
ok( $node->poll_query_until(
		'postgres',
		q(SELECT count(*) = 30 FROM postmark_messages WHERE email LIKE 'meanwhile%' AND status = 'sent')
	),
	'a message in doubt holds up no others');
is( $node->sql(
		q(SELECT status FROM postmark_messages WHERE email = 'doubtful1@t.example')
	),
	'sending',
	'and stays "sending"');
is( $node->sql(
		q(SELECT postmark_cancel(id) FROM postmark_messages WHERE email = 'doubtful1@t.example')
	),
	'f',
	'and cannot be cancelled');
$sandbox->clear_rules;
ok($node->wait_finished, 'it is finished once the search works');
$node->accounted('each message arrived once');

#
# in_doubt: a code that is about to expire cannot wait for the search
#

sub about_to_expire
{
	my ($prefix, $in_doubt, $action) = @_;

	$node->append_conf('postgresql.conf',
		"postmark_connector.in_doubt = $in_doubt\n");
	$node->configure();
	$node->reload;
	$sandbox->rule(path => '/email*', times => 1, action => $action);
	$sandbox->rule(
		path => '/messages/outbound',
		action => { status => 503 });
	$node->enqueue(3, prefix => $prefix, expires_in => "'6 s'");
	$node->wait_finished;
	$sandbox->clear_rules;
	return $node->sql(
		"SELECT string_agg(DISTINCT status, ' ') FROM postmark_messages WHERE email LIKE '$prefix%'"
	);
}

sub arrived
{
	my ($prefix) = @_;
	my $sum = 0;
	$sum += $_->[2] foreach grep { $_->[1] =~ /^$prefix/ } $sandbox->ids;
	return $sum;
}

is(about_to_expire('resend', 'resend', { drop => 'before_accept' }),
	'sent', 'in_doubt = resend: sent again before the code expires');
is(arrived('resend'), 3, 'in_doubt = resend: and it arrives');
is(about_to_expire('hold', 'hold', { drop => 'after_accept' }),
	'expired', 'in_doubt = hold: expired, not sent again');
is(arrived('hold'), 3, 'in_doubt = hold: nobody gets it twice');
like(
	$node->sql(
		q(SELECT last_error FROM postmark_messages WHERE email = 'hold1@t.example')
	),
	qr/may have been sent/,
	'in_doubt = hold: last_error says so');
is( $node->sql(
		q(SELECT count(*) FROM postmark_history WHERE email LIKE 'hold%' AND code IS NOT NULL)
	),
	0,
	'in_doubt = hold: the code is gone');

$node->accounted('each message arrived once, in the end',
	only => qr/^(?!hold)/);
$node->stop;
done_testing();
