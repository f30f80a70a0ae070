# The keys of verification codes: there before the first code, and replaced
# without a code that is void from the start.

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

# The code that the last mail to somebody has
sub mailed_code
{
	my ($address) = @_;
	my @mails;

	PostmarkCluster::until_true(
		sub {
			@mails = $sandbox->messages(recipient => $address, render => 0);
			return scalar(@mails);
		});
	return @mails ? $mails[-1]{Request}{TemplateModel}{code} : '';
}

sub verify
{
	my ($address, $code) = @_;
	return $node->sql(
		"SELECT postmark_verify_code('$address', 'Register', '$code')");
}

subtest 'the first code' => sub {
	is($node->sql('SELECT octet_length(code_key) FROM postmark_secrets'),
		32, 'a configured connector has a key');
	my $key = $node->sql('SELECT code_key FROM postmark_secrets');

	my $first = $node->background_psql('postgres');
	$first->query_safe(
		"BEGIN; SELECT postmark_issue_code('first\@t.example', 'Register')");
	is( PostmarkExtra::error_of($node,
			"SET statement_timeout = '20 s';
			SELECT postmark_issue_code('second\@t.example', 'Register')"
		)->{err},
		'',
		'a code does not wait for the first one to be committed');
	$first->query_safe('COMMIT');
	$first->quit;
	$node->configure();
	is($node->sql('SELECT code_key FROM postmark_secrets'),
		$key, 'configuring again keeps the key');
	return;
};

subtest 'settings without secrets' => sub {
	# as in a restored database
	$node->sql('DELETE FROM postmark_secrets');
	ok( $node->poll_query_until(
			'postgres',
			'SELECT octet_length(code_key) = 32 FROM postmark_secrets'),
		'the worker makes the key');
	$node->sql("SELECT postmark_set_token('" . $PostmarkCluster::TOKEN . "')");

	# without a worker
	PostmarkExtra::reload($node, worker => 'off');
	$node->sql('UPDATE postmark_secrets SET code_key = NULL');
	$node->sql("SELECT postmark_issue_code('none\@t.example', 'Register')");
	is($node->sql('SELECT octet_length(code_key) FROM postmark_secrets'),
		32, 'and where there is none, whoever issues');
	PostmarkExtra::reload($node, worker => 'on');
	ok($node->wait_finished, 'the mail leaves');
	is(verify('none@t.example', mailed_code('none@t.example')),
		'verified', 'and its code is good');
	return;
};

subtest 'a connector that is removed meanwhile' => sub {
	$node->configure(connector => 'gone');
	$node->sql('CREATE TABLE go ()');
	$node->sql(
		q{CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$
		DECLARE
			waits int := 0;
		BEGIN
			WHILE NEW.connector = 'default' AND waits < 600
				AND NOT EXISTS (SELECT FROM public.go) LOOP
				PERFORM pg_sleep(0.1);
				waits := waits + 1;
			END LOOP;
			RETURN NEW;
		END $$});
	$node->sql(
		'CREATE TRIGGER hold BEFORE INSERT ON postmark_secrets FOR EACH ROW EXECUTE FUNCTION hold()'
	);
	$node->sql('DELETE FROM postmark_secrets');
	ok( $node->poll_query_until(
			'postgres',
			"SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type LIKE 'postmark%' AND wait_event = 'PgSleep'"
		),
		'the worker makes the key of another connector');
	my $removal = $node->later('postgres', "SELECT postmark_remove('gone')");
	ok( $node->poll_query_until(
			'postgres',
			"SELECT NOT EXISTS (SELECT FROM postmark_settings WHERE connector = 'gone')
				OR EXISTS (SELECT FROM pg_locks WHERE NOT granted)"),
		'and one is removed');
	$node->sql('INSERT INTO go DEFAULT VALUES');
	my ($result, $out, $err) = $removal->finish;
	is($err, '', 'it can be');
	ok( $node->poll_query_until(
			'postgres',
			"SELECT count(*) = 1 FROM postmark_secrets WHERE connector = 'default'"
		),
		'the worker goes on');
	is($node->sql("SELECT connector FROM postmark_secrets"),
		'default', 'no key is left of what was removed');
	$node->sql('DROP TRIGGER hold ON postmark_secrets');
	$node->sql("SELECT postmark_set_token('" . $PostmarkCluster::TOKEN . "')");
	return;
};

subtest 'rotation' => sub {
	$node->sql("SELECT postmark_issue_code('old\@t.example', 'Register')");
	my $old = mailed_code('old@t.example');
	my $key = $node->sql('SELECT code_key FROM postmark_secrets');
	my $codes = $node->sql('SELECT count(*) FROM postmark_codes');

	# One that is being issued under the old key is not left behind
	my $open = $node->background_psql('postgres');
	$open->query_safe(
		"BEGIN; SELECT postmark_issue_code('open\@t.example', 'Register')");
	my $rotation =
	  $node->later('postgres', 'SELECT postmark_rotate_code_key()');
	ok( $node->poll_query_until(
			'postgres',
			"SELECT count(*) = 1 FROM pg_locks WHERE relation = 'postmark_codes'::regclass AND NOT granted"
		),
		'it waits for a transaction that issues');
	my $late = $node->later('postgres',
		"SELECT postmark_issue_code('late\@t.example', 'Register')");
	ok( $node->poll_query_until(
			'postgres',
			"SELECT count(*) = 2 FROM pg_locks WHERE relation = 'postmark_codes'::regclass AND NOT granted"
		),
		'and one that comes later waits for it');
	$open->query_safe('COMMIT');
	$open->quit;
	my ($result, $out, $err) = $rotation->finish;
	is($out, $codes + 1 . "\n", 'it says how many codes are void') or diag($err);
	($result, $out, $err) = $late->finish;
	is($err, '', 'the later one is issued');
	isnt($node->sql('SELECT code_key FROM postmark_secrets'),
		$key, 'the key is another');
	is(verify('old@t.example', $old), 'not_found', 'an older code is void');
	is(verify('late@t.example', mailed_code('late@t.example')),
		'verified', 'the later one is good');
	is( PostmarkExtra::error_of($node,
			"SELECT postmark_rotate_code_key('nobody')")->{sqlstate},
		'PM001',
		'there must be such a connector');
	return;
};

$node->stop;
done_testing();
