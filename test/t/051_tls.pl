# Where requests go: TLS, redirects, proxies, and what api_url may be.

use strict;
use warnings FATAL => 'all';

use IO::Select;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use PostmarkSandbox;
use PostmarkCluster;
use PostmarkExtra;

# Proxies of the environment, to a port where nothing listens
my $nowhere = 'http://127.0.0.1:' . PostmarkExtra::free_port();
my %proxies = map { $_ => $nowhere }
  qw(http_proxy https_proxy HTTPS_PROXY all_proxy ALL_PROXY);

my $good = PostmarkSandbox->new(tls => 'good');
my $node;
{
	local %ENV = (%ENV, %proxies);
	$node = PostmarkCluster->new('main', sandbox => $good);
}

sub send_error
{
	return PostmarkExtra::error_of($node,
		"SELECT postmark_send('tls\@example.com', 'Register', '493021')");
}

# Queue a message and wait for its arrival.
my $queued = 0;

sub worker_sends
{
	my ($sandbox, $name) = @_;
	my $address = 'queued' . ++$queued . '@example.com';
	$node->sql("SELECT postmark_enqueue('$address', 'Register', '493021')");
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok(
		PostmarkCluster::until_true(
			sub { scalar(() = $sandbox->messages(recipient => $address)) }),
		$name);
}

#
# A good certificate
#

$node->sql("CREATE TABLE environment (line text); COPY environment FROM PROGRAM 'env | grep -i _proxy'");
like($node->sql('SELECT line FROM environment'), qr/^https_proxy=\Q$nowhere\E$/m,
	'the server has a proxy in its environment');
is(send_error()->{sqlstate}, '', 'postmark_send trusts ca_file');
worker_sends($good, 'the worker trusts ca_file');
is(scalar(() = $good->messages), 2, 'neither asks the environment for a proxy');

my $requests = scalar(() = $good->requests(path => '/email*'));
PostmarkExtra::reload($node, ca_file => '');
my $error = send_error();
is($error->{sqlstate}, 'PM008', 'without it the authority is not known');
unlike($error->{detail}, qr/may have been sent/, 'and nothing was sent');
like($error->{detail}, qr/certificate/i, 'DETAIL names the certificate');
like($error->{hint}, qr/ca_file/, 'HINT names ca_file');

PostmarkExtra::reload($node, ca_file => '/nonexistent/ca.pem');
$error = send_error();
is($error->{sqlstate}, 'PM008', 'a ca_file that is not there is PM008');
unlike($error->{detail}, qr/may have been sent/, 'and nothing was sent then');
PostmarkExtra::reload($node, ca_file => $good->ca_file);
is(scalar(() = $good->requests(path => '/email*')),
	$requests, 'the server saw no request of those');
worker_sends($good, 'the worker goes on when ca_file is right again');

#
# Bad certificates
#

foreach my $tls (qw(wrong_host unknown_ca))
{
	my $bad = PostmarkSandbox->new(tls => $tls);
	PostmarkExtra::reload($node,
		api_url => $bad->url,
		ca_file => $bad->ca_file);

	$error = send_error();
	is($error->{sqlstate}, 'PM008', "$tls: postmark_send is PM008");
	unlike($error->{detail}, qr/may have been sent/, "$tls: nothing was sent");
	like($error->{detail}, qr/certificate|SSL|host/i,
		"$tls: DETAIL says why");

	my $id = $node->sql(
		"SELECT postmark_enqueue('$tls\@example.com', 'Register', '493021')");
	ok($node->wait_state('backing_off'), "$tls: the worker backs off");
	is(scalar(() = $bad->requests), 0, "$tls: the server saw no request");
	PostmarkExtra::reload($node,
		api_url => $good->url,
		ca_file => $good->ca_file);
	ok($node->wait_status($id, 'sent'),
		"$tls: it is sent when api_url is right again");
}

# Plain HTTP where TLS is expected
my $plain = PostmarkSandbox->new();
PostmarkExtra::reload($node,
	api_url => 'https://127.0.0.1:' . $plain->port);
is(send_error()->{sqlstate}, 'PM008', 'a server without TLS is PM008');
is(scalar(() = $plain->requests(path => '/email*')), 0, 'it is sent nothing');

#
# Redirects
#

my $elsewhere = PostmarkExtra::deaf_socket();
PostmarkExtra::reload($node, api_url => $plain->url);
foreach my $status (301, 302, 303, 307, 308)
{
	$plain->rule(
		path => '/email*',
		action => {
			status => $status,
			headers => {
				Location => 'http://127.0.0.1:'
				  . $elsewhere->sockport
				  . '/email/withTemplate'
			}
		});
	$error = send_error();
	like($error->{sqlstate}, qr/^PM00[68]$/, "$status is an error");
	$plain->clear_rules;
}
$plain->rule(
	path => '/email*',
	action => {
		status => 307,
		headers => { Location => 'http://127.0.0.1:' . $elsewhere->sockport . '/' }
	});
