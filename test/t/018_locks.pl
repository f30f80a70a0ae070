# Other sessions' locks delay what is stored, never the network, and nothing
# is sent twice for them.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use PostmarkSandbox;
use PostmarkCluster;

my $sandbox = PostmarkSandbox->new();
my $node = PostmarkCluster->new('main', sandbox => $sandbox);

sub sent
{
	my ($prefix, $n) = @_;
	return $node->poll_query_until('postgres',
		"SELECT count(*) = $n FROM postmark_history WHERE email LIKE '$prefix%' AND status = 'sent'"
	);
}

#
# Locked rows
#

my $other = $node->background_psql('postgres');
foreach my $case (
	[ 'FOR UPDATE', "SELECT count(*) FROM (SELECT 1 FROM postmark_queue WHERE email LIKE 'PREFIX%' AND id % 2 = 0 FOR UPDATE) x", 20 ],
	[ 'DELETE, rolled back', "DELETE FROM postmark_queue WHERE email LIKE 'PREFIX%' AND id % 2 = 0", 20 ],
	[ 'DELETE, committed', "DELETE FROM postmark_queue WHERE email LIKE 'PREFIX%' AND id % 2 = 0", 10 ])
{
	my ($name, $statement, $expected) = @$case;
	my $prefix = 'row' . lc($name =~ s/\W//gr);
	$statement =~ s/PREFIX/$prefix/;

	$node->sql('SELECT postmark_pause()');
	$node->sql(
		"SELECT postmark_enqueue(format('$prefix%s\@t.example', i), 'Register', '000000') FROM generate_series(1, 20) i"
	);
	$other->query_safe('BEGIN');
	$other->query_safe($statement);
	$node->sql('SELECT postmark_resume()');
	ok(sent($prefix, 10), "$name: messages that are not locked are sent");
	$node->sql(
		"SELECT postmark_enqueue('${prefix}later\@t.example', 'Register', '000000')");
	ok(sent($prefix, 11), "$name: and new ones");
	$other->query_safe($name =~ /committed/ ? 'COMMIT' : 'ROLLBACK');
	ok(sent($prefix, $expected + 1),
		"$name: in the end those that are there, too");
	ok($node->wait_finished, "$name: and the queue is empty");
	is( scalar(grep { $_->[1] =~ /^$prefix/ } $sandbox->ids),
		$expected + 1,
		"$name: and no others");
}

#
# A whole backlog that somebody has locked: it is looked at in small steps, and
# what is behind it or beside it goes its way
#

sub peak_kb
{
	my ($kb) = slurp_file('/proc/' . $node->worker_pid . '/status') =~
	  /^VmHWM:\s+(\d+) kB/m;
	return $kb;
}

$node->configure(connector => 'beside');
foreach my $table ('queue', 'deferred')
{
	my $after = $table eq 'queue' ? 'NULL::timestamptz' : 'clock_timestamp()';

	$node->sql('SELECT postmark_pause()');
	$node->sql(
		"SELECT count(postmark_enqueue('heap' || i || '\@t.example', 'Register', '000000', send_after => $after + interval '1 s')) FROM generate_series(1, 60000) i"
	);
	$node->sql(
		"SELECT postmark_enqueue('behind$table\@t.example', 'Register', '000000', send_after => $after + interval '2 s')"
	);
	$other->query_safe('BEGIN');
	$other->query_safe("DELETE FROM postmark_$table WHERE email LIKE 'heap%'");
	my $peak = peak_kb();
	$node->sql('SELECT postmark_resume()');
	ok(sent("behind$table", 1),
		"$table: what is behind a locked backlog is sent");
	$node->sql(
		"SELECT postmark_enqueue('beside$table\@t.example', 'Register', '000000', connector => 'beside')"
	);
	ok(sent("beside$table", 1), "$table: and what is beside it");
	cmp_ok(peak_kb() - $peak,
		'<', 16 * 1024, "$table: the worker does not read all of it at once");
	$other->query_safe('COMMIT');
	ok($node->wait_finished, "$table: nothing is left in the end");
}

#
# Locked tables
#

# While requests are under way, their results cannot be stored
foreach my $case (
	[ 'history', 'LOCK TABLE postmark_history IN ACCESS EXCLUSIVE MODE' ],
	[ 'queue', 'LOCK TABLE postmark_queue IN ACCESS EXCLUSIVE MODE' ],
	[ 'intents', 'LOCK TABLE postmark_intents IN ACCESS EXCLUSIVE MODE' ])
{
	my ($name, $statement) = @$case;
	my $rule = $sandbox->rule(
		path => '/email*',
		action => { latency_after => 0.5 });
	my $distinct = $sandbox->counts->{distinct};

	$node->enqueue(1000, prefix => $name);
	ok($sandbox->wait_for(distinct => $distinct + 1000),
		"$name locked: messages are accepted");
	$other->query_safe('BEGIN');
	$other->query_safe($statement);
	ok($sandbox->wait_for(idle => 1), "$name locked: and answered");

	# A search that nothing calls for would show doubt
	my $searches = $sandbox->counts->{requests}{'/messages/outbound'} // 0;
	$sandbox->clear_rules($rule);
	my $pid = $other->query_safe('SELECT pg_backend_pid()');
	ok( $node->poll_query_until(
			'postgres',
			"SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type = 'postmark_connector worker' AND $pid = ANY (pg_blocking_pids(pid))"
		),
		"$name locked: the worker tries to store the results");
	$other->query_safe('COMMIT');
	ok($node->wait_finished, "$name locked: they are stored afterwards");
	is($sandbox->counts->{requests}{'/messages/outbound'} // 0,
		$searches, "$name locked: nothing had to be looked up");
	$node->accounted("$name locked: each message arrived once",
		only => qr/^$name/);
}

# VACUUM FULL in the midst of a drain
$sandbox->rule(path => '/email*', action => { latency => [ 0, 0.1 ] });
$node->append_conf('postgresql.conf', "postmark_connector.batch_size = 50\n");
$node->reload;
$node->enqueue(5000, prefix => 'vacuum');
my $rounds = 0;
until ($node->sql('SELECT count(*) FROM postmark_queue') == 0 || $rounds == 50)
{
	$node->sql("VACUUM FULL $_")
	  foreach qw(postmark_queue postmark_history postmark_intents postmark_deferred);
	$rounds++;
}
cmp_ok($rounds, '>', 0, 'VACUUM FULL runs during a drain');
ok($node->wait_finished, 'VACUUM FULL: all messages are finished');
$node->accounted('VACUUM FULL: each message arrived once',
	only => qr/^vacuum/);

# Somebody configures, and takes his time
$other->query_safe('BEGIN');
$other->query_safe("SELECT postmark_configure(\$j\$"
	  . $node->connector_json(config => { tag => 'new' })
	  . "\$j\$)");
my $later = $node->later('postgres', PostmarkCluster::enqueue_sql(200, prefix => 'configuring'));
ok(sent('configuring', 200),
	'an open postmark_configure does not stop the queue');
$later->finish;
$other->query_safe('COMMIT');
$node->enqueue(1, prefix => 'configured');
ok($node->wait_finished, 'and it takes effect when it commits');
my ($mail) = $sandbox->messages(recipient => 'configured1@t.example');
is($mail->{Tag}, 'new', 'for the next message');
$other->quit;

#
# Cancel
#

# Sessions cancel what the worker claims; true means: never sent
$node->append_conf('postgresql.conf', "postmark_connector.batch_size = 7\n");
$node->reload;
$sandbox->clear_rules;
$sandbox->rule(path => '/email*', action => { latency => [ 0, 0.01 ] });
$node->sql(<<'SQL');
CREATE TABLE cancelled (id bigint);
CREATE PROCEDURE race(session int, rounds int) LANGUAGE plpgsql AS $$
DECLARE
	ids bigint[];
BEGIN
	FOR i IN 1..rounds LOOP
		WITH q AS (
			INSERT INTO app_messages (email, id)
			SELECT e, postmark_enqueue(e, 'Register', '000000')
			FROM (SELECT format('race%s-%s-%s@t.example', session, i, n) AS e
				FROM generate_series(1, 10) n OFFSET 0) s
			RETURNING id)
		SELECT array_agg(id) INTO ids FROM q;
		COMMIT;
		INSERT INTO cancelled SELECT id FROM unnest(ids) id WHERE id % 3 > 0 AND postmark_cancel(id);
		COMMIT;
	END LOOP;
END
$$;
SQL
my $loops = 60 * PostmarkCluster::load();
my @sessions = map { $node->later('postgres', "CALL race($_, $loops)") } 1 .. 3;
foreach my $session (@sessions)
{
	my ($status, $out, $err) = $session->finish;
	is($err, '', 'a session that cancels meets no error');
}
ok($node->wait_finished, 'the queue drains');
my $cancelled = $node->sql('SELECT count(*) FROM cancelled');
cmp_ok($cancelled, '>', 0, 'some messages were cancelled');
cmp_ok(
	$node->sql(
		q(SELECT count(*) FROM app_messages a JOIN postmark_messages m USING (id) WHERE a.id % 3 > 0 AND a.email LIKE 'race%' AND m.status = 'sent')
	),
	'>', 0,
	'some were sent before they could be');
is( $node->sql(
		q(SELECT count(*) FROM cancelled LEFT JOIN postmark_messages m USING (id) WHERE m.status IS DISTINCT FROM 'cancelled')
	),
	0,
	'what was cancelled is shown as cancelled');
my %arrived = map { ($_->[0] =~ /^(\d+)-/)[0] => 1 } $sandbox->ids;
is( scalar(
		grep { $arrived{$_} } split /\n/, $node->sql('SELECT id FROM cancelled')),
	0,
	'and never sent');
$node->accounted('each message is sent once or cancelled',
	only => qr/^race/);

# Connectors come and go while others go through all there are
$node->configure(connector => 'guest');
$node->sql(<<'SQL');
CREATE TABLE guest AS SELECT * FROM postmark_settings WHERE connector = 'guest';
CREATE PROCEDURE come_and_go(loops integer) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. loops LOOP
		DELETE FROM postmark_settings WHERE connector = 'guest';
		COMMIT;
		INSERT INTO postmark_settings SELECT * FROM guest;
		COMMIT;
	END LOOP;
END
$$;
CREATE PROCEDURE look(loops integer) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. loops LOOP
		PERFORM postmark_cancel(0), postmark_wait(0, '0');
		COMMIT;
	END LOOP;
END
$$;
SQL
@sessions = map { $node->later('postgres', "CALL $_") }
  ("come_and_go($loops * 10)", ("look($loops * 10)") x 3);
foreach my $session (@sessions)
{
	my ($status, $out, $err) = $session->finish;
	is($err, '', 'a session meets no error while connectors come and go');
}

is($sandbox->counts->{duplicates}, 0, 'nothing was sent twice');
unlike(slurp_file($node->logfile), qr/TRAP|PANIC|terminated by signal/,
	'nothing crashed');
$node->stop;
done_testing();
