# A standby sends nothing of the queue until it is promoted, and then each
# message once; what logical replication writes is not queued at all.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use PostmarkSandbox;
use PostmarkCluster;
use PostmarkExtra;

my $sandbox = PostmarkSandbox->new();
my $primary = PostmarkCluster->new(
	'primary',
	sandbox => $sandbox,
	init => { allows_streaming => 'logical' });
ok($primary->wait_worker, 'the primary has a worker');
$primary->enqueue(3, prefix => 'before');
ok($primary->wait_finished, 'it sends');

#
# A streaming replica
#

$primary->backup('copy');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'copy', has_streaming => 1);
$standby->start;
$primary->wait_for_catchup($standby);

is( $standby->safe_psql(
		'postgres',
		"SELECT count(*) FROM pg_stat_activity WHERE backend_type ~ 'postmark'"),
	0,
	'a standby has neither worker nor launcher');
is($standby->safe_psql('postgres', 'SELECT state FROM postmark_status'),
	'no_worker', 'its state is no_worker');
like($standby->safe_psql('postgres', 'SELECT detail FROM postmark_status'),
	qr/standby/, 'because it is a standby');
is( $standby->safe_psql(
		'postgres',
		"SELECT postmark_send('standby\@t.example', 'Register', '000000') IS NOT NULL"
	),
	't',
	'postmark_send works on a standby');
foreach my $call ("enqueue('standby\@t.example', 'Register', '000000')",
	'cancel(1)', 'requeue(1)', "cancel_all('default')",
	"requeue_all('default', '1 hour')", 'pause()', "remove('default')")
{
	is( PostmarkExtra::error_of($standby, "SELECT postmark_$call")
		  ->{sqlstate},
		'25006',
		"postmark_$call is an error there");
}
is($standby->safe_psql('postgres', 'SELECT count(*) FROM postmark_messages'),
	3, 'messages can be looked at');

# Settings that change on the primary are those of the standby's sessions.
$primary->configure(config => { tag => 'changed' });
$primary->wait_for_catchup($standby);
$standby->safe_psql('postgres',
	"SELECT postmark_send('tag\@t.example', 'Register', '000000')");
is(($sandbox->messages(recipient => 'tag@t.example'))[0]{Tag},
	'changed', 'settings are replicated');

#
# A subscriber, of all tables with messages and of a signup table with the same
# triggers
#

my $signup = <<'SQL';
CREATE TABLE signup (id int PRIMARY KEY, email text, code text);
CREATE TRIGGER mail AFTER INSERT ON signup FOR EACH ROW
	EXECUTE FUNCTION postmark_enqueue_trigger('email', 'Register', 'code');
SQL
my $subscriber = PostmarkCluster->new(
	'subscriber',
	sandbox => $sandbox,
	init => { allows_streaming => 'logical' });
ok($subscriber->wait_worker, 'the subscriber has a worker of its own');
$primary->sql($signup);
$subscriber->sql($signup);

# It has messages of its own, with ids that the publisher has given, too: sent
# ones, later ones, and a code.
$subscriber->enqueue(3, prefix => 'own');
$subscriber->sql(<<'SQL');
SELECT postmark_issue_code('both@t.example', 'SignIn');
SELECT postmark_enqueue(format('later%s@t.example', i), 'Register', '000000',
	send_after => now() + interval '1 day', expires_in => '1 hour')
FROM generate_series(1, 20) i;
SQL
ok( $subscriber->poll_query_until(
		'postgres',
		"SELECT count(*) = 4 FROM postmark_messages WHERE status = 'sent'"),
	'it sends messages of its own');

# And some in the queue, with ids of its own: the publisher deletes what it has
# sent, here too, by its ids.
$subscriber->sql('SELECT postmark_set_node(1)');
$subscriber->sql('SELECT postmark_pause()');
$subscriber->enqueue(20, prefix => 'kept');
my $before = $subscriber->sql(
	'SELECT id, email, status FROM postmark_messages ORDER BY id');

# also triggers that fire for replicated rows are not to queue a second mail
$subscriber->sql(<<'SQL');
ALTER TABLE signup ENABLE ALWAYS TRIGGER mail;
CREATE FUNCTION mail_more() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM public.postmark_enqueue(NEW.email, 'Register', '000000',
		send_after => now() + interval '1 s');
	PERFORM public.postmark_issue_code(NEW.email, 'SignIn');
	PERFORM public.postmark_issue_token(NEW.email, 'SignIn', 'shop://{token}');
	RETURN NEW;
END
$$;
CREATE TRIGGER more AFTER INSERT ON signup FOR EACH ROW EXECUTE FUNCTION mail_more();
ALTER TABLE signup ENABLE ALWAYS TRIGGER more;
SQL
my $tables = join ', ', map { "postmark_$_" }
  qw(queue deferred intents history trouble instance codes sends attempts);
$primary->sql("CREATE PUBLICATION everything FOR TABLE signup, $tables");
$subscriber->sql("CREATE SUBSCRIPTION everything CONNECTION '"
	  . $primary->connstr . ' dbname=postgres'
	  . "' PUBLICATION everything");
$subscriber->wait_for_subscription_sync($primary, 'everything');
$primary->sql(
	"INSERT INTO signup SELECT i, 'signup' || i || '\@t.example', '000000' FROM generate_series(1, 5) i"
);
$primary->enqueue(5, prefix => 'logical');
my $code_id =
  $primary->sql("SELECT postmark_issue_code('both\@t.example', 'SignIn')");
