
# What only newer servers offer is used there: waits with names, the version
# of a library.

use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;

use PostmarkSandbox;
use PostmarkCluster;
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

done_testing();
