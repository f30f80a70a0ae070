# postmark_install_templates: what it puts into the Postmark server, what it
# leaves alone, and what the mails then say.

use strict;
use warnings FATAL => 'all';

use HTTP::Tiny;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use PostmarkSandbox;
use PostmarkCluster;
use PostmarkExtra;

my $LAYOUT = 'postmark-connector-layout';
my %ALIASES = (
	SignIn => 'logto-sign-in',
	Register => 'logto-register',
	ForgotPassword => 'logto-forgot-password',
	OrganizationInvitation => 'logto-organization-invitation',
	Generic => 'logto-generic',
	UserPermissionValidation => 'logto-user-permission-validation',
	BindNewIdentifier => 'logto-bind-new-identifier',
	MfaVerification => 'logto-mfa-verification',
	BindMfa => 'logto-bind-mfa',);

# What a template may ask of its model, as doc/reference.md lists it
my @MODEL =
  qw(code expiresInDays expiresInHours expiresInMinutes link organization productName supportEmail text);

my $sandbox = PostmarkSandbox->new();
my $node = PostmarkCluster->new('main', sandbox => $sandbox);
my $json = JSON::PP->new->canonical;

# A call of Postmark's
sub call
{
	my ($method, $path, $document) = @_;
	my $answer = HTTP::Tiny->new->request(
		$method,
		$sandbox->url . $path,
		{
			headers => {
				'Accept' => 'application/json',
				'Content-Type' => 'application/json',
				'X-Postmark-Server-Token' => $PostmarkCluster::TOKEN
			},
			$document ? (content => $json->encode($document)) : ()
		});
	die "$method $path: $answer->{status} $answer->{content}"
	  unless $answer->{status} == 200;
	return decode_json($answer->{content});
}

# {alias: template} of the server
sub templates
{
	my %found;
	foreach my $listed (
		@{ call('GET', '/templates?Count=500&Offset=0')->{Templates} })
	{
		my $template = call('GET', "/templates/$listed->{TemplateId}");
		delete $template->{TemplateId};
		$found{ $listed->{Alias} } = $template;
	}
	return \%found;
}

sub remove_all
{
	my @aliases = grep { $_ ne $LAYOUT } keys %{ templates() };
	call('DELETE', "/templates/$_") foreach @aliases;
	call('DELETE', "/templates/$LAYOUT");
	return;
}

