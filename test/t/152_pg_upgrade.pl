
# pg_upgrade takes the queue along, and nothing starts or is sent meanwhile.
# Needs an older server beside the one under test:
#	PG_OLD_MAJOR=15 PG_MAJOR=17 test/check tap 152

use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;

use PostmarkSandbox;
use PostmarkCluster;
use PostgreSQL::Test::Utils;
use Test::More;

plan skip_all => 'there is no older PostgreSQL here (PG_OLD_MAJOR)'
  unless $ENV{OLD_INSTALL};

sub upgrade
{
	my ($name, $mode, $preloaded) = @_;
	my $preload =
	  $preloaded ? '' : "shared_preload_libraries = ''\n";

	note($name);
	my $sandbox = PostmarkSandbox->new();
	my $old = PostmarkCluster->new(
		"${name}_old",
		sandbox => $sandbox,
		install_path => $ENV{OLD_INSTALL},
		# which is the default since 18, and has to be the same on both
		init => { extra => ['--data-checksums'] },
		conf => $preload);
	$old->prepare_database('template1');
	$old->sql('CREATE DATABASE older TEMPLATE template0');
	$old->sql("CREATE EXTENSION postmark_connector VERSION '1.0'", 'older');
	$old->configure(database => 'older');

	my $later = $old->sql(
		"SELECT postmark_enqueue('later\@t.example', 'Register', '111111', send_after => now() + interval '1 day')"
	);
	$old->enqueue(20, prefix => 'before');
	if ($preloaded)
	{
		ok( $sandbox->wait_for(messages => 20),
			"$name: the old server sends mail");

		# Accepted, but the old server is not told
		$sandbox->rule(path => '/email*', action => { latency_after => 600 });
		$old->enqueue(3, prefix => 'unanswered');
		ok( $sandbox->wait_for(messages => 23),
			"$name: a request waits for its answer");
	}
	$old->stop;
	$sandbox->clear_rules;

	my $accepted = $sandbox->counts->{accepted};
	my $new = PostmarkCluster->new(
		"${name}_new",
		sandbox => $sandbox,
		start => 0,
		init => { extra => ['--data-checksums'] },
		conf => $preload);
	my $output;
	{
		# where pg_upgrade writes its scripts
		local $ENV{PGUSER};
		chdir $PostgreSQL::Test::Utils::tmp_check or die $!;
		my $ok = IPC::Run::run(
			[
				$new->installed_command('pg_upgrade'), '--no-sync', $mode,
				'-d' => $old->data_dir,
				'-D' => $new->data_dir,
				'-b' => "$ENV{OLD_INSTALL}/bin",
				'-B' => $new->config_data('--bindir'),
				'-s' => $new->host,
				'-p' => $old->port,
				'-P' => $new->port
			],
			'>' => \$output,
			'2>&1');
		ok($ok, "$name: pg_upgrade $mode")
		  or die join "\n", $output,
		  map { $_, slurp_file($_) } glob $new->data_dir
		  . '/pg_upgrade_output.d/*/log/pg_upgrade_dump_*.log';
	}
	is($sandbox->counts->{accepted},
		$accepted, "$name: nothing is sent meanwhile");

	$new->append_conf('postgresql.conf',
		"shared_preload_libraries = 'postmark_connector'");
	$new->start;
	ok( $new->poll_query_until(
			'postgres',
			"SELECT count(*) = 0 FROM postmark_messages WHERE id <> $later AND status <> 'sent'"
		),
		"$name: the new server sends the rest");
	is($sandbox->counts->{duplicates}, 0, "$name: nothing goes out twice");
	is($sandbox->counts->{distinct},
		$preloaded ? 23 : 20, "$name: and nothing is lost");
	is($new->sql("SELECT status FROM postmark_messages WHERE id = $later"),
		'deferred', "$name: what was for later still is");
	is($new->sql('SELECT bool_and(ok) FROM postmark_check()'),
		't', "$name: the settings are there");

	$new->sql('ALTER EXTENSION postmark_connector UPDATE', 'older');
	$new->sql('CREATE DATABASE copy TEMPLATE template1');
	foreach my $database ('older', 'copy')
	{
		$new->sql(
			"SELECT postmark_enqueue('in-$database\@t.example', 'Register', '111111')",
			$database);
		ok( PostmarkCluster::until_true(
				sub {
					scalar $sandbox->messages(
						recipient => "in-$database\@t.example");
				}),
			"$name: mail from the database $database");
	}
	$new->stop;
	return;
}

upgrade('preloaded', '--copy', 1);
upgrade('on_demand', '--link', 0);

done_testing();
