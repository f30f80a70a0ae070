
=pod

=head1 NAME

OddPostmark - a Postmark over connections that misbehave, for TAP tests

=head1 SYNOPSIS

  use OddPostmark;

  my $odd = OddPostmark->new();
  my $node = PostmarkCluster->new('main',
      conf => "postmark_connector.api_url = '" . $odd->url . "'\n");

  $odd->mode('twice');
  my @requests = $odd->requests(path => '/email/batchWithTemplates');

=head1 DESCRIPTION

Starts C<test/lib/odd_postmark.py>, which says what its modes are.

=head1 METHODS

=over

=cut

package OddPostmark;

use strict;
use warnings FATAL => 'all';

use Carp;
use Cwd qw(abs_path);
use File::Basename qw(dirname);
use File::Spec;
use File::Temp;
use JSON::PP;
use POSIX ();

use PostmarkCluster;

my $PYTHON = $ENV{PYTHON} // '/usr/bin/python3';
my $PROGRAM = abs_path(dirname(__FILE__) . '/../lib/odd_postmark.py');

=pod

=item OddPostmark->new(%opts)

Starts it.  Option: B<tls>, a PostmarkSandbox whose certificate it is to use.

=cut

sub new
{
	my ($class, %opts) = @_;
	my $tls = delete $opts{tls};
	croak "unknown option: " . join(', ', sort keys %opts) if %opts;

	my $self = bless {
		dir => File::Temp->newdir('odd-postmark-XXXXXX', TMPDIR => 1),
		tls => $tls,
		owner => $$
	}, $class;
	$self->mode('well');

	my @command = ($PYTHON, $PROGRAM, $self->{dir}->dirname);
	push @command, $tls->certificate if $tls;
	$self->{pid} = fork() // croak "cannot fork: $!";
	if ($self->{pid} == 0)
	{
		no warnings 'exec';
		open STDIN, '<', File::Spec->devnull;
		open STDOUT, '>', File::Spec->devnull;
		exec { $command[0] } @command;
		POSIX::_exit(127);
	}
	PostmarkCluster::until_true(sub { -e $self->_path('port') })
	  || croak "$PROGRAM did not start";
	chomp($self->{port} = $self->_read('port'));
	return $self;
}

=pod

=item $odd->url

The address to use as C<postmark_connector.api_url>.

=cut

sub url
{
	my ($self) = @_;
	return ($self->{tls} ? 'https://localhost:' : 'http://127.0.0.1:')
	  . $self->{port};
}

=pod

=item $odd->mode($mode)

How requests are served from now on.

=cut

sub mode
{
	my ($self, $mode) = @_;
	open my $file, '>', $self->_path('mode.new') or croak "cannot write: $!";
	print $file $mode;
	close $file;
	rename $self->_path('mode.new'), $self->_path('mode') or croak "$!";
	return;
}

=pod

=item $odd->requests(%filter)

What was requested, a list of hashes, oldest first.  Filters: B<path>,
B<to>, an address among the recipients, B<outcome>.

=cut

sub requests
{
	my ($self, %filter) = @_;
	return () unless -e $self->_path('log');
	my @requests = map { decode_json($_) } split /\n/, $self->_read('log');
	return grep {
		my $request = $_;
		(!$filter{path} || ($request->{path} // '') eq $filter{path})
		  && (!$filter{outcome} || ($request->{outcome} // '') eq $filter{outcome})
		  && (!$filter{to} || grep { $_ eq $filter{to} } @{ $request->{to} // [] });
	} @requests;
}

=pod

=item $odd->deafen

Makes the connections there are deaf, for good.

=cut

sub deafen
{
	my ($self) = @_;
	$self->mode('deaf');
	PostmarkCluster::until_true(
		sub { grep { exists $_->{deaf_up_to} } $self->requests })
	  || croak 'it hears still';
	$self->mode('well');
	return;
}

=pod

=back

=cut

sub _path
{
	my ($self, $name) = @_;
	return File::Spec->catfile($self->{dir}->dirname, $name);
}

sub _read
{
	my ($self, $name) = @_;
	local $/;
	open my $file, '<', $self->_path($name) or croak "$name: $!";
	return scalar <$file>;
}

sub DESTROY
{
	my ($self) = @_;
	return if $self->{owner} != $$ || !$self->{pid};
	local $?;
	kill TERM => $self->{pid};
	waitpid($self->{pid}, 0);
	return;
}

1;
