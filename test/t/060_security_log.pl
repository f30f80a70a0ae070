# Nothing secret in the server's log, in error messages, in views or in what
# other sessions see; and who may do what.
#
# Every token, code, payload and link used here contains the text "geheim", so
# one search finds any of them, cut or not.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use PostmarkSandbox;
use PostmarkCluster;
use PostmarkExtra;

my $TOKEN = 'geheim-token-8d1f';
my $CODE = 'geheim-493021';
my $PAYLOAD = '{"link": "https://shop.example/geheim-link", "name": "geheim-name"}';
my $SECRET = qr/geheim/i;

my $sandbox = PostmarkSandbox->new(args => [ '--token', $TOKEN ]);
my $node = PostmarkCluster->new(
	'main',
	sandbox => $sandbox,
	prepare => 0,
	conf => <<'CONF');
log_min_messages = debug1
log_min_error_statement = error
log_error_verbosity = verbose
log_parameter_max_length_on_error = -1
log_statement = none
max_prepared_transactions = 1
CONF
$node->sql(<<'SQL');
CREATE EXTENSION postmark_connector;
CREATE TABLE signup (id serial, email text, code text, payload text);
CREATE TRIGGER mail AFTER INSERT ON signup FOR EACH ROW
	EXECUTE FUNCTION postmark_enqueue_trigger('email', 'Register', 'code=code', 'payload=payload');
CREATE TABLE signup_bad (email text, code text);
CREATE TRIGGER mail AFTER INSERT ON signup_bad FOR EACH ROW
	EXECUTE FUNCTION postmark_enqueue_trigger('email', 'Register', 'nosuch');
SQL
$node->configure(token => $TOKEN);
ok($node->wait_worker, 'there is a worker');

# One log position for all: the last assertion looks at everything anew.
my $whole = PostmarkExtra::log_position($node);

# A test that a text has no secret; of a long one only what was found is shown.
sub no_secret
{
	my ($text, $name) = @_;
	my @found = $text =~ /(.{0,80}geheim.{0,40})/gi;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(scalar(@found), 0, $name);
	diag("has: $found[0]") if @found;
	return;
}

# A statement that fails with a SQLSTATE, and what the log then has of it
sub fails
{
	my ($name, $sqlstate, $sql, %opts) = @_;
	my $position = PostmarkExtra::log_position($node);
	my $error = PostmarkExtra::error_of($node, $sql);

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($error->{sqlstate}, $sqlstate, "$name: SQLSTATE")
	  or diag($error->{err});
	unlike("$error->{message} $error->{detail} $error->{hint}",
		$SECRET, "$name: the error shows no secret");
	my $log = PostmarkExtra::log_since($node, $position);
	like($log, qr/ERROR:  \w*:? *\Q$error->{message}\E/,
		"$name: the error is in the log");
	no_secret($log, "$name: the log has no secret");
	return $error;
}

#
# postmark_send
#

my $ARGS = "'ann\@example.com', 'Register', '$CODE', '$PAYLOAD'";

# Postmark repeats what it was sent
my $ECHO = "Refused $CODE with token $TOKEN, name geheim-name, see https://shop.example/geheim-link.";
foreach my $case (
	[ 'PM006 of ErrorCode 10', 'PM006', { status => 401, error_code => 10 } ],
	[ 'PM006 of ErrorCode 400', 'PM006', { status => 422, error_code => 400 } ],
	[ 'PM002 of ErrorCode 1101', 'PM002', { status => 422, error_code => 1101 } ],
	[ 'PM004', 'PM004', { status => 422, error_code => 406 } ],
	[ 'PM005 of ErrorCode 300', 'PM005', { status => 422, error_code => 300 } ],
	[ 'PM005 of ErrorCode 1109', 'PM005', { status => 422, error_code => 1109 } ],
	[ 'PM007', 'PM007', { status => 429, error_code => 429 } ],
	[ 'PM008 of 503', 'PM008', { status => 503, error_code => 100 } ],
	[ 'PM008 of 500', 'PM008', { status => 500, error_code => 500 } ],)
{
	my ($name, $sqlstate, $action) = @$case;

	$sandbox->rule(
		path => '/email*',
		action => { %$action, message => $ECHO });
	my $error =
	  fails("postmark_send, $name", $sqlstate, "SELECT postmark_send($ARGS)");
	like($error->{detail}, qr/Refused \*\*\* with token \*\*\*/,
		"postmark_send, $name: the echo is masked, the rest is shown")
	  if $error->{detail} =~ /Refused/;
	$sandbox->clear_rules;
}
foreach my $garble (qw(not_json cut truncated))
{
	$sandbox->rule(path => '/email*', action => { garble => $garble });
	fails("postmark_send, $garble", 'PM008', "SELECT postmark_send($ARGS)");
	$sandbox->clear_rules;
}
$sandbox->rule(
	path => '/email*',
	action => { status => 500, body => "<html>$ECHO</html>" });
