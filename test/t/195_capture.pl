# Messages that are kept instead of being sent: what a server's life does to
# them.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use PostmarkSandbox;
use PostmarkCluster;
use PostmarkExtra;

my $sandbox = PostmarkSandbox->new();
my $node = PostmarkCluster->new('main', sandbox => $sandbox,
	conf => "postmark_connector.batch_size = 20\npostmark_connector.request_timeout = 5s\n");
$node->wait_worker;

# How messages go from now on
sub deliver
{
	my ($how) = @_;
	$node->configure(config => { delivery => $how });
	return;
}

sub asked { return scalar(() = $sandbox->requests); }

#
# To and fro while mail flows
#

foreach my $round (1 .. 10)
{
	$node->enqueue(200, prefix => "round$round");
	deliver($round % 2 ? 'capture' : 'postmark');
}
ok($node->wait_finished, 'messages are finished while "delivery" changes');
my %sent;
$sent{ $_->{Metadata}{postmark_id} =~ s/-.*//r }++
  foreach map { $_->{Request} } $sandbox->messages(render => 0, limit => 4000);
my %kept = map { $_ => 1 } split /\n/,
  $node->sql('SELECT id FROM postmark_captured');
is( scalar(keys %sent) + scalar(keys %kept),
	2000, 'each of them was sent or kept');
is(scalar(grep { $kept{$_} } keys %sent), 0, 'none of them both');
is( $node->sql(
		'SELECT count(*), count(DISTINCT id) FROM postmark_captured'),
	$node->sql('SELECT count(*), count(*) FROM postmark_captured'),
	'none of them was kept twice');
cmp_ok(scalar(keys %kept), '>', 0, 'some were kept');

# What was under way is finished as it turned out
deliver('postmark');
my $rule = $sandbox->rule(path => '/email*', action => { latency => 1 });
$node->enqueue(1, prefix => 'underway');
$sandbox->wait_for(in_flight => 1);
deliver('capture');
$node->enqueue(1, prefix => 'behind');
ok( $node->poll_query_until(
		'postgres',
		"SELECT count(*) = 1 FROM postmark_captured WHERE email = 'behind1\@t.example'"
	),
	'what comes behind a request that is under way is kept');
ok($node->wait_finished, 'and that ends');
is( $node->sql(
		"SELECT count(*) FROM postmark_captured WHERE email = 'underway1\@t.example'"
	),
	'0',
	'with its message sent');
$sandbox->clear_rules;

# Settings change while the worker stores the first result.  In the same
# transaction it claims the message for which there was no room before, and
# finds one that came with the new settings.
deliver('postmark');
$sandbox->rule(path => '/email*', action => { latency => 1 });
$node->enqueue(8 * 20 + 1, prefix => 'stored');
$sandbox->wait_for(in_flight => 8);
$node->sql(
	q{
	BEGIN;
	SELECT postmark_configure(postmark_config() || '{"delivery": "capture"}');
	SELECT postmark_enqueue('changed1@t.example', 'Generic', '1');
	LOCK TABLE postmark_history;
	DO $$
	BEGIN
		WHILE NOT EXISTS (SELECT FROM pg_locks
				WHERE relation = 'postmark_history'::regclass AND NOT granted) LOOP
			PERFORM pg_sleep(0.001);
		END LOOP;
	END $$;
	COMMIT;
	});
ok($node->wait_finished, 'messages are finished after settings changed');
is( $node->sql(
		"SELECT count(*) FROM postmark_captured WHERE email = 'changed1\@t.example'"
	),
	'1',
	'what the worker has not been told of yet holds for what comes with it');
$sandbox->clear_rules;

#
# In doubt: it may have been sent, so it is not kept, and nobody is asked
#

sub doubt
{
	my ($prefix, %opts) = @_;
	my $searches = scalar(() = $sandbox->requests(path => '/messages*'));
	deliver('postmark');
	$sandbox->rule(path => '/email*', times => 1, action => { drop => 'after_accept' });
	$sandbox->rule(path => '/messages*', action => { status => 500 });
	$node->enqueue(1, prefix => $prefix, %opts);
	ok( PostmarkCluster::until_true(
			sub { $searches < scalar(() = $sandbox->requests(path => '/messages*')) }),
		"a message is in doubt ($prefix)");
	deliver('capture');
	$node->enqueue(1, prefix => "behind_$prefix");
	ok( $node->poll_query_until(
			'postgres',
			"SELECT count(*) = 1 FROM postmark_captured WHERE email = 'behind_${prefix}1\@t.example'"
		),
		'one that comes then is kept');
	return;
}

sub status
{
	return $node->sql(
		"SELECT status FROM postmark_messages WHERE email = '$_[0]1\@t.example'");
}

doubt('late', expires_in => "interval '8 seconds'");
my $before = asked();
ok( $node->poll_query_until(
		'postgres',
		"SELECT status = 'expired' AND last_error ~ 'may have been sent' FROM postmark_messages WHERE email = 'late1\@t.example'"
	),
	'what is in doubt is not kept before it expires');
is(asked(), $before, 'and Postmark is not asked meanwhile');
is( $node->sql(
		"SELECT count(*) FROM postmark_captured WHERE email = 'late1\@t.example'"),
	'0',
	'nor is it kept then');
$sandbox->clear_rules;

doubt('doubt');
$node->restart;
is(status('doubt'), 'sending', 'it remains in doubt after a restart');
$sandbox->clear_rules;
deliver('postmark');
ok($node->wait_finished, 'until messages are sent again');
is(status('doubt'), 'sent', 'and it has been found');
is( $node->sql(
		"SELECT count(*) FROM postmark_captured WHERE email = 'doubt1\@t.example'"
	),
	'0',
	'which it was not kept for');

#
# A crash in the middle: in one transaction with the history
#

deliver('capture');
$node->sql('SELECT postmark_captured_clear()');
$node->sql('SELECT postmark_pause()');
$node->enqueue(2000, prefix => 'crash');
$node->sql('SELECT postmark_resume()');
$node->poll_query_until('postgres', 'SELECT count(*) > 0 FROM postmark_captured');
$node->stop('immediate');
$sandbox->stop;
$node->start;
ok($node->wait_finished, 'after a crash all is kept, with no Postmark there');
is( $node->sql(
		'SELECT count(*), count(DISTINCT id), min(email), (SELECT count(*) FROM postmark_history JOIN postmark_captured USING (id)) FROM postmark_captured'
	),
	'2000|2000|crash1000@t.example|2000',
	'each message once, and in the history');
is($node->sql('SELECT state FROM postmark_status'),
	'capturing', 'the state is capturing');

#
# A copy, before it is resumed; and a dump
#

my $position = PostmarkExtra::log_position($node);
$node->sql('CREATE DATABASE staging TEMPLATE postgres');
$node->sql('SELECT postmark_captured_clear()', 'staging');
$node->sql("SELECT postmark_configure(postmark_config() || '{\"delivery\": \"postmark\"}')");
$node->sql("SELECT postmark_enqueue('staging\@t.example', 'Register', '1')", 'staging');
is($node->sql('SELECT state FROM postmark_status', 'staging'),
	'copied', 'a copy is a copy');
$node->sql('SELECT postmark_resume()', 'staging');
is($node->sql('SELECT postmark_flush()', 'staging'), 't', 'once it is resumed');
is($node->sql('SELECT email FROM postmark_captured', 'staging'),
	'staging@t.example', 'it keeps its messages');
ok( PostmarkExtra::wait_for_log(
		$node, $position, qr/connector "default" of database "staging" is capturing/),
	'which the log says');

my $dump = $node->basedir . '/dump.sql';
command_ok([ "pg_dump", "-f", $dump, "-d", $node->connstr("staging") ],
	'pg_dump');
my $text = slurp_file($dump);
unlike($text, qr/staging\@t\.example/, 'what was kept is not dumped');
like($text, qr/"delivery": "capture"/, 'that it is kept is');
$node->sql('CREATE DATABASE restored');
command_ok([ "psql", "-qXf", $dump, "-d", $node->connstr("restored") ], "psql");
$node->sql("SELECT postmark_enqueue('restored\@t.example', 'Register', '1')", 'restored');
is($node->sql('SELECT postmark_flush()', 'restored'),
	't', 'a restored database has no token');
is($node->sql('SELECT email FROM postmark_captured', 'restored'),
	'restored@t.example', 'and needs none');

#
# As long as the history, also what postmark_send kept
#

$node->sql(
	"SELECT postmark_send('atonce\@t.example', 'Register', '1'); UPDATE postmark_captures SET captured_at = now() - interval '2 hours'",
	'restored');
$node->sql("SELECT postmark_send('young\@t.example', 'Register', '1')", 'restored');
PostmarkExtra::reload($node, history_retention => '1h');
ok( $node->poll_query_until(
		'restored',
		"SELECT string_agg(email, ' ') = 'young\@t.example' FROM postmark_captured"
	),
	'what is old goes');

$node->stop;
done_testing();
