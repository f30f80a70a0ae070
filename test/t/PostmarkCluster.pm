
=pod

=head1 NAME

PostmarkCluster - a server with postmark_connector in it, for TAP tests

=head1 SYNOPSIS

  use PostmarkSandbox;
  use PostmarkCluster;

  my $sandbox = PostmarkSandbox->new();
  my $node = PostmarkCluster->new('main', sandbox => $sandbox,
      conf => "postmark_connector.max_in_flight = 2\n");

  $node->enqueue(1000);
  ok($node->wait_finished, 'the queue drains');
  $node->accounted('each message arrived once');

=head1 DESCRIPTION

A PostgreSQL::Test::Cluster, whose methods are all there, that preloads the
library, sends to a PostmarkSandbox, and has the extension configured in the
database C<postgres>.

What an application committed is known from a table of its own,
C<app_messages (id, email)>, which C<enqueue> writes in the transaction that
queues the messages.  Tests that queue by other means write it themselves
where they want C<accounted> to know.

Nothing here sleeps for a fixed time; everything waits for conditions, up to
PG_TEST_TIMEOUT_DEFAULT seconds.

=cut

package PostmarkCluster;

use strict;
use warnings FATAL => 'all';

use parent -norequire, 'PostgreSQL::Test::Cluster';

use Carp;
use File::Temp;
use IPC::Run;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PostmarkSession;
use Test::More;
use Time::HiRes qw(time usleep);

our $TOKEN = 'sandbox-token';

# The four usage types that a connector must have.
our %ALIASES = (
	Register => 'logto-register',
	SignIn => 'logto-sign-in',
	ForgotPassword => 'logto-forgot-password',
	Generic => 'logto-generic',);

# The first releases of PostgreSQL 16 leave the newline behind a session's result.
{
	no warnings 'redefine';
	my $query = \&PostgreSQL::Test::BackgroundPsql::query;
	*PostgreSQL::Test::BackgroundPsql::query = sub {
		my @result = wantarray ? $query->(@_) : scalar($query->(@_));
		chomp $result[0];
		return wantarray ? @result : $result[0];
	};
}

# What is one query needs no psql.  Standbys, which are no PostmarkCluster, are
# to have that as well.
{
	no warnings 'redefine';
	my $poll = \&PostgreSQL::Test::Cluster::poll_query_until;
	*PostgreSQL::Test::Cluster::poll_query_until = sub {
		my ($self, $database, $query) = @_;
		return &$poll
		  unless _is_one_query($query) && $query =~ /^\s*SELECT\b/i;
		return &_poll_in_session;
	};

	my $safe_psql = \&PostgreSQL::Test::Cluster::safe_psql;
	*PostgreSQL::Test::Cluster::safe_psql = sub {
		my ($self, $database, $query, @options) = @_;
		return &$safe_psql if @options || !_is_one_query($query);
		my $session = PostmarkSession->new($self, $database);
		return &$safe_psql unless defined $session;
		my ($out, $said, $failed) = $session->query($query);
		$session->quit;
		croak "error running SQL: '$said'\nwhile running '$query'" if $failed;
		print "$said\n" if $said ne '';
		return $out;
	};
}

# Not if in doubt: what psql has to take apart, or what talks of data to come
sub _is_one_query
{
	my ($query) = @_;
	return defined $query
	  && $query !~ /\\|;\s*\S/
	  && $query !~ /^\s*COPY\b/i;
}

# PostgreSQL 15 knows nothing of INITDB_TEMPLATE, a cluster to copy where init
# has no arguments of its own for initdb.
{
	no warnings 'redefine';
	my $run = \&PostgreSQL::Test::Utils::system_or_bail;
	*PostgreSQL::Test::Utils::system_or_bail = sub {
		return &$run
		  if !defined $ENV{INITDB_TEMPLATE}
		  || "@_" !~ /^initdb -D (\S+) -A trust -N$/;
		return $run->('cp', '-RPp', $ENV{INITDB_TEMPLATE}, $1);
	};
}

my $json = JSON::PP->new->canonical->allow_nonref;

=pod

=head1 METHODS

=over

=item PostmarkCluster->new($name, %opts)

Makes a server and starts it.  Options: B<sandbox>, whose address api_url is
(required unless B<conf> sets one); B<conf>, further lines of postgresql.conf;
B<init>, a hash for C<init>, for instance C<< { allows_streaming => 1 } >>;
B<install_path>, an installation of another version;
B<start> and B<prepare>, both true: false leaves the server stopped, or the
database C<postgres> without the extension.

Differs from the server's defaults: settle_time is 200 ms, and a crash is
recovered from as in real life (restart_after_crash).

=cut

