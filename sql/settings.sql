--
-- postmark_configure and what else an administrator sets
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir /sql/common.inc
\set ECHO none
\i :common
\set ECHO all

--
-- Round trip
--
SELECT * FROM test.attempt('SELECT postmark_config()');
SELECT postmark_configure(test.config());
SELECT jsonb_pretty(postmark_config());
SELECT postmark_configure(postmark_config());
SELECT postmark_config() - 'templates' = test.config('{"serverToken": "********"}') - 'templates',
	jsonb_path_query_array(postmark_config(), '$.templates[*].usageType');
SELECT server_token FROM postmark_secrets;

-- everything at once, and null is as good as absent
SELECT postmark_configure('{
	"serverToken": "a-token-of-thirty-six-characters-1234",
	"fromEmail": "Shop, Inc <no-reply@shop.example>", "replyTo": "Help <help@shop.example>",
	"messageStream": "outbound", "tag": "verification", "trackOpens": true, "trackLinks": "HtmlOnly",
	"maxRequestsPerSecond": 2.5, "codeLength": 8, "codeTtl": 900, "codeMaxAttempts": 5, "verifyLimit": 0,
	"verifyWindow": 60, "sendLimit": 3, "sendWindow": 60, "resendInterval": null,
	"templates": [
		{"usageType": "Generic", "templateAlias": "g", "priority": 1},
		{"usageType": "Register", "templateAlias": "r", "locale": null, "priority": null, "expiresIn": null},
		{"usageType": "Register", "templateAlias": "too-late"},
		{"usageType": "Register", "templateAlias": "r-de", "locale": "de", "expiresIn": 300},
		{"usageType": "SignIn", "templateAlias": "s", "priority": 9, "expiresIn": 60},
		{"usageType": "ForgotPassword", "templateAlias": "f"},
		{"usageType": "Newsletter", "templateAlias": "n", "priority": 0}]}');
SELECT jsonb_pretty(postmark_config());
SELECT postmark_config() AS config \gset
SELECT postmark_configure(:'config');
SELECT postmark_config() = :'config' AS same, server_token FROM postmark_secrets;
SELECT usage_type, locale, template_alias, priority, expires_in FROM postmark_templates ORDER BY 1, 2;

-- the token alone, also left away
SELECT postmark_set_token('another-token-of-thirty-six-character');
SELECT postmark_config() ->> 'serverToken';
SELECT postmark_configure(test.config('{"serverToken": null}'));
SELECT server_token FROM postmark_secrets;
-- the mask of the token that was there before
SELECT * FROM test.attempt($$SELECT postmark_configure(test.config('{"serverToken": "********1234"}'))$$);
SELECT server_token FROM postmark_secrets;

-- all or nothing, and a rollback takes it back
BEGIN;
SELECT postmark_configure(test.config('{"serverToken": "short-lived", "fromEmail": "other@shop.example"}'));
SELECT postmark_config() ->> 'fromEmail';
ROLLBACK;
SELECT postmark_config() ->> 'fromEmail', server_token FROM postmark_secrets;
SELECT * FROM test.attempt($$SELECT postmark_configure(test.config('{"serverToken": "short-lived", "tag": 7}'))$$);
SELECT postmark_config() ->> 'fromEmail', server_token FROM postmark_secrets;

--
-- What is refused.  No value is repeated, it may be a token.
--
CREATE FUNCTION test.refused(change jsonb) RETURNS SETOF text LANGUAGE sql AS
	$$SELECT test.attempt(format('SELECT postmark_configure(%L)', test.config(change)))$$;
CREATE FUNCTION test.refused_template(change jsonb) RETURNS SETOF text LANGUAGE sql AS
	$$SELECT test.refused(jsonb_build_object('templates', test.config() -> 'templates' || change))$$;

SELECT * FROM test.attempt('SELECT postmark_configure(NULL)');
SELECT * FROM test.attempt($$SELECT postmark_configure('[]')$$);
SELECT * FROM test.attempt($$SELECT postmark_configure('"text"')$$);
SELECT * FROM test.attempt($$SELECT postmark_configure('{}')$$);
SELECT * FROM test.attempt($$SELECT postmark_configure('{"fromEmail": "a@shop.example"}')$$);
SELECT * FROM test.attempt($$SELECT postmark_configure('{"fromEmail": "a@shop.example", "templates": []}')$$);
SELECT * FROM test.attempt($$SELECT postmark_configure('{"fromEmail": "a@shop.example", "templates": [
	{"usageType": "SignIn", "templateAlias": "a"}, {"usageType": "Generic", "templateAlias": "a"}]}')$$);
