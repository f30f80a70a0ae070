
# What only newer servers offer: waits with names and the version of a library,
# which are used there; columns that have no value in the row, and sequences that
# replication sets.

use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;

use PostmarkSandbox;
use PostmarkCluster;
use PostmarkExtra;
use PostgreSQL::Test::Utils;
use Test::More;

my $sandbox = PostmarkSandbox->new();
my $node = PostmarkCluster->new('main', sandbox => $sandbox);
my $version = $node->safe_psql('postgres', 'SHOW server_version_num');

# Whether a process of ours comes to wait for this.
sub waits
{
	my ($which, $event, $name) = @_;

	$event = 'Extension' if $version < 170000;
	ok( $node->poll_query_until(
			'postgres',
			"SELECT count(*) > 0 FROM pg_stat_activity
			  WHERE $which AND wait_event_type = 'Extension' AND wait_event = '$event'"
		),
		$name);
	return;
}

# Whose text may not be shown
my $session =
  "backend_type = 'client backend' AND pid <> pg_backend_pid()";

sub end_session
{
	my ($later) = @_;

	$node->sql(
		"SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE $session"
	);
	$later->finish;
	return;
}

waits("backend_type = 'postmark_connector launcher'",
	'PostmarkLauncherMain', 'the launcher waits for work');
waits("backend_type = 'postmark_connector worker'",
	'PostmarkWorkerMain', 'a worker does');

$sandbox->rule(path => '/email*', action => { latency => 600 });
my $send = $node->later('postgres',
	"SELECT postmark_send('ann\@t.example', 'Register', '123456')");
waits($session, 'PostmarkReply', 'a session waits for a reply');
end_session($send);

$node->enqueue(1);
my $flush = $node->later('postgres', "SELECT postmark_flush('1 hour')");
waits($session, 'PostmarkDelivery', 'a session waits for a delivery');
end_session($flush);
$sandbox->clear_rules;

SKIP:
{
	skip 'PostgreSQL 18 is the first to ask a library for its version', 1
	  if $version < 180000;
	is( $node->safe_psql(
			'postgres', q{
			LOAD 'postmark_connector';
			SELECT m.version = e.default_version
			  FROM pg_get_loaded_modules() AS m
			  JOIN pg_available_extensions AS e ON e.name = m.module_name
			 WHERE m.module_name = 'postmark_connector'}),
		't',
		'the library has the version of the extension');
}

SKIP:
{
	skip 'PostgreSQL 18 is the first with virtual generated columns', 1
	  if $version < 180000;
	subtest 'virtual generated columns' => sub {
		$node->sql(
			q(CREATE TABLE signup (name text,
			email text GENERATED ALWAYS AS (name || '@t.example') VIRTUAL,
			code text GENERATED ALWAYS AS (name || '1') VIRTUAL,
			payload text GENERATED ALWAYS AS ('{}') VIRTUAL,
			address text GENERATED ALWAYS AS (name || '@t.example') STORED)));
		foreach my $function (
			"enqueue_trigger('email', 'Register')",
			"enqueue_trigger('address', 'Register', 'code')",
			"enqueue_trigger('address', 'Register', 'payload=payload')",
			"issue_code_trigger('email', 'Register')")
		{
			$node->sql(
				"CREATE TRIGGER mail AFTER INSERT ON signup FOR EACH ROW EXECUTE FUNCTION postmark_$function"
			);
			my $error = PostmarkExtra::error_of($node,
				"INSERT INTO signup VALUES ('ann')");
			is($error->{sqlstate}, '0A000', "$function: none is read as null");
			like($error->{hint}, qr/STORED/, 'the hint says what to do');
			$node->sql('DROP TRIGGER mail ON signup');
		}
		$node->sql(
			"CREATE TRIGGER mail AFTER INSERT ON signup FOR EACH ROW EXECUTE FUNCTION postmark_enqueue_trigger('address', 'Register')"
		);
		$node->sql("INSERT INTO signup VALUES ('bea')");
		ok( PostmarkCluster::until_true(
				sub { scalar $sandbox->messages(recipient => 'bea@t.example') }
			),
			'others may be in the table');
		return;
	};
}

SKIP:
{
	skip 'PostgreSQL 19 is the first to replicate sequences', 1
	  if $version < 190000;
	subtest 'a sequence that a subscription sets back' => sub {
		my $publisher = PostmarkCluster->new(
			'publisher',
			sandbox => $sandbox,
			init => { allows_streaming => 'logical' },
			conf => 'postmark_connector.worker = off');
		$publisher->sql('CREATE PUBLICATION ids FOR ALL SEQUENCES');

		$node->sql('SELECT postmark_flush()');
		$node->enqueue(50, prefix => 'before');
		ok($node->wait_finished, 'there is a history');
		my $reached =
		  $node->sql('SELECT last_value FROM postmark_message_id_seq');
		$node->sql("CREATE SUBSCRIPTION ids CONNECTION '"
			  . $publisher->connstr
			  . " dbname=postgres' PUBLICATION ids");
		ok( $node->poll_query_until(
				'postgres',
				"SELECT count(*) > 0 AND bool_and(srsubstate = 'r')
					FROM pg_subscription_rel
					WHERE srrelid = 'postmark_message_id_seq'::regclass"),
			'the sequence is replicated');
		cmp_ok($node->sql('SELECT last_value FROM postmark_message_id_seq'),
			'<', $reached, 'and was set back');
		$node->enqueue(50, prefix => 'behind');
		ok($node->wait_finished, 'messages are sent');
		is( $node->sql(
				'SELECT count(*) - count(DISTINCT id) FROM postmark_messages'
			),
			0,
			'no id is given twice');
		$node->accounted(
			'each arrived once, and has its record',
			only => qr/^(before|behind)/);
		return;
	};
}

done_testing();