fails('postmark_send, a page that repeats it',
	'PM008', "SELECT postmark_send($ARGS)");
$sandbox->clear_rules;

fails('postmark_send, bad recipient',
	'PM003', "SELECT postmark_send('nobody', 'Register', '$CODE', '$PAYLOAD')");
fails('postmark_send, long code', 'PM003',
	"SELECT postmark_send('ann\@example.com', 'Register', repeat('$CODE', 9))");
fails('postmark_send, payload that is an array', 'PM003',
	"SELECT postmark_send('ann\@example.com', 'Register', '$CODE', '[\"geheim\"]')");
fails('postmark_send, usage type', 'PM002',
	"SELECT postmark_send('ann\@example.com', 'Regster', '$CODE', '$PAYLOAD')");
fails('postmark_send, connector', 'PM001',
	"SELECT postmark_send($ARGS, connector => 'nosuch')");
fails('postmark_send in PL/pgSQL',
	'PM003', <<"SQL");
DO \$\$ BEGIN
EXECUTE 'SELECT postmark_send(''nobody'', ''Register'', ''$CODE'')';
END \$\$;
SQL

$sandbox->rule(path => '/email*', action => { latency => 60 });
fails('statement_timeout during postmark_send',
	'57014', "SET statement_timeout = '200ms'; SELECT postmark_send($ARGS)");
fails('request_timeout during postmark_send',
	'PM008',
	"SET postmark_connector.request_timeout = '200ms'; SELECT postmark_send($ARGS)"
);

# While it runs: others see a query text of their own making, but what the
# log has after a termination
my $position = PostmarkExtra::log_position($node);
my $session = PostmarkExtra::background($node,
	"SET application_name = 'victim'",
	"SELECT postmark_send($ARGS)");
my $pid = PostmarkExtra::running($node, 'victim');
is( $node->sql(
		"SELECT pg_terminate_backend($pid, 5000)"), 't',
	'a waiting session is terminated');
$session->finish;
no_secret(PostmarkExtra::log_since($node, $position), 'after which the log has no secret');
$sandbox->clear_rules;

# Parameters of the extended protocol are logged by default settings, too
$position = PostmarkExtra::log_position($node);
{
	my $script = PostgreSQL::Test::Utils::tempdir() . '/extended.sql';
	append_to_file($script,
		"SELECT postmark_send('nobody', 'Register', :code);\n");
	my ($out, $err) = ('', '');
	IPC::Run::run(
		[
			'pgbench', '-n', '-t', '1', '-M', 'extended', '-f', $script, '-D',
			"code=$CODE", '-d', $node->connstr('postgres')
		],
		'>' => \$out,
		'2>' => \$err);
	like($err, qr/invalid recipient/,
		'a parameter of the extended protocol is used');
}
no_secret(PostmarkExtra::log_since($node, $position), 'and not logged with the error');

#
# Queueing
#

fails('postmark_enqueue, bad recipient',
	'PM003', "SELECT postmark_enqueue('nobody', 'Register', '$CODE', '$PAYLOAD')");
fails('postmark_enqueue, long code', 'PM003',
	"SELECT postmark_enqueue('ann\@example.com', 'Register', repeat('$CODE', 9))");
fails('postmark_enqueue, array', 'PM003',
	"SELECT postmark_enqueue('ann\@example.com', 'Register', '$CODE', '[\"geheim\"]')");
