# A dump's settings and templates are restored in whatever order, and what the
# foreign key between the two did is done without it.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use PostmarkSandbox;
use PostmarkCluster;
use PostmarkExtra;

my $sandbox = PostmarkSandbox->new();
my $node = PostmarkCluster->new('main', sandbox => $sandbox, prepare => 0);
my $dir = PostgreSQL::Test::Utils::tempdir();

sub settings
{
	my ($database, $schema) = @_;
	$schema //= 'public';
	return $node->safe_psql($database, <<"SQL");
SELECT connector, number, config, paused_at IS NOT NULL FROM $schema.postmark_settings ORDER BY 1;
SELECT * FROM $schema.postmark_templates ORDER BY 1, 2, 3;
SQL
}

# What pg_restore is given, or what happens before
$node->sql('CREATE DATABASE plain');
$node->prepare_database('plain');
$node->safe_psql('plain', 'DROP TABLE app_messages');
$node->configure(database => 'plain', connector => "c$_") foreach 1 .. 5;
$node->safe_psql('plain', "SELECT postmark_pause('c3', 'for a while')");
$node->sql('CREATE DATABASE schema');
$node->safe_psql('schema', <<'SQL');
CREATE SCHEMA "Mail room";
CREATE EXTENSION postmark_connector SCHEMA "Mail room";
SQL
$node->safe_psql('schema',
	  "SET search_path = \"Mail room\"; SELECT postmark_configure(\$j\$"
	  . $node->connector_json
	  . "\$j\$, 'c$_')") foreach 1 .. 2;

foreach my $case (
	[ 'at once', 'plain', [] ],
	[ 'in parallel', 'plain', [ '-j', '2' ] ],
	[ 'the data alone', 'plain', ['--data-only'], 'made' ],
	[ 'the data alone, in parallel', 'plain', [ '--data-only', '-j', '2' ], 'made' ],
	[ 'over what is there', 'plain', [ '--clean', '--if-exists' ], 'configured' ],
	[ 'over what is there, in parallel', 'plain',
		[ '--clean', '--if-exists', '-j', '2' ], 'configured' ],
	[ 'in the opposite order', 'plain', ['reversed'] ],
	[ 'in a schema of its own', 'schema', [ '-j', '2' ] ])
{
	my ($name, $source, $options, $before) = @$case;
	my $dump = "$dir/$source";
	my $restored = 'restored_' . ($name =~ s/\W+/_/gr);
	my $schema = $source eq 'schema' ? '"Mail room"' : 'public';

	command_ok(
		[
			'pg_dump', '-d', $node->connstr($source), '-Fd', '-f', $dump
		],
		"pg_dump of $source") unless -d $dump;
	$node->sql("CREATE DATABASE $restored TEMPLATE template0");
	$node->safe_psql($restored, 'CREATE EXTENSION postmark_connector')
	  if $before && $before eq 'made';
	if ($before && $before eq 'configured')
	{
		$node->prepare_database($restored);
		$node->safe_psql($restored, 'DROP TABLE app_messages');
	}

	my @options = @$options;
	if (@options && $options[0] eq 'reversed')
	{
		# settings before templates is what the archive says
		my $list = "$dir/list";
		my ($out, $err) = run_command([ 'pg_restore', '-l', $dump ]);
		my @data = grep { /TABLE DATA .*postmark_/ } split /\n/, $out;
		my @others = grep { !/TABLE DATA .*postmark_/ && !/^;/ } split /\n/, $out;
		is(scalar(@data), 2, 'two tables of ours are in the dump');
		append_to_file($list, join("\n", @others, reverse(@data), ''));
		@options = ('-L', $list);
	}
	command_ok(
		[
			'pg_restore', '--exit-on-error', '-d', $node->connstr($restored),
			@options, $dump
		],
		"$name: pg_restore");
	is( settings($restored, $schema),
		settings($source, $schema),
		"$name: settings and templates are as they were");
	$node->safe_psql($restored,
		"SELECT $schema.postmark_set_token('$PostmarkCluster::TOKEN', 'c1')");
	is( $node->safe_psql(
			$restored,
			"SELECT $schema.postmark_send('ann\@t.example', 'Register', '1', connector => 'c1') IS NOT NULL"
		),
		't',
		"$name: the connector sends");
}

#
# What the key did
#

my $error = PostmarkExtra::error_of(
	$node,
	"UPDATE postmark_settings SET connector = 'renamed' WHERE connector = 'c1'",
	database => 'plain');
is($error->{sqlstate}, '0A000', 'a connector cannot be renamed');
like($error->{hint}, qr/postmark_configure/, 'HINT says what to do');
is( PostmarkExtra::error_of(
		$node,
		"UPDATE postmark_settings SET number = 99 WHERE connector = 'c1'",
		database => 'plain')->{sqlstate},
	'0A000',
	'nor get another number');
$node->safe_psql('plain',
	"UPDATE postmark_settings SET pause_reason = 'x' WHERE connector = 'c3'");
my $templates =
  "SELECT count(*) FROM postmark_templates WHERE connector IN ('c1', 'c2')";
is($node->safe_psql('plain', $templates), 8, 'two connectors have templates');
$node->safe_psql('plain', "SELECT postmark_remove('c1')");
is($node->safe_psql('plain', $templates),
	4, 'postmark_remove takes those of its connector');
$node->safe_psql('plain',
	"DELETE FROM postmark_settings WHERE connector = 'c2'");
is($node->safe_psql('plain', $templates), 0, 'and so does a DELETE');
is( $node->safe_psql('plain', "SELECT count(*) FROM postmark_templates"),
	16, 'but no others');

done_testing();