-- a new connector without token
SELECT * FROM test.attempt($$SELECT postmark_configure(test.config('{"serverToken": null}'), 'new')$$);
SELECT * FROM test.attempt($$SELECT postmark_configure(test.config('{"serverToken": "********"}'), 'new')$$);
SELECT * FROM test.attempt($$SELECT postmark_configure(test.config('{"serverToken": "********1234"}'), 'new')$$);
SELECT count(*) FROM postmark_settings WHERE connector = 'new';

-- unknown keys
SELECT * FROM test.refused('{"fromemail": "a@shop.example"}');
SELECT * FROM test.refused('{"apiToken": "0123"}');
SELECT * FROM test.refused('{"completelyDifferent": 1}');
SELECT * FROM test.refused('{"": 1}');
SELECT * FROM test.refused_template('{"usageType": "A", "templateAlias": "a", "TemplateAlias": "b"}');
SELECT * FROM test.refused_template('{"usageType": "A", "templateAlias": "a", "subject": "b"}');

-- types
SELECT * FROM test.refused('{"serverToken": 1}');
SELECT * FROM test.refused('{"fromEmail": 1}');
SELECT * FROM test.refused('{"fromEmail": ["a@shop.example"]}');
SELECT * FROM test.refused('{"templates": "a"}');
SELECT * FROM test.refused('{"templates": {}}');
SELECT * FROM test.refused('{"templates": [1]}');
SELECT * FROM test.refused('{"templates": [[]]}');
SELECT * FROM test.refused('{"messageStream": true}');
SELECT * FROM test.refused('{"replyTo": {}}');
SELECT * FROM test.refused('{"tag": 7}');
SELECT * FROM test.refused('{"trackOpens": "true"}');
SELECT * FROM test.refused('{"trackLinks": true}');
SELECT * FROM test.refused('{"maxRequestsPerSecond": "2"}');
SELECT * FROM test.refused('{"codeLength": "6"}');

-- ranges
SELECT * FROM test.refused('{"trackLinks": "none"}');
SELECT * FROM test.refused('{"maxRequestsPerSecond": 0}');
SELECT * FROM test.refused('{"maxRequestsPerSecond": -1}');
SELECT * FROM test.refused('{"maxRequestsPerSecond": 1e300}');
SELECT * FROM test.refused('{"maxRequestsPerSecond": 1e5000}');
SELECT key, low, high, array(SELECT * FROM test.refused(jsonb_build_object(key, low - 1)) LIMIT 2) AS below,
	array(SELECT * FROM test.refused(jsonb_build_object(key, high + 1)) OFFSET 1 LIMIT 1) AS above,
	array(SELECT * FROM test.refused(jsonb_build_object(key, low))) AS lowest,
	array(SELECT * FROM test.refused(jsonb_build_object(key, high))) AS highest
FROM (VALUES ('codeLength', 4, 12), ('codeTtl', 60, 3600), ('codeMaxAttempts', 1, 100)) AS v(key, low, high);
SELECT key, low, high, array(SELECT * FROM test.refused_template('{"usageType": "A", "templateAlias": "a"}'::jsonb || jsonb_build_object(key, low - 1))) AS below,
	array(SELECT * FROM test.refused_template('{"usageType": "A", "templateAlias": "a"}'::jsonb || jsonb_build_object(key, high + 1))) AS above,
	array(SELECT * FROM test.refused_template('{"usageType": "A", "templateAlias": "a"}'::jsonb || jsonb_build_object(key, low))) AS lowest,
	array(SELECT * FROM test.refused_template('{"usageType": "A", "templateAlias": "a"}'::jsonb || jsonb_build_object(key, high))) AS highest
FROM (VALUES ('priority', 0, 9), ('expiresIn', 1, 2592000)) AS v(key, low, high);
SELECT n, test.refused(jsonb_build_object('recipientPolicy', jsonb_build_object('customBlocklist',
	(SELECT jsonb_agg('@d' || i || '.example') FROM generate_series(1, n) i)))) FROM unnest('{10000,10001}'::int[]) n;
SELECT n, test.refused(jsonb_build_object('templates', (SELECT jsonb_agg('{"usageType": "A", "templateAlias": "a"}'::jsonb || jsonb_build_object('usageType', u || coalesce(nullif(i, 1)::text, '')))
	FROM generate_series(1, n) i, unnest('{Register,SignIn,ForgotPassword,Generic}'::text[]) u))) FROM unnest('{500,501}'::int[]) n;
