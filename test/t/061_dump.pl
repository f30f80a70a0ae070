# What a dump has and has not, and tokens that are kept in files.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use PostmarkSandbox;
use PostmarkCluster;
use PostmarkExtra;

my $TOKEN = 'geheim-token-1';
my $ROTATED = 'geheim-token-2';
my $sandbox = PostmarkSandbox->new(args => [ '--token', $TOKEN ]);
my $node = PostmarkCluster->new('main', sandbox => $sandbox, prepare => 0);
my $dir = PostgreSQL::Test::Utils::tempdir();

sub arrives
{
	my ($database, $address, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok(
		PostmarkCluster::until_true(
			sub { scalar(() = $sandbox->messages(recipient => $address)) }),
		$name);
}

#
# Dump and restore
#

$node->prepare_database(
	'postgres',
	token => $TOKEN,
	config => { tag => 'tagged' },
	templates => [
		{
			usageType => 'Register',
			locale => 'de',
			templateAlias => 'logto-register',
			priority => 7,
			expiresIn => 120
		},
		{ usageType => 'Own', templateAlias => 'logto-generic' }
	]);
$node->configure(connector => 'shop', token => $TOKEN);
$node->wait_worker;

# Every table has something in it.
$node->sql("SELECT postmark_enqueue('done\@t.example', 'Register', 'geheim-1')");
ok($node->wait_finished, 'a message is finished');
$node->sql("SELECT postmark_pause('default')");
$node->sql("SELECT postmark_pause('shop')");
$node->sql(
	"SELECT postmark_enqueue('queued\@t.example', 'Register', 'geheim-2', '{\"link\": \"geheim-3\"}')"
);
$node->sql(
	"SELECT postmark_enqueue('later\@t.example', 'Register', 'geheim-4', send_after => now() + '1 hour')"
);
$node->sql(
	"CREATE TABLE signup (email text, code text); CREATE TRIGGER mail AFTER INSERT ON signup FOR EACH ROW EXECUTE FUNCTION postmark_enqueue_trigger('email', 'Register', 'code')"
);

sub settings
{
	my ($database) = @_;
	return $node->safe_psql($database, <<'SQL');
SELECT connector, number, config, paused_at IS NOT NULL FROM postmark_settings ORDER BY 1;
SELECT * FROM postmark_templates ORDER BY 1, 2, 3;
SQL
}

foreach my $format ('plain', 'custom')
{
	my $file = "$dir/dump.$format";
	command_ok(
		[
			'pg_dump', '-d', $node->connstr('postgres'), "--format=$format",
			'--compress=0', '-f', $file
		],
		"pg_dump in $format format");
	my $dump = slurp_file($file);
	unlike($dump, qr/geheim/, "$format: no token, code or payload in it");
	unlike($dump, qr/\@t\.example/, "$format: no message in it");
	like($dump, qr/CREATE EXTENSION.*postmark_connector/,
		"$format: the extension is in it");

	my $restored = "restored_$format";
	$node->sql("CREATE DATABASE $restored TEMPLATE template0");
	command_ok(
		$format eq 'plain'
		? [
			'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d',
			$node->connstr($restored), '-f', $file
		  ]
		: [ 'pg_restore', '--exit-on-error', '-d', $node->connstr($restored),
			$file ],
		"$format: it is restored without an error");
	is(settings($restored), settings('postgres'),
		"$format: settings and templates are as they were");
	is( $node->safe_psql($restored, 'SELECT count(*) FROM postmark_messages'),
		0, "$format: without messages");
	# the worker there makes keys for codes, of its own
	my $keys = $node->sql(q{SELECT string_agg(quote_literal(code_key::text), ',') FROM postmark_secrets});
	is( $node->safe_psql($restored, "SELECT count(*) FROM postmark_secrets"
			  . " WHERE server_token IS NOT NULL OR webhook_secret IS NOT NULL OR code_key::text IN ($keys)"),
		0, "$format: without secrets");
	ok($node->wait_worker($restored), "$format: it has a worker");

	# what was paused is
	$node->safe_psql($restored, "SELECT postmark_resume('default')");
	ok( $node->poll_query_until(
			$restored,
			"SELECT state = 'unconfigured' AND detail = 'token missing' FROM postmark_status WHERE connector = 'default'"
		),
		"$format: the state is unconfigured: token missing");
	my $warned = PostmarkExtra::error_of(
		$node,
		"SELECT postmark_enqueue('restored-$format\@t.example', 'Register', '1')",
		database => $restored);
	is($warned->{sqlstate}, '', "$format: queueing works");
	like($warned->{err}, qr/WARNING:.*no server token/,
		"$format: with a warning");
	is( PostmarkExtra::error_of(
			$node,
			"SELECT postmark_send('x\@t.example', 'Register', '1')",
			database => $restored)->{sqlstate},
		'PM001',
		"$format: postmark_send is PM001");
	$node->safe_psql($restored, "SELECT postmark_set_token('$TOKEN')");
	arrives($restored, "restored-$format\@t.example",
		"$format: once the token is set it is sent");
	$node->safe_psql($restored,
		"INSERT INTO signup VALUES ('signup-$format\@t.example', '1')");
	arrives($restored, "signup-$format\@t.example",
		"$format: the trigger of the application is restored, too");
}

is( $node->sql("SELECT count(*) FROM postmark_messages WHERE status IN ('queued', 'deferred')"),
	2,
	'in the original nothing changed');

#
# The token directory
#

my $tokens = "$dir/tokens";
mkdir $tokens or die "$tokens: $!";

# A new token is written beside the old one and put in its place.
sub write_token
{
	my ($name, $content) = @_;
	open my $file, '>:raw', "$tokens/.new" or die "$tokens/.new: $!";
	print $file $content;
	close $file or die "$tokens/.new: $!";
	rename "$tokens/.new", "$tokens/$name" or die "$tokens/$name: $!";
	return;
}

PostmarkExtra::reload($node, token_directory => $tokens);
$node->sql('CREATE DATABASE files');
$node->safe_psql('files', 'CREATE EXTENSION postmark_connector');
my $config = $node->connector_json(token => 'x') =~ s/"serverToken":"x",?//r;
$config =~ s/,\}$/}/;
my $configure = "SELECT postmark_configure('$config')";
my $error = PostmarkExtra::error_of($node, $configure, database => 'files');
is($error->{sqlstate}, 'PM001',
	'without token and file postmark_configure is refused');

