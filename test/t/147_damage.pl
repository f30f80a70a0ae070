# A page that is damaged, or a table that somebody has locked, stops what is in
# it and nothing else; what stands still says why.

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
	init => { extra => ['--data-checksums'] },
	conf => "autovacuum = off\n");
$node->configure(connector => $_) foreach 'broken', 'whole';
ok($node->wait_worker, 'there is a worker');

# Writes over a page of a table's file, and returns what was there
sub write_page
{
	my ($file, $block, $content) = @_;
	my $path = $node->data_dir . '/' . $file;

	open my $handle, '+<:raw', $path or die "$path: $!";
	seek $handle, $block * 8192, 0 or die "$path: $!";
	read $handle, my $page, 8192 or die "$path: $!";
	seek $handle, $block * 8192, 0 or die "$path: $!";
	print $handle $content or die "$path: $!";
	close $handle or die "$path: $!";
	return $page;
}

my $garbage = 'x' x 8192;

sub file_of
{
	my ($table) = @_;
	return $node->sql("SELECT pg_relation_filepath('$table')");
}

sub arrives
{
	my ($prefix, $n) = @_;
	return PostmarkCluster::until_true(
		sub { scalar(grep { $_->[1] =~ /^$prefix/ } $sandbox->ids) >= $n });
}

#
# The queue: each connector's messages are on pages of their own
#

$node->sql("SELECT postmark_pause(c) FROM unnest('{broken,whole}'::text[]) c");
$node->enqueue(300, connector => 'broken', prefix => 'broken');
$node->enqueue(300, connector => 'whole', prefix => 'whole');
is( $node->sql(
		"SELECT count(*) FROM postmark_queue WHERE ctid < '(1,0)' AND connector <> 'broken'"
	),
	0,
	'the first page has messages of one connector only');
my $file = file_of('postmark_queue');
$node->stop;
my $log = PostmarkExtra::log_position($node);
my $page = write_page($file, 0, $garbage);
$node->start;
$node->wait_worker;
$node->sql("SELECT postmark_resume(c) FROM unnest('{broken,whole}'::text[]) c");
$node->enqueue(50, connector => 'default', prefix => 'default');
ok(arrives('default', 50), 'queue damaged: another connector goes on');
ok(arrives('whole', 300),
	'queue damaged: so does one whose messages were there');
$node->enqueue(1, connector => 'broken', prefix => 'newbroken');
ok(arrives('newbroken', 1),
	'queue damaged: new messages of the one concerned leave');
ok( $node->poll_query_until(
		'postgres',
		"SELECT detail ~ 'postmark_queue' FROM postmark_trouble WHERE connector = 'broken'"
	),
	'queue damaged: its trouble names the table');
like(
	$node->sql("SELECT detail FROM postmark_trouble WHERE connector = 'broken'"),
	qr/invalid page/,
	'queue damaged: and says what is the matter');
is($node->sql("SELECT state FROM postmark_state('broken')"),
	'backing_off', 'queue damaged: its state is backing_off');
like(
	$node->sql("SELECT detail FROM postmark_state('broken')"),
	qr/postmark_queue/,
	'queue damaged: which names the table, too');
is( $node->sql(
		"SELECT count(*) FROM postmark_trouble WHERE connector IN ('whole', 'default')"
	),
	0,
	'queue damaged: the others have none');
my $logged = () =
  PostmarkExtra::log_since($node, $log) =~ /postmark_connector could not/g;
cmp_ok($logged, '<', 20, 'queue damaged: the log is not filled');

# As if a page had been restored; who reads it is not held up by the old one
write_page($file, 0, $page);
ok(arrives('broken', 300), 'queue mended: what was in it is sent');
ok( $node->poll_query_until(
		'postgres',
		"SELECT count(*) = 0 FROM postmark_trouble"),
	'queue mended: there is no trouble');
ok($node->wait_finished, 'queue mended: all are finished');
$node->accounted('queue mended: each message arrived once');

#
# The history: an old page, of which something is to be purged
#

$file = file_of('postmark_history');
cmp_ok($node->sql("SELECT pg_relation_size('postmark_history')"),
	'>', 3 * 8192, 'the history has some pages');
$node->append_conf('postgresql.conf',
	"postmark_connector.history_retention = '1min'");
$node->sql(
	"UPDATE postmark_history SET finished_at = now() - interval '1 day' WHERE ctid < '(1,0)'"
);
$node->stop;
$log = PostmarkExtra::log_position($node);
$page = write_page($file, 0, $garbage);
$node->start;

# No wait for the worker here: postmark_status looks into the history, too
$node->enqueue(50, prefix => 'history');
ok(arrives('history', 50), 'history damaged: mail goes on');
ok( PostmarkExtra::wait_for_log(
		$node, $log, qr/could not purge its history: invalid page/),
	'history damaged: it cannot be purged');
$node->enqueue(50, prefix => 'again');
ok(arrives('again', 50), 'history damaged: and again');
write_page($file, 0, $page);
ok($node->wait_finished, 'history mended: all are finished');
$node->accounted('history mended: each message arrived once',
	only => qr/^(history|again)/);

#
# The intents: nobody knows what is under way
#

my $rule = $sandbox->rule(path => '/email*', action => { latency => 600 });
$node->enqueue(1, prefix => 'intent');
ok($sandbox->wait_for(in_flight => 1), 'a request is under way');
$file = file_of('postmark_intents');
$node->stop;
$sandbox->clear_rules;
$log = PostmarkExtra::log_position($node);
write_page($file, 0, $garbage);
$node->start;
$node->wait_worker;
ok( $node->poll_query_until(
		'postgres',
		"SELECT bool_and(detail ~ 'postmark_intents') FROM postmark_trouble"),
	'intents damaged: the trouble names the table');
is($node->sql('SELECT count(*) FROM postmark_trouble'),
	3, 'intents damaged: that of all connectors');
$logged = () =
  PostmarkExtra::log_since($node, $log) =~ /postmark_connector could not/g;
cmp_ok($logged, '<', 10, 'intents damaged: the log is not filled');
$node->sql('TRUNCATE postmark_intents');
$node->enqueue(1, prefix => 'truncated');
ok(arrives('truncated', 1), 'intents emptied: it goes on by itself');

#
# Locked tables: nobody else's messages wait
#

my $session = $node->background_psql('postgres');
foreach my $reload (0, 1)
{
	my $name = $reload ? 'deferred locked, reload' : 'deferred locked';

	# One that is due in it
	$node->sql(
		"SELECT postmark_enqueue('due$reload\@t.example', 'Register', '1', send_after => now() + interval '1 s', connector => 'broken')"
	);
	$session->query_safe('BEGIN');
	$session->query_safe('LOCK TABLE postmark_deferred IN ACCESS EXCLUSIVE MODE');
	$node->reload if $reload;
	$node->sql('SELECT pg_sleep(1.5)');
	$node->enqueue(100, prefix => "locked$reload");
	ok(arrives("locked$reload", 100), "$name: messages leave");
	ok( $node->poll_query_until(
			'postgres',
			"SELECT count(*) = 100 FROM postmark_history WHERE email LIKE 'locked$reload%'"
		),
		"$name: and answers are stored");
	$session->query_safe('COMMIT');
	ok(arrives("due$reload", 1), "$name: what was due leaves afterwards");
}

$session->quit;
done_testing();
