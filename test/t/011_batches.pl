# What a batch looks like on the wire: its size, its number, its JSON.

use strict;
use warnings FATAL => 'all';

use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use PostmarkSandbox;
use PostmarkCluster;

my $sandbox = PostmarkSandbox->new();
my $node = PostmarkCluster->new('main', sandbox => $sandbox);

# Requests to the batch endpoint since a number
sub batches
{
	my ($since) = @_;
	return $sandbox->requests(
		path => '/email/batchWithTemplates',
		since => $since);
}

sub body_length { return $_[0]{headers}{'Content-Length'}; }

sub sizes { return map { scalar @{ $_->{body}{Messages} } } @_; }

#
# Numbers
#

my $n = 5000 * PostmarkCluster::load();
$sandbox->rule(path => '/email*', times => 20, action => { latency => 0.1 });
$node->enqueue($n);
ok($node->wait_finished, "$n messages are finished");
$node->accounted('each of them arrived once');
my @requests = batches(0);
my @too_large = grep { $_ > 500 } sizes(@requests);
is(scalar(@too_large), 0, 'no request has more than 500 messages');
cmp_ok(scalar(@requests), '<=', $n / 500 + 2,
	'and requests are full, as far as the messages go');
my $counts = $sandbox->counts;
cmp_ok($counts->{max_in_flight},
	'<=', 8, 'at most max_in_flight requests at a time');
cmp_ok($counts->{max_in_flight},
	'>=', 7, 'and as many as that, where there is enough to send');
my %connections = map { $_->{connection} => 1 } @requests;
cmp_ok(scalar(keys %connections),
	'<=', 8, 'requests share their connections');

$node->append_conf('postgresql.conf', <<'CONF');
postmark_connector.max_in_flight = 2
postmark_connector.batch_size = 7
CONF
$node->reload;

# How many are in flight is known from the request log this time
$node->sql('SELECT postmark_pause()');
ok($node->wait_state('paused'), 'the connector is paused');
$node->enqueue(70, prefix => 'seven');
$sandbox->rule(path => '/email*', action => { latency => 0.1 });
my $since = $sandbox->last_request;
$node->sql('SELECT postmark_resume()');
ok($node->wait_finished, 'messages are finished with other settings');
$sandbox->clear_rules;
@requests = batches($since);
is_deeply([ sizes(@requests) ],
	[ (7) x 10 ], 'batch_size holds after a reload');

my @changes = sort { $a->[0] <=> $b->[0] || $a->[1] <=> $b->[1] }
  map { ([ $_->{received_us}, 1 ], [ $_->{answered_us}, -1 ]) } @requests;
my ($now, $most) = (0, 0);
foreach my $change (@changes)
{
	$now += $change->[1];
	$most = $now if $now > $most;
}
is($most, 2, 'max_in_flight holds after a reload');
$node->append_conf('postgresql.conf', <<'CONF');
postmark_connector.max_in_flight = 8
postmark_connector.batch_size = 500
CONF
$node->reload;

#
# Sizes
#

$node->sql('SELECT postmark_pause()');
$node->enqueue(
	40,
	prefix => 'large',
	payload => q(jsonb_build_object('text', repeat('x', 200 * 1024))));
$node->enqueue(300, prefix => 'small');
$since = $sandbox->last_request;
$node->sql('SELECT postmark_resume()');
ok($node->wait_finished, 'large messages are finished');
@requests = batches($since);
my ($largest) = sort { $b <=> $a } map { body_length($_) } @requests;
cmp_ok($largest, '<', 1.3 * 1024 * 1024,
	'the body of a request stays near 1 MB');
cmp_ok($largest, '>', 0.7 * 1024 * 1024, 'and uses that');
is(scalar(map { @{ $_->{body}{Messages} } } @requests),
	340, 'all of them were sent');
