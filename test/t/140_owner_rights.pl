# What runs with the rights of the tables' owner: nothing of the session's
# reaches it, and nothing that others attached is run by it.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Utils;
use Test::More;

use PostmarkSandbox;
use PostmarkCluster;
use PostmarkExtra;

my $sandbox = PostmarkSandbox->new();
my $node = PostmarkCluster->new('main', sandbox => $sandbox);

$node->sql(<<'SQL');
CREATE ROLE sender LOGIN;
GRANT EXECUTE ON FUNCTION postmark_enqueue, postmark_issue_code,
	postmark_verify_code, postmark_issue_token TO sender;
CREATE ROLE admin LOGIN;
GRANT EXECUTE ON FUNCTION postmark_requeue, postmark_cancel, postmark_wait,
	postmark_set_token, postmark_configure TO admin;
SQL

#
# Plans are not printed
#

my $PRINT = <<'SQL';
SET debug_print_parse = on;
SET debug_print_rewritten = on;
SET debug_print_plan = on;
SET plan_cache_mode = force_custom_plan;
SET client_min_messages = log;
SQL

# How many plans a session sees that has all trees printed
sub printed
{
	my ($role, $sql) = @_;
	my $result = PostmarkExtra::error_of($node, $PRINT . $sql, user => $role);
	my $n = () = $result->{err} =~ /^DETAIL:\s+\{PLANNEDSTMT/mg;
	return ($n, $result);
}

sub not_printed
{
	my ($role, $sql, $name) = @_;
	my ($n, $result) = printed($role, $sql);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($result->{sqlstate}, '', "$name: no error") or diag($result->{err});
	is($n, 1, "$name: no plan but the statement's own is printed");
	return $result;
}

$node->sql("SELECT postmark_pause()");
not_printed('sender', "SELECT postmark_issue_code('ann\@example.com', 'SignIn');",
	'postmark_issue_code');
not_printed('sender', "SELECT postmark_verify_code('ann\@example.com', 'SignIn', '1');",
	'postmark_verify_code');
not_printed('sender', "SELECT postmark_issue_token('ann\@example.com', 'SignIn', 'https://shop.example/?t={token}');",
	'postmark_issue_token');
not_printed('sender', "SELECT postmark_enqueue('ann\@example.com', 'SignIn', '1');",
	'postmark_enqueue');
not_printed('sender', "SELECT postmark_enqueue('ann\@example.com', 'SignIn', '1', send_after => now() + '1 hour');",
	'postmark_enqueue for later');
my $id = $node->sql("SELECT max(id) FROM postmark_messages");
not_printed('admin', "SELECT postmark_cancel($id);", 'postmark_cancel');
not_printed('admin', "SELECT postmark_requeue($id);", 'postmark_requeue');
not_printed('admin', "SELECT postmark_wait($id);", 'postmark_wait');
not_printed('admin', "SELECT postmark_set_token('$PostmarkCluster::TOKEN');",
	'postmark_set_token');

# The test would see them
my (undef, $seen) = printed('admin', "SELECT 1; SELECT 2;");
like($seen->{err}, qr/PLANNEDSTMT.*PLANNEDSTMT/s, 'plans are printed otherwise');

# The session's settings are its own again, also after an error
my $after = PostmarkExtra::error_of($node, <<'SQL', user => 'sender');
SET plan_cache_mode = force_custom_plan;
SET search_path = pg_temp, public;
SELECT postmark_enqueue('ann@example.com', 'SignIn', '1') > 0;
SELECT public.postmark_enqueue('ann@example.com', 'SignIn', '1', send_after => now() + '1 hour', connector => 'none');
SHOW plan_cache_mode;
SHOW search_path;
SHOW enable_seqscan;
SQL
like($after->{out}, qr/force_custom_plan\npg_temp, public\non$/,
	'settings are as the session made them');

# auto_explain, which logs parameters from PostgreSQL 16 on, whatever the plan
my $position = PostmarkExtra::log_position($node);
$node->sql(<<'SQL');
LOAD 'auto_explain';
SET auto_explain.log_min_duration = 0;
SET auto_explain.log_nested_statements = on;
SELECT postmark_issue_code('bob@example.com', 'SignIn');
SELECT postmark_verify_code('bob@example.com', 'SignIn', '1');
SQL
my $log = PostmarkExtra::log_since($node, $position);
like($log, qr/Query Text: SELECT postmark_issue_code/, 'auto_explain logs');
unlike($log, qr/(?:FROM|INTO) public\.postmark_/,
	'but no statement of the extension');
$node->sql("SELECT postmark_resume()");
ok($node->wait_finished, 'the queue drains');

#
# Attached by others: a grantee of TRIGGER, in a session and in the worker
#

$node->sql(<<'SQL');
CREATE ROLE grantee LOGIN;
CREATE SCHEMA grantee AUTHORIZATION grantee;
GRANT TRIGGER ON postmark_history, postmark_codes TO grantee;
CREATE FUNCTION grantee.rise() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	ALTER ROLE grantee SUPERUSER;
	RETURN NEW;
END $$;
ALTER FUNCTION grantee.rise() OWNER TO grantee;
SQL
my $failing = PostmarkExtra::log_position($node);
$node->safe_psql('postgres',
	'CREATE TRIGGER rise BEFORE INSERT ON postmark_history FOR EACH ROW EXECUTE FUNCTION grantee.rise()',
	extra_params => [ '-U', 'grantee' ]);
$node->enqueue(3);
ok($sandbox->wait_requests(1, path => '/email/batchWithTemplates'),
	'mail is sent');
ok($node->wait_state('unconfigured'), 'the state says that it cannot go on');
is( $node->sql('SELECT detail FROM postmark_status'),
	'trigger "rise" of table "postmark_history" runs function grantee.rise(), which belongs to role "grantee"',
	'and why');
ok( PostmarkExtra::wait_for_log($node, $failing,
		qr/postmark_connector could not .*trigger "rise" of table "postmark_history"/),
	'so does the log');
is($node->sql("SELECT rolsuper FROM pg_roles WHERE rolname = 'grantee'"),
	'f', 'the worker did not run it');
$node->sql('DROP TRIGGER rise ON postmark_history');
$node->sql('SELECT postmark_resume()');
ok($node->wait_finished, 'the worker goes on when it is gone');
$node->accounted('each message was sent once', only => qr/^m\d/);
ok($node->wait_state('running'), 'and the state says so');

#
# The memory of a session that queues holds no token
#

$node->configure(connector => 'other', token => 'token-of-another-connector');
SKIP:
{
	my $session = PostmarkExtra::background($node,
		"SET application_name = 'queues'",
		"SELECT postmark_enqueue('ann\@example.com', 'SignIn', '1')",
		'SELECT pg_sleep(60)');
	my $pid = PostmarkExtra::running($node, 'queues');
	PostmarkCluster::until_true(
		sub {
			$node->sql("SELECT count(*) FROM pg_stat_activity WHERE pid = $pid AND wait_event = 'PgSleep'");
		});
	my $memory = private_memory($pid);
	$node->sql("SELECT pg_terminate_backend($pid, 5000)");
	$session->finish;
	skip 'memory of another process cannot be read here', 3
	  unless defined $memory;

	like($memory, qr/ann\@example\.com/, 'its memory can be read');
	unlike($memory, qr/token-of-another-connector/,
		"another connector's token is not in it");
	unlike($memory, qr/\Q$PostmarkCluster::TOKEN\E/, 'nor its own');
}

# What a process has in memory but for what it shares; undef: may not be read
sub private_memory
{
	my ($pid) = @_;
	my $memory = '';
	no warnings 'portable';

	open(my $maps, '<', "/proc/$pid/maps") or return undef;
	open(my $mem, '<:raw', "/proc/$pid/mem") or return undef;
	while (my $line = <$maps>)
	{
		my ($from, $upto, $inode) =
		  $line =~ /^([0-9a-f]+)-([0-9a-f]+) rw-p \S+ \S+ (\d+)/
		  or next;
		my $part;

		next if $inode != 0;
		sysseek($mem, hex($from), 0) or next;
		my $n = sysread($mem, $part, hex($upto) - hex($from));
		$memory .= $part if $n;
	}
	return $memory eq '' ? undef : $memory;
}

done_testing();