sub new
{
	my ($class, $name, %opts) = @_;

	my $sandbox = delete $opts{sandbox};
	my $conf = delete $opts{conf} // '';
	my $init = delete $opts{init} // {};
	my $start = delete $opts{start} // 1;
	my $prepare = delete $opts{prepare} // $start;
	my @install = map { (install_path => $_) } delete $opts{install_path} // ();
	croak "unknown option: " . join(', ', sort keys %opts) if %opts;

	my $self = $class->SUPER::new($name, @install);
	$self->{postmark_sandbox} = $sandbox;
	$self->init(%$init);
	$self->append_conf('postgresql.conf', <<"CONF");
shared_preload_libraries = 'postmark_connector'
max_worker_processes = 16
restart_after_crash = on
log_statement = none
postmark_connector.settle_time = '200ms'
CONF
	$self->append_conf('postgresql.conf',
		"postmark_connector.api_url = '" . $sandbox->url . "'")
	  if $sandbox;
	$self->append_conf('postgresql.conf',
		"postmark_connector.ca_file = '" . $sandbox->ca_file . "'")
	  if $sandbox && $sandbox->ca_file;
	$self->append_conf('postgresql.conf', $conf) if $conf ne '';

	$self->start if $start;
	$self->prepare_database if $prepare;
	return $self;
}

# The template is of the installation under test alone.
sub init
{
	my ($self, %params) = @_;
	delete local $ENV{INITDB_TEMPLATE} if defined $self->{_install_path};
	return $self->SUPER::init(%params);
}

=pod

=item $node->sandbox

The sandbox given to C<new>.

=cut

sub sandbox { return $_[0]->{postmark_sandbox}; }

=pod

=item $node->prepare_database($database, %opts)

Creates the extension and C<app_messages> in a database (C<postgres>) and
configures the connector C<default>; options as of C<configure>.

=cut

sub prepare_database
{
	my ($self, $database, %opts) = @_;
	$database //= 'postgres';

	$self->safe_psql($database, <<'SQL');
CREATE EXTENSION postmark_connector;
CREATE TABLE app_messages (id bigint, email text);
SQL
	$self->configure(%opts, database => $database);
	return;
}

=pod

=item $node->configure(%opts)

Calls postmark_configure with the sandbox's token, C<Shop
E<lt>no-reply@shop.exampleE<gt>> and the four templates.  Options: B<database>
(C<postgres>); B<connector> (C<default>); B<token>; B<templates>, an array of
further templates, which go first; B<config>, a hash of further keys.

=cut

sub configure
{
	my ($self, %opts) = @_;
	my $database = delete $opts{database} // 'postgres';
	my $connector = delete $opts{connector} // 'default';

	$self->safe_psql($database,
		"SELECT postmark_configure(\$config\$"
		  . $self->connector_json(%opts)
		  . "\$config\$, '$connector')");
	return;
}

=pod

=item $node->connector_json(%opts)

The JSON that C<configure> uses, as text.

=cut

sub connector_json
{
	my ($self, %opts) = @_;
	my $token = delete $opts{token} // $TOKEN;
	my $templates = delete $opts{templates} // [];
	my $config = delete $opts{config} // {};
	croak "unknown option: " . join(', ', sort keys %opts) if %opts;

	return $json->encode({
			serverToken => $token,
			fromEmail => 'Shop <no-reply@shop.example>',
			templates => [
				@$templates,
				map { { usageType => $_, templateAlias => $ALIASES{$_} } }
				  sort keys %ALIASES
			],
			%$config
		});
}

=pod

=item $node->sql($query, $database)

safe_psql with the arguments the other way round.

=cut

sub sql
{
	my ($self, $query, $database) = @_;
	return $self->safe_psql($database // 'postgres', $query);
}

=pod

=item $node->enqueue($n, %opts)

Queues C<$n> messages in one transaction, to C<PREFIX1@t.example> and so on.
Options: B<prefix> (C<m>); B<from>, the first number (1); B<connector>;
B<usage_type> (C<Register>); B<payload> and B<expires_in>, SQL expressions
(C<NULL>); B<database>.

=cut

sub enqueue
{
	my ($self, $n, %opts) = @_;
	my $database = delete $opts{database} // 'postgres';
	return $self->safe_psql($database, enqueue_sql($n, %opts));
}

=pod

=item PostmarkCluster::enqueue_sql($n, %opts)

The statement that C<enqueue> runs, with the same options.

=cut

sub enqueue_sql
{
	my ($n, %opts) = @_;
	my $prefix = delete $opts{prefix} // 'm';
	my $from = delete $opts{from} // 1;
	my $connector = delete $opts{connector} // 'default';
	my $usage_type = delete $opts{usage_type} // 'Register';
	my $payload = delete $opts{payload} // 'NULL';
	my $expires_in = delete $opts{expires_in} // 'NULL';
	croak "unknown option: " . join(', ', sort keys %opts) if %opts;
	my $upto = $from + $n - 1;

	return <<"SQL";
INSERT INTO app_messages (id, email)
SELECT postmark_enqueue(s.email, '$usage_type', lpad((s.i % 1000000)::text, 6, '0'),
		payload => $payload, expires_in => $expires_in, connector => '$connector'),
	s.email
FROM (SELECT i, format('%s%s\@t.example', '$prefix', i) AS email
	FROM generate_series($from, $upto) i OFFSET 0) s;
SQL
}

=pod

=item $node->wait_finished($database)

Waits until no message is queued, deferred or sending.  True when that is so.

=cut

sub wait_finished
{
	my ($self, $database) = @_;
	return $self->poll_query_until(
		$database // 'postgres', q(
SELECT count(*) = 0 FROM postmark_messages
WHERE status IN ('queued', 'deferred', 'sending')));
}

