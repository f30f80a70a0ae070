# What the owner of a database sets for it, or for himself, does not reach the
# worker.

use strict;
use warnings FATAL => 'all';

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
	conf => "postmark_connector.request_timeout = '20 s'\n");

$node->sql('CREATE ROLE owner LOGIN');
$node->sql('CREATE DATABASE owned OWNER owner');
$node->prepare_database('owned');
$sandbox->rule(path => '/email*', action => { latency => 0.05 });

sub sent
{
	my ($prefix) = @_;
	return $node->safe_psql('owned',
		"SELECT count(*) FROM postmark_messages WHERE email LIKE '$prefix%' AND status = 'sent' AND attempts = 1"
	);
}

# As the owner would, from another database
sub as_owner
{
	my ($sql) = @_;
	return $node->safe_psql('postgres', $sql,
		extra_params => [ '-U', 'owner' ]);
}

# Ends the worker; the next one begins with what is set by now
sub new_worker
{
	my $pid = $node->sql(
		q(SELECT pid FROM pg_stat_activity WHERE datname = 'owned' AND backend_type = 'postmark_connector worker')
	);
	$node->sql("SELECT pg_terminate_backend($pid)");
	return $node->poll_query_until('postgres',
		"SELECT max(pid) <> $pid FROM pg_stat_activity WHERE datname = 'owned' AND backend_type = 'postmark_connector worker'"
	);
}

#
# Time-outs of our own
#

as_owner("ALTER DATABASE owned SET postmark_connector.$_ = '5ms'")
  foreach qw(request_timeout connect_timeout);
my $position = PostmarkExtra::log_position($node);
new_worker();
$node->enqueue(3, prefix => 'timeout', database => 'owned');
ok( PostmarkCluster::until_true(sub { sent('timeout') == 3 }),
	'a time-out that is set for the database is not the worker\'s');
is($sandbox->counts->{duplicates}, 0, 'nothing is sent twice for it');
like(
	PostmarkExtra::log_since($node, $position),
	qr/WARNING:  a time-out of postmark_connector .* does not apply to the background worker/,
	'the log says that it does not apply');
is($node->safe_psql('owned', 'SHOW postmark_connector.request_timeout'),
	'5ms', 'it is that of the sessions');

# The server's is, also after a reload
PostmarkExtra::reload($node, request_timeout => '300ms');
$sandbox->clear_rules;
$sandbox->rule(path => '/email*', times => 1, action => { latency => 5, status => 500 });
$node->safe_psql('owned',
	q(SELECT postmark_enqueue('server@t.example', 'Register', '493021')));
ok( $node->poll_query_until(
		'owned',
		q(SELECT state = 'backing_off' AND detail ~ 'timed out' FROM postmark_status)
	),
	'the one of the server is, also when it changes');
PostmarkExtra::reload($node, request_timeout => undef);
$sandbox->clear_rules;
ok($node->wait_finished('owned'), 'it goes on');
as_owner('ALTER DATABASE owned RESET ALL');

#
# Everything else that an owner may set
#

foreach my $extreme (qw(least most))
{
	new_worker();
	my ($pick, $enum) = $extreme eq 'least' ? ('min_val', 1) : ('max_val', -1);
	my @settings = split /\n/, as_owner(<<"SQL");
SELECT name || ' ' || quote_literal(CASE
		WHEN name ~ '_timeout\$' AND '$extreme' = 'least' THEN '1'
		WHEN vartype = 'bool' THEN CASE setting WHEN 'on' THEN 'off' ELSE 'on' END
		WHEN vartype = 'enum' THEN enumvals[CASE $enum WHEN 1 THEN 1 ELSE cardinality(enumvals) END]
		ELSE $pick END)
FROM pg_settings
WHERE context = 'user' AND vartype <> 'string' AND name !~ '^(postmark_connector|transaction_)'
SQL
	my $taken = 0;
	foreach my $setting (@settings)
	{
		my ($name, $value) = split / /, $setting, 2;
		$taken++
		  if $node->psql('postgres',
			"ALTER DATABASE owned SET $name = $value",
			extra_params => [ '-U', 'owner' ]) == 0;
	}
	cmp_ok($taken, '>', 80, "$extreme: the owner may set a lot");

	# From a session that is spared: what is set is for the worker to bear
	new_worker();
	my ($pid) = $node->sql(
		q(SELECT pid FROM pg_stat_activity WHERE datname = 'owned' AND backend_type = 'postmark_connector worker')
	);
	my $errors = PostmarkExtra::log_position($node);
	{
		local $ENV{PGOPTIONS} =
		  '-c statement_timeout=0 -c lock_timeout=0 -c default_transaction_read_only=off -c transform_null_equals=off -c standard_conforming_strings=on -c idle_in_transaction_session_timeout=0 -c idle_session_timeout=0';
		$node->enqueue(200, prefix => $extreme, database => 'owned');
		ok(PostmarkCluster::until_true(sub { sent($extreme) == 200 }),
			"$extreme: mail is sent all the same");
	}
	is( $node->sql(
			q(SELECT pid FROM pg_stat_activity WHERE datname = 'owned' AND backend_type = 'postmark_connector worker')
		),
		$pid,
		"$extreme: by a worker that lives on");
	unlike(
		PostmarkExtra::log_since($node, $errors),
		qr/postmark_connector could not|terminated by signal|\[$pid\] .*(?:tree|plan):/,
		"$extreme: and has nothing to complain of, nor tells how it works");
	as_owner('ALTER DATABASE owned RESET ALL');
}

is($sandbox->counts->{duplicates}, 0, 'nothing was sent twice');
$node->stop;
done_testing();
