# Counters of failed attempts: what they outlive, whose room they take, and
# what is no attempt.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use PostmarkSandbox;
use PostmarkCluster;
use PostmarkExtra;

my $SHARE = 2048;

my $sandbox = PostmarkSandbox->new();
my $node = PostmarkCluster->new(
	'main',
	sandbox => $sandbox,
	init => { allows_streaming => 1 },
	conf => "max_worker_processes = 8\nmax_locks_per_transaction = 500");
my %policy = (sendLimit => 0, codeMaxAttempts => 3);

# Issues a code that nobody sends, and returns it
sub issue
{
	my ($address, $database) = @_;
	my $code = $node->sql(
		"BEGIN;
		SELECT postmark_issue_code('$address', 'Register') IS NOT NULL;
		SELECT code FROM postmark_queue WHERE email = '$address';
		DELETE FROM postmark_queue WHERE email = '$address';
		COMMIT", $database);
	return (split /\n/, $code)[1];
}

sub verify
{
	my ($address, $code, $database) = @_;
	return $node->sql(
		"SELECT postmark_verify_code('$address', 'Register', '$code')",
		$database);
}

# Another code than this one, the n-th
sub wrong { return sprintf('%06d', ($_[0] + $_[1]) % 10**6); }

sub wrong_answers
{
	my ($address, $code, @n) = @_;
	return join(' ', map { verify($address, wrong($code, $_)) } @n);
}

my $file = $node->data_dir . '/pg_stat/postmark_connector.attempts';

subtest 'a copied database' => sub {
	$node->configure(config => \%policy);
	ok($node->wait_worker, 'there is a worker');
	$node->sql('CREATE DATABASE orig');
	$node->prepare_database('orig', config => \%policy);
	PostmarkExtra::reload($node, worker => 'off');
	my $code = issue('copy@t.example', 'orig');
	# what was issued goes on to be sent, so that the copy has unsent mail
	$node->sql("SELECT postmark_enqueue('mail\@t.example', 'Register', '1')",
		'orig');
	$node->sql('CREATE DATABASE copy TEMPLATE orig');
	PostmarkExtra::reload($node, worker => 'on');
	ok( $node->poll_query_until(
			'copy', "SELECT state = 'copied' FROM postmark_status"),
		'sends nothing');
	is(verify('copy@t.example', wrong($code, 1), 'copy'),
		'mismatch', 'verifies');
	ok( $node->poll_query_until(
			'copy', 'SELECT count(*) = 2 FROM postmark_attempts'),
		'and its counters are stored');
	$node->sql('DROP DATABASE copy');
	$node->sql('DROP DATABASE orig');
	PostmarkExtra::reload($node, worker => 'off');
	return;
};

subtest 'a clean stop' => sub {
	my $code = issue('stop@t.example');
	is(wrong_answers('stop@t.example', $code, 1, 2),
		'mismatch mismatch', 'two guesses, which nobody stores');
	is($node->sql('SELECT count(*) FROM postmark_attempts'),
		'0', 'in the table');
	$node->restart;
	ok(!-e $file, 'the file is read once');
	is(wrong_answers('stop@t.example', $code, 3, 4),
		'mismatch exhausted', 'outlive a clean stop');

	# Whoever comes back as a standby has older ones than the tables
	$node->stop;
	ok(-e $file, 'the file is there while the server is down');
	$node->append_conf('standby.signal', '');
	$node->start;
	ok(!-e $file, 'a standby forgets it');
	$node->promote;
	is(wrong_answers('stop@t.example', $code, 5),
		'mismatch', 'and goes by its tables');

	$node->stop;
	append_to_file($file, 'x');
	my $contents = slurp_file($file);
	substr($contents, 40, 1) = chr(255 - ord(substr($contents, 40, 1)));
	unlink $file;
	append_to_file($file, $contents);
	my $position = PostmarkExtra::log_position($node);
	$node->start;
	like(PostmarkExtra::log_since($node, $position),
		qr/ignores file "[^"]*", which is damaged/,
		'a damaged file is said to be one');
	ok(!-e $file, 'and goes');

	is(wrong_answers('stop@t.example', $code, 6), 'mismatch', 'a guess');
	$node->stop('immediate');
	ok(!-e $file, 'a server that is broken off writes none');
	$node->start;
	return;
};

subtest 'a wait that is cancelled' => sub {
	my $code = issue('wait@t.example');
	my $first = $node->background_psql('postgres');
	is( $first->query_safe(
			"BEGIN; SELECT postmark_verify_code('wait\@t.example', 'Register', '$code')"
		),
		'verified',
		'somebody has used the code up and may yet roll back');
	foreach my $n (1 .. 4)
	{
		is( PostmarkExtra::error_of(
				$node,
				"SET statement_timeout = '100 ms';
				SELECT postmark_verify_code('wait\@t.example', 'Register', '$code')"
			)->{sqlstate},
			'57014',
			"right guess $n is cancelled");
	}
	$first->query_safe('ROLLBACK');
	$first->quit;
	is(verify('wait@t.example', $code),
		'verified', 'which were no failed attempts');
	return;
};

