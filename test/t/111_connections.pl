# Connections that are kept: none is used that is not fit for it, and none for
# ever.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use OddPostmark;
use PostmarkSandbox;
use PostmarkCluster;
use PostmarkExtra;

my $sandbox = PostmarkSandbox->new(tls => 'good');
my $plain = OddPostmark->new();
my $secure = OddPostmark->new(tls => $sandbox);
my $node = PostmarkCluster->new(
	'main',
	sandbox => $sandbox,
	conf => "postmark_connector.request_timeout = '2 s'\n");

# Of the queued messages with this prefix, how many are sent
sub sent
{
	my ($prefix) = @_;
	return $node->sql(
		"SELECT count(*) FROM postmark_messages WHERE email LIKE '$prefix%' AND status = 'sent'"
	);
}

sub enqueue
{
	my ($email) = @_;
	return $node->sql("SELECT postmark_enqueue('$email', 'Register', '493021')");
}

# Messages, one after another, and what the server saw of each
sub one_by_one
{
	my ($odd, $prefix, $n) = @_;
	foreach my $i (1 .. $n)
	{
		my $id = enqueue("$prefix$i\@t.example");
		$node->wait_status($id, "sent', 'failed");
		# What comes after the answer has come
		my $until = time() + 0.1;
		PostmarkCluster::until_true(sub { time() > $until });
	}
	return map { [ $odd->requests(to => "$prefix$_\@t.example") ] } 1 .. $n;
}

#
# Answers that nobody waits for
#

foreach my $case ([ 'plain', $plain ], [ 'TLS', $secure ])
{
	my ($name, $odd) = @$case;
	PostmarkExtra::reload($node, api_url => $odd->url);

	$odd->mode('twice');
	my @seen = one_by_one($odd, lc($name) . 'twice', 4);
	is(scalar(grep { @$_ == 1 } @seen),
		4, "$name: each message was sent once, for all the answers");
	my %ids = map { $_ => 1 } split /\n/,
	  $node->sql("SELECT message_id FROM postmark_messages WHERE email LIKE lower('${name}twice%')");
	is(scalar(keys %ids), 4, "$name: each has a MessageID of its own");
	is(scalar(keys %{ { map { $_->[0]{connection} => 1 } @seen } }),
		4, "$name: no connection was used again that had something to say");
	is($node->sql("SELECT max(attempts) FROM postmark_messages WHERE email LIKE lower('${name}twice%')"),
		1, "$name: none was in doubt");

	$odd->mode('late408');
	@seen = one_by_one($odd, lc($name) . 'late', 3);
	is(scalar(grep { @$_ == 1 } @seen),
		3, "$name: a 408 that comes late costs nothing");
	is($node->sql("SELECT count(*) FROM postmark_messages WHERE email LIKE lower('${name}late%') AND attempts = 1"),
		3, "$name: and leaves nothing in doubt");
	is($node->sql('SELECT state FROM postmark_status'),
		'running', "$name: nor is anything wrong with the connector");

	# libcurl itself does not look at one that was used less than a second ago.
	$odd->mode('closes');
	@seen = one_by_one($odd, lc($name) . 'closes', 4);
	is(scalar(grep { @$_ == 1 } @seen),
		4, "$name: a connection that was closed meanwhile costs nothing");
	is($node->sql("SELECT count(*) FROM postmark_messages WHERE email LIKE lower('${name}closes%') AND attempts = 1"),
		4, "$name: no attempt of a queued message either");
	is( $node->sql(
			join ';',
			map {
				"SELECT postmark_send('${name}closed$_\@t.example', 'Register', '493021') IS NOT NULL FROM pg_sleep(0.05)"
			} 1 .. 3),
		"t\nt\nt",
		"$name: nor does postmark_send fail for it");

	# postmark_send, within one session
	$odd->mode('twice');
	$node->sql(
		join ';',
		map {
			"SELECT postmark_send('${name}session$_\@t.example', 'Register', '493021'), pg_sleep(0.05)"
		} 1 .. 3);
	is(scalar(() = $odd->requests(to => "${name}session$_\@t.example")),
		1, "$name: postmark_send sends message $_ once")
	  foreach 1 .. 3;

	# One that has nothing to say is kept
	$odd->mode('well');
	@seen = one_by_one($odd, lc($name) . 'well', 3);
	is(scalar(keys %{ { map { $_->[0]{connection} => 1 } @seen } }),
		1, "$name: a connection that is fit is kept");
}

#
# A peer that is gone without a word
#

