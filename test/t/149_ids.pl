# An id that a message has already is given to no other one, however far the
# sequence was set back.

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
$node->configure(connector => 'paused');
ok($node->wait_worker, 'there is a worker');
$node->sql(q(SELECT postmark_pause('paused')));

my $set_back = q(SELECT setval('postmark_message_id_seq', 1, false));

sub unique_ids
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is(
		$node->sql(
			'SELECT count(*) - count(DISTINCT id) FROM postmark_messages'),
		0, $name);
}

# In the history, in the queue, and among the deferred ones
$node->enqueue(500, prefix => 'first');
ok($node->wait_finished, 'messages are finished');
$node->enqueue(20, prefix => 'queued', connector => 'paused');
my $later =
  "SELECT postmark_enqueue(format('%s%s\@t.example', 'PREFIX', i), 'Register', send_after => now() + interval '1 day') FROM generate_series(1, 20) i";
$node->sql($later =~ s/PREFIX/later/r);

foreach my $worker ('with a worker', 'without one')
{
	my $prefix = $worker eq 'with a worker' ? 'a' : 'b';

	if ($prefix eq 'b')
	{
		PostmarkExtra::reload($node, worker => 'off');
		PostmarkCluster::until_true(sub { !defined $node->worker_pid });
	}
	$node->sql($set_back);
	$node->enqueue(50, prefix => "${prefix}set");
	$node->sql($set_back);
	$node->sql(
		"INSERT INTO postmark_queue (email, usage_type) SELECT format('${prefix}insert%s\@t.example', i), 'Register' FROM generate_series(1, 50) i"
	);
	$node->sql($set_back);
	$node->sql($later =~ s/PREFIX/${prefix}later/r);
	$node->sql($set_back);
	$node->sql(
		"SELECT postmark_issue_code(format('${prefix}code%s\@t.example', i), 'SignIn') FROM generate_series(1, 20) i"
	);
	unique_ids("$worker: no id is given twice");
	is( $node->sql(
			"CREATE SEQUENCE own; SELECT nextval('own'); "
			  . PostmarkCluster::enqueue_sql(3, prefix => "${prefix}own")
			  . '; SELECT lastval(); DROP SEQUENCE own'),
		"1\n1",
		"$worker: lastval() is that of one's own sequence");
	cmp_ok(
		$node->sql(
			"SELECT min(id) FROM postmark_messages WHERE email LIKE '${prefix}%'"),
		'>', 540, "$worker: the sequence goes on behind them");
	PostmarkExtra::reload($node, worker => undef) if $prefix eq 'b';
}
ok( $node->poll_query_until(
		'postgres', "SELECT count(*) = 20 + 60 FROM postmark_messages WHERE status IN ('queued', 'deferred', 'sending')"
	),
	'all that can be are finished');
$node->sql(
	"DELETE FROM app_messages WHERE email LIKE 'queued%' OR email LIKE '%later%'"
);
$node->accounted('each message arrived once, and has its record',
	only => qr/^(first|aset|bset)/);

# Many sessions at the same time
$node->sql($set_back);
my @sessions = map {
	$node->later(
		'postgres',
		PostmarkCluster::enqueue_sql(10, prefix => "session$_-"),
		$set_back,
		PostmarkCluster::enqueue_sql(10, prefix => "session$_-", from => 11))
} 1 .. 4;
foreach my $session (@sessions)
{
	my ($status, undef, $errors) = $session->finish;
	ok(!$status, 'a session meets no error') or diag($errors);
}
ok( $node->poll_query_until(
		'postgres', "SELECT count(*) = 20 + 60 FROM postmark_messages WHERE status IN ('queued', 'deferred', 'sending')"
	),
	'their messages are finished');
unique_ids('several sessions: no id is given twice');
$node->accounted('several sessions: each message arrived once',
	only => qr/^session/);

done_testing();