fails('postmark_enqueue, a key with a line break',
	'PM003',
	"SELECT postmark_enqueue('ann\@example.com', 'Register', dedup_key => E'geheim\\n')"
);
fails('postmark_queue, a key that is too long',
	'PM003',
	"INSERT INTO postmark_queue (email, usage_type, dedup_key) VALUES ('ann\@example.com', 'Register', repeat('geheim', 50))"
);
$node->sql(
	"ALTER TABLE postmark_dedup_keys ADD CONSTRAINT odd CHECK (dedup_key !~ 'geheim')"
);
fails('postmark_enqueue, a key that a constraint refuses',
	'23514',
	"SELECT postmark_enqueue('ann\@example.com', 'Register', dedup_key => 'geheim')"
);
fails('postmark_queue, a key that a constraint refuses',
	'23514',
	"INSERT INTO postmark_queue (email, usage_type, dedup_key) VALUES ('ann\@example.com', 'Register', 'geheim')"
);
$node->sql('ALTER TABLE postmark_dedup_keys DROP CONSTRAINT odd');
fails('postmark_enqueue, usage type', 'PM002',
	"SELECT postmark_enqueue('ann\@example.com', 'Regster', '$CODE', '$PAYLOAD')");
fails('postmark_enqueue, expires_in', 'PM003',
	"SELECT postmark_enqueue($ARGS, expires_in => '-1 s')");
fails('postmark_enqueue, send_after', 'PM003',
	"SELECT postmark_enqueue($ARGS, send_after => 'infinity')");
fails('postmark_enqueue, read-only', '25006',
	"BEGIN READ ONLY; SELECT postmark_enqueue($ARGS)");
fails('INSERT, bad recipient', 'PM003',
	"INSERT INTO postmark_queue (email, usage_type, code, payload) VALUES ('nobody', 'Register', '$CODE', '$PAYLOAD')");
fails('INSERT, no recipient', 'PM003',
	"INSERT INTO postmark_queue (usage_type, code, payload) VALUES ('Register', '$CODE', '$PAYLOAD')");
fails('INSERT, long code', 'PM003',
	"INSERT INTO postmark_queue (email, usage_type, code) VALUES ('ann\@example.com', 'Register', repeat('$CODE', 9))");
fails('INSERT, usage type', 'PM002',
	"INSERT INTO postmark_queue (email, usage_type, code) VALUES ('ann\@example.com', 'Regster', '$CODE')");
fails('COPY, bad recipient', 'PM003',
	"COPY postmark_queue (email, usage_type, code, payload) FROM stdin;\nnobody\tRegister\t$CODE\t$PAYLOAD\n\\.\n");
fails('COPY, bad recipient in a later row', 'PM003',
	"COPY postmark_queue (email, usage_type, code) FROM stdin;\nann\@example.com\tRegister\t$CODE\nnobody\tRegister\t$CODE\n\\.\n");
fails('UPDATE of a queued message', '0A000',
	"BEGIN; INSERT INTO postmark_queue (email, usage_type, code) VALUES ('ann\@example.com', 'Register', '$CODE'); UPDATE postmark_queue SET code = '$CODE-2'");

fails('trigger, bad recipient', 'PM003',
	"INSERT INTO signup (email, code, payload) VALUES ('nobody', '$CODE', '$PAYLOAD')");
fails('trigger, long code', 'PM003',
	"INSERT INTO signup (email, code) VALUES ('ann\@example.com', repeat('$CODE', 9))");
fails('trigger, payload that is no JSON', 'PM003',
	"INSERT INTO signup (email, code, payload) VALUES ('ann\@example.com', '$CODE', '{geheim')");
fails('trigger, column that is not there', '42703',
	"INSERT INTO signup_bad (email, code) VALUES ('ann\@example.com', '$CODE')");
fails('trigger, COPY', 'PM003',
	"COPY signup (email, code) FROM stdin;\nnobody\t$CODE\n\\.\n");
is($node->sql('SELECT count(*) FROM postmark_messages'),
	0, 'none of it was queued');
$node->sql(
	"SELECT postmark_enqueue('ann\@example.com', 'Register', dedup_key => 'geheim') FROM generate_series(1, 2)"
);

#
# Settings
#

