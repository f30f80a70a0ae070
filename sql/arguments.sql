--
-- What a message may be made of: the limits, and what counts as nothing
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir /sql/common.inc
\set ECHO none
\i :common
\set ECHO all

SELECT postmark_configure(test.config());
SELECT postmark_pause();

CREATE FUNCTION test.enqueue(arguments text) RETURNS SETOF text LANGUAGE sql AS $$
	SELECT regexp_replace(test.attempt(format('SELECT postmark_enqueue(%s)', arguments)), '^ok: \d+$', 'ok') $$;

--
-- Every ASCII character but NUL before the "@", against Postmark's own pattern
-- (a dot cannot stand at an end), by itself and among others
--
CREATE FUNCTION test.takes(email text) RETURNS boolean LANGUAGE sql AS $$
	SELECT bool_or(x ~ '^ok') FROM test.attempt(format('SELECT postmark_enqueue(%L, ''Register'')', email)) x $$;
SELECT string_agg(chr(c), '' ORDER BY c) AS taken FROM generate_series(1, 127) c WHERE test.takes('a' || chr(c) || 'b@example.com');
SELECT c, chr(c) FROM generate_series(1, 127) c
WHERE test.takes('a' || chr(c) || 'b@example.com') <> (chr(c) ~ '^[a-zA-Z0-9.!#$%&''`*+/=^_{|}~-]$')
	OR test.takes(chr(c) || '@example.com') <> (chr(c) ~ '^[a-zA-Z0-9!#$%&''`*+/=^_{|}~-]$');
-- and in the domain
SELECT string_agg(chr(c), '' ORDER BY c) AS taken FROM generate_series(1, 127) c WHERE test.takes('ann@a' || chr(c) || 'b.com');

-- what people paste
SELECT * FROM test.enqueue($$'Ann <ann@example.com>', 'Register'$$);
SELECT * FROM test.enqueue($$'"Ann" <ann@example.com>', 'Register'$$);
SELECT * FROM test.enqueue($$'what?@example.com', 'Register'$$);
SELECT * FROM test.enqueue($$U&'\200Bann@example.com', 'Register'$$);
SELECT * FROM test.enqueue($$U&'ann@example.com\200B', 'Register'$$);
SELECT * FROM test.enqueue($$U&'\FEFFann@example.com', 'Register'$$);
SELECT * FROM test.enqueue($$U&'ann\00A0@example.com', 'Register'$$);

--
-- JSON's null and '' are none
--
DELETE FROM postmark_queue;
SELECT * FROM test.enqueue($$'ann@example.com', 'Register', payload => 'null'$$);
SELECT * FROM test.enqueue($$'ann@example.com', 'Register', locale => ''$$);
INSERT INTO postmark_queue (email, usage_type, payload, locale) VALUES ('ann@example.com', 'Register', 'null', '');
SELECT postmark_issue_code('ann@example.com', 'Register', 'null', '') IS NOT NULL;
SELECT postmark_issue_token('ann@example.com', 'Register', 'shop://{token}', 'null', '') IS NOT NULL;
SELECT postmark_send('ann@example.com', 'Register', '493021', 'null', '') IS NOT NULL;
CREATE TABLE test.signup (email text, details json, language text);
CREATE TRIGGER mail AFTER INSERT ON test.signup FOR EACH ROW
	EXECUTE FUNCTION postmark_enqueue_trigger('email', 'Register', 'payload=details', 'locale=language');
CREATE TRIGGER code AFTER INSERT ON test.signup FOR EACH ROW
	EXECUTE FUNCTION postmark_issue_code_trigger('email', 'SignIn', 'payload=details', 'locale=language');
INSERT INTO test.signup VALUES ('ann@example.com', 'null', '');
SELECT usage_type, payload IS NULL AS no_payload, locale FROM postmark_queue ORDER BY id;
DELETE FROM postmark_queue;

--
-- A payload's size is that of what is sent
--
-- sizes as the server itself counts them, for JSON of every shape
CREATE FUNCTION test.filled(payload jsonb, size int) RETURNS jsonb LANGUAGE sql AS $$
	SELECT payload || jsonb_build_object('fill', repeat('x', size - octet_length((payload || '{"fill": ""}')::text))) $$;