sub install
{
	my ($arguments) = @_;
	return $node->sql('SELECT string_agg(template_alias || chr(32) || action, chr(10))'
		  . ' FROM postmark_install_templates(' . ($arguments // '') . ')');
}

# The writing requests since the last call of this
my $seen = 0;

sub writes
{
	my @new = grep { $_->{number} > $seen } $sandbox->requests(path => '/templates*');
	$seen = $new[-1]{number} if @new;
	return join ' ', map { $_->{method} } grep { $_->{method} ne 'GET' } @new;
}

$node->configure(
	templates => [
		map { { usageType => $_, templateAlias => $ALIASES{$_} } }
		  sort keys %ALIASES
	]);

#
# Into an empty server
#

my $sandboxes = templates();
remove_all();
like(
	$node->sql("SELECT detail FROM postmark_check() WHERE item LIKE 'template Register %'"),
	qr/postmark_install_templates/,
	'postmark_check says what makes a missing template');
my $waits =
  $node->sql("SELECT postmark_enqueue('waits\@t.example', 'Register', '000000')");
ok( $node->poll_query_until(
		'postgres',
		"SELECT error_code = 1101 FROM postmark_deferred WHERE id = $waits"),
	'a message waits for its template');
writes();

my $rows = install();
is( $rows,
	join("\n",
		map { "$_ created" } $LAYOUT,
		qw(logto-sign-in logto-register logto-forgot-password
		  logto-organization-invitation logto-generic
		  logto-user-permission-validation logto-bind-new-identifier
		  logto-mfa-verification logto-bind-mfa)),
	'a template for each alias, the layout first');
is(writes(), join(' ', ('POST') x 10), 'one request for each');
is_deeply(templates(), $sandboxes,
	'a fresh sandbox has the same, from the same files');
is( $node->sql('SELECT bool_and(ok) FROM postmark_check()'),
	't', 'postmark_check finds nothing missing');
is($node->sql("SELECT postmark_wait($waits, '20 s')"),
	'sent', 'what waited for its template is sent at once, not in a minute');

#
# They are templates: each part is valid, and asks for nothing else than what
# the reference says
#

my $installed = templates();
foreach my $alias (sort values %ALIASES)
{
	my $template = $installed->{$alias};
	my $verdict = call(
		'POST',
		'/templates/validate',
		{
			map { $_ => $template->{$_} }
			  qw(Subject HtmlBody TextBody LayoutTemplate)
		});
	ok($verdict->{AllContentIsValid}, "$alias is valid");
	my %known = map { $_ => 1 } @MODEL;
	is_deeply([ grep { !$known{$_} } keys %{ $verdict->{SuggestedTemplateModel} } ],
		[], "$alias asks for what is documented");
	is_deeply(
		[ grep { !exists $verdict->{SuggestedTemplateModel}{$_} } grep { $_ ne 'organization' } @MODEL ],
		[],
		"$alias uses all of it");
}

#
# What the mails say
#

my $link = 'https://shop.example/go?a=1&b=2';
foreach my $usage_type (sort keys %ALIASES)
{
	my %says;
	foreach my $kind (qw(code link))
	{
		my $to = lc "$kind-$usage_type\@example.com";
		$node->sql("SELECT postmark_send('$to', '$usage_type', "
			  . ( $kind eq 'code'
				? "'493021', '{\"expiresInMinutes\": 10}'"
				: "payload => '{\"link\": \"$link\", \"expiresInDays\": 3, \"productName\": \"<Fish> & Co\", \"supportEmail\": \"help\@shop.example\", \"organization\": {\"name\": \"Acme\"}}'"
			  )
			  . ')');
		my ($mail) = $sandbox->messages(recipient => $to);
		my ($subject, $html, $text) = @$mail{qw(Subject HtmlBody TextBody)};
		$says{$kind} = [ $subject, $text ];

		foreach ($subject, $html, $text)
		{
			fail("$usage_type, $kind: a slot or brace is left in $_")
			  if /\{\{|\}\}|\[\[|\]\]/;
		}
		unlike($html, qr/\b(?:src|srcset|background)=|url\(|\@import|<link|<img|<script/i,
			"$usage_type, $kind: nothing to be loaded");
		my @addresses = $html =~ m{(https?://[^"<\s]*)}g;
		if ($kind eq 'code')
		{
			is("@addresses", '', "$usage_type: no address with a code");
			like($html, qr{>493021<}, "$usage_type: the code in HTML");
			like($text, qr/^ +493021$/m, "$usage_type: the code as text");
			like($subject, qr/ Shop$/, "$usage_type: the sender's name is the product's");
			unlike($subject, qr/493021/,
				"$usage_type: no code where a bounce would repeat it");
			like($text, qr/10 minutes/, "$usage_type: how long it is good");
			unlike($text . $html, qr/days|hours|Use this link|mailto:/,
				"$usage_type: nothing of a link");
		}
		else
		{
			(my $escaped = $link) =~ s/&/&amp;/g;
			is_deeply(\@addresses, [ ($escaped) x 3 ],
				"$usage_type: the link, and no other address");
			like($text, qr/^\Q$link\E$/m, "$usage_type: the link as text");
			like($subject, qr/ <Fish> & Co$/, "$usage_type: the payload names the product");
			like($html, qr/&lt;Fish&gt; &amp; Co/, "$usage_type: and is escaped in HTML");
			like($html, qr/mailto:help\@shop\.example"/, "$usage_type: whom to ask");
			like($text, qr/3 days/, "$usage_type: how long it is good");
			unlike($text . $html, qr/minutes|Enter this code|this code to nobody/,
				"$usage_type: nothing of a code");
		}
		like($text, qr/^If you (?:did not|do not|are not|have no)/m,
			"$usage_type, $kind: what to do if it was not you");
		unlike($text, qr/\n\n\n+\S/, "$usage_type, $kind: no gaps in the text");
	}
	isnt($says{code}[1], $says{link}[1], "$usage_type: one wording each");
}
is( scalar(keys %{ { map { $_->{Subject} => 1 } $sandbox->messages } }),
	18, 'each has a subject of its own');
my ($invitation) = $sandbox->messages(
	recipient => 'link-organizationinvitation@example.com');
is($invitation->{Subject}, 'You are invited to Acme at <Fish> & Co',
	'an invitation names the organization');

$node->sql(q{SELECT postmark_send('text@example.com', 'Generic', payload => '{"text": "We have moved."}')});
my ($moved) = $sandbox->messages(recipient => 'text@example.com');
is($moved->{Subject}, 'A message from Shop', 'a text alone is a message');
is( $moved->{TextBody} =~ s/\s+$//r,
	"A message from Shop\n\nWe have moved.\n\nShop",
	'and has neither code nor link');

#
# How long a code or a link is good, which the extension knows
#

sub says_of
{
	my ($to, $call) = @_;
	$node->sql("SELECT $call");
	$node->sql('SELECT postmark_flush()');
	my ($mail) = $sandbox->messages(recipient => $to);
	return join ' ', $mail->{TextBody} =~ /^It is good for (.*)\.$/mg;
}

is(says_of('ten@example.com', q{postmark_issue_code('ten@example.com', 'Register')}),
	'10 minutes', 'the mail says how long a code is good');
is( says_of(
		'own@example.com',
		q{postmark_issue_code('own@example.com', 'Register', '{"expiresInHours": 9}')}),
	'9 hours',
	'but what the payload says');
foreach my $case ([ 120, '2 minutes' ], [ 119, '' ], [ 3600, '60 minutes' ])
{
	my ($ttl, $expected) = @$case;
	$node->sql(qq{SELECT postmark_configure(postmark_config() || '{"codeTtl": $ttl}')});
	is(says_of("ttl$ttl\@example.com", qq{postmark_issue_code('ttl$ttl\@example.com', 'Register', '{"name": "Ann"}')}),
		$expected, "good for $ttl s");
}
foreach my $case ([ 7200, '2 hours' ], [ 172799, '47 hours' ], [ 259200, '3 days' ])
{
	my ($ttl, $expected) = @$case;
	$node->sql(qq{SELECT postmark_configure(jsonb_set(postmark_config(), '{templates,1,expiresIn}', '$ttl'))});
	is( says_of("link$ttl\@example.com",
			qq{postmark_issue_token('link$ttl\@example.com', 'Register', 'https://shop.example/{token}')}),
		$expected,
		"a link is good for $ttl s");
}
$node->configure(
	templates => [
		map { { usageType => $_, templateAlias => $ALIASES{$_} } }
		  sort keys %ALIASES
	]);

#
# What is there stays
#

writes();
is(install(), $rows =~ s/created/kept/gr, 'a second time: all kept');
is(writes(), '', 'and nothing is written');
call('PUT', '/templates/logto-sign-in',
	{ Subject => 'Ours', HtmlBody => '<p>{{code}}</p>', TextBody => '{{code}}', LayoutTemplate => undef });
call('DELETE', '/templates/logto-generic');
is( install(),
	$rows =~ s/created/kept/gr =~ s/(logto-generic) kept/$1 created/r,
	'what is missing is made');
is(templates()->{'logto-sign-in'}{Subject}, 'Ours', 'what was written by hand stays');
is( install('overwrite => true'),
	$rows =~ s/created/overwritten/gr,
	'unless that is asked for');
is_deeply(templates(), $installed, 'and then all is as it was at first');
is($node->sql("SELECT count(*) FROM postmark_install_templates(NULL, NULL)"),
	10, 'null is the default');

#
# Aliases that are shared, of usage types of one's own, and for locales
#

$node->configure(
	connector => 'shared',
	config => {
		fromEmail => '"Fish & \\"{{Chips}}\\", Inc" <no-reply@shop.example>',
		replyTo => 'Help <help@shop.example>',
		templates => [
			(map { { usageType => $_, templateAlias => 'account' } } qw(Register SignIn ForgotPassword)),
			{ usageType => 'Generic', templateAlias => 'generic' },
			{ usageType => 'Register', templateAlias => 'register-de', locale => 'de' },
			{ usageType => 'Register', templateAlias => 'register-en', locale => 'en-GB' },
			{ usageType => 'Newsletter', templateAlias => 'newsletter' },
			{ usageType => 'Newsletter', templateAlias => 'newsletter', locale => 'de' },
		]
	});
my $answer = PostmarkExtra::error_of($node, q{SELECT * FROM postmark_install_templates('shared')});
is($answer->{message}, '', 'no error');
is_deeply(
	[ sort grep { /\|/ } split /\n/, $answer->{out} ],
	[ 'account|created', 'generic|created', 'newsletter|created', "$LAYOUT|kept", 'register-de|created', 'register-en|created' ],
	'each alias once');
is_deeply(
	[ $answer->{err} =~ /NOTICE:.*?: (.*)$/mg ],
	['template "register-de" is for locale "de" and in English'],
	'a notice for the one that is to be translated');
my $new = templates();
like($new->{account}{Subject}, qr/verification code/, 'what several usage types share is worded for all');
like($new->{newsletter}{Subject}, qr/verification code/, "so is a usage type of one's own");
like($new->{'register-de'}{Subject}, qr/sign-up code/, 'what one has, for that one');
$node->sql(q{SELECT postmark_send('fish@example.com', 'SignIn', '493021', connector => 'shared')});
my ($fish) = $sandbox->messages(recipient => 'fish@example.com');
is( $fish->{Subject},
	'Your verification code for Fish & "((Chips))", Inc',
	"a sender's name is text, not template");
like($fish->{HtmlBody}, qr/Fish &amp; &quot;\(\(Chips\)\)&quot;, Inc</, 'also in HTML');
like($fish->{HtmlBody}, qr/mailto:help\@shop\.example"/, 'replyTo is whom to ask');
like($fish->{TextBody}, qr/^Questions\? Write to help\@shop\.example\.$/m, 'also as text');

#
# Trouble
#

sub failure
{
	my ($connector) = @_;
	return PostmarkExtra::error_of($node,
		"SELECT * FROM postmark_install_templates('" . ($connector // 'default') . "')");
}

remove_all();
$sandbox->rule(
	method => 'POST',
	path => '/templates',
	skip => 3,
	times => 1,
	action => { status => 422, error_code => 1105, message => 'No more templates for token sandbox-token.' });
my $error = failure();
is($error->{sqlstate}, 'PM005', 'Postmark refuses one');
is( $error->{message},
	'Postmark refused the template "logto-forgot-password"',
	'the error names it');
like($error->{detail},
	qr/^HTTP status 422, Postmark ErrorCode 1105: No more templates for token \*\*\*\..*what was put in place before it stays\.$/,
	'with what Postmark says, but for the token');
like($error->{hint}, qr/postmark_install_templates again/, 'and what to do');
is( install(),
	$rows =~ s/((?:layout|sign-in|register)) created/$1 kept/gr,
	'a second call goes on from there');
is_deeply(templates(), $installed, 'to the same end');

$sandbox->config(remove_templates => ['logto-generic']);
$sandbox->rule(
	method => 'POST',
	path => '/templates',
	times => 1,
	action => { drop => 'after_accept' });
$error = failure();
is($error->{sqlstate}, 'PM008', 'no answer');
like($error->{detail}, qr/"logto-generic"; nothing was put in place before it/, 'for this one');
is(failure()->{message}, '', 'a second call goes on, whether or not it came to pass');
is_deeply(templates(), $installed, 'to the same end, too');

$node->configure(connector => 'wrong', token => 'wrong-token');
$error = failure('wrong');
is($error->{sqlstate}, 'PM006', 'a wrong token');
like("$error->{detail} $error->{hint}", qr/HTTP status 401.*postmark_set_token/, 'says so');
unlike($error->{err}, qr/wrong-token/, 'and does not show it');
$node->sql("DELETE FROM postmark_secrets WHERE connector = 'wrong'");
is(failure('wrong')->{sqlstate}, 'PM001', 'no token');
is(failure('nowhere')->{sqlstate}, 'PM001', 'no connector');

$sandbox->rule(path => '/templates*', times => 1, action => { status => 503 });
is(failure()->{sqlstate}, 'PM008', 'a list that does not come');

$sandbox->rule(path => '/templates*', action => { latency => 60 });
my $started = time;
$error = PostmarkExtra::error_of($node,
	"SET postmark_connector.request_timeout = '300ms'; SELECT * FROM postmark_install_templates()");
is($error->{sqlstate}, 'PM008', 'request_timeout bounds each request');
cmp_ok(time - $started, '<', 30, 'and not 60 s');

# What it holds while it waits
my $waiting = PostmarkExtra::background($node,
	"SET application_name = 'waiting'; SELECT * FROM postmark_install_templates()");
$node->poll_query_until('postgres',
	"SELECT wait_event_type = 'Extension' FROM pg_stat_activity WHERE application_name = 'waiting'");
is( $node->sql(
		"SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE application_name = 'waiting' AND (mode <> 'AccessShareLock' AND locktype = 'relation' OR locktype = 'advisory')"
	),
	0,
	'no lock but those of reading');
$node->configure();
pass('the settings can be changed meanwhile');
$started = time;
$node->sql("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'waiting'");
$waiting->finish;
cmp_ok(time - $started, '<', 30, 'a cancel ends it');
$sandbox->clear_rules;

is( $node->sql("BEGIN READ ONLY; SELECT count(*) FROM postmark_install_templates(); COMMIT"),
	5, 'it works in a read-only transaction');
$node->sql('CREATE ROLE nobody LOGIN');
is( PostmarkExtra::error_of($node, 'SELECT postmark_install_templates()', user => 'nobody')->{sqlstate},
	'42501', "an administrator's function");

done_testing();