SELECT i, test.refused(jsonb_build_object('feedbackInterval', i)) FROM unnest('{-1,0,1,59,60,86400,86401}'::int[]) i;
SELECT * FROM test.refused('{"notifyChannel": ""}');
SELECT * FROM test.refused('{"notifyChannel": "a\nb"}');
SELECT n, test.refused(jsonb_build_object('notifyChannel', repeat('a', n))) FROM unnest('{63,64}'::int[]) n;
SELECT * FROM test.refused('{"codeLength": 6.5}');
SELECT * FROM test.refused('{"codeLength": 6.0}');
SELECT * FROM test.refused('{"codeLength": 1e30}');
SELECT * FROM test.refused('{"verifyLimit": -1}');
SELECT * FROM test.refused('{"verifyWindow": 0}');
SELECT * FROM test.refused('{"sendLimit": -1}');
SELECT * FROM test.refused('{"sendWindow": 0}');
SELECT * FROM test.refused('{"resendInterval": -1}');

-- templates
SELECT * FROM test.refused_template('{"templateAlias": "a"}');
SELECT * FROM test.refused_template('{"usageType": "A"}');
SELECT * FROM test.refused_template('{"usageType": "", "templateAlias": "a"}');
SELECT * FROM test.refused_template('{"usageType": 1, "templateAlias": "a"}');
SELECT * FROM test.refused_template(jsonb_build_object('usageType', repeat('A', 64), 'templateAlias', 'a'));
SELECT * FROM test.refused_template(jsonb_build_object('usageType', repeat('A', 65), 'templateAlias', 'a'));
SELECT * FROM test.refused_template('{"usageType": "A\nB", "templateAlias": "a"}');
SELECT * FROM test.refused_template('{"usageType": "A", "templateAlias": ""}');
SELECT * FROM test.refused_template('{"usageType": "A", "templateAlias": 4711}');
SELECT * FROM test.refused_template('{"usageType": "A", "templateAlias": "4711"}');
SELECT * FROM test.refused_template('{"usageType": "A", "templateAlias": "a\r\nb"}');
SELECT * FROM test.refused_template('{"usageType": "A", "templateAlias": "a b"}');
SELECT * FROM test.refused_template('{"usageType": "A", "templateAlias": "a", "locale": "de DE"}');
SELECT * FROM test.refused_template('{"usageType": "A", "templateAlias": "a", "locale": ""}');
SELECT * FROM test.refused_template('{"usageType": "A", "templateAlias": "a", "priority": -1}');
SELECT * FROM test.refused_template('{"usageType": "A", "templateAlias": "a", "priority": 10}');
SELECT * FROM test.refused_template('{"usageType": "A", "templateAlias": "a", "priority": "9"}');
SELECT * FROM test.refused_template('{"usageType": "A", "templateAlias": "a", "expiresIn": 0}');
SELECT * FROM test.refused_template('{"usageType": "A", "templateAlias": "a", "expiresIn": "10 min"}');

-- line breaks, and what else does not belong into a header
SELECT * FROM test.refused('{"serverToken": "abc\r\nX-Other: 1"}');
SELECT * FROM test.refused('{"serverToken": ""}');
SELECT * FROM test.refused('{"serverToken": " sandbox-token"}');
SELECT * FROM test.refused('{"serverToken": "täken"}');
SELECT * FROM test.refused(jsonb_build_object('serverToken', repeat('x', 1000)));
SELECT * FROM test.refused('{"fromEmail": ""}');
SELECT * FROM test.refused('{"fromEmail": "a@shop.example\r\nBcc: b@shop.example"}');
SELECT * FROM test.refused('{"fromEmail": "Shop\n <a@shop.example>"}');
SELECT * FROM test.refused('{"fromEmail": "a@shop.example, b@shop.example"}');
SELECT * FROM test.refused('{"fromEmail": "A <a@shop.example>, B <b@shop.example>"}');
SELECT * FROM test.refused('{"fromEmail": " a@shop.example"}');
SELECT * FROM test.refused('{"fromEmail": "Shop <a@shöp.example>"}');
SELECT * FROM test.refused('{"fromEmail": "Shop <a@shop.example"}');
SELECT * FROM test.refused('{"fromEmail": "Shop"}');
SELECT * FROM test.refused('{"fromEmail": "<a@shop.example>"}');
SELECT * FROM test.refused('{"fromEmail": "\"\" <a@shop.example>"}');
-- a list of two, to everyone who reads it but us; a quoted name is one
SELECT * FROM test.refused('{"fromEmail": "a@shop.example, Ben <b@shop.example>"}');
SELECT * FROM test.refused('{"fromEmail": "a@shop.example; Ben <b@shop.example>"}');
SELECT * FROM test.refused('{"fromEmail": "\"a@shop.example, Ben\" <b@shop.example>"}');
SELECT * FROM test.refused('{"fromEmail": "Käse & Brot <a@shop.example>"}');
SELECT * FROM test.refused('{"replyTo": "a@shop.example\nb"}');
SELECT * FROM test.refused('{"tag": "a\nb"}');
SELECT * FROM test.refused('{"tag": ""}');
SELECT * FROM test.refused(jsonb_build_object('tag', repeat('x', 1001)));
SELECT * FROM test.refused('{"messageStream": "out\nbound"}');
SELECT * FROM test.refused('{"messageStream": ""}');

