# The history is purged as fast as messages come, in steps that hold up nothing,
# whatever somebody's keys and locks keep of it.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use PostmarkSandbox;
use PostmarkCluster;
use PostmarkExtra;

my $sandbox = PostmarkSandbox->new();
my $node = PostmarkCluster->new('main', sandbox => $sandbox);
$node->configure(connector => 'other');
ok($node->wait_worker, 'there is a worker');

my $next_id = 1_000_000;

# Finished messages, so many of them too old
sub fill
{
	my ($n, $connector) = @_;
	$node->sql(<<"SQL");
INSERT INTO postmark_history (id, connector, email, usage_type, status, attempts, created_at, due_at, expires_at, finished_at)
SELECT $next_id + i, '$connector', format('old%s\@t.example', i), 'Register', 'sent', 1, t, t, t, t
FROM generate_series(1, $n) i, LATERAL (SELECT now() - interval '1 day' + (i / 500) * interval '1 ms') AS x(t)
SQL
	$next_id += $n;
	return;
}

sub old
{
	return "SELECT count(*) FROM postmark_history WHERE finished_at < now() - interval '1 hour'";
}

sub purge
{
	PostmarkExtra::reload($node, history_retention => '1min');
	return;
}

sub keep
{
	PostmarkExtra::reload($node, history_retention => '30d');
	return;
}

#
# The rate: it was 1,000 a second
#

keep();
fill(100_000, 'default');
fill(20_000, 'gone');
my $start = time();
purge();
ok($node->poll_query_until('postgres', old() =~ s/count\(\*\)/count(*) = 0/r),
	'all that is old goes, of a connector that is gone, too');
cmp_ok(time() - $start, '<', 60, 'which is more than 2,000 a second');

# Messages queued meanwhile do not wait for its end
keep();
fill(100_000, 'default');
purge();
$node->enqueue(1, prefix => 'meanwhile');
ok( PostmarkCluster::until_true(
		sub { scalar(() = $sandbox->messages(recipient => 'meanwhile1@t.example')) }
	),
	'a message leaves');
cmp_ok($node->sql(old()), '>', 0, 'while there is still something to purge');
ok($node->poll_query_until('postgres', old() =~ s/count\(\*\)/count(*) = 0/r),
	'which then goes');

#
# What somebody refers to, or has locked, stays; the rest goes
#

foreach my $deferrable ('', 'DEFERRABLE', 'DEFERRABLE INITIALLY DEFERRED')
{
	my $name = "a key $deferrable";

	keep();
	fill(3000, 'default');
	fill(1000, 'other');
	$node->sql(<<"SQL");
CREATE TABLE referring (id bigint REFERENCES postmark_history $deferrable);
INSERT INTO referring SELECT id FROM postmark_history
	WHERE finished_at < now() - interval '1 hour' AND id % 100 = 0;
SQL
	my $kept = $node->sql('SELECT count(*) FROM referring');
	purge();
	ok( $node->poll_query_until('postgres',
			old() =~ s/count\(\*\)/count(*) = $kept/r),
		"$name: all others are purged");
	is( $node->sql(
			'SELECT count(*) FROM referring JOIN postmark_history USING (id)'),
		$kept,
		"$name: those that it refers to are not");
	$node->sql('DROP TABLE referring');
	keep();
	purge();
	ok( $node->poll_query_until(
			'postgres', old() =~ s/count\(\*\)/count(*) = 0/r),
		"$name: without it they are");
}

keep();
fill(3000, 'default');
my $session = $node->background_psql('postgres');
$session->query_safe('BEGIN');
$session->query_safe(
	"SELECT count(*) FROM (SELECT 1 FROM postmark_history WHERE finished_at < now() - interval '1 hour' AND id % 1000 = 0 FOR UPDATE) x"
);
my $locked = $node->sql(
	"SELECT count(*) FROM postmark_history WHERE finished_at < now() - interval '1 hour' AND id % 1000 = 0"
);
cmp_ok($locked, '>', 0, 'some rows are locked');
purge();
ok( $node->poll_query_until('postgres',
		old() =~ s/count\(\*\)/count(*) = $locked/r),
	'all others are purged');
$session->query_safe('COMMIT');
$session->quit;
keep();
purge();
ok($node->poll_query_until('postgres', old() =~ s/count\(\*\)/count(*) = 0/r),
	'and these afterwards');

# A row whose deletion is an error of another kind is no end of the worker
keep();
fill(100, 'default');
$node->sql(<<'SQL');
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not this one'; END $$;
CREATE TRIGGER refuse BEFORE DELETE ON postmark_history FOR EACH ROW EXECUTE FUNCTION refuse();
SQL
my $pid = $node->worker_pid;
my $position = PostmarkExtra::log_position($node);
purge();
ok( PostmarkCluster::until_true(
		sub {
			2 <= (() = PostmarkExtra::log_since($node, $position) =~
				  /could not purge its history: not this one/g);
		}),
	'what a trigger refuses is in the log, once more after a while');
$node->sql('DROP TRIGGER refuse ON postmark_history');
ok($node->poll_query_until('postgres', old() =~ s/count\(\*\)/count(*) = 0/r),
	'and purged once it refuses no more');
is($node->worker_pid, $pid, 'by the same worker');

# An old snapshot keeps what was deleted, which is not walked over again
my $count = $node->sql(
	"SELECT count(*) FROM postmark_history WHERE email LIKE 'meanwhile%'");
is($count, 1, 'what is not old stays');

done_testing();
