# The state of a connector says what is: each state is brought about, seen, and
# seen to end.

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
	init => { allows_streaming => 1 });
$node->wait_worker;

my $number = 0;

sub queue
{
	my ($n, %opts) = @_;
	return $node->enqueue($n, prefix => 'q' . ++$number . 'x', %opts);
}

# Waits for a state whose detail, and hint, match
sub wait_state_saying
{
	my ($state, $detail, $hint, $connector) = @_;
	$connector //= 'default';
	return $node->poll_query_until(
		'postgres',
		"SELECT state = '$state' AND coalesce(detail, '') ~ '$detail' AND coalesce(hint, '') ~ '$hint'"
		  . " FROM postmark_status WHERE connector = '$connector'");
}

sub wait_well
{
	my ($what, $connector) = @_;
	$connector //= 'default';
	return ok(
		$node->poll_query_until(
			'postgres',
			"SELECT state = 'running' AND detail IS NULL FROM postmark_status WHERE connector = '$connector'"
		),
		"$what: running again");
}

wait_well('at first');

#
# The worker's transactions
#

$node->sql(
	'ALTER TABLE postmark_intents ADD CONSTRAINT odd CHECK (false) NOT VALID');
queue(2);
ok( wait_state_saying('backing_off', 'constraint "odd" of table', 'log'),
	'a constraint that somebody added: the state names it');
my ($code, $out, $err) =
  $node->psql('postgres', "SELECT postmark_flush('10ms')");
like(
	$err,
	qr/connector "default" does not send: its state is backing_off\nDETAIL:.*constraint "odd"/,
	'a flush that times out says which connector does not send');
$node->sql('ALTER TABLE postmark_intents DROP CONSTRAINT odd');
ok($node->wait_finished, 'a constraint: all is sent once it is gone');
wait_well('a constraint');

$node->sql('SELECT postmark_pause()');
queue(2);
my $holder = $node->background_psql('postgres');
$holder->query_safe(
	'BEGIN; SELECT FROM postmark_queue FOR UPDATE');
$node->sql('SELECT postmark_resume()');
ok(wait_state_saying('backing_off', 'messages that are due wait', 'pg_locks'),
	'rows that somebody has locked: seen');
$holder->query_safe('COMMIT');
ok($node->wait_finished, 'locked rows: all is sent once the lock is gone');
wait_well('locked rows');

$node->sql('SELECT postmark_pause()');
queue(2);
$holder->query_safe('BEGIN; LOCK TABLE postmark_queue IN EXCLUSIVE MODE');
$node->sql('SELECT postmark_resume()');
ok(wait_state_saying('backing_off', 'has a table of the extension locked', ''),
	'a table that somebody has locked: seen');
$holder->query_safe('COMMIT');
ok($node->wait_finished, 'a locked table: all is sent once the lock is gone');
wait_well('a locked table');
$holder->quit;

$node->sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
$node->reload;
$node->poll_query_until('postgres',
	"SELECT current_setting('synchronous_standby_names') = 'nobody'");
$node->sql('SET synchronous_commit = local; '
	  . PostmarkCluster::enqueue_sql(2, prefix => 'sync'));
ok( wait_state_saying('backing_off', 'synchronous standby',
		'synchronous_standby_names'),
	'a synchronous standby is missing: the state says so');
$node->sql(
	'ALTER SYSTEM RESET synchronous_standby_names');
$node->reload;
ok($node->wait_finished, 'no standby is waited for: all is sent');
wait_well('a synchronous standby');

#
# What Postmark says
#

$node->configure(
	connector => 'odd',
	templates => [ { usageType => 'Register', templateAlias => 'nowhere' } ]);
queue(1, connector => 'odd');
ok(wait_state_saying('backing_off', '1101', 'postmark_check', 'odd'),
	'a missing template: the state says so');
$node->configure(connector => 'odd');
ok($node->wait_finished, 'a missing template: sent once another is named');
wait_well('a missing template', 'odd');

my $rule = $sandbox->rule(
	path => '/email*',
	times => 1,
	action => { drop => 'after_accept' });
queue(1);
ok($node->wait_finished, 'one dropped request: its message is found');
wait_well('one dropped request, and nothing else to send');

$sandbox->clear_rules;
$sandbox->rule(
	path => '/email*',
	action => {
		refuse => {
			error_code => 400,
			message => 'The From address is not a Sender Signature.'
		}
	});
queue(501);
ok(wait_state_saying('blocked', 'ErrorCode 400', 'sender signature'),
	'batches that are refused item by item: blocked');