-- names of connectors
SELECT test.attempt(format('SELECT postmark_configure(test.config(), %L)', name))
FROM unnest('{"","A","a.b","a/b","../a","a b","ä"}'::text[]) AS name;
SELECT * FROM test.attempt($$SELECT postmark_configure(test.config(), repeat('a', 64))$$);
SELECT * FROM test.attempt($$SELECT postmark_configure(test.config(), E'a\n')$$);
SELECT * FROM test.attempt($$SELECT postmark_configure(test.config(), NULL)$$);
SELECT * FROM test.attempt($$SELECT postmark_config(NULL)$$);
SELECT * FROM test.attempt($$SELECT postmark_config('a.b')$$);
SELECT * FROM test.attempt($$SELECT postmark_set_token('x', NULL)$$);
SELECT * FROM test.attempt($$SELECT postmark_pause(NULL)$$);
SELECT * FROM test.attempt($$SELECT postmark_resume('A')$$);
SELECT * FROM test.attempt($$SELECT postmark_remove(NULL)$$);
SELECT * FROM test.attempt($$SELECT postmark_configure(test.config(), repeat('a', 63))$$);
SELECT * FROM test.attempt($$SELECT postmark_remove(repeat('a', 63))$$);

--
-- postmark_set_token
--
SELECT * FROM test.attempt($$SELECT postmark_set_token(NULL)$$);
SELECT * FROM test.attempt($$SELECT postmark_set_token('')$$);
SELECT * FROM test.attempt($$SELECT postmark_set_token(E'abc\r\nX-Other: 1')$$);
SELECT * FROM test.attempt($$SELECT postmark_set_token('********1234')$$);
SELECT * FROM test.attempt($$SELECT postmark_set_token('x', 'nowhere')$$);
SELECT postmark_set_token('sandbox-token');
SELECT server_token FROM postmark_secrets;

--
-- Several connectors
--
SELECT postmark_configure(test.config('{"fromEmail": "billing@shop.example"}'), 'billing');
SELECT postmark_configure(test.config('{"serverToken": "other"}'), 'no_such-token1');
SELECT connector, config ->> 'fromEmail' AS from_email FROM postmark_settings ORDER BY 1;
SELECT postmark_config('billing') ->> 'fromEmail';
SELECT * FROM test.attempt($$SELECT postmark_config('nowhere')$$);
SELECT postmark_enqueue('several@example.com', 'Register', '493021', connector => 'billing') AS id \gset
SELECT postmark_wait(:id);
SELECT m -> 'Request' ->> 'From' FROM jsonb_array_elements(test.sandbox('GET', 'messages?recipient=several@example.com') -> 'messages') m;

-- many: each keeps its own
SELECT count(postmark_configure(test.config(jsonb_build_object('fromEmail', name || '@shop.example')), name))
FROM (SELECT format('many%s', i) AS name FROM generate_series(1, 40) i) s;
SELECT count(*) FROM postmark_settings WHERE connector ~ '^many' AND postmark_config(connector) ->> 'fromEmail' = connector || '@shop.example';
SELECT state, count(*) FROM postmark_status WHERE connector ~ '^many' GROUP BY state;
SELECT count(postmark_enqueue(connector || '@example.com', 'SignIn', '493021', connector => connector)) FROM postmark_settings WHERE connector ~ '^many';
SELECT postmark_flush();
SELECT count(*) FROM jsonb_array_elements(test.sandbox('GET', 'messages') -> 'messages') m
WHERE m -> 'Request' ->> 'From' = replace(m -> 'Request' ->> 'To', '@example.com', '@shop.example') AND m -> 'Request' ->> 'From' ~ '^many';
SELECT status, count(*) FROM postmark_messages WHERE connector ~ '^many' GROUP BY status;
SELECT count(postmark_remove(connector)) FROM postmark_settings WHERE connector ~ '^many';