CREATE TABLE test.shapes (payload jsonb);
INSERT INTO test.shapes VALUES ('{}'), ('{"a": []}'), ('{"a": {}}'), ('{"a": [1, "b", null, true, false]}'),
	('{"a": [[], [[]], {}, [{"b": [1.50, -2e-7]}, {"c": {"d": "e"}}], 7]}'),
	('{"\" \\ \b\f\n\r\t\u0001\u001f\u007f ü": "\" \\ \b\f\n\r\t\u0001\u001f\u007f € 😀 /"}'),
	('{"a": 1e100, "b": 1.000000, "c": -0.1, "d": 1e-100}');
SELECT payload FROM test.shapes WHERE octet_length(test.filled(payload, 262144)::text) <> 262144;
SELECT test.attempt(format('SELECT postmark_enqueue(''ann@example.com'', ''Register'', payload => %L)', test.filled(payload, 262144))) !~ '^ok' AS refused,
	test.attempt(format('SELECT postmark_enqueue(''ann@example.com'', ''Register'', payload => %L)', test.filled(payload, 262145))) AS one_more
FROM test.shapes;
-- few bytes as jsonb, many digits
SELECT * FROM test.enqueue($$'ann@example.com', 'Register', payload => '{"a": 1e100000}'$$);
SELECT * FROM test.enqueue($$'ann@example.com', 'Register', payload => '{"a": 1e100000, "b": 1e100000, "c": 1e100000}'$$);
SELECT * FROM test.attempt($$INSERT INTO postmark_queue (email, usage_type, payload) VALUES ('ann@example.com', 'Register', '{"a": 1e100000, "b": 1e100000, "c": 1e100000}')$$);
SELECT * FROM test.attempt($$SELECT postmark_send('ann@example.com', 'Register', payload => '{"a": 1e100000, "b": 1e100000, "c": 1e100000}')$$);
SELECT * FROM test.attempt($$SELECT postmark_issue_code('ann@example.com', 'Register', '{"a": 1e100000, "b": 1e100000, "c": 1e100000}')$$);

--
-- Times: 30 days, however they are counted, and never out of range
--
SELECT * FROM test.enqueue($$'ann@example.com', 'Register', expires_in => '30 days'$$);
SELECT * FROM test.enqueue($$'ann@example.com', 'Register', expires_in => '1 month'$$);
SELECT * FROM test.enqueue($$'ann@example.com', 'Register', expires_in => '30 days 1 us'$$);
SELECT * FROM test.enqueue($$'ann@example.com', 'Register', expires_in => '10 years'$$);
SELECT * FROM test.enqueue($$'ann@example.com', 'Register', expires_in => '178000000 years'$$);
SELECT * FROM test.enqueue($$'ann@example.com', 'Register', expires_in => '-178000000 years'$$);
SELECT * FROM test.enqueue($$'ann@example.com', 'Register', send_after => now() + interval '30 days'$$);
SELECT * FROM test.enqueue($$'ann@example.com', 'Register', send_after => now() + interval '30 days', expires_in => '30 days'$$);
SELECT * FROM test.enqueue($$'ann@example.com', 'Register', send_after => now() + interval '31 days'$$);
SELECT * FROM test.enqueue($$'ann@example.com', 'Register', send_after => '294276-12-31 00:00:00'$$);
INSERT INTO postmark_queue (email, usage_type, expires_at) VALUES ('ann@example.com', 'Register', now() + interval '30 days');
SELECT * FROM test.attempt($$INSERT INTO postmark_queue (email, usage_type, expires_at) VALUES ('ann@example.com', 'Register', now() + interval '31 days')$$);
SELECT * FROM test.attempt($$INSERT INTO postmark_queue (email, usage_type, expires_at) VALUES ('ann@example.com', 'Register', '294276-12-31 00:00:00')$$);
SET timezone = 'Europe/Berlin';
SELECT bool_and(expires_at < now() + interval '61 days') FROM postmark_messages;
RESET timezone;
SELECT * FROM test.attempt($$SELECT postmark_wait(0, '-1 s')$$);
SELECT * FROM test.attempt($$SELECT postmark_wait(0, '-178000000 years')$$);
SELECT * FROM test.attempt($$SELECT postmark_wait(0, '178000000 years')$$);
SELECT * FROM test.attempt($$SELECT postmark_flush('-1 s')$$);

