# Settings, templates and tokens that logical replication changes take effect,
# in sessions and in the worker.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use PostmarkSandbox;
use PostmarkCluster;
use PostmarkExtra;

my $ROTATED = 'sandbox-token-2';
my $sandbox = PostmarkSandbox->new();
$sandbox->config(tokens => [ $PostmarkCluster::TOKEN, $ROTATED ]);
my $publisher = PostmarkCluster->new(
	'publisher',
	sandbox => $sandbox,
	init => { allows_streaming => 'logical' });
my $subscriber = PostmarkCluster->new(
	'subscriber',
	sandbox => $sandbox,
	init => { allows_streaming => 'logical' },
	prepare => 0);
$subscriber->sql('CREATE EXTENSION postmark_connector');
ok($publisher->wait_worker, 'the publisher has a worker');

$publisher->sql(
	'CREATE PUBLICATION settings FOR TABLE postmark_settings, postmark_templates, postmark_secrets'
);
# The secrets come last, long after the worker has seen their connector.
$subscriber->sql(
	q{CREATE TABLE go ();
	CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		FOR i IN 1 .. 600 LOOP
			EXIT WHEN EXISTS (SELECT FROM public.go);
			PERFORM pg_sleep(0.1);
		END LOOP;
		RETURN NEW;
	END $$;
	CREATE TRIGGER hold BEFORE INSERT ON postmark_secrets
		FOR EACH ROW EXECUTE FUNCTION hold();
	ALTER TABLE postmark_secrets ENABLE REPLICA TRIGGER hold});
$subscriber->sql("CREATE SUBSCRIPTION settings CONNECTION '"
	  . $publisher->connstr
	  . " dbname=postgres' PUBLICATION settings");
ok( $subscriber->poll_query_until(
		'postgres',
		"SELECT EXISTS (SELECT FROM postmark_settings)
			AND EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep')"
	),
	'the secrets come behind the settings');
PostmarkCluster::until_true(
	sub { $subscriber->sql('SELECT count(*) FROM postmark_secrets') > 0 }, 2);
$subscriber->sql('INSERT INTO go DEFAULT VALUES');
$subscriber->wait_for_subscription_sync($publisher, 'settings');
ok( $subscriber->poll_query_until(
		'postgres',
		'SELECT octet_length(code_key) = 32 FROM postmark_secrets'),
	'their keys with them');
$subscriber->sql('DROP TRIGGER hold ON postmark_secrets');
ok($subscriber->wait_worker, 'the subscriber has a worker');
$publisher->sql('SELECT postmark_pause()');

# One session of the subscriber's that knows the settings, over all of this
my $session = $subscriber->background_psql('postgres');

sub send_in_session
{
	my ($name) = @_;
	return $session->query_safe(
		"SELECT postmark_send('$name\@t.example', 'Register', '1') IS NOT NULL");
}

sub request_of
{
	my ($name) = @_;
	my ($mail) = $sandbox->messages(recipient => "$name\@t.example");
	return $mail;
}

my $number = 0;

# Queues a message on the subscriber; its worker sends it
sub queue
{
	my $name = 'queued' . ++$number;
	$subscriber->sql(
		"SELECT postmark_enqueue('$name\@t.example', 'Register', '1')");
	PostmarkCluster::until_true(sub { request_of($name) });
	return request_of($name);
}

sub replicated
{
	$publisher->wait_for_catchup('settings');
	return;
}

# The publisher is paused; so is the subscriber, then.
replicated();
ok($subscriber->wait_state('paused'), 'a replicated pause holds');
$subscriber->sql(
	"SELECT postmark_enqueue('paused\@t.example', 'Register', '1')");
$publisher->sql('SELECT postmark_resume()');
replicated();
ok(PostmarkCluster::until_true(sub { request_of('paused') }),
	'and so does its end: the worker goes on');
is(send_in_session('first'), 't', 'a session sends with what was copied');
is(request_of('first')->{Tag}, undef, 'without a tag');

$publisher->configure(config => { tag => 'replicated' });
replicated();
send_in_session('tagged');
is(request_of('tagged')->{Tag},
	'replicated', 'a session has new settings at once');
is(queue()->{Tag}, 'replicated', 'and so has the worker');

$publisher->configure(
	templates => [
		{ usageType => 'Register', templateAlias => 'logto-sign-in' }
	]);
replicated();
send_in_session('template');
is( request_of('template')->{Request}{TemplateAlias},
	'logto-sign-in',
	'a session has new templates');
is(queue()->{Request}{TemplateAlias},
	'logto-sign-in', 'and so has the worker');

$publisher->sql("SELECT postmark_set_token('$ROTATED')");
replicated();
$sandbox->config(tokens => [$ROTATED]);
is(send_in_session('token'), 't',
	'a session has the new token, and no longer the old one');
ok(queue(), 'and so has the worker');

# The last of them
$publisher->sql('SELECT postmark_flush()');
$publisher->sql("SELECT postmark_remove('default')");
replicated();
is( PostmarkExtra::error_of($subscriber,
		"SELECT postmark_send('x\@t.example', 'Register', '1')")->{sqlstate},
	'PM001',
	'a connector that was removed is gone');

$session->quit;
done_testing();