subtest 'a person who is forgotten' => sub {
	$node->sql('DELETE FROM postmark_attempts');
	my $code = issue('forget@t.example');
	is(wrong_answers('forget@t.example', $code, 1),
		'mismatch', 'a guess that nobody has stored yet');
	$node->sql("SELECT postmark_forget('forget\@t.example')");
	$code = issue('keep@t.example');
	is(wrong_answers('keep@t.example', $code, 1),
		'mismatch', "and another person's");
	PostmarkExtra::reload($node, worker => 'on');
	ok( $node->poll_query_until(
			'postgres', 'SELECT count(*) > 0 FROM postmark_attempts'),
		'counters are stored');
	PostmarkExtra::reload($node, worker => 'off');
	is($node->sql('SELECT count(*) FROM postmark_attempts'),
		'2', 'but those of who was forgotten');
	return;
};

# Who has read what is stored of a counter, and finds none in shared memory, goes
# by what was read only if none was taken away since.
subtest 'a counter that is taken away meanwhile' => sub {
	$node->sql('DELETE FROM postmark_attempts');
	my $code = issue('away@t.example');
	my $last = wrong($code, 3);
	is(wrong_answers('away@t.example', $code, 1), 'mismatch', 'a guess');
	PostmarkExtra::reload($node, worker => 'on');
	ok( $node->poll_query_until(
			'postgres', 'SELECT count(*) = 2 FROM postmark_attempts'),
		'that is stored');
	PostmarkExtra::reload($node, worker => 'off');
	$node->poll_query_until('postgres',
		"SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'postmark_connector worker'"
	);
	is(wrong_answers('away@t.example', $code, 2),
		'mismatch', 'and one that nobody stores');

	my $other = $node->background_psql('postgres');
	$other->query_safe(
		'BEGIN; LOCK TABLE postmark_attempts IN ACCESS EXCLUSIVE MODE');
	my $guess = PostmarkExtra::background($node,
		"SELECT postmark_verify_code('away\@t.example', 'Register', '$last')");
	ok( $node->poll_query_until(
			'postgres',
			"SELECT count(*) = 1 FROM pg_locks WHERE relation = 'postmark_attempts'::regclass AND NOT granted"
		),
		'a third one waits, under a snapshot that it has taken');
	$other->query_safe("SELECT postmark_unlock('away\@t.example'); COMMIT");
	$other->quit;
	my (undef, $answer) = $guess->finish;
	is($answer =~ s/\n//r, 'mismatch', 'and goes on');
	PostmarkExtra::reload($node, worker => 'on');
	ok( $node->poll_query_until(
			'postgres', 'SELECT count(*) = 2 FROM postmark_attempts'),
		'what it counted is stored');
	PostmarkExtra::reload($node, worker => 'off');
	is( $node->sql('SELECT DISTINCT attempts FROM postmark_attempts'),
		'1', 'as the first one since');
	return;
};

subtest 'shares' => sub {
	my $codes = $SHARE / 2;

	# Each guess needs a counter of the address, and one of the code
	$node->sql('CREATE DATABASE d0');
	$node->prepare_database('d0', config => \%policy);
	$node->sql(
		"SELECT count(postmark_issue_code(format('u%s\@t.example', i), 'Register'))
		FROM generate_series(0, $codes) i;
		DELETE FROM postmark_queue", 'd0');
	$node->sql("CREATE DATABASE d$_ TEMPLATE d0") foreach 1 .. 8;

	is(wrong_answers('rest@t.example', issue('rest@t.example'), 1),
		'mismatch', 'a guess in the first database');

	my $guesses = "SELECT string_agg(DISTINCT v, ' ') FROM (
		SELECT postmark_verify_code(format('u%s\@t.example', i), 'Register', '0000') AS v
		FROM generate_series(1, $codes) i) t";
	foreach my $n (1 .. 7)
	{
		is($node->sql($guesses, "d$n"),
			'mismatch', "database $n may use its share");
	}
	is(verify('u0@t.example', '0000', 'd1'),
		'exhausted', 'and no more than that');
	is($node->sql($guesses, 'd8'),
		'exhausted mismatch', 'eight of them use up all there is');
	is(verify('u0@t.example', '0000', 'd0'),
		'exhausted', 'which leaves none for others');
	$node->sql('DROP DATABASE d1');
	is(verify('u0@t.example', '0000', 'd0'),
		'mismatch', 'a database that is dropped leaves nothing');
	$node->sql('DROP EXTENSION postmark_connector', 'd2');
	is($node->sql($guesses, 'd3'),
		'mismatch', 'counters that are there go on counting');

	return;
};

$node->stop;
done_testing();
