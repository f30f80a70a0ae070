# After a failover with asynchronous replication the new primary holds messages
# as unsent that the old one sent: it asks Postmark before it sends them.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use PostmarkSandbox;
use PostmarkCluster;

my $n = 700;
my $sandbox = PostmarkSandbox->new();
my $primary = PostmarkCluster->new(
	'primary',
	sandbox => $sandbox,
	init => { allows_streaming => 1 });
ok($primary->wait_worker, 'the primary has a worker');
$primary->enqueue(1, prefix => 'first');
ok($primary->wait_finished, 'it sends, and knows its timeline');
ok( $primary->poll_query_until(
		'postgres', 'SELECT timeline = 1 FROM postmark_instance'),
	'the timeline is written down');

# What the standby gets to know: the messages, and nothing of their sending
$primary->sql('SELECT postmark_pause()');
$primary->enqueue($n, prefix => 'both');
$primary->sql(
	"SELECT postmark_enqueue('later\@t.example', 'Register', '000000', send_after => now() + interval '1 s')"
);
$primary->backup('copy');
$primary->sql('SELECT postmark_resume()');
ok($primary->wait_finished, 'the primary sends after the standby lost touch');
is($sandbox->counts->{distinct}, $n + 2, 'Postmark has all of them');
$primary->stop('immediate');

my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'copy');
$standby->set_standby_mode();
$standby->start;
is( $standby->safe_psql(
		'postgres', 'SELECT count(*) FROM postmark_queue'),
	$n, 'the standby holds the messages as unsent');
$standby->promote;
$standby->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()');
$standby->safe_psql('postgres',
	"SELECT postmark_resume(), postmark_enqueue('new\@t.example', 'Register', '000000')"
);
ok( $standby->poll_query_until(
		'postgres',
		"SELECT count(*) = $n + 3 AND bool_and(status = 'sent' AND message_id IS NOT NULL) FROM postmark_messages"
	),
	'all end as sent, with their MessageIDs');
is($sandbox->counts->{duplicates}, 0, 'none was sent twice');
is($sandbox->counts->{distinct}, $n + 3, 'a new message was sent');
ok( $standby->poll_query_until(
		'postgres', 'SELECT timeline = 2 FROM postmark_instance'),
	'the new timeline is written down');
$standby->stop;

done_testing();
