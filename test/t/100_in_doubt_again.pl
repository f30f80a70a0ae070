# A message that is in doubt more than once: no earlier copy of it is forgotten,
# it holds up no other, and it comes to an end.

use strict;
use warnings FATAL => 'all';

use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use PostmarkSandbox;
use PostmarkCluster;
use PostmarkExtra;

my $sandbox = PostmarkSandbox->new();
my $node = PostmarkCluster->new(
	'main',
	sandbox => $sandbox,
	conf => "postmark_connector.request_timeout = '2 s'\n");

# Under the objects of 1.0, which the library still serves
$node->sql('CREATE DATABASE earlier');
$node->sql(q(CREATE EXTENSION postmark_connector VERSION '1.0'), 'earlier');
$node->sql('CREATE TABLE app_messages (id bigint, email text)', 'earlier');
$node->configure(database => 'earlier');

# How many copies of each message arrived
sub copies
{
	my ($prefix) = @_;
	return map { $_->[2] } grep { $_->[1] =~ /^$prefix/ } $sandbox->ids;
}

sub status_of
{
	my ($prefix, $database) = @_;
	return $node->sql(
		"SELECT string_agg(DISTINCT status, ' ') FROM postmark_messages WHERE email LIKE '$prefix%'",
		$database);
}

# The requests that a recipient was in: how many messages each had
sub company
{
	my ($recipient) = @_;
	return
	  map { scalar @{ $_->{body}{Messages} } }
	  grep {
		grep { $_->{To} eq $recipient }
		  @{ $_->{body}{Messages} }
	  } $sandbox->requests(path => '/email/batch*');
}

#
# A search that lags
#

foreach my $database ('postgres', 'earlier')
{
	# By more than settle_time: it takes a while until the first copy is seen
	PostmarkExtra::reload($node, settle_time => '500 ms');
	$sandbox->config(search_lag => 0.8);
	$sandbox->rule(
		path => '/email*',
		times => 6,
		action => { drop => 'after_accept' });
	$node->enqueue(1, prefix => "lags-$database-", database => $database);
	ok($node->wait_finished($database), "$database: a search lags");
	is(status_of("lags-$database", $database),
		'sent', "$database: the message ends as sent");
	cmp_ok((copies("lags-$database"))[0],
		'<=', 3, "$database: at most three copies of it arrive");
	$sandbox->clear_rules;

	# By less: nothing arrives twice
	$sandbox->config(search_lag => 0.2);
	$sandbox->rule(
		path => '/email*',
		times => 6,
		action => { drop => 'after_accept' });
	$node->sql(q(SELECT postmark_resume()), $database);
	$node->enqueue(1, prefix => "short-$database-", database => $database);
	ok($node->wait_finished($database),
		"$database: a search lags by less than settle_time");
	is(join(' ', copies("short-$database")),
		'1', "$database: the message arrives once");
	$sandbox->clear_rules;
}
$sandbox->config(search_lag => 0);

#
# An earlier copy is found, also after a crash
#

PostmarkExtra::reload($node, settle_time => '200 ms');
$node->sql(q(SELECT postmark_resume()));
$sandbox->config(search_lag => 3600);
$sandbox->rule(
	path => '/email*',
	times => 1,
	action => { drop => 'after_accept' });
$sandbox->rule(
	path => '/email*',
	action => { drop => 'before_accept' });
$node->enqueue(1, prefix => 'earlier-copy');
ok( PostmarkCluster::until_true(
		sub { scalar(company('earlier-copy1@t.example')) >= 2 }),
	'a message that was accepted is sent again');
$node->stop('immediate');
$sandbox->config(search_lag => 0);
$sandbox->clear_rules;
$node->start;
ok($node->wait_finished, 'after a crash it is finished');
is(status_of('earlier-copy'), 'sent', 'as sent');
is(join(' ', copies('earlier-copy')),
	'1', 'for its first copy was found, whose batch is not the last');

#
# A message that makes Postmark fail
#

PostmarkExtra::reload($node, settle_time => '20 ms');
$node->sql(q(SELECT postmark_resume()));
$sandbox->rule(
	recipient => 'poison@t.example',
	action => { status => 500 });