=pod

=item $node->wait_status($id, $status), ->wait_state($state, $connector)

Wait until a message has a status, a connector (C<default>) a state; both may
be lists for SQL's IN: C<"sent', 'failed">.

=cut

sub wait_status
{
	my ($self, $id, $status) = @_;
	return $self->poll_query_until('postgres',
		"SELECT count(*) = 1 FROM postmark_messages WHERE id = $id AND status IN ('$status')"
	);
}

sub wait_state
{
	my ($self, $state, $connector) = @_;
	$connector //= 'default';
	return $self->poll_query_until('postgres',
		"SELECT state IN ('$state') FROM postmark_status WHERE connector = '$connector'"
	);
}

=pod

=item $node->worker_pid($database), ->launcher_pid

The process id, undef if there is none at the moment.

=cut

sub worker_pid
{
	my ($self, $database) = @_;
	$database //= 'postgres';
	my $pid = $self->safe_psql($database,
		'SELECT max(worker_pid) FROM postmark_status');
	return $pid eq '' ? undef : $pid;
}

sub launcher_pid
{
	my ($self) = @_;
	my $pid = $self->safe_psql('postgres', q(
SELECT pid FROM pg_stat_activity
WHERE backend_type ~ 'postmark' AND backend_type ~ 'launcher'));
	return $pid eq '' ? undef : $pid;
}

=pod

=item $node->wait_worker($database)

Waits until the database has a worker; true when that is so.

=cut

sub wait_worker
{
	my ($self, $database) = @_;
	return $self->poll_query_until($database // 'postgres',
		'SELECT max(worker_pid) IS NOT NULL FROM postmark_status');
}

=pod

=item $node->problems(%opts)

What is wrong, as a list of lines, between C<app_messages>, postmark_messages
and what the sandbox accepted.  It compares all three and finds

  - a committed message that postmark_messages does not have, or has twice;
  - a message that counts as sent but was not accepted by Postmark;
  - a message that was accepted and does not count as sent;
  - a message that was accepted more than once;
  - one that was accepted and never committed.

Options: B<databases>, an array (C<['postgres']>), whose messages must have
different recipients; B<sandbox>; B<finished>: true (the default) finds
unfinished messages wrong as well; B<only>, a pattern: other recipients do not
count, for messages that are not in C<app_messages>.

=cut

