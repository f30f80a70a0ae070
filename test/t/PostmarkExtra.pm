
=pod

=head1 NAME

PostmarkExtra - errors, the server log and sessions, for TAP tests

=head1 SYNOPSIS

  use PostmarkExtra;

  my $error = PostmarkExtra::error_of($node, "SELECT postmark_send('a', 'b')");
  is($error->{sqlstate}, 'PM003', 'an address without @ is refused');

=head1 FUNCTIONS

=over

=cut

package PostmarkExtra;

use strict;
use warnings FATAL => 'all';

use Carp;
use File::Spec;
use IO::Socket::INET;
use Socket qw(inet_aton pack_sockaddr_in);
use IPC::Run;
use PostgreSQL::Test::Utils;
use Time::HiRes qw(time usleep);

=pod

=item error_of($node, $sql, %opts)

Runs statements in one session and returns what came of the last one that
failed, a hash of C<sqlstate>, C<message>, C<detail>, C<hint> (empty where
there is none), and of the session's C<out> and C<err>.  Options: B<database>
(C<postgres>), B<user>.

=cut

sub error_of
{
	my ($node, $sql, %opts) = @_;
	my $database = delete $opts{database} // 'postgres';
	my $user = delete $opts{user};
	croak "unknown option: " . join(', ', sort keys %opts) if %opts;

	my ($out, $err) = ('', '');
	$node->psql(
		$database,
		"\\set VERBOSITY verbose\n$sql",
		stdout => \$out,
		stderr => \$err,
		on_error_stop => 0,
		defined $user ? (extra_params => [ '-U', $user ]) : ());
	my %error = (
		sqlstate => '',
		message => '',
		detail => '',
		hint => '',
		out => $out // '',
		err => $err // '');

	my $last = $error{err};
	$last =~ s/.*(?=(?:ERROR|FATAL):  )//s;
	@error{qw(sqlstate message)} = ($1, $2)
	  if $last =~ /^(?:ERROR|FATAL):  (\w{5}): (.*)$/m;
	$error{detail} = $1 if $last =~ /^DETAIL:  (.*)$/m;
	$error{hint} = $1 if $last =~ /^HINT:  (.*)$/m;
	return \%error;
}

=pod

=item log_position($node), log_since($node, $position)

The length of the server's log, and what was written to it since.

=cut

sub log_position { return -s $_[0]->logfile // 0; }

sub log_since
{
	my ($node, $position) = @_;
	return slurp_file($node->logfile, $position);
}

=pod

=item wait_for_log($node, $position, $pattern)

Waits until the log has it, true if so.

=cut

sub wait_for_log
{
	my ($node, $position, $pattern) = @_;
	return PostmarkCluster::until_true(
		sub { log_since($node, $position) =~ $pattern });
}

=pod

=item deaf_socket()

A socket on a free port of 127.0.0.1 that takes connections and never answers.
Its port is C<< ->sockport >>.

=cut

sub deaf_socket
{
	return IO::Socket::INET->new(
		LocalAddr => '127.0.0.1',
		LocalPort => 0,
		Proto => 'tcp',
		Listen => 128) // croak "cannot listen: $!";
}

=pod

=item read_request($socket, $answer)

Takes one connection of a listening socket, reads one HTTP request, answers
with the text given and closes.  Returns the request as it came; croaks if
there is none within 30 seconds.

=cut

sub read_request
{
	my ($socket, $answer) = @_;
	my $request = '';

	local $SIG{ALRM} = sub { croak 'no request came' };
	alarm 30;
	my $client = $socket->accept // croak "cannot accept: $!";
	for (;;)
	{
		if ($request =~ /^(.*?\r\n\r\n)(.*)$/s)
		{
			my ($head, $body) = ($1, $2);
			my ($length) = $head =~ /^Content-Length: (\d+)/mi;
			last if length($body) >= ($length // 0);
		}
		sysread($client, $request, 65536, length $request) or last;
	}
	alarm 0;
	syswrite($client, $answer);
	close $client;
	return $request;
}

=pod

=item full_socket()

A listening socket whose queue is full, so that a connection to it is never
made.  Returns the socket and what fills it: keep both.

=cut

sub full_socket
{
	my $socket = IO::Socket::INET->new(
		LocalAddr => '127.0.0.1',
		LocalPort => 0,
		Proto => 'tcp',
		Listen => 1) // croak "cannot listen: $!";
	my @fill;

	# More than the kernel admits; from then on connecting takes for ever.
	foreach (1 .. 4)
	{
		my $client = IO::Socket::INET->new(Proto => 'tcp')
		  // croak "cannot make a socket: $!";
		$client->blocking(0);
		connect($client,
			pack_sockaddr_in($socket->sockport, inet_aton('127.0.0.1')));
		push @fill, $client;
	}
	return ($socket, \@fill);
}

=pod

=item free_port()

A port of 127.0.0.1 on which nothing listens.

=cut

sub free_port
{
	my $socket = IO::Socket::INET->new(
		LocalAddr => '127.0.0.1',
		LocalPort => 0,
		Proto => 'tcp',
		Listen => 1) // croak "cannot listen: $!";
	return $socket->sockport;
}

=pod

=item reload($node, %settings)

ALTER SYSTEM SET (undef: RESET) each of C<postmark_connector.NAME>, reload,
and wait until a new session has them.

=cut

sub reload
{
	my ($node, %settings) = @_;

	foreach my $name (sort keys %settings)
	{
		my $value = $settings{$name};
		my $what = $name =~ /\./ ? $name : "postmark_connector.$name";
		$node->safe_psql('postgres',
			defined $value
			? "ALTER SYSTEM SET $what = '$value'"
			: "ALTER SYSTEM RESET $what");
	}
	my $since = $node->safe_psql('postgres', 'SELECT pg_conf_load_time()');
	$node->reload;
	$node->poll_query_until('postgres',
		"SELECT pg_conf_load_time() > '$since'");
	return;
}

=pod

=item background($node, @statements)

Runs statements in a session of its own, at once and without having to be
pumped; C<< ->finish >> of what it returns waits for the end and returns
(exit status, output, errors).

=cut

sub background
{
	my ($node, @statements) = @_;
	my ($out, $err) = ('', '');
	my $run = IPC::Run::start(
		[
			$node->installed_command('psql'), '-XAtq',
			'-v' => 'ON_ERROR_STOP=1',
			'-d' => $node->connstr('postgres'),
			map { ('-c' => $_) } @statements
		],
		'<' => File::Spec->devnull,
		'>' => \$out,
		'2>' => \$err);
	return bless { run => $run, out => \$out, err => \$err },
	  'PostmarkCluster::Later';
}

=pod

=item running($node, $application_name)

The process id of the session of that name, once it runs a statement.

=cut

sub running
{
	my ($node, $name) = @_;
	my $pid;

	PostmarkCluster::until_true(
		sub {
			$pid = $node->safe_psql('postgres',
				"SELECT pid FROM pg_stat_activity WHERE application_name = '$name' AND state = 'active'"
			);
			return $pid ne '';
		});
	return $pid;
}

=pod

=back

=cut

1;
