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

$node->stop;
done_testing();