foreach my $case (
	[ 'an unknown key', '"geheimKey": 1, ', 1 ],
	[ 'a token with a line break', '"serverToken": "geheim\ntoken", ' ],
	[ 'a token that is too long',
		'"serverToken": "' . ('geheim' x 100) . '", ' ],
	[ 'a token that is a number', '"serverToken": 5, "tag": "geheim", ' ],
	[ 'a masked token', '"serverToken": "geheim****", ' ],
	[ 'a bad fromEmail', '"serverToken": "geheim", "fromEmail": "nobody", ' ],)
{
	my ($name, $json, $named) = @$case;
	my $at = PostmarkExtra::log_position($node);
	my $error = PostmarkExtra::error_of($node,
		"SELECT postmark_configure('{$json \"templates\": [], \"replyTo\": \"x\"}')");
	is($error->{sqlstate}, 'PM001', "postmark_configure, $name: SQLSTATE")
	  or diag($error->{err});
	# the name of an unknown key is to be shown, and is no secret
	my $log = PostmarkExtra::log_since($node, $at);
	my $client = "$error->{message} $error->{detail} $error->{hint}";
	s/geheimKey//g foreach $log, $client;
	no_secret($client, "postmark_configure, $name: the error shows no secret");
	no_secret($log, "postmark_configure, $name: the log has no secret");
	$whole = PostmarkExtra::log_position($node) if $named;
}
fails('postmark_configure, templates missing',
	'PM001',
	"SELECT postmark_configure('{\"serverToken\": \"geheim-other\", \"fromEmail\": \"a\@shop.example\", \"templates\": []}')"
);
fails('postmark_set_token, CR', 'PM001',
	"SELECT postmark_set_token(E'geheim\\rtoken')");
fails('postmark_set_token, LF', 'PM001',
	"SELECT postmark_set_token(E'geheim\\n')");
fails('postmark_set_token, too long', 'PM001',
	"SELECT postmark_set_token(repeat('geheim', 100))");
fails('postmark_set_token, unknown connector', 'PM001',
	"SELECT postmark_set_token('geheim-other', 'nosuch')");
fails('postmark_set_token, read-only', '25006',
	"BEGIN READ ONLY; SELECT postmark_set_token('geheim-other')");
fails('postmark_test, bad config', 'PM001',
	"SELECT postmark_test('ann\@example.com', '{\"serverToken\": \"geheim-other\"}')"
);
fails('postmark_check, bad config', 'PM001',
	"SELECT * FROM postmark_check('default', '{\"serverToken\": \"geheim-other\"}')"
);
$sandbox->rule(
	path => '/server',
	action => { status => 401, error_code => 10, message => $ECHO });
unlike($node->sql('SELECT * FROM postmark_check()'),
	qr/\Q$TOKEN\E/, 'postmark_check masks a token that Postmark repeats');
$sandbox->clear_rules;

# Errors of the server's own, which it would log with the statement; those of
# functions that verify are in 132_code_rules.pl
my %given = (
	enqueue => "SELECT postmark_enqueue($ARGS)",
	send => "SELECT postmark_send($ARGS)",
	issue_code => "SELECT postmark_issue_code('ann\@example.com', 'Register', '$PAYLOAD')",
	issue_token => "SELECT postmark_issue_token('ann\@example.com', 'Register', 'https://shop.example/geheim/{token}')",
	set_token => "SELECT postmark_set_token('geheim-other')",
	webhook => "SELECT postmark_webhook('{\"RecordType\": \"Delivery\"}', 'geheim')",
	configure => q(SELECT postmark_configure(jsonb_set(postmark_config(), '{serverToken}', '"geheim-other"'))),
	test => q(SELECT postmark_test('ann@example.com', jsonb_set(postmark_config(), '{serverToken}', '"geheim-other"'))),
	check => q(SELECT * FROM postmark_check('default', jsonb_set(postmark_config(), '{serverToken}', '"geheim-other"'))),
	INSERT => "INSERT INTO postmark_queue (email, usage_type, code) VALUES ('ann\@example.com', 'Register', '$CODE')",
	trigger => "INSERT INTO signup (email, code) VALUES ('ann\@example.com', '$CODE')",
	code_trigger => "INSERT INTO signup_code VALUES ('ann\@example.com', '$PAYLOAD')");