--
-- The sign-up table's triggers fire when the row is stored
--
CREATE TABLE test.unique_signup (email text PRIMARY KEY, name text, code text GENERATED ALWAYS AS (name || '-code') STORED);
DELETE FROM postmark_queue;
CREATE TRIGGER mail BEFORE INSERT ON test.unique_signup FOR EACH ROW EXECUTE FUNCTION postmark_enqueue_trigger('email', 'Register', 'code');
SELECT * FROM test.attempt($$INSERT INTO test.unique_signup VALUES ('ann@example.com', 'ann') ON CONFLICT DO NOTHING$$);
DROP TRIGGER mail ON test.unique_signup;
CREATE TRIGGER mail BEFORE INSERT OR UPDATE ON test.unique_signup FOR EACH ROW EXECUTE FUNCTION postmark_issue_code_trigger('email', 'Register');
SELECT * FROM test.attempt($$INSERT INTO test.unique_signup VALUES ('ann@example.com', 'ann') ON CONFLICT DO NOTHING$$);
DROP TRIGGER mail ON test.unique_signup;
CREATE TRIGGER mail AFTER INSERT ON test.unique_signup FOR EACH ROW EXECUTE FUNCTION postmark_enqueue_trigger('email', 'Register', 'code');
INSERT INTO test.unique_signup VALUES ('ann@example.com', 'ann') ON CONFLICT DO NOTHING;
INSERT INTO test.unique_signup VALUES ('ann@example.com', 'ann') ON CONFLICT DO NOTHING;
SELECT email, code FROM postmark_queue;

--
-- Locales: the exact spelling goes before its equals, whichever comes first
--
SELECT postmark_configure(test.config('{"templates": [
	{"usageType": "Register", "templateAlias": "hyphen", "locale": "pt-BR"},
	{"usageType": "Register", "templateAlias": "underscore", "locale": "pt_BR"},
	{"usageType": "Register", "templateAlias": "lower", "locale": "pt-br"},
	{"usageType": "Register", "templateAlias": "language", "locale": "pt"},
	{"usageType": "Register", "templateAlias": "logto-register"},
	{"usageType": "SignIn", "templateAlias": "logto-sign-in"},
	{"usageType": "ForgotPassword", "templateAlias": "logto-forgot-password"},
	{"usageType": "Generic", "templateAlias": "logto-generic"}]}'));
SELECT test.sandbox('POST', 'config', jsonb_build_object('templates', jsonb_agg(jsonb_build_object(
	'Alias', alias, 'Name', alias, 'Subject', 'test', 'TextBody', '{{code}}'))))
FROM unnest('{hyphen,underscore,lower,language}'::text[]) AS alias \g /dev/null
SELECT postmark_send('ann@example.com', 'Register', locale => l) IS NOT NULL
FROM unnest('{pt-BR,pt_BR,pt-br,pt-AO,pt,PT,de}'::text[]) l;
SELECT m #>> '{Request,TemplateAlias}' AS alias
FROM jsonb_array_elements(test.sandbox('GET', 'messages?limit=7') -> 'messages') m;

--
-- A sender's name is quoted where Postmark needs it
--
CREATE FUNCTION test.sender(name text) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM postmark_configure(test.config(jsonb_build_object('fromEmail', name || ' <no-reply@shop.example>',
		'replyTo', name || ' <help@shop.example>')));
	ASSERT postmark_config() ->> 'fromEmail' = name || ' <no-reply@shop.example>';
	PERFORM postmark_send('ann@example.com', 'Register');
	RETURN QUERY SELECT m #>> ARRAY['Request', f]
	FROM jsonb_array_elements(test.sandbox('GET', 'messages?limit=1') -> 'messages') m, unnest('{From,ReplyTo}'::text[]) f;
END
$$;
SELECT * FROM test.sender('Shop');
SELECT * FROM test.sender('Shop, Inc');
SELECT * FROM test.sender('"Shop, Inc"');
SELECT * FROM test.sender('Shop Inc.');
SELECT * FROM test.sender('The "best" Shop, Inc');
SELECT * FROM test.sender('"Shop, Inc" of Berlin');
SELECT * FROM test.sender('The "Shop');
SELECT * FROM test.sender('Shop \ (Berlin)');
SELECT * FROM test.sender('"Shop \" Inc"');
SELECT * FROM test.sender('Käse & Brot');
SELECT * FROM test.sender('Käse, Brot');

-- the nearest mistake of a configuration
SELECT * FROM test.attempt($$SELECT postmark_configure(jsonb_set(test.config(), '{templates,0,usageType}', '"register"'))$$);

--
-- Notices of pause and resume say what is so
--
DELETE FROM postmark_queue;
DELETE FROM postmark_deferred;
SELECT postmark_resume();
SELECT postmark_resume();
SELECT postmark_pause();
SELECT postmark_enqueue('ann@example.com', 'Register', '493021') IS NOT NULL;
SELECT postmark_pause();
SELECT postmark_resume();