my @lengths = map { length $_->{body}{Messages}[0]{TemplateModel}{text} // '' }
  grep { $_->{body}{Messages}[0]{To} =~ /^large/ } @requests;
is(scalar(grep { $_ != 200 * 1024 } @lengths),
	0, 'and their payloads are whole');

my $limit = $node->sql(
	q(SELECT octet_length(jsonb_build_object('t', repeat('y', 262000))::text)));
cmp_ok($limit, '<', 256 * 1024, 'a payload near the limit');
$node->enqueue(
	1,
	prefix => 'nearlimit',
	payload => q(jsonb_build_object('t', repeat('y', 262000))));
ok($node->wait_finished, 'is finished');
$node->accounted('large messages arrived once each');

#
# The JSON
#

sub one_request
{
	my ($address, $arguments, $database) = @_;
	my $since = $sandbox->last_request;
	$node->sql("SELECT postmark_enqueue('$address', $arguments)",
		$database);
	$node->wait_finished($database) or return {};
	my ($request) = batches($since);
	return $request;
}

my $request = one_request('plain@t.example', q('Register', '493021'));
is_deeply(
	[ keys %{ $request->{body} } ],
	['Messages'], 'a batch is an object with Messages');
my $message = $request->{body}{Messages}[0];
my $metadata = delete $message->{Metadata};
is_deeply(
	$message,
	{
		From => 'Shop <no-reply@shop.example>',
		TemplateAlias => 'logto-register',
		To => 'plain@t.example',
		TemplateModel => { code => '493021' },
		MessageStream => 'outbound',
		TrackOpens => JSON::PP::false,
		TrackLinks => 'None'
	},
	'a message is what it has to be');
is_deeply(
	[ sort keys %$metadata ],
	[ 'postmark_batch', 'postmark_id' ],
	'with metadata to find it by');
my $id_and_time = $node->sql(
	q(SELECT format('%s-%s', id, (extract(epoch FROM created_at - '2000-01-01 00:00:00+00'::timestamptz) * 1000000)::bigint)
	FROM postmark_messages WHERE email = 'plain@t.example'));
like($metadata->{postmark_id}, qr/^\d+-\d+$/,
	'postmark_id is more than an id');
is($metadata->{postmark_id}, $id_and_time,
	'postmark_id is the id and when it was created');
like(
	$metadata->{postmark_batch},
	qr/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/,
	'postmark_batch is a random uuid');
my %headers = map { lc($_) => $request->{headers}{$_} }
  keys %{ $request->{headers} };
like($headers{'content-type'}, qr{^application/json},
	'with Content-Type application/json');
like($headers{accept}, qr{^application/json}, 'and Accept application/json');
is($headers{expect}, undef, 'and without Expect: 100-continue');

my ($mail) = $sandbox->messages(recipient => 'plain@t.example');
is( $node->sql(
		q(SELECT message_id FROM postmark_messages WHERE email = 'plain@t.example')
	),
	lc $mail->{MessageID},
	'the MessageID is kept');

# Everything a connector may say
$node->configure(
	templates => [
		{
			usageType => 'SignIn',
			locale => 'de',
			templateAlias => 'logto-mfa-verification'
		}
	],
	config => {
		messageStream => 'broadcast',
		replyTo => 'Help <help@shop.example>',
		tag => 'signup "quoted"',
		trackOpens => JSON::PP::true,
		trackLinks => 'HtmlOnly'
	});
$request = one_request('full@t.example',
	q('SignIn', '12', '{"link": "https://a.example/?x=1&y=2", "user": {"name": "Ann"}, "code": "not this"}', 'de-AT')
);
$message = $request->{body}{Messages}[0];
delete $message->{Metadata};
is_deeply(
	$message,
	{
		From => 'Shop <no-reply@shop.example>',
		TemplateAlias => 'logto-mfa-verification',
		To => 'full@t.example',
		TemplateModel => {
			code => '12',
			link => 'https://a.example/?x=1&y=2',
			user => { name => 'Ann' }
		},
		MessageStream => 'broadcast',
		TrackOpens => JSON::PP::true,
		TrackLinks => 'HtmlOnly',
		ReplyTo => 'Help <help@shop.example>',
		Tag => 'signup "quoted"'
	},
	'every setting of the connector is in the message');
$node->configure();

$request = one_request('nomodel@t.example', q('Generic'));
is_deeply($request->{body}{Messages}[0]{TemplateModel},
	{}, 'without code and payload the model is empty');

#
# Characters
#

my $awkward =
  q({"emoji": "\ud83d\ude00 \ud83d\udc69\u200d\ud83d\udcbb", "quote": "a\"b\\\\c/d", "control": "\u0001\u001f\b\f\n\r\t\u007f", "line": "\u2028\u2029", "key \"q\"": [1, 1.50, 1e3, true, null, {}], "html": "</script>"});
my %awkward = (
	emoji => "\x{1F600} \x{1F469}\x{200D}\x{1F4BB}",
	quote => 'a"b\\c/d',
	control => "\x01\x1f\b\f\n\r\t\x7f",
	line => "\x{2028}\x{2029}",
	html => '</script>');
$request = one_request('awkward@t.example', "'Generic', NULL, E'"
	  . ($awkward =~ s/\\/\\\\/gr)
	  . "'::jsonb");
my $model = $request->{body}{Messages}[0]{TemplateModel};
is($model->{$_}, $awkward{$_}, "$_ characters arrive unharmed")
  foreach sort keys %awkward;
is_deeply([ @{ $model->{'key "q"'} }[ 0 .. 2 ] ],
	[ 1, 1.5, 1000 ], 'numbers, and a key with quotes, too');

$request = one_request('code@t.example', q('Generic', E'a"b\\\\c\t'));
is($request->{body}{Messages}[0]{TemplateModel}{code},
	"a\"b\\c\t", 'a code is escaped as JSON demands');

#
# Databases that are not in UTF-8
#

$node->sql(
	"CREATE DATABASE $_ TEMPLATE template0 ENCODING '$_' LC_COLLATE 'C' LC_CTYPE 'C'"
) foreach qw(latin1 sql_ascii);
$node->prepare_database('latin1');
$node->prepare_database('sql_ascii');
ok($node->wait_worker($_), "the $_ database has a worker")
  foreach qw(latin1 sql_ascii);

$request = one_request('latin1@t.example',
	q('Generic', NULL, jsonb_build_object('name', convert_from('\x4ae47267', 'LATIN1'))),
	'latin1');
is($request->{body}{Messages}[0]{TemplateModel}{name},
	"J\x{e4}rg", 'a LATIN1 database sends UTF-8');
like($request->{body}{Messages}[0]{To},
	qr/^latin1/, 'and that is its request');

$request = one_request('ascii@t.example',
	q('Generic', NULL, '{"name": "plain"}'), 'sql_ascii');
is($request->{body}{Messages}[0]{TemplateModel}{name},
	'plain', 'a SQL_ASCII database sends ASCII');
$request = one_request('asciiutf8@t.example',
	q('Generic', NULL, convert_from('\x7b226e616d65223a224ac3a47267227d', 'SQL_ASCII')::jsonb),
	'sql_ascii');
is($request->{body}{Messages}[0]{TemplateModel}{name},
	"J\x{e4}rg", 'a SQL_ASCII database sends what is UTF-8 as it is');

# An invalid byte is refused when it is queued, or sent in some valid form, but
# never holds up the queue.
$node->psql('sql_ascii',
	q(SELECT postmark_enqueue('asciibad@t.example', 'Generic', NULL, convert_from('\x7b226e616d65223a22ff22 7d', 'SQL_ASCII')::jsonb))
);
ok($node->wait_finished('sql_ascii'),
	'a byte that is no UTF-8 does not stay in the queue');

# Nor does one that comes into the queue past its check; what it was to be sent
# with is sent.
$node->sql('SELECT postmark_pause()', 'sql_ascii');
$node->sql(
	q(SELECT postmark_enqueue('past' || i || '@t.example', 'Generic', NULL, '{"name": "plain"}') FROM generate_series(1, 5) i),
	'sql_ascii');
$node->sql(
	q(BEGIN; ALTER TABLE postmark_queue DISABLE TRIGGER postmark_queue_row;
	UPDATE postmark_queue SET payload = convert_from('\x7b226e616d65223a22ff227d', 'SQL_ASCII')::jsonb WHERE email = 'past3@t.example';
	ALTER TABLE postmark_queue ENABLE ALWAYS TRIGGER postmark_queue_row; COMMIT),
	'sql_ascii');
$node->sql('SELECT postmark_resume()', 'sql_ascii');
ok($node->wait_finished('sql_ascii'), 'a payload that cannot be sent does not stay');
is( $node->sql(
		q(SELECT string_agg(substr(email, 5, 1) || ' ' || status, ', ' ORDER BY email) FROM postmark_messages WHERE email ~ '^past'),
		'sql_ascii'),
	'1 sent, 2 sent, 3 failed, 4 sent, 5 sent',
	'it alone fails');
like(
	$node->sql(
		q(SELECT last_error FROM postmark_messages WHERE email = 'past3@t.example'),
		'sql_ascii'),
	qr/cannot be converted to UTF-8/,
	'and is told why');

# Answers in UTF-8 are stored in such a database, too
$sandbox->rule(
	recipient => 'text@t.example',
	action =>
	  { refuse => { error_code => 300, message => "\x{20AC}\x{1F600} no" } });
foreach my $database (qw(latin1 sql_ascii))
{
	$node->sql(q(SELECT postmark_enqueue('text@t.example', 'Generic')),
		$database);
	ok($node->wait_finished($database),
		"a refusal in foreign characters is stored in the $database database");
	is( $node->sql(
			q(SELECT status FROM postmark_messages WHERE email = 'text@t.example'),
			$database),
		'failed',
		'as one');
}

is($sandbox->counts->{duplicates}, 0, 'nothing was sent twice');
unlike(slurp_file($node->logfile), qr/TRAP|PANIC|terminated by signal/,
	'nothing crashed');

$node->stop;
done_testing();