my $config = $node->sql('SELECT postmark_config()');
s/postmark_config\(\)/'$config'::jsonb/ foreach values %given;
$node->sql(<<'SQL');
CREATE TABLE signup_code (email text, extra jsonb);
CREATE TRIGGER mail AFTER INSERT ON signup_code FOR EACH ROW
	EXECUTE FUNCTION postmark_issue_code_trigger('email', 'Register', 'payload=extra');
BEGIN;
LOCK TABLE postmark_settings, postmark_secrets IN ACCESS EXCLUSIVE MODE;
PREPARE TRANSACTION 'lock';
SQL
fails("$_, while the settings are locked",
	'55P03', "SET lock_timeout = '100 ms'; $given{$_}")
  foreach sort grep { !/^(test|check)$/ } keys %given;
$node->sql("ROLLBACK PREPARED 'lock'");
$sandbox->rule(action => { latency => 30 });
fails("$_, while Postmark does not answer",
	'57014', "SET statement_timeout = '200 ms'; $given{$_}")
  foreach qw(test check send);
$sandbox->clear_rules;

unlike($node->sql('SELECT postmark_config()'),
	$SECRET, 'postmark_config masks the token');
like($node->sql('SELECT postmark_config()'),
	qr/serverToken/, 'but shows that there is one');
unlike($node->sql('SELECT to_jsonb(s) FROM postmark_settings s'),
	$SECRET, 'postmark_settings has no token');

#
# The worker
#

sub enqueue
{
	my ($email, $more) = @_;
	return $node->sql(
		"SELECT postmark_enqueue('$email', 'Register', '$CODE', '$PAYLOAD'"
		  . ($more // '')
		  . ')');
}

# What views show of messages and connectors
sub shown
{
	return $node->sql('SELECT * FROM postmark_messages')
	  . $node->sql('SELECT * FROM postmark_status')
	  . $node->sql('SELECT * FROM postmark_trouble');
}

$position = PostmarkExtra::log_position($node);
$sandbox->rule(
	path => '/email*',
	recipient => 'refused@example.com',
	action => { refuse => { error_code => 300, message => $ECHO } });
my $id = enqueue('refused@example.com');
ok($node->wait_status($id, 'failed'), 'a refused message fails');
like(
	$node->sql("SELECT last_error FROM postmark_messages WHERE id = $id"),
	qr/Refused \*\*\* with token \*\*\*/,
	'the reason is shown, what it repeats is masked');
no_secret(shown(), 'no view shows a secret');
$sandbox->clear_rules;

my $blocked = $sandbox->rule(
	path => '/email*',
	action => { status => 401, error_code => 10, message => $ECHO });
$id = enqueue('blocked@example.com');
ok($node->wait_state('blocked'), 'a bad token blocks the connector');
no_secret(shown(), 'what blocks it is shown without the secret');
unlike(
	$node->sql(
		"SELECT string_agg(to_jsonb(a)::text, ' ') FROM pg_stat_activity a WHERE backend_type ~ 'postmark'"
	),
	$SECRET,
	'pg_stat_activity shows nothing secret of the worker');
$sandbox->clear_rules;
$node->sql("SELECT postmark_set_token('$TOKEN')");
ok($node->wait_finished, 'it goes on when the token is set');

# A token is rotated while Postmark has yet to refuse the old one
my $rotated = 'rotated-while-under-way';
$sandbox->config(tokens => [ $TOKEN, $rotated ]);
$node->sql("SELECT postmark_set_token('$rotated')");
my $asked = $sandbox->counts->{requests}{'/email/batchWithTemplates'} // 0;
$sandbox->rule(
	path => '/email*',
	times => 1,
	action => {
		latency => 1,
		status => 401,
		error_code => 10,
		message => "No server has the token $rotated"
	});
my $rotation = PostmarkExtra::log_position($node);
$id = enqueue('rotated@example.com');
ok( $sandbox->wait_requests(
		$asked + 1, path => '/email/batchWithTemplates'),
	'a request is under way with a token');
$node->sql("SELECT postmark_set_token('$TOKEN')");
ok($node->wait_state('blocked'), 'which is refused when it is not the stored one any more');
unlike(shown(), qr/\Q$rotated\E/, 'it is masked all the same');
unlike(PostmarkExtra::log_since($node, $rotation),
	qr/\Q$rotated\E/, 'in the log as well');
$sandbox->clear_rules;
ok($node->wait_finished, 'it goes on with the new one');

foreach my $case (
	[ '500', { status => 500, body => "<html>$ECHO</html>" } ],
	[ '503', { status => 503, error_code => 100, message => $ECHO } ],
	[ '429', { status => 429, error_code => 429, message => $ECHO } ],
	[ 'garbage', { garble => 'not_json' } ],
	[ 'a reset', { drop => 'after_accept' } ],
	[ '422 of the batch', { status => 422, error_code => 402, message => $ECHO } ],)
{
	my ($name, $action) = @$case;
	my $requests = $sandbox->counts->{requests}{'/email/batchWithTemplates'} // 0;
	$sandbox->rule(
		path => '/email/batch*',
		times => 1,
		action => $action);
	enqueue("worker$requests\@example.com");
	ok( $sandbox->wait_requests(
			$requests + 1, path => '/email/batchWithTemplates'),
		"the worker meets $name");
	no_secret(shown(), "$name: no view shows a secret");
	ok($node->wait_finished, "$name: and goes on");
	no_secret(shown(), "$name: nor afterwards");
	$sandbox->clear_rules;
}

# An error in the worker's own SQL: the history refuses a row
$node->sql(
	"ALTER TABLE postmark_history ADD CONSTRAINT never CHECK (email <> 'never\@example.com')"
);
my $refusing = PostmarkExtra::log_position($node);
$id = enqueue('never@example.com', ", expires_in => '1 hour'");
ok( PostmarkExtra::wait_for_log($node, $refusing, qr/postmark_connector could not|violates check/),
	'an error of the worker is in the log');
my $worker_log = PostmarkExtra::log_since($node, $refusing);
no_secret($worker_log, 'without a secret');
$node->sql('ALTER TABLE postmark_history DROP CONSTRAINT never');
ok($node->wait_finished, 'it goes on when the constraint is gone');
is(scalar(() = $sandbox->messages(recipient => 'never@example.com')),
	1, 'and the message was sent once');

# A deadlock, of which the server logs the statements of both sessions
my $deadlock = PostmarkExtra::log_position($node);
my $peer = PostmarkExtra::background(
	$node,
	"SET application_name = 'peer'",
	'BEGIN',
	"SELECT postmark_enqueue('peer\@example.com', 'Register', dedup_key => 'first')",
	"DO \$\$ BEGIN
		WHILE NOT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'transactionid')
		LOOP PERFORM pg_sleep(0.01); PERFORM pg_stat_clear_snapshot(); END LOOP;
	END \$\$",
	"SELECT postmark_enqueue('peer\@example.com', 'Register', '$CODE', dedup_key => 'second')",
	'ROLLBACK');
