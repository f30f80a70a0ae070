
# Every way in which a mail can end, told by the sandbox's events, in whatever
# order they come and however often.

use strict;
use warnings FATAL => 'all';

use JSON::PP;
use List::Util qw(shuffle);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use PostmarkSandbox;
use PostmarkCluster;

my $SECRET = 'a-secret-of-the-test';
my $sandbox = PostmarkSandbox->new(args => [ '--webhook', 'http://127.0.0.1:9/' ]);
my $node = PostmarkCluster->new('main', sandbox => $sandbox);
my $json = JSON::PP->new->canonical;

# local part => what postmark_messages says in the end, and why the address is
# suppressed
my %fates = (
	ann => ['delivered'],
	(map { $_ => ['bounced'] }
		  qw(SoftBounce DnsError SpamNotification VirusNotification Blocked DMARCPolicy SMTPApiError
		  Unconfirmed Unknown)),
	HardBounce => [ 'bounced', 'HardBounce' ],
	BadEmailAddress => [ 'bounced', 'HardBounce' ],
	ManuallyDeactivated => [ 'bounced', 'ManualSuppression' ],
	SpamComplaint => [ 'complained', 'SpamComplaint' ],
	(map { $_ => ['delivered'] }
		  qw(Transient AutoResponder AddressChange Subscribe Unsubscribe OpenRelayTest
		  ChallengeVerification InboundError)));

$node->configure(config => { webhookSecret => $SECRET });
$sandbox->hold_events;
$node->sql(join(";\n", map { "SELECT postmark_enqueue('$_\@example.com', 'Register', '493021')" } sort keys %fates));
is($node->sql(q{SELECT postmark_flush()}), 't', 'all of them are sent');
my @events = map { $_->{body} } $sandbox->events;
cmp_ok(scalar(@events), '>', scalar(keys %fates), 'and the sandbox has more events than mails to tell of');

# Opens and clicks change nothing
foreach my $type (qw(Open Click))
{
	$sandbox->event(type => $type, recipient => 'ann@example.com');
}
@events = map { $_->{body} } $sandbox->events;

sub ends
{
	my %found = map { split /\|/, $_, 2 } split /\n/, $node->sql(
		q{SELECT split_part(m.email, '@', 1), concat_ws(',', m.status, s.reason)
		FROM postmark_messages m LEFT JOIN postmark_suppressions s USING (connector, email)});
	return \%found;
}

my %expected = map { $_ => join(',', @{ $fates{$_} }) } keys %fates;
is_deeply(ends(), { map { $_ => 'sent' } keys %fates }, 'nothing is known before');

# A word for the order, to do the same again
my $seed = $ENV{POSTMARK_TEST_SEED} // time();
srand($seed);
foreach my $round (1 .. 4)
{
	my @told = shuffle(@events, @events);
	my $sql = join(";\n",
		map { my $event = $json->encode($_); "SELECT postmark_webhook(\$event\$$event\$event\$, '$SECRET')" } @told);
	$node->sql($sql);
	is_deeply(ends(), \%expected, "each mail has ended as its address says, round $round (seed $seed)");
}

# What Postmark's side then holds is what ours holds
is($node->sql(q{SELECT string_agg(lower(email) || ' ' || reason, E'\n' ORDER BY lower(email) COLLATE "C")
	FROM postmark_suppressions}),
	join("\n", map { lc("$_\@example.com") . " $fates{$_}[1]" } sort { lc $a cmp lc $b } grep { $fates{$_}[1] } keys %fates),
	'the suppressions are those of the sandbox');

$node->stop;
done_testing();