my $id = $node->sql(
	"SELECT postmark_enqueue('redirect\@example.com', 'Register', '493021')");
ok($node->wait_state("blocked', 'backing_off"), 'the worker does not follow either');
ok(!IO::Select->new($elsewhere)->can_read(0), 'nothing goes elsewhere');
$plain->clear_rules;
$node->sql("SELECT postmark_resume()");
ok($node->wait_status($id, "sent', 'failed"),
	'the worker goes on when there is no redirect any more');

#
# postmark_connector.proxy
#

my $proxy = PostmarkExtra::deaf_socket();
my $proxy_url = 'http://127.0.0.1:' . $proxy->sockport;
PostmarkExtra::reload($node, proxy => $proxy_url);
my $session = PostmarkExtra::background($node,
	"SELECT postmark_send('proxy\@example.com', 'Register', '493021')");
my $raw = PostmarkExtra::read_request($proxy,
	"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
$session->finish;
like(
	$raw,
	qr{^POST http://127\.0\.0\.1:\d+/email/withTemplate HTTP/1\.1\r\n},
	'the proxy that is set is used');

# Through a tunnel the proxy does not see the token
PostmarkExtra::reload($node,
	api_url => $good->url,
	proxy => $proxy_url =~ s{//}{//user:geheim@}r);
$session = PostmarkExtra::background($node,
	"SELECT postmark_send('tunnel\@example.com', 'Register', '493021')");
$raw = PostmarkExtra::read_request($proxy,
	"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
my (undef, undef, $err) = $session->finish;
like($raw, qr{^CONNECT localhost:\d+ HTTP/1\.1\r\n}, 'https goes through a tunnel');
unlike($raw, qr/sandbox-token|493021/, 'of which the proxy sees no secret');
like($raw, qr/^Proxy-Authorization: Basic /m, 'the proxy gets its password');
unlike($err, qr/geheim/, 'which no error shows');
like($err, qr/PM008|unavailable/, 'a proxy that refuses is PM008');
like($err, qr/proxy/, 'and the HINT names it');

# The server's own line about a setting that changed has it, as of any setting.
is( scalar(
		grep { /geheim/ && !/parameter "postmark_connector.proxy" changed/ }
		  split /\n/,
		slurp_file($node->logfile)),
	0,
	'we log no password of a proxy');
PostmarkExtra::reload($node, proxy => undef);
worker_sends($good, 'without it all goes straight again');

#
# What api_url and proxy may be
#

sub refused
{
	my ($name, $value) = @_;
	my $result = PostmarkExtra::error_of($node,
		"ALTER SYSTEM SET postmark_connector.$name = '$value'");
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($result->{sqlstate}, '22023', "$name: \"$value\" is refused")
	  or diag($result->{err});
	return;
}

refused('api_url', $_)
  foreach (
	'http://api.postmarkapp.com', 'http://127.0.0.1.example',
	'http://localhost.example', 'http://128.0.0.1',
	'http://[::2]', 'http://127.1@evil.example',
	'https://user@api.postmarkapp.com', 'https://user:geheim@api.postmarkapp.com',
	'https://api.postmarkapp.com/?a=b', 'https://api.postmarkapp.com/#a',
	'ftp://127.0.0.1', 'file:///etc/passwd',
	'127.0.0.1', '',
	'https://', 'https://api.postmarkapp.com:0',
	'https://api.postmarkapp.com:65536', 'https://api.postmarkapp.com:8x',
	'https://api.postmarkapp.com\\@evil.example', 'https://a b',
	"https://api\tb", 'HTTP://example.com',);
refused('proxy', $_)
  foreach ('127.0.0.1:3128', 'ftp://127.0.0.1', 'http://', 'http://a b');
foreach my $good_url (
	'https://api.postmarkapp.com', 'https://api.postmarkapp.com/',
	'HTTPS://api.postmarkapp.com:443', 'http://localhost:8025',
	'http://127.9.9.9:8025', 'http://[::1]:8025',
	'https://[::1]:8025/below/')
{
	is( PostmarkExtra::error_of($node,
			"ALTER SYSTEM SET postmark_connector.api_url = '$good_url'")
		  ->{sqlstate},
		'',
		"api_url: \"$good_url\" is taken");
}

# A path below which the API is, with and without a slash at its end
foreach my $slash ('', '/')
{
	my $below = PostmarkExtra::deaf_socket();
	PostmarkExtra::reload($node,
		api_url => 'http://127.0.0.1:' . $below->sockport . "/below$slash");
	$session = PostmarkExtra::background($node,
		"SELECT postmark_send('path\@example.com', 'Register', '493021')");
	$raw = PostmarkExtra::read_request($below,
		"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n");
	$session->finish;
	like($raw, qr{^POST /below/email/withTemplate HTTP},
		"a path in api_url is kept, slash \"$slash\"");
}

done_testing();
