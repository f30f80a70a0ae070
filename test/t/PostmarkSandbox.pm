
=pod

=head1 NAME

PostmarkSandbox - a local Postmark for TAP tests

=head1 SYNOPSIS

  use PostmarkSandbox;

  my $sandbox = PostmarkSandbox->new();
  $node->append_conf('postgresql.conf',
      "postmark_connector.api_url = '" . $sandbox->url . "'");

  $sandbox->rule(path => '/email*', times => 1, action => { status => 503 });
  ok($sandbox->wait_messages(3), 'three messages arrive');
  is($sandbox->counts->{duplicates}, 0, 'none of them twice');

=head1 DESCRIPTION

Starts F<test/sandbox/postmark_sandbox> on a free port and speaks its control
API, which F<test/sandbox/README.md> describes.  The control API is reached
over a plain-HTTP port of its own, so that Perl needs no TLS library even
where Postmark's side speaks TLS.

Perl core modules only; certificates are made with the openssl program.

=cut

package PostmarkSandbox;

use strict;
use warnings FATAL => 'all';

use Carp;
use File::Basename qw(dirname);
use File::Spec;
use File::Temp;
use HTTP::Tiny;
use JSON::PP;
use POSIX qw(WNOHANG);
use Time::HiRes qw(time usleep);

our $START_TIMEOUT = 30;

my $PROGRAM = File::Spec->rel2abs(
	File::Spec->catfile(dirname(__FILE__), '..', 'sandbox',
		'postmark_sandbox'));

# Where the certificate's names and the CA handed to the client differ from
# what they should be.
my %TLS_MODES = (
	good => { names => 'DNS:localhost,IP:127.0.0.1', signer => 'ca' },
	wrong_host => { names => 'DNS:wrong.example', signer => 'ca' },
	unknown_ca =>
	  { names => 'DNS:localhost,IP:127.0.0.1', signer => 'other-ca' },);

my $json = JSON::PP->new->utf8->canonical->allow_nonref;

=pod

=head1 METHODS

=over

=item PostmarkSandbox->new(%opts)

Starts a sandbox and returns when it listens.  Options: B<tls>, one of
C<good>, C<wrong_host> and C<unknown_ca>; B<args>, an array of further
command-line arguments, for instance C<< args => ['--token', 'secret'] >>.

=cut

sub new
{
	my ($class, %opts) = @_;

	my $tls = delete $opts{tls};
	my $args = delete $opts{args} // [];
	croak "unknown option: " . join(', ', sort keys %opts) if %opts;
	croak "unknown tls mode: $tls" if defined $tls && !$TLS_MODES{$tls};

	my $self = bless {
		tls => $tls,
		args => $args,
		dir => File::Temp->newdir('postmark-sandbox-XXXXXX', TMPDIR => 1),
		port => 0,
		owner => $$,
	}, $class;

	$self->_make_certificates if defined $tls;
	$self->_start;
	return $self;
}

=pod

=item $sandbox->url, ->port, ->pid, ->ca_file

The address to use as C<postmark_connector.api_url>; the port in it; the
process; the file with the CA that a client is to trust (undef without TLS).

=cut

sub url
{
	my ($self) = @_;
	return ($self->{tls} ? 'https://localhost:' : 'http://127.0.0.1:')
	  . $self->{port};
}

sub port { return $_[0]->{port}; }

sub pid { return $_[0]->{pid}; }

sub ca_file
{
	my ($self) = @_;
	return $self->{tls} ? $self->_path('ca.pem') : undef;
}

=pod

=item $sandbox->certificate

The files of its certificate and key, a list, for another server to use.

=cut

sub certificate
{
	my ($self) = @_;
	return map { $self->_path($_) } qw(cert.pem cert.key);
}

=pod

=item $sandbox->stop, ->kill9, ->restart

Ends the process with SIGTERM or SIGKILL and waits for it; starts it again
(after ending it, if it runs) on the same port, with the messages it had
accepted.  Rules, settings and the request log start afresh.

=cut

sub stop { return $_[0]->_end('TERM'); }

sub kill9 { return $_[0]->_end('KILL'); }

sub restart
{
	my ($self) = @_;
	$self->stop;
	return $self->_start;
}

=pod

=item $sandbox->control($method, $path, $document)

A call of the control API, by its path below C</_sandbox/>.  Returns the
decoded answer; croaks where the sandbox refuses the call.

  $sandbox->control('GET', 'config');

=cut

sub control
{
	my ($self, $method, $path, $document) = @_;

	return $json->decode($self->_call($method, $path, $document));
}

# As text
sub _call
{
	my ($self, $method, $path, $document) = @_;

	my %request;
	$request{content} = $json->encode($document) if defined $document;

	my $response = $self->{http}->request($method,
		"http://127.0.0.1:$self->{control_port}/_sandbox/$path", \%request);
	croak "$method $path: $response->{status} $response->{content}"
	  unless $response->{success};
	return $response->{content};
}

