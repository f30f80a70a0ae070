# What is believed of an answer: bounds, whose it is, and what it may ask for.
# Each of these would pass unnoticed if it were wrong.

use strict;
use warnings FATAL => 'all';

use File::Temp;
use IO::Select;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use OddPostmark;
use PostmarkSandbox;
use PostmarkCluster;
use PostmarkExtra;

my $sandbox = PostmarkSandbox->new();
my $odd = OddPostmark->new();

# OpenSSL's defaults would hide what we ask it for: let it take what is old.
my $openssl = File::Temp->new(SUFFIX => '.cnf');
print $openssl <<'CNF';
openssl_conf = default
[default]
ssl_conf = ssl
[ssl]
system_default = system
[system]
MinProtocol = TLSv1
CipherString = DEFAULT@SECLEVEL=0
CNF
$openssl->flush;
chmod 0644, $openssl->filename;
my $node;
{
	local $ENV{OPENSSL_CONF} = $openssl->filename;
	$node = PostmarkCluster->new('main', sandbox => $sandbox);
}

sub send_error
{
	return PostmarkExtra::error_of($node,
		"SELECT postmark_send('m1\@t.example', 'Register', '493021'"
		  . ($_[0] // '')
		  . ')');
}

sub status_of
{
	my ($id) = @_;
	return $node->sql("SELECT status FROM postmark_messages WHERE id = $id");
}

#
# Bounds
#

PostmarkExtra::reload($node, api_url => $odd->url);
foreach my $mode (qw(endless announce))
{
	$odd->mode($mode);
	my $began = time();
	my $error = send_error();
	like($error->{detail}, qr/longer than allowed.*may have been sent/s,
		"$mode: the reply is longer than allowed")
	  or diag($error->{err});
	cmp_ok(time() - $began, '<', 25, "$mode: which does not take a time-out");
}

# A reply of a million and a half of values takes what three megabytes take
sub peak_mb
{
	my ($pid) = @_;
	my ($kb) = slurp_file("/proc/$pid/status") =~ /^VmHWM:\s+(\d+) kB/m;
	return $kb / 1024;
}

$node->enqueue(10, prefix => 'warm');
$odd->mode('well');
ok( PostmarkCluster::until_true(
		sub {
			$node->sql(
				q(SELECT count(*) FROM postmark_messages WHERE status = 'sent' AND email LIKE 'warm%')
			) == 10;
		}),
	'the worker sends');
$odd->mode('numbers');
my $pid = $node->worker_pid;
my $before = peak_mb($pid);
my $id =
  $node->sql(q(SELECT postmark_enqueue('numbers@t.example', 'Register', '1')));
ok($node->wait_state('backing_off'), 'a reply of many values is none');
cmp_ok(peak_mb($pid) - $before, '<', 40, 'and takes no memory for each');
$odd->mode('well');
ok($node->wait_status($id, 'sent'), 'the message is sent then');

#
# Whose answer it is
#

# One that was accepted in the name of another one, for all we know
$odd->mode('stranger');
my $error = send_error();
is($error->{sqlstate}, 'PM008', 'an answer about somebody else is none');
like($error->{detail}, qr/another recipient.*may have been sent/,
	'DETAIL says that it may have been sent');
$id = $node->sql(
	q(SELECT postmark_enqueue('twin@t.example', 'Register', '493021')));
ok($node->wait_state('backing_off'), 'so it is for the worker');
like($node->sql('SELECT detail FROM postmark_status'),
	qr/another recipient/, 'which says so');
ok($node->wait_status($id, 'sent'), 'it is looked up and found');
is(scalar(() = $odd->requests(to => 'twin@t.example')), 1, 'and was sent once');
$odd->mode('well');
$node->sql('SELECT postmark_resume()');

# What has the same id, but was made another time, is another message
$odd->mode('other_id');
$id = $node->sql(
	q(SELECT postmark_enqueue('again@t.example', 'Register', '493021')));
ok( PostmarkCluster::until_true(
		sub { () = $odd->requests(to => 'again@t.example') }),
	'a message is sent, and in doubt');
ok( PostmarkCluster::until_true(
		sub {
			my @seen = $odd->requests;
			my ($first) = grep { ($seen[$_]{to}[0] // '') eq 'again@t.example' } 0 .. $#seen;
			grep { ($_->{path} // '') eq '/messages/outbound' } @seen[ $first .. $#seen ];
		}),
	'it is looked up');
ok( $node->poll_query_until(
		'postgres',
		"SELECT attempts > 0 AND status <> 'sent' FROM postmark_messages WHERE id = $id"
	),
	'a message of its number that was made another time is not taken for it');
$odd->mode('well');
$node->sql('SELECT postmark_resume()');
ok($node->wait_status($id, 'sent'), 'it is sent again');
is($node->sql("SELECT count(*) FROM postmark_messages WHERE id = $id AND message_id IS NOT NULL"),
	1, 'with a MessageID of its own');

# An answer that comes before the request
$odd->mode('early');
$error = send_error(q(, jsonb_build_object('x', repeat('y', 250000))));
is($error->{sqlstate}, 'PM008', 'an answer before the request is none');
like($error->{detail}, qr/before the request.*may have been sent/,
	'DETAIL says so');
$odd->mode('well');

#
# Retry-After
#

PostmarkExtra::reload($node, api_url => $sandbox->url);
my $rule = $sandbox->rule(
	path => '/email*',
	action => { status => 429, retry_after => 7200 });
$node->enqueue(1, prefix => 'patience');
ok($node->wait_state('backing_off'), 'a long Retry-After is heard');
like(
	$node->sql('SELECT detail FROM postmark_status'),
	qr/wait 7200 s\. It is tried again after 15 minutes all the same\./,
	'and the state says how far it is followed');
$sandbox->clear_rules;
$sandbox->rule(
	path => '/email*',
	action => { status => 429, retry_after => 600 });
$node->sql('SELECT postmark_resume()');
ok( $node->poll_query_until(
		'postgres', q(SELECT detail LIKE '%wait 600 s.' FROM postmark_status)),
	'a shorter one is followed');
$sandbox->clear_rules;
$node->sql('SELECT postmark_resume()');
ok($node->wait_finished, 'it goes on');

#
# The rate
#

PostmarkExtra::reload($node, batch_size => 1);
$node->configure(config => { maxRequestsPerSecond => 5 });

# Not before their time, whatever was saved up: the one before the first of
# them may have been just then, or long ago
foreach my $round (1, 2)
{
	my $n = 8;
	$node->enqueue($n, prefix => "rate$round-");
	ok($node->wait_finished, "round $round: all are sent");
	my @at = sort { $a <=> $b } map { $_->{received_us} / 1e6 }
	  grep { ($_->{body}{Messages}[0]{To} // '') =~ /^rate$round-/ }
	  $sandbox->requests(path => '/email/batch*');
	is(scalar(@at), $n, "round $round: a request each");
	cmp_ok($at[-1] - $at[0], '>', ($n - 1) / 5 - 0.1,
		"round $round: not more than five a second");
	cmp_ok($at[-1] - $at[0], '<', ($n - 1) / 5 + 10,
		"round $round: nor for ever");
	my $until = time() + 1.5;
	PostmarkCluster::until_true(sub { time() > $until });
}
$node->configure();

#
# Turns of connectors: whoever has much to send does not keep others waiting
#

$sandbox->config(tokens => [ 'sandbox-token', 'much-token', 'late-token' ]);
$node->configure(connector => 'much', token => 'much-token');
$node->configure(connector => 'late', token => 'late-token');

# To claim takes longer than a turn of the worker's has, so that it has many
PostmarkExtra::reload($node, batch_size => 100, max_in_flight => 64);
$sandbox->rule(
	token => 'much-token',
	path => '/email*',
	action => { latency => 2 });
$node->sql(
	join ';',
	'BEGIN',
	PostmarkCluster::enqueue_sql(
		5000,
		prefix => 'much',
		connector => 'much',
		payload => q(jsonb_build_object('x', repeat('y', 2000)))),
	PostmarkCluster::enqueue_sql(1, prefix => 'late', connector => 'late'),
	'COMMIT');
ok($node->wait_finished, 'both are sent');
my @order = map { $_->{body}{Messages}[0]{To} =~ /^(much|late)/ ? $1 : () }
  sort { $a->{received_us} <=> $b->{received_us} }
  $sandbox->requests(path => '/email/batch*');
my ($place) = grep { $order[$_] eq 'late' } 0 .. $#order;
cmp_ok($place, '<', 20, 'whoever has little has a turn before all of the other');
$sandbox->clear_rules;
PostmarkExtra::reload($node, batch_size => undef, max_in_flight => undef);

#
# What an ErrorCode says, where only its class tells
#

foreach my $case (
	[ 1109, 'PM005', qr/Compare the code and the payload/ ],
	[ 1120, 'PM005', qr/Compare the code and the payload/ ],
	[ 1123, 'PM005', qr/Compare the code and the payload/ ],
	[ 1121, 'PM005', qr/Compare the code and the payload/ ],
	[ 1122, 'PM005', qr/Compare the code and the payload/ ],
	[ 402, 'PM005', qr/report the ErrorCode/ ],
	[ 9999, 'PM005', qr/Look the HTTP status and the ErrorCode up/ ])
{
	my ($code, $sqlstate, $hint) = @$case;
	$sandbox->rule(
		path => '/email*',
		action => { status => 422, error_code => $code });
	$error = send_error();
	is($error->{sqlstate}, $sqlstate, "ErrorCode $code: SQLSTATE");
	like($error->{hint}, $hint, "ErrorCode $code: HINT");
	$sandbox->clear_rules;
}

# A batch that 1123 refuses is taken apart
$sandbox->rule(
	recipient => 'field7@t.example',
	action => { status => 422, error_code => 1123 });
$node->enqueue(20, prefix => 'field');
ok($node->wait_finished, 'a batch refused with ErrorCode 1123 is finished');
is( $node->sql(
		q(SELECT string_agg(email || ' ' || error_code, ', ') FROM postmark_messages WHERE email LIKE 'field%' AND status = 'failed')
	),
	'field7@t.example 1123',
	'its culprit alone is failed');
$sandbox->clear_rules;

#
# TLS: what the client offers, though its OpenSSL would take older ones
#

my $deaf = PostmarkExtra::deaf_socket();
PostmarkExtra::reload($node, api_url => 'https://127.0.0.1:' . $deaf->sockport);
my $session = PostmarkExtra::background($node,
	"SET postmark_connector.request_timeout = '5s'",
	q(SELECT postmark_send('tls@t.example', 'Register', '493021')));
ok(IO::Select->new($deaf)->can_read(30), 'a client comes');
my $client = $deaf->accept;
my $hello = '';
while (length($hello) < 5 || length($hello) < 5 + unpack('n', substr($hello, 3, 2)))
{
	last unless IO::Select->new($client)->can_read(30);
	sysread($client, $hello, 65536, length $hello) or last;
}
close $client;
$session->finish;
is(join(' ', map { sprintf '%04x', $_ } offered_versions($hello)),
	'0304 0303', 'it offers TLS 1.3 and 1.2, and nothing older');

# The versions that a ClientHello offers: RFC 8446 4.1.2 and 4.2.1
sub offered_versions
{
	my ($record) = @_;
	my $body = substr($record, 5 + 4);
	my ($version, $rest) = (unpack('n', $body), substr($body, 2 + 32));
	$rest = substr($rest, 1 + unpack('C', $rest));
	$rest = substr($rest, 2 + unpack('n', $rest));
	$rest = substr($rest, 1 + unpack('C', $rest));
	$rest = substr($rest, 2);
	while (length($rest) >= 4)
	{
		my ($type, $length) = unpack('nn', $rest);
		return unpack('n*', substr($rest, 4 + 1, $length - 1)) if $type == 43;
		$rest = substr($rest, 4 + $length);
	}
	return ($version);
}

PostmarkExtra::reload($node, api_url => $sandbox->url);
my $log = slurp_file($node->logfile);
unlike($log, qr/TRAP|PANIC|terminated by signal/, 'nothing crashed');
$node->stop;
done_testing();