$sandbox->clear_rules;
$node->sql('SELECT postmark_resume()');
ok($node->wait_finished, 'item by item: all are sent afterwards');
wait_well('item by item');

$sandbox->rule(
	path => '/email*',
	times => 1,
	action => { status => 429, retry_after => 600 });
queue(1501);
ok(wait_state_saying('backing_off', '429', 'maxRequestsPerSecond'),
	'a 429 while other requests succeed: backing off');
$sandbox->clear_rules;
$node->sql('SELECT postmark_resume()');
ok($node->wait_finished, '429: all are sent afterwards');
wait_well('429');

$sandbox->rule(
	path => '/email*',
	recipient => 'foreign@t.example',
	action => { refuse => { error_code => 412, message => 'Pending approval.' } });
$node->sql("SELECT postmark_enqueue('foreign\@t.example', 'Register', '493021')");
ok($node->wait_finished, 'an account that awaits approval: the message fails');
ok(wait_state_saying('blocked', '1 messages failed.*approval', 'ask Postmark'),
	'an account that awaits approval: the state says so');
queue(1);
ok($node->wait_finished, 'an account that awaits approval: other mail leaves');
ok(wait_state_saying('running', '1 messages failed.*approval', 'ask Postmark'),
	'an account that awaits approval: a detail of it');

#
# The token directory
#

my $directory = $node->basedir . '/tokens';
mkdir $directory or die "$directory: $!";
PostmarkExtra::reload($node, token_directory => $directory);
$node->configure(connector => 'filed');
$node->sql(
	"UPDATE postmark_secrets SET server_token = NULL WHERE connector = 'filed'");
queue(1, connector => 'filed');

foreach my $case (
	[ undef, 'No such file' ],
	[ '', 'is empty' ],
	[ '  ', 'has spaces' ],
	[ "\xef\xbb\xbfsandbox-token", 'non-ASCII' ])
{
	my ($content, $words) = @$case;
	append_to_file("$directory/filed", $content) if defined $content;
	ok( wait_state_saying('unconfigured', "token missing: .*$words", '', 'filed'),
		"a token file: $words");
	unlink "$directory/filed";
}
append_to_file("$directory/filed", $PostmarkCluster::TOKEN);
ok($node->wait_finished, 'a token file that comes: the message is sent');
wait_well('a token file', 'filed');

#
# pg_stat_activity
#

ok( $node->poll_query_until('postgres', q(
SELECT string_agg(backend_type || ': ' || state || ', ' || query, '; ' ORDER BY backend_type)
	= 'postmark_connector launcher: idle, seeing to databases; postmark_connector worker: idle, waiting for messages'
FROM pg_stat_activity WHERE backend_type LIKE 'postmark%')),
	'pg_stat_activity says that launcher and worker are idle');
SKIP:
{
	my $pid = $node->worker_pid;
	my $title = -r "/proc/$pid/cmdline" ? slurp_file("/proc/$pid/cmdline") : '';

	skip 'no /proc', 1 if $title eq '';
	like($title, qr/postmark_connector worker for database postgres\b/,
		"the worker's title names its database");
}
my $hold = $sandbox->rule(path => '/email*', times => 1, action => { latency => 4 });
queue(1);
ok( $node->poll_query_until('postgres', q(
SELECT state = 'active' AND query = 'sending 1 request of connector default'
FROM pg_stat_activity WHERE backend_type = 'postmark_connector worker')),
	'pg_stat_activity says what the worker sends');
$sandbox->clear_rules($hold);
ok($node->wait_finished, 'it is sent');

#
# The log
#

my $log = PostmarkExtra::log_since($node, 0);
foreach my $line (
	'WARNING:  postmark_connector: connector "default" of database "postgres" is blocked',
	'LOG:  postmark_connector: connector "default" of database "postgres" is backing_off',
	'LOG:  postmark_connector: connector "default" of database "postgres" is running',
	'WARNING:  postmark_connector: connector "filed" of database "postgres" is unconfigured',
	'WARNING:  postmark_connector: connector "odd" of database "postgres" is backing_off')
{
	like($log, qr/\Q$line\E\n/, "the log has: $line");
}
my %last;
my $repeated = 0;
while ($log =~ /postmark_connector: connector "(\w+)" of database "postgres" is (\w+)/g)
{
	$repeated++ if ($last{$1} // '') eq $2;
	$last{$1} = $2;
}
is($repeated, 0, 'the log says no state twice in a row');

$node->accounted('each message arrived once', only => qr/^q/);

done_testing();