=pod

=item $sandbox->rule(%rule), ->clear_rules($id)

Makes the sandbox misbehave; returns the id of the rule.  Ends all rules, or
the one of the id.

  my $id = $sandbox->rule(
      path => '/email*', skip => 1, times => 1,
      action => { drop => 'after_accept' });

=cut

sub rule
{
	my ($self, %rule) = @_;
	return $self->control('POST', 'rules', \%rule)->{id};
}

sub clear_rules
{
	my ($self, $id) = @_;
	return $self->control('DELETE', defined $id ? "rules?id=$id" : 'rules');
}

=pod

=item $sandbox->config(%settings), ->reset

Changes settings (without any: just returns them); goes back to the state
right after the start.

  $sandbox->config(search_lag => 2, inactive_recipients => ['gone@example.com']);

=cut

sub config
{
	my ($self, %settings) = @_;
	return $self->control('GET', 'config') unless %settings;
	return $self->control('POST', 'config', \%settings);
}

sub reset
{
	my ($self) = @_;
	return $self->control('POST', 'reset');
}

=pod

=item $sandbox->messages(%filter), ->requests(%filter)

Lists of the accepted messages (filters recipient, limit, render) and of the
requests received (filters path, since, limit), oldest first.

  my ($mail) = $sandbox->messages(recipient => 'ann@example.com');
  like($mail->{TextBody}, qr/493021/, 'the code is in the mail');

=cut

sub messages
{
	my ($self, %filter) = @_;
	return @{ $self->control('GET', _query('messages', %filter))->{messages} };
}

sub requests
{
	my ($self, %filter) = @_;
	return @{ $self->control('GET', _query('requests', %filter))->{requests} };
}

=pod

=item $sandbox->last_request

The number of the newest request, 0 if there is none yet: for C<since>.

=cut

sub last_request
{
	my ($self) = @_;
	my ($request) = $self->requests(limit => 1);
	return defined $request ? $request->{number} : 0;
}

=pod

=item $sandbox->counts, ->ids(%filter)

The counters; the list of C<[postmark_id, recipient, count]> of what was
accepted (C<< duplicates => 1 >>: only what was accepted more than once).

=cut

sub counts
{
	my ($self) = @_;
	return $self->control('GET', 'counts');
}

sub ids
{
	my ($self, %filter) = @_;

	# Often so many that reading JSON would take seconds
	my $lines = $self->_call('GET', _query('ids', %filter, lines => 1));
	utf8::decode($lines);
	return map {
		my ($id, @rest) = split /\t/;
		[ $id eq '' ? undef : $id, @rest ];
	} split /\n/, $lines;
}

=pod

=item $sandbox->events(%filter), ->event(%what), ->hold_events

The events that webhooks were told, or are to be (filters recipient, since),
oldest first; makes one of a message that was accepted (C<type>, and
C<recipient> or C<MessageID>); has them made and not posted from now on.

  $sandbox->event(type => 'SoftBounce', recipient => 'ann@example.com');
  my @bodies = map { $_->{body} } $sandbox->events;

=cut

sub events
{
	my ($self, %filter) = @_;
	return @{ $self->control('GET', _query('events', %filter))->{events} };
}

sub event
{
	my ($self, %what) = @_;
	return $self->control('POST', 'events', \%what);
}

sub hold_events
{
	my ($self) = @_;
	return $self->control('POST', 'events/hold', {});
}

=pod

=item $sandbox->wait_messages($n, $timeout)

=item $sandbox->wait_requests($n, %opts)

=item $sandbox->wait_for(%conditions)

Wait until so many messages were accepted, so many requests were received
(option C<path>, a glob), or any conditions of C</_sandbox/wait> hold.  True
when that is so, false at the time-out (C<timeout>, default 30 seconds).

  ok($sandbox->wait_requests(2, path => '/email*', timeout => 10));
  ok($sandbox->wait_for(in_flight => 8));

=cut