PostmarkCluster::until_true(
	sub {
		$node->sql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'peer' AND query ~ '^DO'");
	});
my $victim = PostmarkExtra::error_of($node,
	"BEGIN;
	SELECT postmark_enqueue('bob\@example.com', 'Register', dedup_key => 'second');
	SELECT postmark_enqueue('bob\@example.com', 'Register', '$CODE', dedup_key => 'first');
	ROLLBACK");
my (undef, undef, $peer_error) = $peer->finish;
is(scalar(() = "$victim->{err}$peer_error" =~ /deadlock detected/g),
	1, 'two sessions meet in a deadlock');
my $deadlock_log = PostmarkExtra::log_since($node, $deadlock);
like($deadlock_log, qr/deadlock detected.*The statements are not shown/s,
	'which is in the log');
no_secret($deadlock_log, 'without the statements');

# Tables, once finished
is( $node->sql(
		"SELECT count(*) FROM postmark_history WHERE status = 'sent' AND (code IS NOT NULL OR payload IS NOT NULL)"
	),
	0,
	'code and payload of a sent message are gone');
is($node->sql('SELECT count(*) FROM postmark_queue'),
	0, 'its row in the queue, too');

no_secret(PostmarkExtra::log_since($node, $whole), 'all in all the log has no secret');
unlike(slurp_file('/proc/' . $node->worker_pid . '/cmdline'),
	$SECRET, 'nor the command line of the worker');

#
# Roles
#

$node->sql(<<'SQL');
CREATE ROLE sender LOGIN;
CREATE ROLE inserter LOGIN;
CREATE ROLE monitor LOGIN;
CREATE ROLE nobody LOGIN;
GRANT EXECUTE ON FUNCTION postmark_send TO sender;
GRANT EXECUTE ON FUNCTION postmark_enqueue TO sender;
GRANT INSERT (email, usage_type, code, payload, locale, connector, expires_at)
	ON postmark_queue TO inserter;
GRANT SELECT ON postmark_status, postmark_messages TO monitor;
GRANT EXECUTE ON FUNCTION postmark_state TO monitor;
CREATE TABLE app_signup (email text, code text);
CREATE TRIGGER mail AFTER INSERT ON app_signup FOR EACH ROW
	EXECUTE FUNCTION postmark_enqueue_trigger('email', 'Register', 'code');
GRANT INSERT ON app_signup TO nobody;
SQL

sub as_role
{
	my ($role, $sql) = @_;
	return PostmarkExtra::error_of($node, $sql, user => $role);
}

sub allowed
{
	my ($role, $sql, $name) = @_;
	my $result = as_role($role, $sql);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($result->{sqlstate}, '', $name) or diag($result->{err});
	return;
}

sub denied
{
	my ($role, $sql, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $result = as_role($role, $sql);
	is($result->{sqlstate}, '42501', $name)
	  or diag("$result->{out}\n$result->{err}");
	return;
}

allowed('sender',
	"SELECT postmark_send('role\@example.com', 'Register', '1')",
	'a sending role sends');
allowed('sender',
	"SELECT postmark_enqueue('role\@example.com', 'Register', '1')",
	'and queues');
allowed('sender',
	"SELECT postmark_enqueue('role\@example.com', 'Register', '1', send_after => now() + '1 hour')",
	'for later, too');
denied('sender', $_->[0], "a sending role cannot $_->[1]")
  foreach (
	[ 'SELECT * FROM postmark_secrets', 'read secrets' ],
	[ 'SELECT * FROM postmark_queue', 'read the queue' ],
	[ 'SELECT * FROM postmark_deferred', 'read deferred messages' ],
	[ 'SELECT * FROM postmark_history', 'read the history' ],
	[ 'SELECT * FROM postmark_messages', 'read messages' ],
	[ 'SELECT postmark_cancel(1)', 'cancel' ],
	[ 'SELECT postmark_config()', 'read the settings' ],
	[ "SELECT postmark_set_token('x')", 'set the token' ],
	[ "SELECT postmark_configure('{}')", 'configure' ],
	[ 'SELECT postmark_pause()', 'pause' ],
	[ 'SELECT postmark_resume()', 'resume' ],
	[ "SELECT postmark_test('a\@example.com')", 'test' ],
	[ 'SELECT * FROM postmark_check()', 'check' ],
	[ "SELECT nextval('postmark_message_id_seq')", 'take ids' ],);
allowed('inserter',
	"INSERT INTO postmark_queue (email, usage_type, code) VALUES ('role\@example.com', 'Register', '1')",
	'an inserting role queues');
denied('inserter', 'DELETE FROM postmark_queue',
	'and cannot delete from the queue');
allowed('monitor', 'SELECT * FROM postmark_status',
	'a monitoring role reads postmark_status');
allowed('monitor', 'SELECT * FROM postmark_messages',
	'and postmark_messages');
denied('monitor', $_, "a monitoring role may not: $_")
  foreach (
	'SELECT * FROM postmark_secrets',
	'SELECT code FROM postmark_queue',
	'SELECT code FROM postmark_history',
	"SELECT postmark_send('a\@example.com', 'Register', '1')",
	"SELECT postmark_enqueue('a\@example.com', 'Register', '1')");
allowed('nobody',
	"INSERT INTO app_signup VALUES ('signup\@example.com', '1')",
	'who inserts into a signup table needs no right of ours');
denied('nobody',
	"SELECT postmark_enqueue('a\@example.com', 'Register', '1')",
	'nobody else may queue');
denied('nobody', 'SELECT * FROM postmark_status', 'or see the state');
ok( PostmarkCluster::until_true(
		sub { scalar(() = $sandbox->messages(recipient => 'signup@example.com')) }
	),
	'the mail of the signup arrives');
denied('nobody', 'SHOW postmark_connector.proxy',
	'the proxy is for superusers to see');

done_testing();
