
=pod

=head1 NAME

PostmarkPreload - memory that is refused and clocks that are set, for TAP tests

=head1 SYNOPSIS

  use PostmarkPreload;

  my $preload = PostmarkPreload->new();
  my $node = PostmarkCluster->new('main', start => 0, ...);
  $preload->start($node);
  $preload->set_clock(-3600);
  $preload->refuse($pid, 17);

=head1 DESCRIPTION

A library that is built from preload.c and loaded into the server, and into
nothing else, by LD_PRELOAD.

=cut

package PostmarkPreload;

use strict;
use warnings FATAL => 'all';

use Carp;
use File::Basename;
use PostgreSQL::Test::Utils;

=pod

=head1 METHODS

=over

=item PostmarkPreload->new()

Builds the library.

=cut

sub new
{
	my ($class) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir();
	my $source = dirname(__FILE__) . '/preload.c';
	my $self = bless {
		library => "$dir/preload.so",
		control => "$dir/control"
	}, $class;

	PostgreSQL::Test::Utils::system_or_bail('cc', '-O2', '-shared', '-fPIC',
		'-o', $self->{library}, $source);
	open my $file, '>', $self->{control} or croak "$self->{control}: $!";
	binmode $file;
	print $file "\0" x 32;
	close $file;
	return $self;
}

=pod

=item $preload->start($node)

Starts a server with the library.

=cut

sub start
{
	my ($self, $node) = @_;
	local $ENV{POSTMARK_PRELOAD} = $self->{control};
	local $ENV{LD_PRELOAD} = "$self->{library} " . ($ENV{LD_PRELOAD} // '');
	$node->start;
	return;
}

sub put
{
	my ($self, $offset, $bytes) = @_;
	open my $file, '+<', $self->{control} or croak "$self->{control}: $!";
	binmode $file;
	seek $file, $offset, 0;
	print $file $bytes;
	close $file;
	return;
}

=pod

=item $preload->refuse($pid, $n, %opts)

From now on the C<$n>th allocation of the process is refused; with B<lasting>
all that follow are, too.

=cut

sub refuse
{
	my ($self, $pid, $n, %opts) = @_;
	$self->put(0, pack 'l', 0);
	$self->put(4, pack 'l l l', $n, 0, $opts{lasting} ? 1 : 0);
	$self->put(0, pack 'l', $pid);
	return;
}

=pod

=item $preload->refused

How many were, since C<refuse>.

=cut

sub refused
{
	my ($self) = @_;
	my $bytes = PostgreSQL::Test::Utils::slurp_file($self->{control});
	return unpack 'l', substr($bytes, 8, 4);
}

=pod

=item $preload->allow

Refuses nothing any more.

=cut

sub allow { return $_[0]->put(0, pack 'l', 0); }

=pod

=item $preload->set_clock($seconds)

Sets the server's wall clock so much ahead of the real one.

=cut

sub set_clock { return $_[0]->put(16, pack 'q', $_[1] * 1_000_000); }

=pod

=item $preload->pass($seconds)

As if so much time had passed since the server's start, by the clock that nobody
sets.

=cut

sub pass { return $_[0]->put(24, pack 'q', $_[1] * 1_000_000); }

=pod

=back

=cut

1;