sub wait_messages
{
	my ($self, $n, $timeout) = @_;
	return $self->wait_for(messages => $n, timeout => $timeout // 30);
}

sub wait_requests
{
	my ($self, $n, %opts) = @_;
	return $self->wait_for(requests => $n, %opts);
}

sub wait_for
{
	my ($self, %conditions) = @_;
	return $self->control('GET', _query('wait', %conditions))->{reached};
}

=pod

=back

=cut

sub _query
{
	my ($path, %parameters) = @_;
	return $path unless %parameters;
	return "$path?" . HTTP::Tiny->new->www_form_urlencode(\%parameters);
}

sub _path
{
	my ($self, $name) = @_;
	return File::Spec->catfile($self->{dir}->dirname, $name);
}

# Start the program and wait for its port files.  A port of 0 takes a free one.
sub _start
{
	my ($self) = @_;

	my @port_files = map { $self->_path($_) } qw(port control-port);
	unlink @port_files;

	my @command = (
		$PROGRAM, '--quiet',
		'--port' => $self->{port},
		'--port-file' => $port_files[0],
		'--control-port-file' => $port_files[1],
		'--state-file' => $self->_path('state'));
	push @command, '--tls-cert' => $self->_path('cert.pem'),
	  '--tls-key' => $self->_path('cert.key')
	  if $self->{tls};
	push @command, @{ $self->{args} };

	$self->{pid} = fork() // croak "cannot fork: $!";
	if ($self->{pid} == 0)
	{
		# No END block or destructor of the test may run in the child.
		# Nor may prove wait for a sandbox that outlives a killed test.
		no warnings 'exec';
		open STDIN, '<', File::Spec->devnull;
		open STDOUT, '>', File::Spec->devnull;
		exec { $command[0] } @command;
		print STDERR "cannot execute $command[0]: $!\n";
		POSIX::_exit(127);
	}

	# The control port is written before the port.
	($self->{port}, $self->{control_port}) =
	  map { $self->_read_port($_) } @port_files;
	$self->{http} = HTTP::Tiny->new(timeout => 700, proxy => undef,
		http_proxy => undef, no_proxy => ['127.0.0.1']);
	return $self;
}

sub _read_port
{
	my ($self, $file) = @_;

	my $deadline = time() + $START_TIMEOUT;
	until (-e $file)
	{
		if (waitpid($self->{pid}, WNOHANG) == $self->{pid})
		{
			delete $self->{pid};
			croak "$PROGRAM ended with status " . ($? >> 8);
		}
		croak "$PROGRAM did not start within $START_TIMEOUT s"
		  if time() > $deadline;
		usleep(5_000);
	}
	open my $handle, '<', $file or croak "$file: $!";
	my $port = <$handle>;
	close $handle;
	chomp $port;
	return $port;
}

sub _end
{
	my ($self, $signal) = @_;

	my $pid = delete $self->{pid} // return;
	local $?;
	kill $signal => $pid;
	waitpid($pid, 0);
	return;
}

# Two CAs and a certificate of one of them; ca.pem is what clients trust.
sub _make_certificates
{
	my ($self) = @_;
	my $mode = $TLS_MODES{ $self->{tls} };

	$self->_make_ca($_) foreach qw(ca other-ca);
	$self->_write('cert.ext',
		"basicConstraints=CA:FALSE\nsubjectAltName=$mode->{names}\n");
	$self->_openssl(
		'req', '-newkey', 'ec',
		'-pkeyopt', 'ec_paramgen_curve:P-256',
		'-nodes', '-subj',
		'/CN=postmark sandbox', '-keyout',
		$self->_path('cert.key'), '-out',
		$self->_path('cert.csr'));
	$self->_openssl(
		'x509', '-req',
		'-in', $self->_path('cert.csr'),
		'-CA', $self->_path("$mode->{signer}.pem"),
		'-CAkey', $self->_path("$mode->{signer}.key"),
		'-CAcreateserial', '-days',
		'2', '-extfile',
		$self->_path('cert.ext'), '-out',
		$self->_path('cert.pem'));
	return;
}

sub _make_ca
{
	my ($self, $name) = @_;
	$self->_openssl(
		'req', '-x509', '-newkey', 'ec',
		'-pkeyopt', 'ec_paramgen_curve:P-256',
		'-nodes', '-days', '2', '-subj', "/CN=postmark sandbox $name",
		'-addext', 'keyUsage=critical,keyCertSign',
		'-keyout', $self->_path("$name.key"),
		'-out', $self->_path("$name.pem"));
	return;
}

sub _write
{
	my ($self, $name, $content) = @_;
	open my $handle, '>', $self->_path($name) or croak "$name: $!";
	print $handle $content;
	close $handle or croak "$name: $!";
	return;
}

# Run openssl; its chatter is shown only where it fails.
sub _openssl
{
	my ($self, @arguments) = @_;
	my $log = $self->_path('openssl.log');

	my $pid = fork() // croak "cannot fork: $!";
	if ($pid == 0)
	{
		no warnings 'exec';
		open STDOUT, '>', $log;
		open STDERR, '>&', \*STDOUT;
		exec { 'openssl' } 'openssl', @arguments;
		POSIX::_exit(127);
	}
	waitpid($pid, 0);
	return if $? == 0;

	local $/;
	my $said = '';
	if (open my $handle, '<', $log) { $said = <$handle> // ''; }
	croak "openssl $arguments[0] failed: $said";
}

# A test may fork; the sandbox belongs to the process that started it.
sub DESTROY
{
	my ($self) = @_;
	$self->stop if $self->{owner} == $$;
	return;
}

1;
