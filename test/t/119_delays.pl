# How long the worker waits before it tries again: longer each time, random,
# and never longer than is said.

use strict;
use warnings FATAL => 'all';

use Cwd qw(abs_path);
use File::Basename qw(dirname);
use PostgreSQL::Test::Utils;
use Test::More;

# Built here, for the functions need no server.  Where this copy of the server
# has no headers, the one that built the extension has.
my $major = (`pg_config --version` =~ /(\d+)/)[0];
my ($pg_config) =
  grep { -d (`$_ --includedir-server` =~ s/\n//r) } 'pg_config',
  "/usr/lib/postgresql/$major/bin/pg_config";
my $tree = abs_path(dirname(__FILE__) . '/../..');
my ($include, $libs) =
  map { `$pg_config $_` =~ s/\n//r } '--includedir-server', '--pkglibdir';
my $program = PostgreSQL::Test::Utils::tempdir() . '/delays';
system_or_bail('cc', '-I', $include, '-I', "$tree/src",
	"$tree/test/lib/delays.c", "$tree/src/worker/backoff.c",
	"-L$libs", '-lpgcommon', '-lpgport', '-lm', '-o', $program);

my %delays;
foreach (split /\n/, `$program`)
{
	my ($name, $number, @three) = split / /;
	$delays{$name}{$number} = \@three;
}

# What each is to be: the first wait that is possible at most, the ceiling,
# the floor, and the part of a wait that is certain
foreach my $case (
	[ 'backoff', 500, 60_000, 50, 0 ],
	[ 'brake', 500, 15_000, 50, 0 ],
	[ 'block', 5_000, 300_000, 0, 1 / 2 ],
	[ 'message', 1_000, 60_000, 100, 0 ])
{
	my ($name, $base, $ceiling, $floor, $certain) = @$case;
	foreach my $number (sort { $a <=> $b } keys %{ $delays{$name} })
	{
		my ($least, $mean, $most) = @{ $delays{$name}{$number} };
		my $limit = $base * 2**($number > 20 ? 20 : $number);
		$limit = $ceiling if $limit > $ceiling;
		my $from = $limit * $certain;
		my $expected = ($from + $limit) / 2;

		cmp_ok($most, '<=', $limit, "$name $number: not longer than $limit ms");
		cmp_ok($most, '>', $from + ($limit - $from) * 0.97, "$name $number: but as long");
		cmp_ok($least, '>=', $from > $floor ? $from : $floor,
			"$name $number: not shorter than is certain");
		cmp_ok($least, '<', $from + ($limit - $from) * 0.03 + $floor + 1,
			"$name $number: but as short");
		cmp_ok(abs($mean - $expected), '<', ($limit - $from) * 0.06 + $floor,
			"$name $number: and anything in between");
	}
}

# What the server asks for, and no more than fifteen minutes of it
foreach my $case ([ 0, 0 ], [ 7, 7_000 ], [ 900, 900_000 ], [ 7200, 900_000 ])
{
	my ($seconds, $from) = @$case;
	my ($least, $mean, $most) = @{ $delays{retry_after}{$seconds} };
	cmp_ok($least, '>=', $from, "Retry-After $seconds: not too early");
	cmp_ok($most, '<=', $from + 500, "Retry-After $seconds: nor much later");
	cmp_ok($most - $least, '>', 400, "Retry-After $seconds: and not all at once");
}

done_testing();
