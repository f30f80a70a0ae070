# Every answer that Postmark may give, and what becomes of the message.

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
	conf => "postmark_connector.request_timeout = '2 s'\n");

my $serial = 0;

# A mail that the sandbox accepted?
sub accepted
{
	my ($email) = @_;
	my $count = 0;
	$count += $_->[2] foreach grep { $_->[1] eq $email } $sandbox->ids;
	return $count;
}

sub column
{
	my ($email, $column) = @_;
	return $node->sql(
		"SELECT $column FROM postmark_messages WHERE email = '$email'");
}

# One message among three in a batch gets an answer of its own.  Afterwards
# the rules are gone and the connector flows.
sub one_of_three
{
	my ($name, $status, $error_code, %action) = @_;
	my ($before, $email, $after) =
	  map { "$_" . ++$serial . '@t.example' } qw(before subject after);

	$sandbox->rule(recipient => $email, action => \%action);
	$node->sql(<<"SQL");
SELECT postmark_enqueue(email, 'Register', '123456', '{"secret": "s3cretvalue"}')
FROM (VALUES ('$before'), ('$email'), ('$after')) AS v(email)
SQL

	# A deferred one is tried again and again, and is "sending" meanwhile
	my $lasting = $status eq 'deferred' ? "deferred', 'sending" : $status;
	$node->poll_query_until('postgres', <<"SQL");
SELECT count(*) = 3 FROM postmark_messages
WHERE email IN ('$before', '$email', '$after')
	AND (status NOT IN ('queued', 'sending', 'deferred')
		OR (email = '$email' AND status IN ('$lasting') AND error_code IS NOT DISTINCT FROM nullif('$error_code', '')::integer))
SQL
	is( $node->sql(
			"SELECT status IN ('$lasting') FROM postmark_messages WHERE email = '$email'"
		),
		't',
		"$name: the message is $status");
	is(column($email, 'error_code'),
		$error_code, "$name: error_code is kept");
	is(column($before, 'status') . ' ' . column($after, 'status'),
		'sent sent', "$name: its neighbours are sent");
	unlike(column($email, 'last_error') || '',
		qr/123456|s3cretvalue/, "$name: no secret in last_error");
	is(accepted($before) . accepted($after), '11', "$name: once each");
	$sandbox->clear_rules;
	return $email;
}

#
# Single messages refused for good
#

foreach my $code (300, 402, 403, 409, 410, 411, 412, 1109, 1120, 1121, 1122,
	1123, 9999)
{
	my $email = one_of_three(
		"ErrorCode $code",
		'failed', $code,
		refuse => { error_code => $code, message => "Reason no. $code" });
	like(
		column($email, 'last_error'),
		qr/Reason no\. $code/,
		"ErrorCode $code: Postmark's text is kept") if $code == 300;
	is(column($email, 'attempts'),
		1, "ErrorCode $code: one attempt") if $code == 300;
}
one_of_three('ErrorCode 406', 'suppressed', 406,
	refuse => { error_code => 406, message => 'Inactive recipient' });

# A text that repeats the code and the payload
my $echoed = one_of_three(
	'echoing text',
	'failed', 300,
	refuse => {
		error_code => 300,
		message =>
		  "bad \x01 value 123456 in {\"secret\": \"s3cretvalue\"} " . 'x' x 1000
	});
cmp_ok(length(column($echoed, 'last_error')),
	'<=', 400, 'Postmark\'s text is cut');
unlike(column($echoed, 'last_error'),
	qr/[\x00-\x1f]/, 'and freed of control characters');

#
# Several errors
#

sub errors
{
	return (
		refuse => {
			error_code => 11,
			message => 'Several errors',
			errors => [@_]
		});
}

one_of_three(
	'ErrorCode 11',
	'failed', 300,
	errors({ ErrorCode => 300, Message => "Invalid 'To' address" }));
one_of_three(
	'ErrorCode 11 with an inactive recipient',
	'suppressed',
	406,
	errors(
		{ ErrorCode => 1120, Message => 'Missing' },
		{ ErrorCode => 406, Message => 'Inactive' }));
one_of_three('ErrorCode 11 without any', 'failed', 11, errors());

#
# Forms of acceptance
#