sub problems
{
	my ($self, %opts) = @_;
	my $databases = delete $opts{databases} // ['postgres'];
	my $sandbox = delete $opts{sandbox} // $self->sandbox;
	my $finished = delete $opts{finished} // 1;
	my $only = delete $opts{only} // qr/./;
	croak "unknown option: " . join(', ', sort keys %opts) if %opts;

	# "id recipient" is a message: ids begin anew in every database.
	my %accepted;
	foreach my $id ($sandbox->ids)
	{
		my ($postmark_id, $recipient, $count) = @$id;
		next unless $recipient =~ $only;
		my ($number) = ($postmark_id // '') =~ /^(\d+)-\d+$/;
		$accepted{ ($number // '?') . " $recipient" } += $count;
	}

	my @problems;
	my %committed;
	foreach my $database (@$databases)
	{
		my $rows = $self->safe_psql($database, q(
SELECT a.id, a.email, coalesce(m.status, 'missing')
FROM app_messages a
	LEFT JOIN postmark_messages m ON m.id = a.id AND m.email = a.email));
		foreach my $row (split /\n/, $rows)
		{
			my ($id, $email, $status) = split /\|/, $row;
			next unless $email =~ $only;
			my $count = $accepted{"$id $email"} // 0;
			my $sent = $status =~ /^(sent|delivered|bounced|complained)$/;

			push @problems, "$id $email is there twice in $database"
			  if $committed{"$id $email"}++;
			push @problems, "$id $email is not in postmark_messages"
			  if $status eq 'missing';
			push @problems, "$id $email is $status, not finished"
			  if $finished && $status =~ /^(queued|deferred|sending)$/;
			push @problems, "$id $email is $status, but Postmark never got it"
			  if $sent && $count == 0;
			push @problems, "$id $email is $status, but Postmark got it"
			  if !$sent
			  && $count > 0
			  && ($finished || $status =~ /^(missing|cancelled|expired|failed)$/);
			push @problems, "$id $email was sent $count times" if $count > 1;
		}
	}
	push @problems, map { "$_ was sent, but never committed" }
	  grep { !$committed{$_} } sort keys %accepted;
	return @problems;
}

=pod

=item $node->accounted($test_name, %opts)

A test: C<problems> finds nothing.  Shows the first twenty otherwise.

=cut

sub accounted
{
	my ($self, $test_name, %opts) = @_;
	my @problems = $self->problems(%opts);

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $result = is(scalar(@problems), 0, $test_name);
	splice(@problems, 20, @problems - 20, '...') if @problems > 20;
	diag(join("\n", @problems)) unless $result;
	return $result;
}

=pod

=item $node->poll_query_until($database, $query, $expected)

As ever, but in one session, that begins anew where the connection breaks.
It is not in a transaction between the looks.

=cut

sub _poll_in_session
{
	my ($self, $database, $query, $expected) = @_;
	my $timeout = $PostgreSQL::Test::Utils::timeout_default;
	my $start = time();
	my ($session, $out, $err);
	$expected //= 't';

	for (;;)
	{
		my $deadline = $start + $timeout;
		$session = PostmarkSession->new($self, $database, $deadline)
		  unless defined $session && $session->usable;
		($out, $err) =
		  defined $session
		  ? $session->query($query, $deadline)
		  : ('', "no connection: $@");
		last if $err eq '' && $out eq $expected;
		last if time() > $deadline;
		_pause($start);
	}
	$session->quit if defined $session;
	return 1 if $err eq '' && $out eq $expected;

	diag(<<"END");
poll_query_until timed out executing this query:
$query
expecting this output:
$expected
last actual query output:
$out
with stderr:
$err
END
	return 0;
}

# Until the next look of a wait that began then: 5 ms at first, 100 ms in the
# end, so that no wait is much longer than it must be, and no look that costs
# something is taken hundreds of times.
sub _pause
{
	my ($start) = @_;
	my $pause = (time() - $start) / 20;
	usleep(1e6 * ($pause < 0.005 ? 0.005 : $pause > 0.1 ? 0.1 : $pause));
	return;
}

=pod

=item PostmarkCluster::until_true($condition, $timeout)

Calls the function until it is true, at first every 5 ms; what it returned, or
false at the time-out (PG_TEST_TIMEOUT_DEFAULT, in seconds).

=cut

sub until_true
{
	my ($condition, $timeout) = @_;
	my $start = time();
	$timeout //= $PostgreSQL::Test::Utils::timeout_default;

	for (;;)
	{
		my $result = $condition->();
		return $result if $result;
		return 0 if time() > $start + $timeout;
		_pause($start);
	}
}

=pod

=item PostmarkCluster::load()

POSTMARK_TEST_LOAD, 1 by default: what the size of a load test is to be
multiplied by.

=cut

sub load
{
	my $load = $ENV{POSTMARK_TEST_LOAD} // 1;
	croak "POSTMARK_TEST_LOAD is to be a positive number"
	  unless $load =~ /^\d+$/ && $load > 0;
	return $load;
}

=pod

=item $node->later($database, @statements)

Runs statements in a psql of their own, in the background; returns a handle.
C<< $handle->finish >> waits for its end and returns (exit status, output,
errors).

=cut

sub later
{
	my ($self, $database, @statements) = @_;
	my ($out, $err) = ('', '');

	# From a file: IPC::Run would feed its input only while somebody waits
	my $script = File::Temp->new(SUFFIX => '.sql');
	print $script join(";\n", @statements, '');
	$script->flush;
	my $handle = IPC::Run::start(
		[
			$self->installed_command('psql'), '-XAtq',
			'-v' => 'ON_ERROR_STOP=1',
			'-d' => $self->connstr($database),
			'-f' => $script->filename
		],
		'<' => \undef,
		'>' => \$out,
		'2>' => \$err);
	return
	  bless { run => $handle, out => \$out, err => \$err, script => $script },
	  'PostmarkCluster::Later';
}

sub PostmarkCluster::Later::finish
{
	my ($self) = @_;
	$self->{run}->finish;
	return ($self->{run}->result // $?, ${ $self->{out} }, ${ $self->{err} });
}

=pod

=back

=cut

1;
