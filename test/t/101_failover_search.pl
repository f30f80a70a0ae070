# After a failover: what is asked of Postmark, and what waits for the answer.

use strict;
use warnings FATAL => 'all';

use HTTP::Tiny;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use PostmarkSandbox;
use PostmarkCluster;

my $sandbox = PostmarkSandbox->new();
my $primary = PostmarkCluster->new(
	'primary',
	sandbox => $sandbox,
	init => { allows_streaming => 1 },
	conf => "postmark_connector.request_timeout = '10 s'\n");
ok($primary->wait_worker, 'the primary has a worker');
$primary->enqueue(1, prefix => 'first');
ok($primary->wait_finished, 'it sends');
ok( $primary->poll_query_until(
		'postgres', 'SELECT timeline = 1 FROM postmark_instance'),
	'and knows its timeline');

my $promoted = 0;

# A standby with what is in a backup, promoted
sub promoted
{
	my ($backup, $conf) = @_;
	my $standby = PostgreSQL::Test::Cluster->new('standby' . ++$promoted);
	bless $standby, 'PostmarkCluster';
	$standby->{postmark_sandbox} = $sandbox;
	$standby->init_from_backup($primary, $backup);
	$standby->set_standby_mode();
	$standby->append_conf('postgresql.conf', $conf // '');
	$standby->start;
	$standby->promote;
	$standby->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()');
	return $standby;
}

# Make messages of the primary's older or younger than they are
sub change_created_at
{
	my ($prefix, $by) = @_;

	$primary->sql(<<"SQL");
ALTER TABLE postmark_queue DISABLE TRIGGER postmark_queue_row;
UPDATE postmark_queue SET created_at = created_at + interval '$by'
WHERE email LIKE '$prefix%';
ALTER TABLE postmark_queue ENABLE ALWAYS TRIGGER postmark_queue_row;
SQL
	return;
}

sub searches { return $sandbox->requests(path => '/messages/outbound', since => $_[0]); }

sub duplicates
{
	return join ' ', map { $_->[1] } $sandbox->ids(duplicates => 1);
}

#
# Nothing inherited: nothing is asked
#

$primary->backup('empty');
my $since = $sandbox->last_request;
my $standby = promoted('empty');
$standby->enqueue(1, prefix => 'nothing-inherited');
ok($standby->wait_finished, 'nothing inherited: a new message is sent');
ok( $standby->poll_query_until(
		'postgres', 'SELECT timeline = 2 FROM postmark_instance'),
	'nothing inherited: the failover is over');
is(scalar(searches($since)), 0, 'nothing inherited: no search');
$standby->stop;

#
# The search does not tell
#

foreach my $in_doubt ('hold', 'resend')
{
	# All of these are unsent where the standby lost touch
	$primary->sql('SELECT postmark_pause()');
	$primary->enqueue(700, prefix => "both-$in_doubt-");
	$primary->enqueue(5, prefix => "unsent-$in_doubt-");

	# To be decided on, where "resend" holds, 30 seconds before their end
	$primary->enqueue(
		3,
		prefix => "short-$in_doubt-",
		expires_in => $in_doubt eq 'resend' ? "'45 s'" : "'12 s'");
	change_created_at('short', '-10 min');
	$primary->backup("inherits-$in_doubt");
	$primary->sql(
		q(SELECT count(postmark_cancel(id)) FROM postmark_messages WHERE email ~ '^(unsent|short)' AND status = 'queued')
	);
	$primary->sql('SELECT postmark_resume()');
	ok($primary->wait_finished,
		"$in_doubt: the primary sends after the standby lost touch");

	my $broken = $sandbox->rule(
		path => '/messages/outbound',
		action => { status => 500 });
	$standby = promoted("inherits-$in_doubt",
		"postmark_connector.in_doubt = $in_doubt\n");
	$standby->sql('SELECT postmark_resume()');
	my $id = $standby->sql(
		"SELECT postmark_enqueue('new-$in_doubt\@t.example', 'Register', '000000')"
	);
	is($standby->sql("SELECT postmark_wait($id, '20 s')"),
		'sent', "$in_doubt: a new message does not wait for the search");
	is( $standby->sql(
			"SELECT string_agg(DISTINCT status, ' ') FROM postmark_messages WHERE email ~ '^(both|unsent)-$in_doubt'"
		),
		'queued',
		"$in_doubt: what was inherited waits");
	ok( $standby->poll_query_until(
			'postgres',
			q(SELECT state = 'running' AND detail ~ 'search does not tell' AND last_error ~ '500' FROM postmark_status)
		),
		"$in_doubt: the state says why");
	ok( $standby->poll_query_until(
			'postgres',
			"SELECT count(*) = 3 FROM postmark_messages WHERE email LIKE 'short-$in_doubt%' AND status IN ('sent', 'expired')"
		),
		"$in_doubt: what is about to expire is decided on");
	is( $standby->sql(
			"SELECT string_agg(DISTINCT status || coalesce(': ' || last_error, ''), ' ') FROM postmark_messages WHERE email LIKE 'short-$in_doubt%'"
		),
		$in_doubt eq 'resend' ? 'sent'
		: "expired: The outcome is unknown, and Postmark's message search could not tell: the message may have been sent.",
		"$in_doubt: as in_doubt says");
	$sandbox->clear_rules($broken);
	ok($standby->wait_finished,
		"$in_doubt: once the search works all are finished");
	is( $standby->sql(
			"SELECT string_agg(DISTINCT status, ' ') FROM postmark_messages WHERE email ~ '^(both|unsent)-$in_doubt'"
		),
		'sent',
		"$in_doubt: as sent");
	ok( $standby->poll_query_until(
			'postgres', 'SELECT detail IS NULL FROM postmark_status'),
		"$in_doubt: the state has nothing to say any more");
	is(duplicates(), '', "$in_doubt: nothing was sent twice");
	$standby->stop;
}

#
# How far back the search goes
#

# Postmark has newer messages of others than a search shows
my $http = HTTP::Tiny->new;
foreach my $batch (1 .. 21)
{
	my $answer = $http->post(
		$sandbox->url . '/email/batch',
		{
			headers => {
				'X-Postmark-Server-Token' => $PostmarkCluster::TOKEN,
				'Content-Type' => 'application/json',
				Accept => 'application/json'
			},
			content => encode_json(
				[
					map {
						{
							From => 'no-reply@shop.example',
							To => "other$batch-$_\@t.example",
							Subject => 'Hello',
							TextBody => 'Hello',
							Metadata => { postmark_id => "other-$batch-$_" }
						}
					} 1 .. 500
				])
		});
	$answer->{success} or BAIL_OUT("Postmark refuses: $answer->{content}");
}
$since = $sandbox->last_request;
$standby = promoted('inherits-resend');
$standby->sql('SELECT postmark_resume()');
ok($standby->wait_finished, 'more than 10,000 newer ones: all are finished');
is((grep { /^both/ } split / /, duplicates()),
	0, 'more than 10,000 newer ones: what was sent before them is found');
cmp_ok(scalar(searches($since)), '>', 20,
	'more than 10,000 newer ones: beyond them');
$standby->stop;

# What is older than the oldest unsent message is not asked for
$primary->sql('SELECT postmark_pause()');
$primary->enqueue(5, prefix => 'young');
change_created_at('young', '6 min');
$primary->backup('young');
$since = $sandbox->last_request;
$standby = promoted('young');
$standby->sql('SELECT postmark_resume()');
ok($standby->wait_finished, 'a young message: it is sent');
is(scalar(searches($since)), 1, 'a young message: after one page');
$standby->stop;
$primary->sql(
	q(SELECT count(postmark_cancel(id)) FROM postmark_messages WHERE email LIKE 'young%')
);
$primary->sql('SELECT postmark_resume()');

#
# An intent that was inherited is not the last one
#

$since = $sandbox->last_request;
my $posted = $sandbox->counts->{requests}{'/email/batchWithTemplates'};
$sandbox->rule(
	path => '/email/batch*',
	times => 1,
	action => { latency => 6, status => 503 });
$primary->enqueue(20, prefix => 'intent');
ok($sandbox->wait_requests($posted + 1, path => '/email/batch*'),
	'a request is under way');
$primary->backup('intent');
ok($primary->wait_finished, 'it fails, and another one succeeds');
$sandbox->clear_rules;
$primary->stop('immediate');
$standby = promoted('intent');
is( $standby->sql(
		q(SELECT count(*) FROM postmark_messages WHERE email LIKE 'intent%' AND status = 'sending')
	),
	20,
	'a standby inherits the intent of the first one');
ok($standby->wait_finished, 'its messages are finished');
is( $standby->sql(
		q(SELECT string_agg(DISTINCT status, ' ') FROM postmark_messages WHERE email LIKE 'intent%')
	),
	'sent',
	'as sent');
is((grep { /^intent/ } split / /, duplicates()),
	0, 'none was sent twice, in a batch that the standby never knew');
$standby->stop;

done_testing();