foreach my $form ([ 'without an ErrorCode', without_error_code => JSON::PP::true ],
	[ 'with an ErrorCode of digits', string_error_code => JSON::PP::true ])
{
	my ($name, %action) = @$form;
	my $email = one_of_three("acceptance $name", 'sent', '', %action);
	is(accepted($email), 1, "acceptance $name: sent once");
	my ($mail) = $sandbox->messages(recipient => $email);
	is( column($email, 'message_id'),
		lc $mail->{MessageID},
		"acceptance $name: the MessageID is kept");
}
one_of_three(
	'refusal with an ErrorCode of digits', 'suppressed',
	406, string_error_code => JSON::PP::true,
	refuse => { error_code => 406, message => 'Inactive' });

#
# For later
#

foreach my $code (100, 429, 1100)
{
	my $later = one_of_three("ErrorCode $code", 'deferred', $code,
		refuse => { error_code => $code, message => 'Not now' });
	$node->wait_finished;
	is(column($later, 'status') . ' ' . accepted($later),
		'sent 1', "ErrorCode $code: it is sent once that is over");
}

my $email;

#
# Trouble with the configuration, said of single messages
#

foreach my $code (10, 400, 401, 405, 413, 1221, 1226, 1227, 1235, 1236)
{
	$email = 'config' . $code . '@t.example';
	$sandbox->rule(recipient => $email,
		action => { refuse => { error_code => $code, message => "Trouble no. $code" } });
	$node->sql("SELECT postmark_enqueue('$email', 'Register', '123456')");
	ok($node->wait_state('blocked'),
		"ErrorCode $code blocks the connector");
	like(
		$node->sql("SELECT detail || ' ' || hint FROM postmark_status"),
		qr/Trouble no\. $code.*\w/,
		"ErrorCode $code: detail and hint say why");
	is(column($email, 'status') . ' ' . column($email, 'attempts'),
		'queued 0', "ErrorCode $code: the message is not failed for it");
	$sandbox->clear_rules;
	$node->sql(q(SELECT postmark_resume()));
	ok($node->wait_finished, "ErrorCode $code: the connector goes on");
	is(column($email, 'status') . ' ' . accepted($email),
		'sent 1', "ErrorCode $code: and sends the message once");
}

$email = 'from@t.example';
$sandbox->rule(recipient => $email,
	action =>
	  { refuse => { error_code => 300, message => "Invalid 'From' address: 'x'." } });
$node->sql("SELECT postmark_enqueue('$email', 'Register', '123456')");
ok($node->wait_state('blocked'),
	'ErrorCode 300 blocks the connector where it blames From');
$sandbox->clear_rules;
$node->sql(q(SELECT postmark_resume()));
ok($node->wait_finished, 'and goes on');

#
# Answers that say nothing certain: looked up, nothing is sent twice
#