write_token('default', "$TOKEN\n");
is( PostmarkExtra::error_of($node, $configure, database => 'files')
	  ->{sqlstate},
	'',
	'with a file the configuration needs no token');
is($node->safe_psql('files', 'SELECT count(*) FROM postmark_secrets WHERE server_token IS NOT NULL'),
	0, 'which is not stored');
$node->wait_worker('files');
is( $node->safe_psql(
		'files',
		"SELECT postmark_send('file\@t.example', 'Register', '1') IS NOT NULL"
	),
	't',
	'postmark_send uses the file');
$node->safe_psql('files',
	"SELECT postmark_enqueue('file1\@t.example', 'Register', '1')");
arrives('files', 'file1@t.example', 'the worker uses it, too');
unlike(
	$node->safe_psql('files', 'SELECT postmark_config()'),
	qr/geheim/, 'postmark_config does not show it');

# Rotation, first the file, then Postmark
$sandbox->config(tokens => [$ROTATED]);
$node->safe_psql('files',
	"SELECT postmark_enqueue('file2\@t.example', 'Register', '1')");
ok( $node->poll_query_until(
		'files', "SELECT state = 'blocked' FROM postmark_status"),
	'a token that Postmark no longer takes blocks the connector');
write_token('default', $ROTATED);
is( $node->safe_psql(
		'files',
		"SELECT postmark_send('rotated\@t.example', 'Register', '1') IS NOT NULL"
	),
	't',
	'replacing the file rotates the token, for postmark_send at once');
arrives('files', 'file2@t.example', 'and for the worker by itself');
$sandbox->config(tokens => [ $TOKEN, $ROTATED ]);

# Missing
unlink "$tokens/default";
$error = PostmarkExtra::error_of(
	$node,
	"SELECT postmark_send('x\@t.example', 'Register', '1')",
	database => 'files');
is($error->{sqlstate}, 'PM001', 'without the file postmark_send is PM001');
like($error->{detail}, qr/\Q$tokens\E.*No such file/, 'DETAIL names the file');
$node->safe_psql('files',
	"SELECT postmark_enqueue('file3\@t.example', 'Register', '1')");
ok( $node->poll_query_until(
		'files',
		"SELECT state = 'unconfigured' AND queued = 1 FROM postmark_status"),
	'the state is unconfigured');
write_token('default', "$TOKEN\r\n");
arrives('files', 'file3@t.example',
	'when the file is back the worker goes on by itself; a line break at its end does not matter'
);

# What cannot be a token
my $log = PostmarkExtra::log_position($node);
foreach my $case (
	[ 'a second line', "geheim-a\r\ngeheim-b\r\n" ],
	[ 'a second line without CR', "geheim-a\ngeheim-b" ],
	[ 'two line breaks', "geheim-a\n\n" ],
	[ 'a space', "geheim a" ],
	[ 'a NUL', "geheim\0a" ],
	[ 'a byte that is not ASCII', "geheim\xe4" ],
	[ 'a thousand bytes', 'geheim' x 170 ],
	[ 'a megabyte', 'geheim' x 170_000 ],
	[ 'nothing', '' ],)
{
	my ($name, $content) = @$case;
	write_token('default', $content);
	$error = PostmarkExtra::error_of(
		$node,
		"SELECT postmark_send('x\@t.example', 'Register', '1')",
		database => 'files');
	is($error->{sqlstate}, 'PM001', "a token file with $name is PM001")
	  or diag($error->{err});
	unlike($error->{err}, qr/geheim/, "and not shown ($name)");
}
unlike(PostmarkExtra::log_since($node, $log),
	qr/geheim/, 'the log shows none of them');
unlike($node->safe_psql('files', 'SELECT * FROM postmark_status'),
	qr/geheim/, 'neither does postmark_status');

# Something that is no file
unlink "$tokens/default";
mkdir "$tokens/default";
is( PostmarkExtra::error_of(
		$node,
		"SELECT postmark_send('x\@t.example', 'Register', '1')",
		database => 'files')->{sqlstate},
	'PM001',
	'a directory in place of the file is PM001');
rmdir "$tokens/default";
system_or_bail('mkfifo', "$tokens/default");
$error = PostmarkExtra::error_of(
	$node,
	"SET statement_timeout = '10s'; SELECT postmark_send('x\@t.example', 'Register', '1')",
	database => 'files');
is($error->{sqlstate}, 'PM001', 'a named pipe is PM001, and blocks nobody');
unlink "$tokens/default";

# A stored token comes first.
write_token('default', 'geheim-wrong');
$node->safe_psql('files', "SELECT postmark_set_token('$TOKEN')");
is( $node->safe_psql(
		'files',
		"SELECT postmark_send('stored\@t.example', 'Register', '1') IS NOT NULL"
	),
	't',
	'a stored token goes before the file');

done_testing();