$primary->sql(<<'SQL');
SELECT postmark_enqueue(format('deferred%s@t.example', i), 'Register', '000000',
	send_after => now() + interval '500 ms')
FROM generate_series(1, 10) i;
SQL

# A code that was tried and used up, a message that cannot be sent
$sandbox->config(inactive_recipients => ['nobody@t.example']);
$primary->sql(
	"SELECT postmark_enqueue('nobody\@t.example', 'Register', '000000')");
my $code;
PostmarkCluster::until_true(
	sub {
		($code) = map { $_->{Request}{TemplateModel}{code} }
		  grep { $_->{Metadata}{postmark_id} =~ /^$code_id-/ }
		  $sandbox->messages(recipient => 'both@t.example', render => 0);
	});
is( $primary->sql(
		"SELECT postmark_verify_code('both\@t.example', 'SignIn', '0000'),
			postmark_verify_code('both\@t.example', 'SignIn', '$code')"),
	'mismatch|verified',
	'a code is used on the publisher');
$primary->enqueue(40, prefix => 'many');
ok($primary->wait_finished, 'the publisher sends');
$primary->wait_for_catchup('everything');
is($subscriber->sql('SELECT count(*) FROM signup'),
	5, 'the subscriber has the rows');
is( $subscriber->sql(
		'SELECT id, email, status FROM postmark_messages ORDER BY id'),
	$before,
	'its messages are its own, all of them and no others');
is( $subscriber->sql(
		'SELECT count(*), min(address) FROM postmark_codes'),
	'1|both@t.example',
	'so are its codes');
$subscriber->sql('SELECT postmark_resume()');
ok( PostmarkCluster::until_true(
		sub { 20 == grep { $_->[1] =~ /^kept/ } $sandbox->ids }),
	'and once it may it sends them');
is( $subscriber->sql(
		"SELECT state, (SELECT count(*) FROM postmark_instance) FROM postmark_status"
	),
	'running|1',
	'its worker runs');
$subscriber->sql(
	"SELECT postmark_enqueue('own\@t.example', 'Register', '000000')");
ok( PostmarkCluster::until_true(
		sub { scalar(() = $sandbox->messages(recipient => 'own@t.example')) }),
	'what is queued on the subscriber itself is sent');
is( scalar(
		grep { $_->[1] =~ /^(?:signup|logical|deferred)/ && $_->[2] == 1 }
		  $sandbox->ids),
	20,
	'each replicated message was sent once, by the publisher');
is( scalar(grep { $_->[1] =~ /^signup/ } $sandbox->ids),
	5, 'and no other to these recipients');
$subscriber->sql('DROP SUBSCRIPTION everything');
$primary->sql('DROP PUBLICATION everything');

#
# A publication of all tables, ours among them
#

$primary->sql('CREATE DATABASE published');
$primary->sql('CREATE PUBLICATION everything FOR ALL TABLES', 'published');
$primary->prepare_database('published');
ok( $primary->poll_query_until(
		'published', 'SELECT timeline IS NOT NULL FROM postmark_instance'),
	'with a publication of all tables the worker stores its timeline');
$primary->sql(
	"SELECT postmark_enqueue('published\@t.example', 'Register', '000000')",
	'published');
ok($primary->wait_finished('published'), 'and sends');
$primary->sql('CREATE DATABASE copied TEMPLATE published');
ok( $primary->poll_query_until(
		'copied', "SELECT state = 'copied' FROM postmark_status"),
	'a copy is recognised');
is( PostmarkExtra::error_of($primary, 'SELECT postmark_resume()',
		database => 'copied')->{sqlstate},
	'',
	'postmark_resume works in it');
ok( $primary->poll_query_until(
		'copied', "SELECT state = 'running' FROM postmark_status"),
	'and has it send');
$primary->sql("DROP DATABASE $_") foreach qw(copied published);

#
# Promotion
#

# Some sent, some not, then the primary is gone for good.
$sandbox->rule(
	path => '/email*',
	recipient => 'inherited*',
	action => { status => 503 });
$primary->enqueue(20, prefix => 'sent');
ok( PostmarkCluster::until_true(
		sub { 20 == grep { $_->[1] =~ /^sent/ } $sandbox->ids }),
	'the primary sends some');
$primary->enqueue(20, prefix => 'inherited');
$primary->wait_for_catchup($standby);
$primary->stop('immediate');
$sandbox->clear_rules;
$standby->promote;
ok( $standby->poll_query_until(
		'postgres', 'SELECT max(worker_pid) IS NOT NULL FROM postmark_status'),
	'after the promotion there is a worker');
ok( $standby->poll_query_until(
		'postgres',
		"SELECT count(*) = 0 FROM postmark_messages WHERE status IN ('queued', 'deferred', 'sending')"
	),
	'which sends what it inherited');
is(scalar(grep { $_->[1] =~ /^inherited/ } $sandbox->ids),
	20, 'all of it arrived');
is(scalar(() = $sandbox->ids(duplicates => 1)), 0, 'nothing arrived twice');
is( $standby->safe_psql(
		'postgres',
		"SELECT count(*) FROM app_messages a LEFT JOIN postmark_messages m ON m.id = a.id AND m.email = a.email WHERE m.status IS DISTINCT FROM 'sent'"
	),
	0,
	'all are accounted for as sent');
$standby->safe_psql('postgres',
	"SELECT postmark_enqueue('new\@t.example', 'Register', '000000')");
ok( PostmarkCluster::until_true(
		sub { scalar(() = $sandbox->messages(recipient => 'new@t.example')) }),
	'the promoted server sends what is queued there');

done_testing();