$node->sql(
	"BEGIN;"
	  . PostmarkCluster::enqueue_sql(19, prefix => 'beside')
	  . "INSERT INTO app_messages SELECT postmark_enqueue('poison\@t.example', 'Register', '493021'), 'poison\@t.example';"
	  . 'COMMIT');
ok( $node->poll_query_until(
		'postgres',
		q(SELECT count(*) = 19 FROM postmark_messages WHERE email LIKE 'beside%' AND status = 'sent')
	),
	'its neighbours are sent');
my $id = $node->sql(
	q(SELECT id FROM postmark_messages WHERE email = 'poison@t.example'));
my $later = 0;
while ($node->sql("SELECT status FROM postmark_messages WHERE id = $id") ne
	'failed')
{
	$later++;
	my $message = $node->sql(
		"SELECT postmark_enqueue('later$later\@t.example', 'Register', '493021')"
	);
	$node->sql("SELECT postmark_wait($message, '20 s')") eq 'sent'
	  or BAIL_OUT('a later message is not sent');
	last if $later == 1000;
}
cmp_ok($later, '>', 0, 'what is queued later is sent meanwhile');
cmp_ok($later, '<', 1000, 'the message comes to an end');
my @company = company('poison@t.example');
is(scalar(@company), 5, 'after so many requests');
is(join(' ', @company[ 2 .. 4 ]),
	'1 1 1', 'where it was alone after the second');
like(
	$node->sql("SELECT last_error FROM postmark_messages WHERE id = $id"),
	qr/outcome of every request/,
	'last_error says why');
is( $node->sql(
		"SELECT count(*) FROM postmark_deferred WHERE doubts IS NOT NULL"),
	0,
	'nothing that was in doubt is left');
$sandbox->clear_rules;

# What was in doubt is not what shows whether Postmark works again
$node->sql(q(SELECT postmark_resume()));
my $last = $sandbox->last_request;
my $asked = () = $sandbox->requests(path => '/messages/outbound');
$sandbox->rule(recipient => 'poison*', action => { status => 500 });
my $down = $sandbox->rule(
	path => '/email/*',
	times => 3,
	action => { status => 500 });
$node->enqueue(3, prefix => 'poison');
ok( $sandbox->wait_requests($asked + 1, path => '/messages/outbound'),
	'messages are in doubt');
$node->enqueue(60, prefix => 'fresh');
ok( $node->poll_query_until(
		'postgres',
		q(SELECT count(*) = 60 FROM postmark_messages WHERE email LIKE 'fresh%' AND status = 'sent')
	),
	'others are sent while it does not end');
my @mixed = grep {
	my @to = map { $_->{To} } @{ $_->{body}{Messages} };
	(grep { /^poison/ } @to) && (grep { /^fresh/ } @to)
} $sandbox->requests(path => '/email/batch*', since => $last);
is(scalar(@mixed), 0, 'never in a request with what was in doubt');
$sandbox->clear_rules;
ok($node->wait_finished, 'all of them are finished');

#
# A crash while Postmark is slow
#

PostmarkExtra::reload($node, settle_time => '200 ms');
$node->sql(q(SELECT postmark_resume()));
$sandbox->rule(path => '/email/*', action => { latency => 1.5 });
my $posted = $sandbox->counts->{requests}{'/email/batchWithTemplates'};
$node->enqueue(600, prefix => 'slow');
ok($sandbox->wait_requests($posted + 2, path => '/email/batch*'),
	'requests are under way');
$node->stop('immediate');
$node->start;
ok($node->wait_finished, 'after a crash they are looked up');
is(join(' ', grep { $_ != 1 } copies('slow')),
	'', 'once Postmark must be done with them');
is($sandbox->counts->{requests}{'/email/batchWithTemplates'},
	$posted + 2, 'nothing was sent again');
$sandbox->clear_rules;

$node->accounted('each message arrived once', databases => [ 'postgres', 'earlier' ],
	only => qr/^(?!lags|later|poison)/);
$node->stop;
done_testing();