# Three messages, the answer to whose request is spoilt once
sub whole
{
	my ($name, $finished, $accepted, %action) = @_;
	my @emails = map { "$_" . ++$serial . '@t.example' } qw(x y z);
	my $list = join ', ', map { "'$_'" } @emails;

	$sandbox->rule(path => '/email*', times => 1, action => \%action);
	my $searches = $sandbox->counts->{requests}{'/messages/outbound'} // 0;
	$node->sql(
		"SELECT postmark_enqueue(e, 'Register', '123456') FROM unnest(ARRAY[$list]) e"
	);
	ok( $node->poll_query_until(
			'postgres', <<"SQL"), "$name: the messages are finished");
SELECT count(*) = 3 FROM postmark_messages
WHERE email IN ($list) AND status NOT IN ('queued', 'sending', 'deferred')
SQL
	is(join(' ', map { column($_, 'status') } @emails),
		join(' ', ($finished) x 3), "$name: all are $finished");
	is(join(' ', map { accepted($_) } @emails),
		join(' ', ($accepted) x 3), "$name: each was accepted $accepted time(s)");
	if ($finished eq 'sent')
	{
		my %ids = map { $_->{Recipients}[0] => lc $_->{MessageID} }
		  $sandbox->messages(render => 0);
		is( join(' ', map { column($_, 'message_id') } @emails),
			join(' ', map { $ids{$_} } @emails),
			"$name: the MessageIDs are Postmark's");
	}
	$searches =
	  ($sandbox->counts->{requests}{'/messages/outbound'} // 0) - $searches;

	# End the backing off that the trouble began, and the trying with one
	# message that follows it
	$sandbox->clear_rules;
	$node->sql(q(SELECT postmark_resume()));
	my $id = $node->sql("SELECT postmark_enqueue('end" . ++$serial
		  . "\@t.example', 'Register', '123456')");
	$node->wait_status($id, 'sent');
	return $searches;
}

cmp_ok(whole($_->[0], 'sent', 1, @{$_}[ 1 .. $#$_ ]),
	'>=', 1, "$_->[0]: they were looked up")
  foreach (
	[ 'too few results', drop_results => 1 ],
	[ 'no results', drop_results => 3 ],
	[ 'too many results', extra_results => 1 ],
	[ 'not JSON', garble => 'not_json' ],
	[ 'not UTF-8', garble => 'not_utf8' ],
	[ 'half the JSON', garble => 'cut' ],
	[ 'nothing', garble => 'empty' ],
	[ 'truncated', garble => 'truncated' ],
	[ 'endless', garble => 'endless' ],
	[ 'byte by byte, too slowly', garble => 'slow', interval => 0.1 ],
	[ '500 although accepted', status => 500, accept => JSON::PP::true ],
	[ '502 although accepted', status => 502, accept => JSON::PP::true ],
	[ '504 although accepted', status => 504, accept => JSON::PP::true ],
	[ '500, not accepted', status => 500 ],
	[ '408, not accepted', status => 408 ],
	[
		'a JSON object in place of the list',
		status => 200,
		body => { Hello => 'World' }
	],
	[
		'results that are no objects',
		status => 200,
		body => [ 1, 'two', undef ]
	],
	[
		'results without MessageID',
		status => 200,
		body => [ map { { ErrorCode => 0, Message => 'OK' } } 1 .. 3 ]
	]);

is( whole(
		'byte by byte, in time',
		'sent', 1,
		garble => 'slow',
		interval => 0),
	0,
	'byte by byte, in time: nothing to look up');

# HTTP 200 with an ErrorCode is no success
whole('HTTP 200 with ErrorCode 300',
	'sent', 1,
	status => 200,
	error_code => 300,
	message => 'No');
is(whole('HTTP 200 with ErrorCode 100', 'sent', 1,
		status => 200,
		error_code => 100,
		message => 'Maintenance'),
	0, 'HTTP 200 with ErrorCode 100: nothing to look up');

#
# Redirects
#

foreach my $status (301, 302, 307, 308)
{
	my $id = $sandbox->rule(
		path => '/email*',
		action => {
			status => $status,
			headers => { Location => $sandbox->url . '/elsewhere' }
		});
	$email = "redirect$status\@t.example";
	$node->sql("SELECT postmark_enqueue('$email', 'Register', '123456')");
	ok($node->wait_state('blocked'),
		"HTTP $status blocks the connector");
	is(scalar($sandbox->requests(path => '/elsewhere*')),
		0, "HTTP $status is not followed");
	$sandbox->clear_rules($id);
	$node->sql(q(SELECT postmark_resume()));
	ok($node->wait_finished, "HTTP $status: the connector goes on");
	is(accepted($email), 1, "HTTP $status: and sends once");
}

# An unknown template holds up messages of its usage type until it is there:
# tried again now and then, and at once when the settings change
$email = one_of_three('ErrorCode 1101', 'deferred', 1101,
	refuse => { error_code => 1101, message => 'Template not found' });
$node->configure();
ok( PostmarkCluster::until_true(
		sub { column($email, 'status') eq 'sent' && accepted($email) == 1 },
		10),
	'ErrorCode 1101: it is sent once the settings change');

is($sandbox->counts->{duplicates}, 0, 'nothing was sent twice');
my $log = slurp_file($node->logfile);
unlike($log, qr/TRAP|PANIC|terminated by signal/, 'nothing crashed');
unlike($log, qr/sandbox-token|s3cretvalue/, 'no secret in the log');
is( $node->sql(
		q(SELECT count(*) FROM postmark_history WHERE status <> 'failed' AND (code IS NOT NULL OR payload IS NOT NULL))
	),
	'0',
	'the code and payload of what is not failed are gone');

$node->stop;
done_testing();