PostmarkExtra::reload($node, api_url => $plain->url, batch_size => 1);
$plain->mode('well');
$node->enqueue(100, prefix => 'pool');
$node->wait_finished;
my %pool = map { $_->{connection} => 1 }
  grep { ($_->{to}[0] // '') =~ /^pool/ } $plain->requests;
cmp_ok(scalar(keys %pool), '>', 1, 'there are some connections');
$plain->deafen;
my $id = enqueue('gone@t.example');
ok($node->wait_status($id, 'sent'), 'a message is sent though they are gone');
is(scalar(() = $plain->requests(outcome => 'deaf')),
	1, 'after one time-out none of them is tried again');
is(scalar(() = $plain->requests(to => 'gone@t.example')),
	1, 'and it was sent once');
PostmarkExtra::reload($node, batch_size => undef);

#
# A reload and postmark_resume begin afresh
#

# A worker that has no connection yet
sub new_worker
{
	my $pid = $node->worker_pid;
	$node->sql("SELECT pg_terminate_backend($pid)");
	return $node->poll_query_until('postgres',
		"SELECT max(worker_pid) <> $pid FROM postmark_status");
}

sub connection_of
{
	my ($email) = @_;
	$node->wait_status(enqueue($email), 'sent');
	my ($request) = $plain->requests(to => $email);
	return $request->{connection};
}

new_worker();
my $kept = connection_of('before@t.example');
is(connection_of('still@t.example'), $kept, 'a connection is kept');
PostmarkExtra::reload($node, history_retention => '20 d');
my $reloaded = connection_of('reloaded@t.example');
isnt($reloaded, $kept, 'a reload ends that');
is(connection_of('then@t.example'), $reloaded, 'the next one is kept again');
$node->sql('SELECT postmark_resume()');
my $resumed = connection_of('resumed@t.example');
isnt($resumed, $reloaded, 'so does postmark_resume');

# Of which the file of authorities is a part
my $ca = PostgreSQL::Test::Utils::tempdir() . '/ca.pem';
my $other = PostmarkSandbox->new(tls => 'unknown_ca');

sub copy
{
	my ($from) = @_;
	local $/;
	open my $in, '<', $from or die "$from: $!";
	open my $out, '>', "$ca.new" or die "$!";
	print $out scalar <$in>;
	close $out;
	chmod 0644, "$ca.new";
	rename "$ca.new", $ca or die "$!";
	return;
}

copy($sandbox->ca_file);
PostmarkExtra::reload($node, api_url => $secure->url, ca_file => $ca);
$id = enqueue('authority@t.example');
ok($node->wait_status($id, 'sent'), 'the file of authorities is good');
copy($other->ca_file);
PostmarkExtra::reload($node);
$id = enqueue('revoked@t.example');
ok($node->wait_state('backing_off'),
	'one that was replaced by another is taken at a reload');
like($node->sql('SELECT detail FROM postmark_status'),
	qr/certificate/i, 'and the state says what is wrong');
is(scalar(() = $secure->requests(to => 'revoked@t.example')),
	0, 'nothing was sent');
copy($sandbox->ca_file);
PostmarkExtra::reload($node);
$node->sql('SELECT postmark_resume()');
ok($node->wait_status($id, 'sent'), 'as is the right one');

#
# A connection that ends after an answer is nothing to be busy with
#

sub cpu_ticks
{
	my @stat =
	  split ' ', slurp_file('/proc/' . $node->worker_pid . '/stat') =~ s/.*\) //r;
	return $stat[11] + $stat[12];
}

foreach my $case ([ 'plain', $plain ], [ 'TLS', $secure ])
{
	my ($name, $odd) = @$case;

	PostmarkExtra::reload($node, api_url => $odd->url);
	$odd->mode('last');
	$id = enqueue("last$name\@t.example");
	ok($node->wait_status($id, 'sent'),
		"$name: sent with the last answer of a connection");
	my $before = cpu_ticks();
	my $until = time() + 2;
	PostmarkCluster::until_true(sub { time() > $until });
	cmp_ok(cpu_ticks() - $before,
		'<', 20, "$name: while the connection ends the worker is idle");
	$odd->mode('well');
}

#
# A connection has an age
#

PostmarkExtra::reload($node, api_url => $plain->url);
new_worker();
my $began = time();
my $first = connection_of('age0@t.example');
my $n = 0;
my $last;
my $aged = PostmarkCluster::until_true(
	sub {
		my $until = time() + 0.5;
		PostmarkCluster::until_true(sub { time() > $until });
		$last = connection_of('age' . ++$n . '@t.example');
		return $last != $first;
	},
	100);
ok($aged, 'a connection under steady traffic is replaced');
cmp_ok(time() - $began, '>', 30, 'but not soon');

is( $node->sql(
		q(SELECT count(*) FROM postmark_messages WHERE status <> 'sent')),
	0,
	'all messages were sent');
my $log = slurp_file($node->logfile);
unlike($log, qr/TRAP|PANIC|terminated by signal/, 'nothing crashed');
$node->stop;
done_testing();
