# What the worker keeps in memory does not grow with its turns, nor with what a
# message becomes when it is written into a request.

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
	conf => "postmark_connector.batch_size = 1\npostmark_connector.max_in_flight = 1\n");
ok($node->wait_worker, 'there is a worker');

# Bytes of the worker's context of that name
sub context_size
{
	my ($name) = @_;
	my $log = PostmarkExtra::log_position($node);

	$node->sql('SELECT pg_log_backend_memory_contexts('
		  . $node->worker_pid
		  . ')');
	PostmarkExtra::wait_for_log($node, $log, qr/Grand total/);
	my ($size) = PostmarkExtra::log_since($node, $log) =~
	  /\Q$name\E: (\d+) total in/;
	return $size;
}

#
# Turns
#

$node->enqueue(400, prefix => 'turn');
ok($node->wait_finished, 'hundreds of requests are made');
my $size = context_size('postmark turn');
note("the turn has $size bytes");
cmp_ok($size, '<', 25_000, 'the memory of a turn is gone with it');
my $before = context_size('TopMemoryContext');
$node->enqueue(400, prefix => 'more');
ok($node->wait_finished, 'hundreds more are made');
cmp_ok(context_size('TopMemoryContext') - $before,
	'<', 16_000, 'and what the worker keeps of them, too');
PostmarkExtra::reload($node, batch_size => 500, max_in_flight => 8);

#
# Payloads: few bytes in the table, many in a request.  The check keeps them out;
# a row trigger that is disabled, or version 1.0, does not.
#

$node->sql(<<'SQL');
SELECT postmark_pause();
ALTER TABLE postmark_queue DISABLE TRIGGER postmark_queue_row;
INSERT INTO postmark_queue (lane, id, created_at, expires_at, email, usage_type, connector, payload)
SELECT s.number * 10 + 4, nextval('postmark_message_id_seq'), now(), now() + interval '1 hour',
	CASE WHEN i = 7 THEN 'huge' ELSE format('large%s', i) END || '@t.example', 'Register', s.connector,
	jsonb_build_object('s', repeat(E'\x01', CASE WHEN i = 7 THEN 2000000 ELSE 400000 END))
FROM postmark_settings s, generate_series(4, 8) i;
ALTER TABLE postmark_queue ENABLE ALWAYS TRIGGER postmark_queue_row;
SELECT postmark_resume();
SQL
my $last = $sandbox->last_request;
$node->enqueue(1, prefix => 'behind');
ok($node->wait_finished, 'they are finished');
is( $node->sql(
		"SELECT status || ': ' || last_error FROM postmark_messages WHERE email LIKE 'huge%'"
	),
	'failed: The message is larger than Postmark takes.',
	'what is too large for Postmark fails');
is( $node->sql(
		"SELECT count(*) FROM postmark_messages WHERE email LIKE 'large%' AND status = 'sent'"
	),
	4,
	'the others are sent');
my @lengths = map { length($_->{body} // '') }
  $sandbox->requests(path => '/email*', since => $last);
cmp_ok((sort { $b <=> $a } @lengths)[0],
	'<', 4_000_000, 'each in a request of its own');
ok( $node->poll_query_until(
		'postgres',
		"SELECT count(*) = 1 FROM postmark_messages WHERE email LIKE 'behind%' AND status = 'sent'"
	),
	'and so is the one behind them');
cmp_ok(context_size('postmark turn'),
	'<', 25_000, 'and the memory of that turn, too, is gone');

done_testing();