--
-- Pause and resume
--
SELECT postmark_pause('billing');
SELECT postmark_enqueue('ben@example.com', 'Register', '493021', connector => 'billing') AS id \gset
SELECT postmark_enqueue('cid@example.com', 'Register', connector => 'billing') AS cid \gset
SELECT connector, state, queued FROM postmark_status ORDER BY 1;
SELECT postmark_wait(:id, '0 s');
SELECT postmark_flush();
SELECT postmark_pause('billing', 'maintenance');
-- the reason is there to be read
SELECT state, detail LIKE '%maintenance%' AS shows_the_reason, hint IS NOT NULL AS has_hint FROM postmark_status WHERE connector = 'billing';
SELECT * FROM test.attempt($$SELECT postmark_pause('billing', E'a\nb')$$);
SELECT * FROM test.attempt($$SELECT postmark_pause('nowhere')$$);
SELECT * FROM test.attempt($$SELECT postmark_resume('nowhere')$$);
-- a new configuration does not end a pause
SELECT postmark_configure(postmark_config('billing'), 'billing');
SELECT state FROM postmark_status WHERE connector = 'billing';

-- refused while there is something to send
SELECT * FROM test.attempt($$SELECT postmark_remove('billing')$$);
SELECT * FROM test.attempt($$SELECT postmark_remove('nowhere')$$);
SELECT postmark_resume('billing');
SELECT postmark_wait(:id), postmark_wait(:cid);
SELECT postmark_resume('billing');
SELECT postmark_remove('billing');
SELECT postmark_remove('no_such-token1');
SELECT connector FROM postmark_settings;
SELECT count(*) FROM postmark_templates WHERE connector <> 'default';
SELECT connector FROM postmark_secrets;
-- what it sent remains known
SELECT connector, email, status FROM postmark_messages WHERE connector !~ '^many' ORDER BY id;

--
-- Settings of the server
--
SELECT name, context, unit, setting FROM pg_settings
WHERE name LIKE 'postmark\_connector.%' AND name <> 'postmark_connector.api_url' ORDER BY name COLLATE "C";
SELECT context FROM pg_settings WHERE name = 'postmark_connector.api_url';
SELECT left(said, 5) FROM test.attempt($$SET postmark_connector.connect_timeout = 0$$) AS said;
SELECT left(said, 5) FROM test.attempt($$SET postmark_connector.request_timeout = '-1 s'$$) AS said;
SELECT * FROM test.attempt($$SET postmark_connector.request_timeout = '20 s'$$);
SELECT * FROM test.attempt($$SET postmark_connector.api_url = 'https://api.postmarkapp.com'$$);
SELECT * FROM test.attempt($$SET postmark_connector.batch_size = 10$$);
-- ALTER SYSTEM checks the value before it writes anything, and is not for a function
ALTER SYSTEM SET postmark_connector.api_url = 'http://api.postmarkapp.com';
ALTER SYSTEM SET postmark_connector.api_url = 'http://user:password@127.0.0.1';
ALTER SYSTEM SET postmark_connector.api_url = 'https://127.0.0.1/?a=b';
ALTER SYSTEM SET postmark_connector.api_url = 'https://127.0.0.1/#a';
ALTER SYSTEM SET postmark_connector.api_url = 'ftp://127.0.0.1/';
ALTER SYSTEM SET postmark_connector.api_url = '';
ALTER SYSTEM SET postmark_connector.token_directory = 'tokens';
SELECT repeat('/tokens', 200) AS deep \gset
\set VERBOSITY sqlstate
ALTER SYSTEM SET postmark_connector.token_directory = :'deep';
ALTER SYSTEM SET postmark_connector.ca_file = :'deep';
\set VERBOSITY default
ALTER SYSTEM SET postmark_connector.batch_size = 0;
ALTER SYSTEM SET postmark_connector.batch_size = 501;
ALTER SYSTEM SET postmark_connector.max_in_flight = 0;
ALTER SYSTEM SET postmark_connector.in_doubt = 'drop';
\set VERBOSITY sqlstate
ALTER SYSTEM SET postmark_connector.settle_time = '-1';
