
=pod

=head1 NAME

PostmarkSession - a session without a psql, for TAP tests

=head1 SYNOPSIS

  use PostmarkSession;

  my $session = PostmarkSession->new($node, 'postgres');
  my ($out, $said, $failed) = $session->query('SELECT 1');
  $session->quit;

=head1 DESCRIPTION

Most of what a test asks the server is one query, and starting psql costs more
than that.  This speaks as much of the frontend/backend protocol as one query
takes, and gives the result as C<psql -XAtq> prints it.  It is a session like
psql's: same user, database, application_name and options; one that needs a
password is refused.

Perl core modules only.

=cut

package PostmarkSession;

use strict;
use warnings FATAL => 'all';

use Errno qw(EINTR);
use IO::Select;
use IO::Socket::INET;
use IO::Socket::UNIX;
use Time::HiRes qw(time);

my $PROTOCOL = 3 << 16;

=pod

=head1 METHODS

=over

=item PostmarkSession->new($node, $database, $deadline)

Connects.  Undef, and the reason in C<$@>, where that fails or is not done
by the deadline, a time(); without one it waits for ever.

=cut

sub new
{
	my ($class, $node, $database, $deadline) = @_;

	my $socket =
	  $node->host =~ m{^/}
	  ? IO::Socket::UNIX->new(
		Peer => $node->host . '/.s.PGSQL.' . $node->port)
	  : IO::Socket::INET->new(
		PeerHost => $node->host,
		PeerPort => $node->port);
	return unless $socket;
	my $self = bless {
		socket => $socket,
		select => IO::Select->new($socket),
		buffer => '',
		deadline => $deadline
	}, $class;

	my %parameters = (
		user => $ENV{PGUSER} // scalar(getpwuid($>)),
		database => $database,
		application_name => $ENV{PGAPPNAME},
		options => $ENV{PGOPTIONS});
	my $startup = pack 'N', $PROTOCOL;
	foreach my $name (sort keys %parameters)
	{
		$startup .= pack 'Z*Z*', $name, $parameters{$name}
		  if defined $parameters{$name};
	}
	$self->_send('', "$startup\0");
	my (undef, $said, $failed) = $self->_result;
	return $self unless $failed;
	$@ = $said;
	return;
}

=pod

=item $session->query($sql, $deadline)

Runs one query, outside of any transaction.  Returns its output, what the
server had to say, errors and notices, and whether one of them was an error.

=cut

sub query
{
	my ($self, $sql, $deadline) = @_;

	$self->{deadline} = $deadline;
	$self->_send('Q', "$sql\0");
	return $self->_result;
}

=pod

=item $session->usable

False once the connection is lost.

=cut

sub usable { return defined $_[0]->{socket}; }

=pod

=item $session->quit

Ends the session and waits until the server has ended its side, which takes
no time unless the server hangs; ten seconds then.

=cut

sub quit
{
	my ($self) = @_;
	return unless $self->usable;

	$self->{deadline} = time() + 10;
	$self->_send('X', '');
	1 while defined $self->_message;
	$self->_lost;
	return;
}

=pod

=back

=cut

sub _lost
{
	my ($self) = @_;
	close(delete $self->{socket}) if $self->usable;
	return;
}

# A message; the first of a connection has no type.
sub _send
{
	my ($self, $type, $body) = @_;
	return unless $self->usable;

	# Of a server that went away reading tells
	local $SIG{PIPE} = 'IGNORE';
	my $message = $type . pack('N', 4 + length $body) . $body;
	while ($message ne '')
	{
		my $n = syswrite $self->{socket}, $message;
		last if !defined $n && $! != EINTR;
		substr($message, 0, $n // 0) = '';
	}
	return;
}

# The next message, its type and body; nothing at the end of the connection.
sub _message
{
	my ($self) = @_;

	for (;;)
	{
		if (length $self->{buffer} >= 5)
		{
			my ($type, $length) = unpack 'aN', $self->{buffer};
			if (length $self->{buffer} > $length)
			{
				my $message = substr $self->{buffer}, 0, 1 + $length, '';
				return ($type, substr $message, 5);
			}
		}
		my $left =
		  defined $self->{deadline} ? $self->{deadline} - time() : undef;
		return if !$self->usable || defined $left && $left < 0;
		next unless $self->{select}->can_read($left);
		my $n = sysread $self->{socket}, $self->{buffer}, 65536,
		  length $self->{buffer};
		next if !defined $n && $! == EINTR;
		return unless $n;
	}
}

# What comes until the server is ready for the next query.
sub _result
{
	my ($self) = @_;
	my (@rows, @said, $failed);

	while (my ($type, $body) = $self->_message)
	{
		if ($type eq 'Z')
		{
			return (join("\n", @rows), join("\n", @said), $failed);
		}
		elsif ($type eq 'D')
		{
			push @rows, join '|', _columns($body);
		}
		elsif ($type eq 'E' || $type eq 'N')
		{
			my %fields = map { /^(.)(.*)/s } split /\0/, $body;
			push @said, "$fields{S}:  $fields{M}",
			  defined $fields{D} ? "DETAIL:  $fields{D}" : (),
			  defined $fields{H} ? "HINT:  $fields{H}" : ();
			$failed ||= $type eq 'E';
		}
		elsif ($type eq 'R' && unpack('N', $body) != 0)
		{
			push @said, 'a password is asked for';
			last;
		}
	}
	$self->_lost;
	return (join("\n", @rows), join("\n", @said, 'connection lost'), 1);
}

sub _columns
{
	my ($body) = @_;
	my ($count, $position) = (unpack('n', $body), 2);
	my @columns;

	foreach (1 .. $count)
	{
		my $length = unpack 'l>', substr $body, $position, 4;
		push @columns, $length < 0 ? '' : substr $body, $position + 4,
		  $length;
		$position += 4 + ($length < 0 ? 0 : $length);
	}
	return @columns;
}

1;
