# Which code is good while mail waits, who waits for whom, codes that were
# issued before an update, and what the log has of them.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use PostmarkSandbox;
use PostmarkCluster;
use PostmarkExtra;

my $sandbox = PostmarkSandbox->new();
my $node = PostmarkCluster->new(
	'main',
	sandbox => $sandbox,
	conf => <<'CONF');
max_prepared_transactions = 5
log_min_error_statement = error
log_statement = none
log_parameter_max_length_on_error = -1
CONF
$node->configure(config => { sendLimit => 0, verifyLimit => 0 });

# Issues something; returns the message's id, and its code or token, which the
# transaction alone can see
sub issue
{
	my ($address, %opts) = @_;
	my $call =
	  $opts{token}
	  ? "postmark_issue_token('$address', 'Register', 'https://t.example/{token}')"
	  : "postmark_issue_code('$address', 'Register')";
	my $out = $node->sql(
		"BEGIN;
		CREATE TEMP TABLE issued AS SELECT $call AS id;
		SELECT id, coalesce(code, substr(payload ->> 'link', 19))
		FROM postmark_queue JOIN issued USING (id);
		COMMIT", $opts{database});
	return split /\|/, $out;
}

# What a code or token is worth, without using it up
sub worth
{
	my ($address, $secret, %opts) = @_;
	my $call =
	  length($secret) > 12
	  ? "verdict FROM postmark_verify_token('$secret', 'Register')"
	  : "postmark_verify_code('$address', 'Register', '$secret')";
	return $node->sql("BEGIN; SELECT $call; ROLLBACK", $opts{database});
}

sub other { return sprintf('%06d', ($_[0] + 1) % 10**6); }

foreach my $token (0, 1)
{
	my $what = $token ? 'token' : 'code';
	my $bad = $token ? 'not_found' : 'mismatch';

	subtest "a second $what" => sub {
		my $to = "$what\@t.example";
		my ($id, $first) = issue($to, token => $token);
		ok($node->wait_finished, 'the first one is mailed');
		$node->sql('SELECT postmark_pause()');
		my (undef, $second) = issue($to, token => $token);
		is(worth($to, $first), 'verified',
			'it is good while the mail of the second waits');
		is(worth($to, $second), 'verified', 'and so is that');
		is(worth($to, other($first)), 'mismatch', 'no other one is')
		  if !$token;
		$node->sql('SELECT postmark_resume()');
		ok($node->wait_finished, 'the second one is mailed');
		is(worth($to, $first), $bad, 'which supersedes the first');
		is(worth($to, $second), 'verified', 'and is good');

		my $rule = $sandbox->rule(
			recipient => $to,
			action => { refuse => { error_code => 300, message => 'no' } });
		($id) = issue($to, token => $token);
		ok($node->wait_status($id, 'failed'), 'a third one fails');
		is(worth($to, $second), 'verified', 'which supersedes nothing');
		$sandbox->clear_rules;

		$node->sql('SELECT postmark_pause()');
		my @waiting = map { (issue($to, token => $token))[1] } 1 .. 6;
		is( $node->sql(
				"SELECT count(*) FROM postmark_codes WHERE address = '$to'"),
			5,
			'of many that wait some are kept');
		is(worth($to, $second), 'verified', 'beside the one that was mailed');
		is(worth($to, $waiting[-1]), 'verified', 'the newest among them');
		is(worth($to, $waiting[0]), $bad, 'but not the oldest');
		$node->sql('SELECT postmark_resume()');
		ok($node->wait_finished, 'all are mailed');
		is(worth($to, $waiting[-2]), $bad, 'the newest one');
		is(worth($to, $waiting[-1]), 'verified', 'is the only one');
		return;
	};
}

subtest 'attempts at two codes' => sub {
	my $to = 'two@t.example';
	$node->configure(
		config =>
		  { sendLimit => 0, verifyLimit => 0, codeMaxAttempts => 3 });
	my (undef, $first) = issue($to);
	ok($node->wait_finished, 'one is mailed');
	is(worth($to, other($first)), 'mismatch', 'a guess at it') for 1 .. 2;
	$node->sql('SELECT postmark_pause()');
	my (undef, $second) = issue($to);
	my $wrong = other($first) eq $second ? other($second) : other($first);
	is(worth($to, $second), 'verified', 'right at the second one');
	is(worth($to, $wrong), 'mismatch', 'a guess at both');
	is(worth($to, $first), 'mismatch', 'was the last at the first');
	is(worth($to, $second), 'verified', 'not at the second');
	is(worth($to, $wrong), 'mismatch', 'the last at the second');
	is(worth($to, $second), 'exhausted', 'after which both are exhausted');
	$node->sql('SELECT postmark_resume()');
	$node->configure(config => { sendLimit => 0, verifyLimit => 0 });
	return;
};

subtest 'a transaction that does not end' => sub {
	my ($id, $code) = issue('open@t.example');
	my (undef, $token) = issue('open@t.example', token => 1);
	my %calls = (
		postmark_issue_code => "postmark_issue_code('open\@t.example', 'Register', '{\"a\": \"geheim\"}')",
		postmark_issue_token => "postmark_issue_token('open\@t.example', 'Register', 'https://geheim/{token}')",
		postmark_verify_code => "postmark_verify_code('open\@t.example', 'Register', '$code')",
		postmark_verify_token => "postmark_verify_token('$token', 'Register')");
	$node->sql(<<'SQL');
CREATE TABLE signup (email text, extra jsonb);
CREATE TRIGGER code AFTER INSERT ON signup FOR EACH ROW
	EXECUTE FUNCTION postmark_issue_code_trigger('email', 'Register', 'payload=extra');
BEGIN;
SELECT postmark_issue_code('open@t.example', 'Register');
PREPARE TRANSACTION 'forgotten';
SQL

	# Each waits, at the same time; and none is logged with what it was given
	my $position = PostmarkExtra::log_position($node);
	my %waiting = map {
		$_ => PostmarkExtra::background($node,
			"\\set VERBOSITY verbose",
			"SELECT $calls{$_}")
	} keys %calls;
	foreach my $name (sort keys %calls)
	{
		is( PostmarkExtra::error_of($node,
				"SET statement_timeout = '100 ms'; SELECT $calls{$name}")
			  ->{sqlstate},
			'57014',
			"$name can be cancelled");
		is( PostmarkExtra::error_of($node,
				"SET lock_timeout = '100 ms'; SELECT $calls{$name}")
			  ->{sqlstate},
			'55P03',
			"$name keeps to lock_timeout");
	}
	is( PostmarkExtra::error_of($node,
			"SET statement_timeout = '100 ms'; INSERT INTO signup VALUES ('open\@t.example', '{\"a\": \"geheim\"}')"
		)->{sqlstate},
		'57014',
		'so can the trigger');
	is( $node->sql(<<"SQL"), 'caught|t', 'and PL/pgSQL can go on');
SET statement_timeout = '200 ms';
CREATE TEMP TABLE seen (what text);
DO \$\$
BEGIN
	PERFORM $calls{postmark_issue_code};
EXCEPTION WHEN query_canceled THEN
	INSERT INTO seen VALUES ('caught');
END
\$\$;
SELECT what, (SELECT count(*) = 1 FROM seen) FROM seen;
SQL
	foreach my $name (sort keys %calls)
	{
		my ($result, $out, $err) = $waiting{$name}->finish;
		like($err, qr/another transaction issues or uses a code/,
			"$name does not wait for ever");
	}
	is( PostmarkExtra::error_of($node, "SELECT $calls{postmark_issue_code}")
		  ->{sqlstate},
		'PM007',
		'but for PM007');
	my $log = PostmarkExtra::log_since($node, $position);
	like($log, qr/canceling statement/, 'errors are logged');
	unlike($log, qr/geheim|$code|\Q$token\E/, 'without what is secret');

	is(worth('other@t.example', '123456'),
		'not_found', 'nobody else waits');
	$node->sql("ROLLBACK PREPARED 'forgotten'");
	is(worth('open@t.example', $code),
		'verified', 'and when it has ended, all is well');
	return;
};

subtest 'a read-only transaction' => sub {
	my ($id, $code) = issue('ro@t.example');
	my (undef, $token) = issue('ro@t.example', token => 1);
	my $position = PostmarkExtra::log_position($node);
	foreach my $call (
		"postmark_issue_code('ro\@t.example', 'Register', '{\"a\": \"geheim\"}')",
		"postmark_issue_token('ro\@t.example', 'Register', 'https://geheim/{token}')",
		"postmark_verify_code('ro\@t.example', 'Register', '$code')",
		"postmark_verify_token('$token', 'Register')")
	{
		is( PostmarkExtra::error_of($node, "BEGIN READ ONLY; SELECT $call")
			  ->{sqlstate},
			'25006', $call =~ s/\(.*//r);
	}
	is( PostmarkExtra::error_of($node, <<'SQL')->{sqlstate}, '25006', 'the trigger');
CREATE TEMP TABLE t (email text, extra jsonb);
CREATE TRIGGER code AFTER INSERT ON t FOR EACH ROW
	EXECUTE FUNCTION postmark_issue_code_trigger('email', 'Register', 'payload=extra');
BEGIN READ ONLY;
INSERT INTO t VALUES ('ro@t.example', '{"a": "geheim"}');
SQL
	my $log = PostmarkExtra::log_since($node, $position);
	like($log, qr/read-only transaction/, 'errors are logged');
	unlike($log, qr/geheim|$code|\Q$token\E/, 'without what is secret');
	return;
};

subtest 'the code of a message that failed' => sub {
	$sandbox->rule(
		recipient => 'failed@t.example',
		action => { refuse => { error_code => 300, message => 'no' } });
	my $id = $node->sql(
		"SELECT postmark_enqueue('failed\@t.example', 'Register', '493021', '{\"a\": 1}', expires_in => '4 s')"
	);
	ok($node->wait_status($id, 'failed'), 'it fails');
	is( $node->sql(
			"SELECT code, payload FROM postmark_history WHERE id = $id AND expires_at > clock_timestamp()"
		),
		'493021|{"a": 1}',
		'and can be requeued');
	ok( $node->poll_query_until(
			'postgres',
			"SELECT code IS NULL AND payload IS NULL FROM postmark_history WHERE id = $id"
		),
		'its code is forgotten');
	is( $node->sql(
			"SELECT clock_timestamp() >= expires_at FROM postmark_history WHERE id = $id"
		),
		't',
		'when it has expired');
	$sandbox->clear_rules;
	return;
};

subtest 'codes of 1.0' => sub {
	$node->sql('CREATE DATABASE old');
	$node->sql(<<'SQL', 'old');
CREATE EXTENSION postmark_connector VERSION '1.0';
CREATE ROLE verifier;
CREATE ROLE granter;
CREATE ROLE given;
GRANT EXECUTE ON FUNCTION postmark_verify_token TO verifier;
GRANT EXECUTE ON FUNCTION postmark_verify_token TO granter WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO given;
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO given;
SQL
	$node->configure(database => 'old', config => { sendLimit => 0 });
	my %in = (database => 'old');
	my (undef, $code) = issue('a@t.example', %in);
	my (undef, $token) = issue('a@t.example', %in, token => 1);
	is(worth('a@t.example', $code, %in),
		'verified', 'a code is verified with the objects of 1.0');
	is(worth('', $token, %in), 'verified', 'and a token');
	my (undef, $next) = issue('a@t.example', %in);
	is(worth('a@t.example', $code, %in),
		$code eq $next ? 'verified' : 'mismatch', 'there is one at a time');
	$node->sql('ALTER EXTENSION postmark_connector UPDATE', 'old');
	is(worth('a@t.example', $next, %in),
		'verified', 'after the update a code is still good');
	is(worth('', $token, %in), 'verified', 'so is a token');
	is( $node->sql(
			"UPDATE postmark_codes SET seal = hmac WHERE token;
			SELECT verdict FROM postmark_verify_token('$token', 'Register')",
			'old'),
		'verified',
		'of which nothing more is known');
	is( $node->sql(<<'SQL', 'old'),
SELECT string_agg(concat(r, ' ', has_function_privilege(r, f, 'EXECUTE'),
	' ', has_function_privilege(r, f, 'EXECUTE WITH GRANT OPTION')), ', ' ORDER BY r),
	obj_description(f, 'pg_proc') ~ 'token'
FROM unnest(ARRAY['verifier', 'granter', 'given']) r, to_regproc('postmark_verify_token') f GROUP BY f
SQL
		'given f f, granter t t, verifier t f|t',
		'who might verify, may');
	is( $node->sql(<<'SQL', 'old'), '0', 'and nobody else');
SELECT count(*) FROM pg_proc, aclexplode(proacl) a
WHERE proname LIKE 'postmark%' AND grantee NOT IN (proowner, 'verifier'::regrole, 'granter'::regrole)
SQL
	return;
};

$node->stop;
done_testing();
