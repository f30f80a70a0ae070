# With feedbackInterval the worker asks Postmark itself what became of mail, and
# what it stores is what a webhook would have stored.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use JSON::PP;
use Test::More;

use PostmarkSandbox;
use PostmarkCluster;
use PostmarkExtra;

my $SECRET = 'the-webhooks-own-secret';

my $sandbox = PostmarkSandbox->new(args => [ '--webhook', 'http://127.0.0.1:9/' ]);
my $node = PostmarkCluster->new('main', sandbox => $sandbox);
$sandbox->hold_events;
ok($node->wait_worker, 'there is a worker');

sub asked
{
	my ($path) = @_;
	return scalar $sandbox->requests(path => $path);
}

# All that is known of messages and addresses
sub known
{
	return $node->sql(<<'SQL');
SELECT email, status, delivered_at IS NOT NULL, feedback FROM postmark_messages ORDER BY id;
SELECT connector, message_stream, email, reason, origin FROM postmark_suppressions ORDER BY 1, 2, 3
SQL
}

# Wait until the connector has asked for everything up to now.
sub wait_asked
{
	my ($stream) = @_;

	return $node->poll_query_until('postgres', sprintf(<<'SQL', $stream // 'outbound'));
SELECT EXISTS (SELECT FROM postmark_feedback_progress WHERE message_stream = '%s'
	AND bounces_until = suppressions_until AND bounces_until > now() - interval '1 min')
SQL
}

# Make it ask again, as if it had last asked an hour ago, or never had.
sub ask_again
{
	my ($never) = @_;

	# It asks up to the last whole second
	my $now = $node->sql('SELECT clock_timestamp()');
	$node->poll_query_until('postgres', "SELECT date_trunc('second', clock_timestamp()) > '$now'");

	$node->sql($never ? 'DELETE FROM postmark_feedback_progress' :
		  q{UPDATE postmark_feedback_progress SET bounces_until = now() - interval '1 hour',
			suppressions_until = now() - interval '1 hour'});
	$node->sql('SELECT postmark_configure(postmark_config())');
	return wait_asked();
}

sub send_to
{
	my (@emails) = @_;

	$node->sql("SELECT postmark_enqueue('$_', 'Register', '493021')") foreach @emails;
	$node->sql('SELECT postmark_flush()');
	return;
}

#
# Off, and what is refused
#

my @fates = map { "$_\@example.com" }
  qw(ann hardbounce softbounce autoresponder spamcomplaint badEmailAddress blocked transient);
send_to(@fates);
my $before = known();
is(asked('/bounces'), 0, 'without feedbackInterval nothing is asked');
foreach my $bad (59, 86401, -1, '"60"')
{
	is(PostmarkExtra::error_of($node, qq{SELECT postmark_configure(postmark_config() || '{"feedbackInterval": $bad}')})->{sqlstate},
		'PM001', "feedbackInterval $bad is refused");
}

#
# What is asked, and that it says what a webhook says
#

$node->configure(config => { feedbackInterval => 60 });
ok(wait_asked(), 'the worker asks');
my $polled = known();
isnt($polled, $before, 'and learns something');
like($polled, qr/^hardbounce\@example.com\|bounced\|f\|HardBounce: /m, 'of a bounce');
like($polled, qr/^autoresponder\@example.com\|sent\|f\|AutoResponder/m, 'that an automatic reply is none');
like($polled, qr/^spamcomplaint\@example.com\|complained\|f\|/m, 'of a complaint');
like($polled, qr/^default\|outbound\|hardbounce\@example.com\|HardBounce\|Recipient$/m, 'of an address');

my ($bounces) = map { $_->{query} } $sandbox->requests(path => '/bounces');
like($bounces, qr/messagestream=outbound/, 'of the stream it names');
like($bounces, qr/fromdate=[^&]*(Z|-04%3A00|-04:00)&/i, 'from a time in a zone it names');

# The same news by the webhook
sub post
{
	foreach my $event (@_)
	{
		my $body = JSON::PP->new->encode($event->{body});
		$body =~ s/'/''/g;
		$node->sql("SELECT postmark_webhook('$body', '$SECRET')")
		  unless $event->{record_type} eq 'Delivery';
	}
	return;
}

$node->configure(config => { webhookSecret => $SECRET });
is($node->sql('SELECT count(*) FROM postmark_feedback_progress'), 0, 'turned off, it does not remember what it asked');
$node->sql('DELETE FROM postmark_feedback; DELETE FROM postmark_suppressed');
is(known(), $before, 'as if nothing had been told');
post($sandbox->events);
is(known(), $polled, 'the webhook says the same');

#
# Both, late and twice: nothing more; nothing new is not written
#

$node->configure(config => { feedbackInterval => 60 });
ok(wait_asked(), 'it asks beside the webhook');
is(known(), $polled, 'and learns nothing');
post(reverse $sandbox->events);
is(known(), $polled, 'nor does the webhook');
my @rows = map { "SELECT string_agg(format('%s %s %s', ctid, xmin, xmax), ',' ORDER BY ctid) FROM postmark_$_" } qw(feedback suppressed);
my @written = map { $node->sql($_) } @rows;
ok(ask_again(), 'it asks again');
is_deeply([ map { $node->sql($_) } @rows ], \@written, 'and nothing is written about what is known');

# An address that was let go of stays so
$node->sql(q{SELECT postmark_unsuppress('hardbounce@example.com')});
ok(ask_again('never'), 'it asks for all anew');
is($node->sql(q{SELECT count(*) FROM postmark_suppressions WHERE email ~ '^hardbounce'}),
	0, 'an older bounce does not suppress an address again');

# A person who was forgotten as well
$node->sql(q{SELECT postmark_forget('spamcomplaint@example.com')});
ok(ask_again('never'), 'it asks for all anew');
is($node->sql(q{SELECT count(*) FROM postmark_suppressed WHERE email ~ '^spamcomplaint'}),
	0, 'nobody who was forgotten comes back');

# News that a constraint of somebody's keeps out does not keep out the other
$node->sql('DELETE FROM postmark_feedback');
$node->sql(q{ALTER TABLE postmark_feedback ADD CONSTRAINT no_soft_ones CHECK (feedback !~ '^SoftBounce')});
ok(ask_again('never'), 'it comes to an end with news that cannot be stored');
is($node->sql(q{SELECT string_agg(split_part(feedback, ':', 1), ' ' ORDER BY feedback) FROM postmark_messages
	WHERE email ~ '^(hardbounce|softbounce|autoresponder)'}),
	'AutoResponder HardBounce', 'and has stored the other');
$node->sql('ALTER TABLE postmark_feedback DROP CONSTRAINT no_soft_ones');
ok(ask_again('never'), 'it asks for all anew');
is($node->sql(q{SELECT status FROM postmark_messages WHERE email ~ '^softbounce'}),
	'bounced', 'which has that, too');

#
# A restart
#

my $asked = asked('/bounces');
$node->restart;
ok($node->wait_worker, 'there is a worker again');
$node->enqueue(1, prefix => 'after-restart');
ok($node->wait_finished, 'which works');
is(asked('/bounces'), $asked, 'a restart is no reason to ask');
$sandbox->event(type => 'HardBounce', recipient => 'ann@example.com');
ok(ask_again(), 'it asks on');
like(known(), qr/^ann\@example.com\|bounced/m, 'and learns what came since');
my ($last) = map { $_->{query} } ($sandbox->requests(path => '/bounces'))[-1];
my ($first) = map { $_->{query} } $sandbox->requests(path => '/bounces');
isnt(($last =~ /fromdate=([^&]*)/)[0], ($first =~ /fromdate=([^&]*)/)[0], 'not of all there is');

#
# A connector that does not flow
#

$node->sql('SELECT postmark_pause()');
$asked = asked('/bounces');
$node->sql('DELETE FROM postmark_feedback_progress; SELECT postmark_configure(postmark_config())');
$node->configure(connector => 'other');
$node->sql(q{SELECT postmark_enqueue('bob@example.com', 'Register', '493021', connector => 'other')});
$node->poll_query_until('postgres', q{SELECT EXISTS (SELECT FROM postmark_messages WHERE connector = 'other' AND status = 'sent')});
is(asked('/bounces'), $asked, 'what is paused does not ask');
$node->sql('SELECT postmark_resume()');
ok(wait_asked(), 'it does so when it is resumed');

# One that captures sends nothing that could bounce; one that is removed is forgotten
$node->configure(connector => 'other', config => { delivery => 'capture', feedbackInterval => 60 });
$node->configure(connector => 'third', config => { feedbackInterval => 60 });
ok( $node->poll_query_until('postgres', q{SELECT suppressions_until > now() - interval '1 min'
		FROM postmark_feedback_progress WHERE connector = 'third'}),
	'each connector asks for itself');
is($node->sql(q{SELECT count(*) FROM postmark_feedback_progress WHERE connector = 'other'}),
	0, 'one that captures does not');
$node->sql(q{SELECT postmark_remove('third')});
is($node->sql(q{SELECT count(*) FROM postmark_feedback_progress WHERE connector = 'third'}),
	0, 'what was asked goes with the connector');

#
# More than a search shows: a shorter time is asked about
#

my $number = $sandbox->last_request;
$sandbox->rule(path => '/bounces', times => 3, action => { status => 200, body => { TotalCount => 20000, Bounces => [] } });
ok(ask_again('never'), 'it asks for all anew');
my @until = map { $_->{query} =~ /todate=([^&]*)/ } $sandbox->requests(path => '/bounces', since => $number);
is_deeply([ @until[ 0 .. 3 ] ], [ reverse sort @until[ 0 .. 3 ] ], 'about half of the time each time');
is(scalar(grep { $until[$_] eq $until[ $_ - 1 ] } 1 .. 3), 0, 'as long as there is too much');
is($until[-1], $until[0], 'and then about the rest');

#
# Pages, and one that fails
#

$node->sql(<<'SQL');
INSERT INTO postmark_queue (email, usage_type, code)
SELECT format('softbounce+%s@example.com', i), 'Register', '493021' FROM generate_series(1, 650) i;
SQL
$node->sql('SELECT postmark_flush()');
my $log = PostmarkExtra::log_position($node);
$asked = asked('/bounces');
$sandbox->rule(path => '/bounces', skip => 2, times => 1, action => { status => 503 });
ok(ask_again(), 'it asks for many');
is($node->sql(q{SELECT count(*) FROM postmark_messages WHERE email ~ '^softbounce.' AND status = 'bounced'}),
	651, 'and has all of them, though a page failed');
cmp_ok(asked('/bounces') - $asked, '>=', 8, 'page by page');
cmp_ok(asked('/bounces') - $asked, '<=', 12, 'and no page twice but the one that failed');
unlike(PostmarkExtra::log_since($node, $log), qr/could not ask/, 'a single failure is not worth a word');

# Whatever it answers, mail goes on
$sandbox->rule(path => '/bounces', action => { status => 429, retry_after => 3600 });
$asked = asked('/bounces');
$node->sql('DELETE FROM postmark_feedback_progress; SELECT postmark_configure(postmark_config())');
ok($sandbox->wait_requests($asked + 1, path => '/bounces'), 'Postmark has enough of questions');
send_to('carl@example.com');
is($node->sql(q{SELECT status FROM postmark_messages WHERE email ~ '^carl'}), 'sent', 'mail is sent all the same');
is($node->sql(q{SELECT state FROM postmark_status WHERE connector = 'default'}), 'running', 'and nothing is wrong with it');
$sandbox->clear_rules;

#
# Many suppressions, in little memory
#

# Bytes of the worker that are its own
sub memory
{
	my $status = slurp_file('/proc/' . $node->worker_pid . '/status');
	my ($kb) = $status =~ /^RssAnon:\s+(\d+) kB/m;
	return $kb;
}

my $memory = memory();
$sandbox->control('POST', 'suppressions', { count => 20000, seconds => 90 * 86400 });
$asked = asked('*dump');
ok(ask_again('never'), 'a long list is asked for');
is($node->sql(q{SELECT count(*) FROM postmark_suppressions WHERE email ~ '^listed'}), 20000, 'all of it');
note('requests: ' . (asked('*dump') - $asked) . ', memory: ' . (memory() - $memory) . ' kB more');
cmp_ok(asked('*dump') - $asked, '<', 150, 'in parts');
cmp_ok(memory() - $memory, '<', 16 * 1024, 'in little memory');

# What cannot be had in parts is not asked for for ever
$sandbox->reset;
$sandbox->control('POST', 'suppressions', { count => 30000 });
$log = PostmarkExtra::log_position($node);
ok(ask_again('never'), 'more than can be read is listed for one second');
PostmarkExtra::wait_for_log($node, $log, qr/cannot read all that Postmark lists of connector "default" for the second/);
$asked = asked('*dump');
ok(ask_again(), 'it is asked for once more');
# Both ends of a question are whole seconds that belong to it, so that two have
# the same mail
my @said = PostmarkExtra::log_since($node, $log) =~ /cannot read all.* for the second (.*)/g;
is(join(' ', sort keys %{ { map { $_ => 1 } @said } }), join(' ', sort @said), 'that is said once of a second');
cmp_ok(scalar(@said), '<=', 2, 'and of two at most');

#
# Another server of Postmark's, a connector that goes, a dump
#

$node->sql('SELECT postmark_pause()');
$node->sql(q{SELECT postmark_set_token('sandbox-token')});
is($node->sql('SELECT count(*) FROM postmark_feedback_progress'), 1, 'the same token changes nothing');
$node->sql(q{SELECT postmark_set_token('another-token')});
is($node->sql('SELECT count(*) FROM postmark_feedback_progress'), 0, 'with another one all is to be asked anew');
my ($dump) = run_command([ 'pg_dump', '--data-only', $node->connstr('postgres') ]);
unlike($dump, qr/postmark_feedback_progress/, 'a dump does not say what was asked');

$node->stop;
done_testing();
