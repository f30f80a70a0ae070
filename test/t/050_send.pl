# postmark_send: what is sent, what comes back, and that a session which waits
# for the network can always be stopped.

use strict;
use warnings FATAL => 'all';

use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use PostmarkSandbox;
use PostmarkCluster;
use PostmarkExtra;

# A cancelled session answers within 100 ms; a loaded machine is given more.
my $PROMPT_MS = 300;

my $sandbox = PostmarkSandbox->new();
my $node = PostmarkCluster->new('main', sandbox => $sandbox);

sub last_request
{
	my ($path) = @_;
	return ($sandbox->requests(path => $path // '/email*', limit => 1))[-1];
}

sub send_error
{
	my ($email, $more) = @_;
	return PostmarkExtra::error_of($node,
		"SELECT postmark_send('$email', 'Register', '493021'"
		  . ($more // '')
		  . ')');
}

#
# What is sent
#

my $id =
  $node->sql("SELECT postmark_send('ann\@example.com', 'Register', '493021')");
my ($mail) = $sandbox->messages(recipient => 'ann@example.com');
is($id, $mail->{MessageID}, 'postmark_send returns the MessageID');
like($mail->{TextBody}, qr/493021/, 'the mail has the code');

my $request = last_request();
is($request->{path}, '/email/withTemplate', 'one call, of withTemplate');
is($request->{method}, 'POST', 'as POST');
my %headers = map { lc($_) => $request->{headers}{$_} }
  ref $request->{headers} eq 'HASH' ? keys %{ $request->{headers} } : ();
like($headers{'content-type'}, qr{^application/json}, 'the body is JSON');
is($headers{accept}, 'application/json', 'so is to be the answer');

my $body = $request->{body};
is($body->{From}, 'Shop <no-reply@shop.example>', 'From is fromEmail');
is($body->{TemplateAlias}, 'logto-register',
	"TemplateAlias is the usage type's");
is($body->{To}, 'ann@example.com', 'To is the recipient');
is_deeply(
	$body->{TemplateModel},
	{ code => '493021' },
	'TemplateModel has the code and nothing else');
is($body->{MessageStream}, 'outbound', 'the stream is outbound by default');
is($body->{TrackOpens}, JSON::PP::false, 'opens are not tracked');
is($body->{TrackLinks}, 'None', 'nor links');

$node->sql(
	q(SELECT postmark_send('pay@example.com', 'SignIn', '7"\\8', '{"name": "Zoë \"Q\" \\\\ / \u0001\t\n 😀 中", "list": [1, 2.50, null, true], "code": "theirs"}')));
$body = last_request()->{body};
is( $body->{TemplateModel}{name},
	"Zo\x{eb} \"Q\" \\ / \x01\t\n \x{1F600} \x{4e2d}",
	'quotes, backslashes, control characters and emoji arrive as they were');
is_deeply(
	$body->{TemplateModel}{list},
	[ 1, 2.5, undef, JSON::PP::true ],
	'so do other JSON values');
is($body->{TemplateModel}{code}, '7"\\8', "the argument's code wins");

is( $node->sql(
		"SELECT postmark_send('nocode\@example.com', 'Register', NULL, '{\"link\": \"https://shop.example/x\"}') IS NOT NULL"
	),
	't',
	'a message may have a payload and no code');
$body = last_request()->{body};
is_deeply(
	$body->{TemplateModel},
	{ link => 'https://shop.example/x' },
	'then the model has no code');

is( $node->sql(
		"BEGIN TRANSACTION READ ONLY; SELECT postmark_send('ro\@example.com', 'Register', '493021') IS NOT NULL; COMMIT"
	),
	't',
	'postmark_send works in a read-only transaction');
$node->sql(
	"BEGIN; SELECT postmark_send('rolled\@example.com', 'Register', '493021'); ROLLBACK"
);
is(scalar(() = $sandbox->messages(recipient => 'rolled@example.com')),
	1, 'a rollback does not take a sent mail back');
$node->sql("SELECT postmark_pause()");
is( $node->sql(
		"SELECT postmark_send('paused\@example.com', 'Register', '493021') IS NOT NULL"
	),
	't',
	'postmark_send ignores a pause');
$node->sql("SELECT postmark_resume()");
is($node->sql('SELECT count(*) FROM postmark_messages'),
	0, 'none of it left a row');

# On the wire
my $deaf = PostmarkExtra::deaf_socket();
PostmarkExtra::reload($node, api_url => 'http://127.0.0.1:' . $deaf->sockport);
my $session = PostmarkExtra::background($node,
	q(SELECT postmark_send('wire@example.com', 'SignIn', '7"\8', '{"name": "Zoë 😀"}'))
);
my $raw = PostmarkExtra::read_request($deaf, "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n");
$session->finish;
like($raw, qr{^POST /email/withTemplate HTTP/1\.1\r\n},
	'the path is that below api_url');
like($raw, qr/\r\nX-Postmark-Server-Token: sandbox-token\r\n/i,
	'the token is a header');
unlike($raw, qr/\r\n(?:Cookie|Authorization):/i, 'there is no other secret');
my ($wire) = $raw =~ /\r\n\r\n(.*)/s;
like(
	$wire,
	qr/^\{\s*"From":.*"TemplateAlias":.*"To":.*"TemplateModel":/s,
	'the fields come in the order in which Logto sends them');
like($wire, qr/Zo\xc3\xab \xf0\x9f\x98\x80/,
	'what is not ASCII is raw UTF-8');
like($wire, qr/"7\\"\\\\8"/, 'quotes and backslashes are escaped');
PostmarkExtra::reload($node, api_url => $sandbox->url);

# Another encoding
$node->sql(
	"CREATE DATABASE latin1 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
);
$node->prepare_database('latin1');
$node->safe_psql('latin1',
	q(SELECT postmark_send('latin@example.com', 'Register', '493021', jsonb_build_object('name', 'Zo' || chr(235)))
));
$body = last_request()->{body};
is($body->{TemplateModel}{name},
	"Zo\x{eb}", 'a LATIN1 database sends UTF-8');
my ($latin) = $sandbox->messages(recipient => 'latin@example.com');
ok(defined $latin, 'and Postmark takes it');

# Keep-alive
my $number = last_request()->{number};
$node->sql(
	join ';',
	map {
		"SELECT postmark_send('keep$_\@example.com', 'Register', '493021')"
	} 1 .. 4);
my @requests = $sandbox->requests(path => '/email*', since => $number);
@requests = grep { $_->{number} > $number } @requests;
is(scalar(@requests), 4, 'four messages are four requests');
my %connections = map { $_->{connection} => 1 } @requests;
is(scalar(keys %connections),
	1, 'a session sends them over one connection');
is_deeply(
	[ map { $_->{on_connection} - $requests[0]{on_connection} } @requests ],
	[ 0 .. 3 ],
	'one after another');

# A connection that died between two requests is nobody's fault
$sandbox->rule(
	path => '/email*',
	times => 1,
	action => { close_after => JSON::PP::true });
is( $node->sql(
		join ';',
		map {
			"SELECT postmark_send('dead$_\@example.com', 'Register', '493021') IS NOT NULL"
		} 1 .. 2),
	"t\nt",
	'a kept connection that the server closed is replaced');
is(scalar(() = $sandbox->messages(recipient => "dead$_\@example.com")),
	1, "message $_ of them was sent once")
  foreach 1 .. 2;
$sandbox->clear_rules;

#
# Errors
#

my $MAYBE = qr/may have been sent/;

# name, rule, SQLSTATE, DETAIL, HINT, may have been sent
my @faults = (
	[
		'401, ErrorCode 10', { status => 401 },
		'PM006', qr/HTTP status 401, Postmark ErrorCode 10/,
		qr/postmark_set_token/, 0
	],
	[
		'ErrorCode 400, sender signature',
		{ status => 422, error_code => 400 },
		'PM006', qr/HTTP status 422, Postmark ErrorCode 400/,
		qr/sender signature/, 0
	],
	[
		'ErrorCode 401, unconfirmed sender',
		{ status => 422, error_code => 401 },
		'PM006', qr/Postmark ErrorCode 401/, qr/sender signature/, 0
	],
	[
		'ErrorCode 405, no credits',
		{ status => 422, error_code => 405 },
		'PM006', qr/ErrorCode 405/, qr/credits/, 0
	],
	[
		'ErrorCode 413, account',
		{ status => 422, error_code => 413 },
		'PM006', qr/ErrorCode 413/, qr/account/, 0
	],
	[
		'ErrorCode 1226, stream',
		{ status => 422, error_code => 1226 },
		'PM006', qr/ErrorCode 1226/, qr/messageStream/, 0
	],
	[
		'ErrorCode 406, inactive recipient',
		{ status => 422, error_code => 406 },
		'PM004', qr/ErrorCode 406/, qr/[Ss]uppressions/, 0
	],
	[
		'ErrorCode 1101, unknown alias',
		{ status => 422, error_code => 1101 },
		'PM002', qr/ErrorCode 1101/, qr/template/, 0
	],
	[
		'ErrorCode 300', { status => 422, error_code => 300 },
		'PM005', qr/ErrorCode 300/, qr/address/, 0
	],
	[
		'ErrorCode 1109, model',
		{ status => 422, error_code => 1109 },
		'PM005', qr/ErrorCode 1109/, qr/payload/, 0
	],
	[
		'413', { status => 413, error_code => 300 },
		'PM005', qr/HTTP status 413/,
		qr/payload smaller/, 0
	],
	[
		'429', { status => 429, retry_after => 7 },
		'PM007', qr/HTTP status 429.*wait 7 s/, qr/./, 0
	],
	[
		'503', { status => 503 }, 'PM008', qr/HTTP status 503/, qr/later/, 0
	],
	[
		'ErrorCode 100, maintenance',
		{ status => 422, error_code => 100 },
		'PM008', qr/ErrorCode 100/, qr/later/, 0
	],
	[
		'500', { status => 500 }, 'PM008', qr/HTTP status 500/,
		qr/Activity/, 1
	],
	[
		'502', { status => 502 }, 'PM008', qr/HTTP status 502/,
		qr/Activity/, 1
	],
	[ 'HTML with 200', { garble => 'not_json' }, 'PM008', qr/./, qr/Activity/, 1 ],
	[ 'half a JSON', { garble => 'cut' }, 'PM008', qr/./, qr/Activity/, 1 ],
	[ 'half an answer', { garble => 'truncated' }, 'PM008', qr/./, qr/Activity/, 1 ],
	[ 'an empty answer', { garble => 'empty' }, 'PM008', qr/./, qr/Activity/, 1 ],
	[ 'invalid UTF-8', { garble => 'not_utf8' }, 'PM008', qr/./, qr/Activity/, 1 ],
	[ 'an endless answer', { garble => 'endless' }, 'PM008', qr/./, qr/Activity/, 1 ],
	[
		'a reset after acceptance', { drop => 'after_accept' },
		'PM008', qr/./, qr/Activity/, 1
	],
	[
		'an end after the body',
		{ drop => 'before_accept', close => 'fin' },
		'PM008', qr/./, qr/Activity/, 1
	],
	[
		'200 with ErrorCode 406', { status => 200, error_code => 406 },
		'PM004', qr/ErrorCode 406/, qr/./, 0
	],);

foreach my $fault (@faults)
{
	my ($name, $action, $sqlstate, $detail, $hint, $maybe) = @$fault;
	my $before = $sandbox->counts->{requests}{'/email/withTemplate'} // 0;

	$sandbox->rule(path => '/email/withTemplate', action => $action);
	my $error = send_error('fault@example.com');
	$sandbox->clear_rules;

	is($error->{sqlstate}, $sqlstate, "$name: SQLSTATE")
	  or diag($error->{err});
	like($error->{detail}, $detail, "$name: DETAIL");
	like($error->{hint}, $hint, "$name: HINT");
	if ($maybe)
	{
		like($error->{detail}, $MAYBE, "$name: may have been sent");
	}
	else
	{
		unlike($error->{detail} . $error->{message},
			$MAYBE, "$name: certainly not sent");
	}
	unlike($error->{message} . $error->{detail} . $error->{hint},
		qr/493021|sandbox-token/, "$name: shows neither code nor token");
	is($sandbox->counts->{requests}{'/email/withTemplate'},
		$before + 1, "$name: one request");
}

# Time-outs
$sandbox->rule(path => '/email*', action => { latency_after => 30 });
my $error = PostmarkExtra::error_of($node, <<'SQL');
SET postmark_connector.request_timeout = '200ms';
SELECT postmark_send('late@example.com', 'Register', '493021');
SQL
is($error->{sqlstate}, 'PM008', 'a time-out is PM008');
like($error->{detail}, $MAYBE, 'after which the message may have been sent');
$sandbox->clear_rules;

# Nothing listens, or nobody accepts
PostmarkExtra::reload($node,
	api_url => 'http://127.0.0.1:' . PostmarkExtra::free_port());
$error = send_error('refused@example.com');
is($error->{sqlstate}, 'PM008', 'a refused connection is PM008');
unlike($error->{detail}, $MAYBE, 'and nothing was sent');
like($error->{hint}, qr/api_url/, 'the HINT names api_url');

my ($full, $fill) = PostmarkExtra::full_socket();
PostmarkExtra::reload($node, api_url => 'http://127.0.0.1:' . $full->sockport);
$error = PostmarkExtra::error_of($node, <<'SQL');
SET postmark_connector.connect_timeout = '200ms';
SELECT postmark_send('unconnected@example.com', 'Register', '493021');
SQL
is($error->{sqlstate}, 'PM008', 'a connection that is never made is PM008');
unlike($error->{detail}, $MAYBE, 'and nothing was sent then either');
undef $fill;
close $full;
PostmarkExtra::reload($node, api_url => $sandbox->url);

# What is refused before Postmark is asked
my $asked = scalar(() = $sandbox->requests);
foreach my $case (
	[ "'nobody', 'Register', '493021'", 'PM003', 'an address without @' ],
	[ "'a\@example.com,b\@example.com', 'Register', '1'", 'PM003', 'two addresses' ],
	[ "'Ann <ann\@example.com>', 'Register', '1'", 'PM003', 'an address with a name' ],
	[ "' ann\@example.com', 'Register', '1'", 'PM003', 'a leading space' ],
	[ "E'ann\@example.com\\r\\nBcc: x\@example.com', 'Register', '1'", 'PM003', 'a line break' ],
	[ "'ann\@b\x{c3}\x{bc}cher.example', 'Register', '1'", 'PM003', 'a non-ASCII domain' ],
	[ "NULL, 'Register', '1'", 'PM003', 'no recipient' ],
	[ "'ann\@example.com', NULL, '1'", 'PM003', 'no usage type' ],
	[ "'ann\@example.com', 'Register', repeat('1', 65)", 'PM003', 'a code of 65 bytes' ],
	[ "'ann\@example.com', 'Register', '1', '[1]'", 'PM003', 'a payload that is no object' ],
	[ "'ann\@example.com', 'Register', '1', jsonb_build_object('x', repeat('y', 300000))", 'PM003', 'a payload of 300 kB' ],
	[ "'ann\@example.com', 'Regster', '1'", 'PM002', 'an unknown usage type' ],
	[ "'ann\@example.com', 'Register', '1', connector => 'nosuch'", 'PM001', 'an unknown connector' ],)
{
	my ($arguments, $sqlstate, $name) = @$case;
	my $refused =
	  PostmarkExtra::error_of($node, "SELECT postmark_send($arguments)");
	is($refused->{sqlstate}, $sqlstate, "$name is $sqlstate")
	  or diag($refused->{err});
}
like(
	PostmarkExtra::error_of($node,
		"SELECT postmark_send('ann\@example.com', 'Regster', '1')")->{hint},
	qr/Register/,
	'the HINT has the nearest usage type');
like(
	PostmarkExtra::error_of($node,
		"SELECT postmark_send('ann\@b\x{c3}\x{bc}cher.example', 'Register', '1')"
	)->{hint},
	qr/A-label|xn--/,
	'the HINT about a non-ASCII domain is its A-label form');
is(scalar(() = $sandbox->requests),
	$asked, 'of none of these Postmark was asked');

#
# A session that waits can be stopped
#

# Each is called before a session begins to wait, and returns what waits until
# it does: for a request, a connection, a look-up.
sub hung_request
{
	my $requests = $sandbox->counts->{requests}{'/email/withTemplate'} // 0;
	return sub {
		return $sandbox->wait_requests($requests + 1,
			path => '/email/withTemplate');
	};
}

sub hung_connection
{
	# those of earlier sessions
	$deaf->blocking(0);
	1 while $deaf->accept;
	$deaf->blocking(1);
	return sub { return $deaf->accept; };
}

# A statement_timeout, the time measured in the session
sub timeout_ms
{
	my ($server) = @_;
	my (undef, $out, $err) = $server->psql('postgres', <<'SQL');
SET statement_timeout = '400ms';
DO $$
BEGIN
	PERFORM postmark_send('hang@example.com', 'Register', '493021');
EXCEPTION WHEN query_canceled THEN
	RAISE WARNING '% %', SQLSTATE,
		extract(epoch FROM clock_timestamp() - statement_timestamp()) * 1000;
END
$$;
SQL
	return $err =~ /WARNING:  (\w{5}) ([\d.]+)/ ? ($1, $2 - 400) : ('', $err);
}

# pg_cancel_backend, the same
sub cancel_ms
{
	my ($server, $hung) = @_;
	my $wait = $hung->();
	my $session = PostmarkExtra::background($server,
		"SET application_name = 'victim'",
		q(DO $$
BEGIN
	PERFORM postmark_send('hang@example.com', 'Register', '493021');
EXCEPTION WHEN query_canceled THEN
	RAISE WARNING '% %', SQLSTATE, extract(epoch FROM clock_timestamp());
END
$$));
	my $pid = PostmarkExtra::running($server, 'victim');
	my $waits = $wait->();
	my ($at, $done) = split /\|/,
	  $server->sql(
		"SELECT extract(epoch FROM clock_timestamp()), pg_cancel_backend($pid)"
	  );
	my (undef, undef, $err) = $session->finish;
	return $err =~ /WARNING:  (\w{5}) ([\d.]+)/
	  ? ($1, ($2 - $at) * 1000)
	  : ('', $err);
}

# pg_terminate_backend: whether the session is gone within a second
sub terminated
{
	my ($server, $hung) = @_;
	my $wait = $hung->();
	my $session = PostmarkExtra::background($server,
		"SET application_name = 'victim'",
		"SELECT postmark_send('hang\@example.com', 'Register', '493021')");
	my $pid = PostmarkExtra::running($server, 'victim');
	my $waits = $wait->();
	my $gone = $server->sql("SELECT pg_terminate_backend($pid, 1000)");
	$session->finish;
	return $gone;
}

sub check_stopping
{
	my ($server, $what, $hung) = @_;
	my ($sqlstate, $ms) = timeout_ms($server);
	is($sqlstate, '57014', "$what: statement_timeout is 57014");
	cmp_ok($ms, '<', $PROMPT_MS, "$what: statement_timeout is prompt");
	note("$what: statement_timeout $ms ms late");

	($sqlstate, $ms) = cancel_ms($server, $hung);
	is($sqlstate, '57014', "$what: a cancel is 57014");
	cmp_ok($ms, '<', $PROMPT_MS, "$what: a cancel is prompt");
	note("$what: cancel took $ms ms");

	my $plain = PostmarkExtra::error_of($server,
		"SET statement_timeout = '100ms'; SELECT postmark_send('hang\@example.com', 'Register', '493021')"
	);
	is($plain->{sqlstate}, '57014', "$what: so it is without a handler");

	is(terminated($server, $hung),
		't', "$what: a terminated session is gone within a second");
}

$sandbox->rule(path => '/email*', action => { latency => 60 });
check_stopping($node, 'server hangs', \&hung_request);
$sandbox->clear_rules;
is( $node->sql(
		"SELECT postmark_send('after\@example.com', 'Register', '493021') IS NOT NULL"
	),
	't',
	'the next session sends');

# After a cancel the same session can go on
$sandbox->rule(
	path => '/email*',
	times => 1,
	action => { latency => 60 });
my $again = PostmarkExtra::error_of($node, <<'SQL');
SET statement_timeout = '200ms';
SELECT postmark_send('again1@example.com', 'Register', '493021');
SET statement_timeout = 0;
SELECT postmark_send('again2@example.com', 'Register', '493021') IS NOT NULL;
SQL
is($again->{sqlstate}, '57014', 'a cancelled postmark_send');
like($again->{out}, qr/^t$/m, 'leaves a session that can send');
$sandbox->clear_rules;

PostmarkExtra::reload($node, api_url => 'http://127.0.0.1:' . $deaf->sockport);
check_stopping($node, 'server never answers', \&hung_connection);
# TLS that never begins
PostmarkExtra::reload($node,
	api_url => 'https://127.0.0.1:' . $deaf->sockport);
check_stopping($node, 'TLS never begins', \&hung_connection);
PostmarkExtra::reload($node, api_url => $sandbox->url);

#
# A name server that never answers: getaddrinfo never returns for slow.example
#

my $dir = PostgreSQL::Test::Utils::tempdir();
append_to_file("$dir/slow.c", <<'C');
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int
getaddrinfo(const char *node, const char *service,
			const struct addrinfo *hints, struct addrinfo **res)
{
	int			(*next) (const char *, const char *, const struct addrinfo *,
						 struct addrinfo **) = dlsym(RTLD_NEXT, "getaddrinfo");

	if (node && strstr(node, ".example"))
	{
		const char *marker = getenv("SLOW_MARKER");
		int			fd = open(marker ? marker : "/dev/null",
							  O_WRONLY | O_CREAT | O_APPEND, 0600);

		(void) !write(fd, "x", 1);
		close(fd);
		for (;;)
			sleep(3600);
	}
	return next(node, service, hints, res);
}
C
system_or_bail('gcc', '-shared', '-fPIC', '-O1', '-o', "$dir/slow.so",
	"$dir/slow.c", '-ldl');

my $marker = "$dir/marker";
$node->stop;
{
	local $ENV{LD_PRELOAD} = "$dir/slow.so " . ($ENV{LD_PRELOAD} // '');
	local $ENV{SLOW_MARKER} = $marker;
	$node->start;
}
my $maps = slurp_file('/proc/'
	  . slurp_file($node->data_dir . '/postmaster.pid') =~ s/\n.*//sr
	  . '/maps');
like($maps, qr{/slow\.so}, 'the server has the getaddrinfo that hangs')
  or BAIL_OUT('nothing may be asked of a real name server');

PostmarkExtra::reload($node, api_url => 'https://slow.example');

sub hung_lookup
{
	unlink $marker;
	return sub {
		return PostmarkCluster::until_true(sub { -s $marker });
	};
}

check_stopping($node, 'name server hangs', \&hung_lookup);
ok(-s $marker, 'names were looked up');

# The worker, too
my $looked_up = hung_lookup();
$node->sql(
	"SELECT postmark_enqueue('hang\@example.com', 'Register', '493021')");
ok($looked_up->(), 'the worker looks the name up');
my $worker = $node->worker_pid;
is($node->sql("SELECT pg_terminate_backend($worker, 1000)"),
	't', 'a worker that waits for the name server is gone within a second');
my $began = time();
$node->stop('fast');
cmp_ok(time() - $began, '<', 5,
	'a fast shutdown does not wait for the name server');

done_testing();
