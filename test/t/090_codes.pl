# Verification codes: a guess is never free, a code is good once, and nobody is
# sent more of them than the limits say.

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

# No limits but those that a test sets
my %unlimited = (sendLimit => 0, verifyLimit => 0);
$node->configure(config => \%unlimited);

# The last mail to somebody, as its TemplateModel
sub model
{
	my ($address, $n) = @_;
	my @mails;
	PostmarkCluster::until_true(
		sub {
			@mails = $sandbox->messages(recipient => $address, render => 0);
			return @mails >= ($n // 1);
		});
	return @mails ? $mails[-1]{Request}{TemplateModel} : {};
}

# Issues a code and reads it in the mail
my %issued;

sub issue
{
	my ($address, $usage_type, $connector) = @_;
	$usage_type //= 'Register';
	$connector //= 'default';
	$node->sql(
		"SELECT postmark_issue_code('$address', '$usage_type', connector => '$connector')"
	);
	return model($address, ++$issued{$address})->{code};
}

sub verify
{
	my ($address, $code, $usage_type, $connector) = @_;
	$usage_type //= 'Register';
	$connector //= 'default';
	return $node->sql(
		"SELECT postmark_verify_code('$address', '$usage_type', '$code', '$connector')"
	);
}

# Another code than this one, the n-th
sub wrong
{
	my ($code, $n) = @_;
	return sprintf('%0*d', length($code),
		($code + ($n // 1)) % 10**length($code));
}

# Runs statements in a psql of its own, from a file, so that all that were
# started run at the same time; finish returns what it printed.
my $nscripts = 0;

sub start
{
	my @statements = @_;
	my $file = "$PostgreSQL::Test::Utils::tmp_check/codes_" . ++$nscripts;
	append_to_file("$file.sql", join(";\n", @statements, ''));
	return {
		file => "$file.out",
		run => IPC::Run::start(
			[
				$node->installed_command('psql'), '-XAtq', '-f', "$file.sql",
				'-d', $node->connstr('postgres')
			],
			'>', "$file.out", '2>', "$file.err")
	};
}

sub finish
{
	my ($handle) = @_;
	$handle->{run}->finish;
	return slurp_file($handle->{file});
}

# An error's SQLSTATE, message, DETAIL and HINT, '' for none
sub error_of
{
	my ($sql) = @_;
	my ($out, $err);
	$node->psql('postgres', "\\set VERBOSITY verbose\n$sql", stderr => \$err,
		stdout => \$out);
	return $err // '';
}

#
# The whole round
#

my $code = issue('ann@t.example');
like($code, qr/^\d{6}$/, 'the mail has a code of six digits');
is(verify('ann@t.example', wrong($code)),
	'mismatch', 'a wrong code is a mismatch');
is(verify('ann@t.example', $code, 'SignIn'),
	'not_found', 'a code is for its usage type only');
is(verify('bob@t.example', $code),
	'not_found', 'a code is for its address only');
is(verify('Ann@T.Example', $code), 'verified', 'the right code is verified');
is(verify('ann@t.example', $code), 'not_found', 'a used code is gone');

my $old = issue('again@t.example');
my $new = issue('again@t.example');
ok($node->wait_finished, 'the newer mail is known to have left');
is(verify('again@t.example', $old),
	$old eq $new ? 'verified' : 'mismatch',
	'a code is superseded by the next one');
is(verify('again@t.example', $new), 'verified', 'which is the one that counts')
  if $old ne $new;

$code = issue('types@t.example', 'Register');
my $other = issue('types@t.example', 'SignIn');
is(verify('types@t.example', $code),
	'verified', 'a code of another usage type does not supersede');
is(verify('types@t.example', $other, 'SignIn'), 'verified', 'nor is it used');

$code = issue('kept@t.example');
is( $node->sql(
		"BEGIN; SELECT postmark_verify_code('kept\@t.example', 'Register', '$code'); ROLLBACK"
	),
	'verified',
	'verified in a transaction that rolls back');
is(verify('kept@t.example', $code), 'verified', 'gives the code back');

is( $node->sql(
		"BEGIN; SELECT postmark_issue_code('never\@t.example', 'Register'); ROLLBACK;
		SELECT count(*) FROM postmark_codes WHERE address LIKE 'never%'"
	) =~ s/^\d+\n//r,
	'0',
	'a code issued in a transaction that rolls back was never there');

# What the tables hold
$code = issue('secret@t.example');
ok($node->wait_finished, 'mail is sent');
is( $node->sql(
		"SELECT count(*) FROM (SELECT c::text FROM postmark_codes c
			UNION ALL SELECT s::text FROM postmark_sends s
			UNION ALL SELECT a::text FROM postmark_attempts a
			UNION ALL SELECT h::text FROM postmark_history h) t(r)
		WHERE r ~ '[^0-9a-f.]${code}[^0-9a-f]'"),
	'0',
	'no table holds the code');
is($node->sql('SELECT length(code_key) FROM postmark_secrets'),
	'32', 'the key has 32 bytes');

#
# Arguments
#

$code = issue('args@t.example');
foreach my $args (
	"NULL, 'Register', '$code'",
	"'args\@t.example', NULL, '$code'",
	"'args\@t.example', 'Register', NULL",
	"'args\@t.example', 'Register', '$code', NULL",
	"'args\@t.example', 'Register', ''",
	"'args\@t.example', 'Register', ' $code.'",
	"'args\@t.example', 'Register', '${code}x'",
	"'args\@t.example', 'Register', E'\\\\x00'",
	"'args\@t.example', 'Register', repeat('1', 100000)",
	"'args\@t.example', '', '$code'",
	"'', 'Register', '$code'",
	"'no address', 'Register', '$code'",
	"'args\@t.example', 'Register', '$code', 'Not A Name'",
	"U&'ar\\0131gs\@t.example', 'Register', '$code'")
{
	is($node->sql("SELECT postmark_verify_code($args)"),
		'mismatch', "mismatch: $args");
}
is(verify('args@t.example', $code), 'verified', 'none of which used it up');

# Case folding is of ASCII alone: these are other letters to PostgreSQL's
# lower() in some locale.
issue('kim@t.example');
is( $node->sql(
		"SELECT postmark_verify_code(U&'\\212Aim\@t.example', 'Register', '$code')"
	),
	'mismatch',
	'the Kelvin sign is not a k');
like(
	error_of(
		"SELECT postmark_issue_code(U&'\\212Aim\@t.example', 'Register')"),
	qr/PM003/,
	'nor an address at all');
like(error_of("SELECT postmark_issue_code('a\@t.example', 'Registr')"),
	qr/PM002.*HINT:.*Register/s, 'an unknown usage type');
like(error_of("SELECT postmark_issue_code('a\@t.example', 'Register', '[]')"),
	qr/PM003/, 'a payload that is no object');
like(error_of("SELECT postmark_verify_code('a\@t.example', 'Register', '1234', 'nobody')"),
	qr/PM001/, 'an unknown connector');

#
# Attempts
#

$node->configure(config => { %unlimited, codeMaxAttempts => 3 });
$code = issue('tries@t.example');
is( join(' ', map { verify('tries@t.example', wrong($code, $_)) } 1 .. 5),
	'mismatch mismatch mismatch exhausted exhausted',
	'codeMaxAttempts guesses are answered');
is(verify('tries@t.example', $code),
	'exhausted', 'then not even the right one');
issue('tries@t.example');
is( join(' ', map { verify('tries@t.example', 'x') } 1 .. 5),
	'mismatch mismatch mismatch mismatch mismatch',
	'what cannot be a code is no attempt');

$code = issue('aborts@t.example');
my $guess = wrong($code);
$node->psql('postgres', <<"SQL", on_error_stop => 0);
BEGIN;
SELECT postmark_verify_code('aborts\@t.example', 'Register', '$guess');
ROLLBACK;
BEGIN;
SAVEPOINT s;
SELECT postmark_verify_code('aborts\@t.example', 'Register', '$guess');
ROLLBACK TO s;
COMMIT;
DO \$\$
BEGIN
	IF postmark_verify_code('aborts\@t.example', 'Register', '$guess') <> 'verified' THEN
		RAISE EXCEPTION 'wrong code';
	END IF;
END
\$\$;
SQL
is(verify('aborts@t.example', $code),
	'exhausted', 'rollback and savepoint make no guess free');

# A session of REPEATABLE READ sees codes that came after its snapshot
$code = issue('rr@t.example');
is( $node->sql(
		"BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) >= 0 FROM postmark_settings;
		SELECT postmark_issue_code('rr\@t.example', 'SignIn') IS NOT NULL;
		SELECT postmark_verify_code('rr\@t.example', 'Register', '"
		  . wrong($code)
		  . "'), postmark_verify_code('rr\@t.example', 'Register', '$code');
		COMMIT"),
	"t\nt\nmismatch|verified",
	'REPEATABLE READ works');

# Brute force: every session guesses as fast as it can
$node->configure(config => { %unlimited, codeMaxAttempts => 7 });
$code = issue('brute@t.example');
my $guesses = join("\n",
	map { "SELECT postmark_verify_code('brute\@t.example', 'Register', '$_');" }
	  map { wrong($code, $_) } 1 .. 200);
my @attackers = map { start($guesses) } 1 .. 16;
my %answers;
foreach my $attacker (@attackers)
{
	$answers{$_}++ foreach split /\n/, finish($attacker);
}
is($answers{mismatch}, 7, 'sixteen sessions are answered seven guesses');
is($answers{exhausted}, 16 * 200 - 7, 'all others are exhausted');

# Stored behind, and read again after a restart
$node->configure(config => { %unlimited, codeMaxAttempts => 3 });
$code = issue('restart@t.example');
verify('restart@t.example', wrong($code, $_)) foreach 1 .. 2;
ok( $node->poll_query_until(
		'postgres',
		"SELECT attempts = 2 FROM postmark_attempts a, postmark_codes c
		WHERE c.address = 'restart\@t.example' AND get_byte(counter, 0) = ascii('c')
			AND substr(counter, 2) = substr(c.hmac, 1, 16)"),
	'attempts are stored by the worker');
$node->restart;
is( join(' ', map { verify('restart@t.example', wrong($code, $_)) } 3 .. 4),
	'mismatch exhausted',
	'attempts outlive a restart');
is(verify('restart@t.example', $code), 'exhausted', 'for the right code, too');
$node->wait_worker;

# verifyLimit: over all codes and usage types of an address
$node->configure(
	config => { sendLimit => 0, verifyLimit => 4, verifyWindow => 60 });
my @types = qw(Register SignIn ForgotPassword);
my @verdicts;
foreach my $n (0 .. 5)
{
	my $type = $types[ $n % 3 ];
	$code = issue('victim@t.example', $type);
	push @verdicts, verify('victim@t.example', wrong($code), $type);
}
is( join(' ', @verdicts),
	'mismatch mismatch mismatch mismatch exhausted exhausted',
	'verifyLimit counts across reissues and usage types');
$code = issue('victim@t.example');
is(verify('VICTIM@t.example', $code), 'exhausted', 'and holds for any code');
$code = issue('other@t.example');
is(verify('other@t.example', $code), 'verified', 'not for other addresses');
ok( $node->poll_query_until(
		'postgres',
		"SELECT count(*) = 1 FROM postmark_attempts
		WHERE get_byte(counter, 0) = ascii('a') AND attempts = 4"),
	'it is stored, too');
$node->sql("UPDATE postmark_attempts SET since = since - interval '61 s'");
$code = issue('victim@t.example');
is(verify('victim@t.example', $code), 'verified', 'the window ends');
$node->configure(config => \%unlimited);

#
# Used once
#

$code = issue('once@t.example');
my @rivals = map {
	start("SELECT postmark_verify_code('once\@t.example', 'Register', '$code')")
} 1 .. 8;
%answers = ();
foreach my $rival (@rivals)
{
	$answers{$_}++ foreach split /\n/, finish($rival);
}
is($answers{verified}, 1, 'of eight sessions at a time one gets "verified"');
is($answers{not_found}, 7, 'the others see that it is gone');

# A statement that uses a code up, or a link's token
my $nlinks = 0;

sub use_of
{
	my ($kind) = @_;
	if ($kind eq 'code')
	{
		my $code = issue('wait@t.example');
		return "SELECT postmark_verify_code('wait\@t.example', 'Register', '$code')";
	}
	$node->sql(
		"SELECT postmark_issue_token('heldlink\@t.example', 'Register', 'https://t.example/{token}')"
	);
	my $token = substr(model('heldlink@t.example', ++$nlinks)->{link}, -32);
	return "SELECT verdict FROM postmark_verify_token('$token', 'Register')";
}

# The second waits for the first, also under REPEATABLE READ
foreach my $case (
	[qw(code COMMIT)], [qw(code ROLLBACK)],
	[qw(token COMMIT)], [qw(token ROLLBACK)])
{
	my ($kind, $end) = @$case;
	my $use = use_of($kind);
	my $first = $node->background_psql('postgres');
	is($first->query_safe("BEGIN; $use"),
		'verified', "first of two that use a $kind before its $end");
	my $second = start("BEGIN ISOLATION LEVEL REPEATABLE READ; $use; COMMIT");
	ok( $node->poll_query_until(
			'postgres',
			"SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
		),
		'the second one waits');
	$first->query_safe($end);
	$first->quit;
	is( finish($second) =~ s/\n//r,
		$end eq 'COMMIT' ? 'not_found' : 'verified',
		"after the first one's $end");
}

#
# Expiry
#

$node->configure(config => { %unlimited, codeTtl => 60 });
$code = issue('expiry@t.example');
is( $node->sql(
		"SELECT expires_at - created_at FROM postmark_codes WHERE address = 'expiry\@t.example'"
	),
	'00:01:00',
	'codeTtl says how long a code is good');
is( $node->sql(
		"SELECT c.expires_at = h.expires_at FROM postmark_codes c JOIN postmark_messages h USING (id)
		WHERE address = 'expiry\@t.example'"),
	't',
	'and the mail expires with it');
$node->sql(
	"UPDATE postmark_codes SET expires_at = clock_timestamp() + interval '30 s' WHERE address = 'expiry\@t.example'"
);
is(verify('expiry@t.example', wrong($code)), 'mismatch',
	'good before its expiry');
$node->sql(
	"UPDATE postmark_codes SET expires_at = clock_timestamp() WHERE address = 'expiry\@t.example'"
);
is(verify('expiry@t.example', $code), 'expired', 'not from then on');
is(verify('expiry@t.example', wrong($code)),
	'expired', 'whatever is tried');
$node->sql(
	"UPDATE postmark_codes SET expires_at = clock_timestamp() - interval '601 s' WHERE address = 'expiry\@t.example'"
);
$node->restart;
ok( $node->poll_query_until(
		'postgres',
		"SELECT count(*) = 0 FROM postmark_codes WHERE address = 'expiry\@t.example'"
	),
	'expired codes are forgotten after a while');
$node->configure(config => \%unlimited);

#
# Sending
#

sub count_sent
{
	my ($address) = @_;
	return $node->sql(
		"SELECT count(*) FROM postmark_messages WHERE email = '$address'");
}

$node->configure(config => { sendLimit => 5, sendWindow => 100 });
my @burst = map {
	start(map { "SELECT postmark_issue_code('burst\@t.example', '$_')" } @types)
} 1 .. 20;
finish($_) foreach @burst;
is(count_sent('burst@t.example'),
	5, 'a burst of parallel calls gets sendLimit mails');
like(
	error_of("SELECT postmark_issue_code('burst\@t.example', 'Generic')"),
	qr/PM007.*DETAIL:  The next one can be sent in (100|9\d) seconds\./s,
	'the error says how long to wait');
like(
	error_of(
		"SELECT postmark_issue_token('burst\@t.example', 'Generic', 'https://x.example/{token}')"
	),
	qr/PM007/,
	'tokens count as well');
$node->sql(
	"UPDATE postmark_sends SET sent_at = sent_at - interval '100 s' WHERE (sent_at, id) IN (SELECT min(sent_at), min(id) FROM postmark_sends WHERE address = 'burst\@t.example')"
);
$node->sql("SELECT postmark_issue_code('burst\@t.example', 'Generic')");
is(count_sent('burst@t.example'), 6, 'when the window has passed, one more');

# One that Postmark does not take counts: whoever asks may have made it so.  One
# that is cancelled does not.
$sandbox->rule(
	recipient => 'fails@t.example',
	action => { refuse => { error_code => 300, message => 'no' } });
$node->configure(config => { sendLimit => 1 });
my $id =
  $node->sql("SELECT postmark_issue_code('fails\@t.example', 'Register')");
ok($node->wait_status($id, 'failed'), 'a message fails');
like(error_of("SELECT postmark_issue_code('fails\@t.example', 'Register')"),
	qr/PM007/, 'which counts');
$node->sql('SELECT postmark_pause()');
$id =
  $node->sql("SELECT postmark_issue_code('cancelled\@t.example', 'Register')");
is($node->sql("SELECT postmark_cancel($id)"), 't', 'a message is cancelled');
$node->sql('SELECT postmark_resume()');
is( $node->sql(
		"SELECT count(postmark_issue_code('cancelled\@t.example', 'Register'))"),
	1,
	'which gives it back');
$node->wait_finished;

$node->configure(config => { sendLimit => 0, resendInterval => 30 });
$node->sql("SELECT postmark_issue_code('resend\@t.example', 'Register')");
like(
	error_of("SELECT postmark_issue_code('Resend\@t.example', 'Register')"),
	qr/PM007.*in (30|2\d) seconds/s,
	'resendInterval');
is( $node->sql(
		"SELECT count(postmark_issue_code('resend\@t.example', 'SignIn'))"),
	1,
	'is for one usage type');

# Cheap with much history
$node->configure(config => { sendLimit => 10 });
$node->sql(
	"INSERT INTO postmark_history (id, connector, email, usage_type, status, attempts, created_at, expires_at, finished_at)
	SELECT -i, 'default', 'h' || i || '\@t.example', 'Register', 'sent', 1, now(), now(), now() FROM generate_series(1, 200000) i;
	INSERT INTO postmark_sends SELECT 'default', 'h' || i || '\@t.example', now(), -i, 'Register', now() + interval '10 min'
	FROM generate_series(1, 200000) i");
my $blocks = $node->sql(<<'SQL');
SET client_min_messages = warning;
SELECT count(postmark_issue_code('cheap@t.example', 'Register'));
SELECT count(postmark_issue_code('cheap@t.example', 'SignIn'));
SELECT pg_stat_force_next_flush();
SELECT sum(seq_scan) FROM pg_stat_xact_user_tables WHERE relname LIKE 'postmark_%' AND relname NOT IN ('postmark_settings', 'postmark_templates', 'postmark_secrets');
SQL
is((split /\n/, $blocks)[-1], '0', 'issuing scans no table');

#
# Recipients
#

$node->configure(
	config => {
		%unlimited,
		recipientPolicy => {
			blockSubaddressing => JSON::PP::true,
			customBlocklist =>
			  [ 'eve@t.example', '@bad.example', '@*.bad.example', 'tmp*@t.example' ]
		}
	});
foreach my $refused (
	'a+b@t.example', 'EVE@t.example', 'x@bad.example',
	'x@sub.BAD.example', 'tmp7@t.example')
{
	like(error_of("SELECT postmark_issue_code('$refused', 'Register')"),
		qr/PM003.*DETAIL:  The recipient policy/s, "refused: $refused");
}
is($node->sql("SELECT count(postmark_issue_code('$_', 'Register'))"),
	1, "allowed: $_")
  foreach 'eve2@t.example', 'x@notbad.example';
$node->configure(
	config => {
		%unlimited,
		recipientPolicy => { customAllowlist => ['@t.example'] }
	});
like(error_of("SELECT postmark_issue_code('x\@u.example', 'Register')"),
	qr/PM003.*allow list/s, 'not on the allow list');
issue('listed@t.example');
like(
	error_of("SELECT postmark_configure('"
		  . $node->connector_json(
			config => { recipientPolicy => { customBlocklist => ['bad'] } })
		  . "')"),
	qr/PM001.*customBlocklist\[0\]/s,
	'a list is checked');
like(
	error_of("SELECT postmark_configure('"
		  . $node->connector_json(
			config => { recipientPolicy => { blockList => [] } })
		  . "')"),
	qr/PM001.*recipientPolicy\.blockList/s,
	'so are its keys');
is( $node->sql("SELECT postmark_configure(postmark_config())"), '',
	'the policy can be read back');
$node->configure(config => \%unlimited);

#
# Links
#

$node->configure(config => { %unlimited, trackLinks => 'HtmlAndText' });
$node->sql(
	"SELECT postmark_issue_token('Link\@t.example', 'OrganizationInvitation', 'https://shop.example/join?t={token}', '{\"team\": \"A\"}')"
);
my $model = model('Link@t.example');
is($model->{team}, 'A', 'the payload is in the mail');
like($model->{link}, qr{^https://shop\.example/join\?t=[A-Za-z0-9_-]{32}$},
	'and the link with the token');
my ($token) = $model->{link} =~ /t=(.*)/;
my ($mail) = $sandbox->messages(recipient => 'Link@t.example', render => 0);
is($mail->{Request}{TrackLinks}, 'None', 'whose links are not tracked');
$node->sql("SELECT postmark_enqueue('tracked\@t.example', 'Register', '1')");
model('tracked@t.example');
($mail) = $sandbox->messages(recipient => 'tracked@t.example', render => 0);
is($mail->{Request}{TrackLinks}, 'HtmlAndText', 'where others are');

sub verify_token
{
	my ($token, $usage_type, $end) = @_;
	$usage_type //= 'OrganizationInvitation';
	return $node->sql(
		"BEGIN; SELECT * FROM postmark_verify_token($token, '$usage_type'); "
		  . ($end // 'COMMIT'));
}
is(verify_token("'$token'", 'Register'),
	'not_found|', 'a token is for its usage type only');
is(verify_token('NULL'), 'mismatch|', 'NULL is a mismatch');
is(verify_token("'x'"), 'mismatch|', 'so is what cannot be a token');
is(verify_token("'" . ('A' x 32) . "'"), 'not_found|', 'an unknown token');
is(verify_token("'$token'", undef, 'ROLLBACK'),
	'verified|Link@t.example', 'the right one says whose it is');
is(verify_token("'$token'"),
	'verified|Link@t.example', 'a rollback gives it back');
is(verify_token("'$token'"), 'not_found|', 'it is good once');
$node->configure(
	config => \%unlimited,
	templates => [
		{ usageType => 'SignIn', templateAlias => 'logto-sign-in', expiresIn => 2 }
	]);
$node->sql(
	"SELECT postmark_issue_token('late\@t.example', 'SignIn', 'shop://{token}')"
);
($token) = model('late@t.example')->{link} =~ m{//(.*)};
ok( $node->poll_query_until(
		'postgres',
		"SELECT expires_at < clock_timestamp() FROM postmark_codes WHERE address = 'late\@t.example'"
	),
	'a token expires');
is(verify_token("'$token'", 'SignIn'), 'expired|', 'an expired token');
like(
	error_of(
		"SELECT postmark_issue_token('a\@t.example', 'SignIn', '$_')"),
	qr/PM003.*DETAIL/s,
	"link refused: $_")
  foreach 'https://x.example/', '{token}', 'https://x.example/ {token}';
is( $node->sql(
		"BEGIN; SELECT postmark_issue_token('both\@t.example', 'SignIn', 'shop://{token}');
		SELECT postmark_issue_code('both\@t.example', 'SignIn');
		SELECT count(*) FROM postmark_codes WHERE address = 'both\@t.example'; ROLLBACK"
	) =~ s/.*\n//sr,
	'2',
	'a code and a token do not supersede each other');

#
# The trigger
#

$node->configure(
	config => \%unlimited,
	templates => [
		{
			usageType => 'Register',
			locale => 'de',
			templateAlias => 'logto-generic'
		}
	]);
$node->sql(<<'SQL');
CREATE TABLE signup (email text, lang text, extra jsonb);
CREATE TRIGGER signup_code AFTER INSERT ON signup FOR EACH ROW
	EXECUTE FUNCTION postmark_issue_code_trigger('email', 'Register', 'locale=lang', 'payload=extra', 'connector=default');
INSERT INTO signup VALUES ('trigger@t.example', 'de-AT', '{"name": "T"}'), (NULL, NULL, NULL);
SQL
$model = model('trigger@t.example');
is($model->{name}, 'T', 'the trigger takes payload');
is(verify('trigger@t.example', $model->{code}),
	'verified', 'and issues a code');
ok($node->wait_finished, 'all is sent');
is( $node->sql(
		"SELECT template_alias FROM postmark_messages WHERE email = 'trigger\@t.example'"
	),
	'logto-generic',
	'its language decides the template');

#
# Digits
#

$node->configure(
	connector => 'digits',
	config => { %unlimited, codeLength => 12 });
my @digits = (0) x 10;
my $length_12 = 0;
my $leading_zero = 0;
foreach my $round (1 .. 10)
{
	my $codes = $node->sql(<<"SQL");
BEGIN;
SELECT count(postmark_issue_code(format('d%s\@t.example', i), 'Register', connector => 'digits'))
FROM generate_series(1, 1000) i;
SELECT code FROM postmark_queue WHERE connector = 'digits';
ROLLBACK;
SQL
	foreach my $digits ((split /\n/, $codes)[ 1 .. 1000 ])
	{
		$length_12++ if $digits =~ /^\d{12}$/;
		$leading_zero++ if $digits =~ /^0/;
		$digits[$_]++ foreach split //, $digits;
	}
}
my $chi = 0;
$chi += ($_ - 12_000)**2 / 12_000 foreach @digits;
is($length_12, 10_000, 'codeLength digits');
ok($leading_zero > 700 && $leading_zero < 1300, 'leading zeros are kept');
# Nine degrees of freedom: more than 80 happens once in 10^13 runs.  A modulo
# of 256 gives 360.
ok($chi < 80, "digits are even (chi squared is $chi)");

#
# Rights
#

$node->sql(<<'SQL');
CREATE ROLE app LOGIN;
GRANT EXECUTE ON FUNCTION postmark_issue_code, postmark_verify_code TO app;
CREATE ROLE nobody LOGIN;
SQL
foreach my $table (
	qw(postmark_codes postmark_sends postmark_attempts postmark_secrets postmark_queue)
  )
{
	like(error_of("SET ROLE app; SELECT * FROM $table"),
		qr/42501/, "who may verify cannot read $table");
}
like(
	error_of(
		"SET ROLE nobody; SELECT postmark_verify_code('a\@t.example', 'Register', '1234')"
	),
	qr/42501/,
	'PUBLIC may not verify');
my $app = $node->sql(
	"SET ROLE app; SET search_path = ''; SELECT public.postmark_issue_code('app\@t.example', 'Register') > 0"
);
is($app, 't', 'a role with EXECUTE issues');
$code = model('app@t.example')->{code};
is( $node->sql(
		"SET ROLE app; SELECT postmark_verify_code('app\@t.example', 'Register', '$code')"
	),
	'verified',
	'and verifies');
like(
	error_of(
		"SET default_transaction_read_only = on; SELECT postmark_verify_code('a\@t.example', 'Register', '1234')"
	),
	qr/25006/,
	'not in a read-only transaction');

#
# All counters in use
#

# Nobody stores them, and the crash has let go of what was there.  Whoever
# guesses needs one for the address and one for the code.
$node->configure(config => { sendLimit => 0 });
PostmarkExtra::reload($node, worker => 'off');
$node->stop('immediate');
$node->start;
$node->sql(<<'SQL');
DO $$
BEGIN
	PERFORM postmark_issue_code(format('full%s@t.example', i), 'SignIn')
		FROM generate_series(1, 3) i;
	FOR i IN 1 .. 1023 LOOP
		PERFORM postmark_issue_code(format('full%s@t.example', i), 'Register');
		IF i % 1000 = 0 THEN
			COMMIT;		-- each has a lock until then
		END IF;
	END LOOP;
END
$$;
SELECT postmark_issue_code('overflow@t.example', 'Register');
SQL
is( $node->sql(<<'SQL'),
SELECT verdict, count(*)
FROM (SELECT postmark_verify_code(format('full%s@t.example', i), 'Register', '0000') AS verdict
	FROM generate_series(1, 1023) i OFFSET 0) v GROUP BY 1;
SELECT postmark_verify_code('full1@t.example', 'SignIn', '0000')
SQL
	"mismatch|1023\nmismatch",
	'2047 counters are in use');

# The last code that was issued, of those that nobody sends
sub queued_code
{
	my ($address, $usage_type) = @_;
	return $node->sql(
		"SELECT code FROM postmark_queue WHERE email = '$address' AND usage_type = '$usage_type'"
	);
}

my $overflow = queued_code('overflow@t.example', 'Register');
is(verify('overflow@t.example', '0000'),
	'exhausted', 'a guess that needs two of the one left is not answered');
is(verify('overflow@t.example', $overflow),
	'exhausted', 'nor is the right code');
is( verify(
		'full1@t.example', queued_code('full1@t.example', 'SignIn'), 'SignIn'),
	'verified',
	'the right code for which there are counters is');
is(verify('full2@t.example', '0000', 'SignIn'),
	'mismatch', 'a guess that needs one has it');
is(verify('full3@t.example', '0000', 'SignIn'),
	'exhausted', 'after which there is none');
is(verify('full3@t.example', '0000'),
	'mismatch', 'counters that are there go on counting');
$node->sql('DELETE FROM postmark_queue');
PostmarkExtra::reload($node, worker => 'on');
ok( PostmarkCluster::until_true(
		sub {
			$node->sql('SELECT count(*) FROM postmark_attempts') >= 2048;
		},
		8),
	'a worker stores all of them without a pause');
is( $node->sql(
		"SELECT count(*) FILTER (WHERE attempts = 1), count(*) FILTER (WHERE attempts = 2)
		FROM postmark_attempts a
		WHERE until > now() + interval '9 min' AND since > (SELECT min(created_at) FROM postmark_codes WHERE address = 'full1\@t.example')"
	),
	'2044|4',
	'as they are');
is(verify('overflow@t.example', $overflow),
	'verified', 'and then there is room again');
$node->configure(config => \%unlimited);

#
# Secrets in the log
#

# One that is raised in the function, and one that cancels it there: it waits
# for a session that has used the code up and may yet roll back.
$code = issue('log@t.example');
my $user = $node->background_psql('postgres');
$user->query_safe(
	"BEGIN; SELECT postmark_verify_code('log\@t.example', 'Register', '$code')");
my $log_before = PostmarkExtra::log_position($node);
is( PostmarkExtra::error_of($node,
		"SELECT postmark_verify_code('log\@t.example', 'Register', '$code', 'nobody')"
	)->{sqlstate},
	'PM001',
	'an error of the function');
is( PostmarkExtra::error_of($node,
		"SET statement_timeout = '500ms';
		SELECT postmark_verify_code('log\@t.example', 'Register', '$code')"
	)->{sqlstate},
	'57014',
	'and one from elsewhere while it runs');
$user->query_safe('ROLLBACK');
$user->quit;
my $log = PostmarkExtra::log_since($node, $log_before);
like($log, qr/ERROR:.*not configured.*ERROR:  canceling statement/s,
	'are logged');
unlike($log, qr/$code/, 'without the code');

#
# Dump and restore
#

$code = issue('dump@t.example');
my $dump = "$PostgreSQL::Test::Utils::tmp_check/codes.sql";
command_ok([ 'pg_dump', '-f', $dump, $node->connstr('postgres') ],
	'a dump');
unlike(
	slurp_file($dump),
	qr/COPY public\.postmark_(codes|sends|attempts|secrets)/,
	'has no codes');
$node->sql('CREATE DATABASE restored');
command_ok(
	[ 'psql', '-Xq', '-f', $dump, $node->connstr('restored') ], 'restored');
is( $node->sql(
		"SELECT postmark_verify_code('dump\@t.example', 'Register', '$code')",
		'restored'),
	'not_found',
	'after a restore every code is not found');

# postmark_remove takes the codes along
$node->sql("SELECT postmark_issue_code('gone\@t.example', 'Register', connector => 'digits')");
$node->wait_finished;
$node->sql("SELECT postmark_remove('digits')");
is( $node->sql(
		"SELECT count(*) FROM postmark_codes WHERE connector = 'digits'"),
	0,
	'postmark_remove takes the codes along');

$node->stop;

#
# Without preload
#

$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->start;
like(
	error_of(
		"SELECT postmark_verify_code('dump\@t.example', 'Register', '$code')"
	),
	qr/PM001.*HINT:  Add postmark_connector to shared_preload_libraries/s,
	'without preload nothing is verified');
$node->stop;

done_testing();
