# What became of messages is told to whoever listens, and to nobody else.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use PostmarkSandbox;
use PostmarkCluster;
use PostmarkExtra;

my $sandbox = PostmarkSandbox->new();
my $node = PostmarkCluster->new('main', sandbox => $sandbox);

# What a session that listens is told of messages of one connector
sub told
{
	my ($connector, $channel, @emails) = @_;
	my $stdout;

	$node->psql(
		'postgres',
		join(";\n",
			"LISTEN $channel",
			(map { "SELECT postmark_enqueue('$_', 'Register', '493021', connector => '$connector')" } @emails),
			'SELECT postmark_flush()',
			'SELECT 1'),
		stdout => \$stdout,
		on_error_die => 1);
	return [ sort $stdout =~ /with payload "(.*)" received/g ];
}

# The same of what there is in the end
sub expected
{
	my ($connector) = @_;

	return [
		sort split /\n/,
		$node->sql(
			qq{SELECT format('{"id": %s, "connector": "%s", "status": "%s"}', id, connector, status)
			FROM postmark_messages WHERE connector = '$connector'})
	];
}

$sandbox->config(inactive_recipients => ['gone@example.com']);
$node->configure(connector => 'quiet');
$node->configure(
	connector => 'told',
	config => { notifyChannel => 'Mail, "finished"' });

my $told = told('told', '"Mail, ""finished"""', 'ann@example.com', 'gone@example.com');
is_deeply($told, expected('told'),
	'a session that listens is told of each final status, and of nothing else');
is(scalar(@$told), 2, 'of both messages');
is_deeply(
	told('quiet', '"Mail, ""finished"""', 'ann@example.com'),
	[], 'nothing is told of a connector without a channel');

# 600 at once, which are several transactions
my @many = map { "many$_\@example.com" } 1 .. 600;
is(scalar(@{ told('told', '"Mail, ""finished"""', @many) }), 600, 'of many');

# What became of them later, by the webhook: each change of a status once
my $events = $node->sql(<<'SQL');
SELECT string_agg(format('SELECT postmark_webhook(%L, ''the-webhooks-own-secret'', ''told'')', jsonb_build_object(
	'RecordType', kind, 'Recipient', m.email, 'Email', m.email, 'Type', type,
	'DeliveredAt', at, 'BouncedAt', at, 'Metadata', jsonb_build_object('postmark_id',
		m.id || '-' || (extract(epoch FROM m.created_at) * 1000000)::bigint - 946684800000000))),
	';' ORDER BY n)
FROM postmark_messages m, (VALUES
	(1, 'Bounce', 'AutoResponder', '2026-03-01T12:00:00Z'), (2, 'Bounce', 'SoftBounce', '2026-03-01T12:00:01Z'),
	(3, 'Bounce', 'SoftBounce', '2026-03-01T12:00:01Z'), (4, 'Delivery', NULL, '2026-03-01T12:00:00Z'),
	(5, 'Delivery', NULL, '2026-03-01T12:00:02Z'), (6, 'Delivery', NULL, '2026-03-01T12:00:03Z'),
	(7, 'SpamComplaint', NULL, '2026-03-01T12:00:00Z'), (8, 'Bounce', 'HardBounce', '2026-03-01T12:00:05Z'))
	AS v (n, kind, type, at)
WHERE m.connector = 'told' AND m.email = 'ann@example.com'
SQL
$node->sql(q{SELECT postmark_configure(postmark_config('told') || '{"webhookSecret": "the-webhooks-own-secret"}', 'told')});
my $heard;
$node->psql(
	'postgres',
	qq{LISTEN "Mail, ""finished"""; $events; SELECT 1},
	stdout => \$heard,
	on_error_die => 1);
is( join(' ', $heard =~ /"connector": "told", "status": "(\w+)"\}" received/g),
	'bounced delivered complained',
	'what becomes of a message is told whenever its status changes');
$node->sql('DELETE FROM postmark_feedback');

# What is known of a message goes with it
$node->sql(q{INSERT INTO postmark_feedback (id, created_at, delivered_at, standing, event_at, feedback)
	SELECT id, created_at, now(), 0, '-infinity', '' FROM postmark_history});
$node->sql(q{UPDATE postmark_history SET finished_at = now() - interval '2 hours' WHERE email ~ '^many'});
PostmarkExtra::reload($node, history_retention => '1h');
ok( $node->poll_query_until('postgres', q{SELECT NOT EXISTS (SELECT FROM postmark_messages WHERE email ~ '^many')}),
	'old messages are purged');
is($node->sql('SELECT count(*) FROM postmark_feedback'),
	$node->sql('SELECT count(*) FROM postmark_history'),
	'and what became of them, and no other');

#
# Who is suppressed is known from memory after many messages; what is committed
# counts all the same
#

sub fate
{
	my ($who) = @_;

	return $node->sql(<<"SQL");
SELECT postmark_enqueue('$who', 'Register', '493021', connector => 'quiet') AS id \\gset
SELECT postmark_wait(:id)
SQL
}

sub send_many
{
	$node->sql(q{INSERT INTO postmark_queue (email, usage_type, code, connector)
		SELECT format('%s%s@example.com', CASE WHEN i % 10 = 0 THEN 'gone' ELSE 'other' END, i), 'Register', '493021', 'quiet'
		FROM generate_series(1, 5000) i});
	$node->sql('SELECT postmark_flush()');
	return;
}

my $suppress = q{INSERT INTO postmark_suppressed (connector, message_stream, address, email, reason, since, lifted)
	SELECT 'quiet', 'outbound', e, e, 'HardBounce', now(), false FROM };
PostmarkExtra::reload($node, history_retention => '30d');
$node->sql("$suppress generate_series(1, 300) i, LATERAL (VALUES (format('gone%s\@example.com', i))) AS v (e)");
send_many();
is( $node->sql(q{SELECT count(*) FILTER (WHERE status = 'suppressed'), count(*) FILTER (WHERE status = 'sent')
		FROM postmark_messages WHERE connector = 'quiet' AND email ~ '^(gone|other)'}),
	'30|4970', 'of many messages those to suppressed addresses are not sent');
is(fate('gone77@example.com'), 'suppressed', 'nor is another one');
is(fate('late@example.com'), 'sent', 'to others it is');
$node->sql("$suppress (VALUES ('late\@example.com'), ('later\@example.com')) AS v (e)");
is(fate('Late@example.com'), 'suppressed', 'until an address is suppressed');
$node->sql(q{UPDATE postmark_suppressed SET lifted = true WHERE address ~ '^late@'});
is(fate('late@example.com'), 'sent', 'or is so no more');
$node->sql(q{UPDATE postmark_suppressed SET lifted = false WHERE address ~ '^late@'});
is(fate('late@example.com'), 'suppressed', 'or is so again');
send_many();
$node->sql("SET session_replication_role = replica; $suppress (VALUES ('last\@example.com')) AS v (e)");
is(fate('last@example.com'), 'suppressed', 'whoever writes it');
is(fate('later@example.com'), 'suppressed', 'and so is what went before');
$node->sql('TRUNCATE postmark_suppressed');
is(fate('late@example.com'), 'sent', 'all of them are forgotten at once');

$node->stop;
done_testing();
