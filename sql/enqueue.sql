--
-- postmark_enqueue, and INSERT and COPY into postmark_queue, which do the same
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir /sql/common.inc
\set ECHO none
\i :common
\set ECHO all

SELECT postmark_configure(test.config('{"templates": [
	{"usageType": "Register", "templateAlias": "logto-register"},
	{"usageType": "Register", "templateAlias": "register-pt", "locale": "pt"},
	{"usageType": "Register", "templateAlias": "register-pt-BR", "locale": "pt-BR"},
	{"usageType": "SignIn", "templateAlias": "logto-sign-in", "priority": 9, "expiresIn": 90},
	{"usageType": "ForgotPassword", "templateAlias": "forgot-fr", "locale": "fr"},
	{"usageType": "Generic", "templateAlias": "logto-generic"},
	{"usageType": "Generic", "templateAlias": "generic-pt", "locale": "pt"},
	{"usageType": "Generic", "templateAlias": "generic-fr", "locale": "fr"},
	{"usageType": "Newsletter", "templateAlias": "newsletter"},
	{"usageType": "Survey", "templateAlias": "survey-de", "locale": "de"}]}'));
SELECT test.sandbox('POST', 'config', jsonb_build_object('templates', jsonb_agg(jsonb_build_object(
	'Alias', alias, 'Name', alias, 'Subject', 'test', 'TextBody', '{{code}}'))))
FROM unnest('{register-pt,register-pt-BR,forgot-fr,generic-pt,generic-fr,newsletter,survey-de}'::text[]) AS alias \g /dev/null

-- Nothing is sent until the end of this file, so that it can be looked at.
SELECT postmark_pause();

--
-- Recipients
--
CREATE FUNCTION test.to(email text) RETURNS SETOF text LANGUAGE sql AS $$
	SELECT regexp_replace(test.attempt(format('SELECT postmark_enqueue(%L, ''Register'', ''493021'')', email)),
		'^ok: \d+$', 'ok') $$;

SELECT * FROM test.to(NULL);
SELECT * FROM test.to('');
SELECT * FROM test.to('ann');
SELECT * FROM test.to('@example.com');
SELECT * FROM test.to('ann@');
SELECT * FROM test.to('ann@example');
SELECT * FROM test.to('ann@b@example.com');
SELECT * FROM test.to('ann@example.com,ben@example.com');
SELECT * FROM test.to('ann@example.com, ben@example.com');
SELECT * FROM test.to('ann@example.com;ben@example.com');
SELECT * FROM test.to('Ann <ann@example.com>');
SELECT * FROM test.to('<ann@example.com>');
SELECT * FROM test.to('"ann"@example.com');
SELECT * FROM test.to('ann(home)@example.com');
SELECT * FROM test.to(E'ann@example.com\r\nBcc: ben@example.com');
SELECT * FROM test.to(E'ann@example.com\n');
SELECT * FROM test.to(E'ann\n@example.com');
SELECT * FROM test.to(E'ann\t@example.com');
SELECT * FROM test.to(E'ann\x01@example.com');
SELECT * FROM test.to(' ann@example.com');
SELECT * FROM test.to('ann@example.com ');
SELECT * FROM test.to('ann lee@example.com');
SELECT * FROM test.to('änn@example.com');
SELECT * FROM test.to('ann@exämple.com');
SELECT * FROM test.to(U&'ann@example\3002com');
SELECT * FROM test.to('.ann@example.com');
SELECT * FROM test.to('ann.@example.com');
SELECT * FROM test.to('an..n@example.com');
SELECT * FROM test.to('ann@.example.com');
SELECT * FROM test.to('ann@example..com');
SELECT * FROM test.to('ann@example.com.');
SELECT * FROM test.to('ann@-example.com');
SELECT * FROM test.to('ann@example-.com');
SELECT * FROM test.to('ann@ex_ample.com');
SELECT * FROM test.to('ann@[127.0.0.1]');
SELECT * FROM test.to('ann@127.0.0.1');
SELECT * FROM test.to(repeat('a', 65) || '@example.com');
SELECT * FROM test.to('a@' || repeat('b', 64) || '.com');
SELECT * FROM test.to('a@' || repeat(repeat('b', 49) || '.', 5) || 'com');
-- good ones, up to the limits
SELECT * FROM test.to('Ann.O''Neil+tag=1!#$%&*/^_`{|}~-@Sub-1.example.com');
SELECT * FROM test.to(repeat('a', 64) || '@example.com');
SELECT * FROM test.to('a@' || repeat('b', 63) || '.com');
SELECT * FROM test.to('a@' || repeat(repeat('b', 49) || '.', 5) || 'co');
SELECT * FROM test.to('a@xn--exmple-cua.com');
SELECT max(length(email)) FROM postmark_queue;

--
-- The other arguments
--
CREATE FUNCTION test.enqueue(arguments text) RETURNS SETOF text LANGUAGE sql AS $$
	SELECT regexp_replace(test.attempt(format('SELECT postmark_enqueue(''ann@example.com'', %s)', arguments)),
		'^ok: \d+$', 'ok') $$;

SELECT * FROM test.enqueue($$NULL$$);
SELECT * FROM test.enqueue($$''$$);
SELECT * FROM test.enqueue($$repeat('R', 65)$$);
SELECT * FROM test.enqueue($$E'Register\n'$$);
SELECT * FROM test.enqueue($$'Register', ''$$);
SELECT * FROM test.enqueue($$'Register', '493021' || repeat('x', 59)$$);
SELECT * FROM test.enqueue($$'Register', '493021' || repeat('ä', 30)$$);
SELECT * FROM test.enqueue($$'Register', E'493021\nsecret'$$);
SELECT * FROM test.enqueue($$'Register', '493021' || repeat('x', 58)$$);
SELECT * FROM test.enqueue($$'Register', '493021', '[]'$$);
SELECT * FROM test.enqueue($$'Register', '493021', '"secret"'$$);
SELECT * FROM test.enqueue($$'Register', '493021', 'null'$$);
SELECT * FROM test.enqueue($$'Register', '493021', '7'$$);
SELECT * FROM test.enqueue($$'Register', '493021', jsonb_build_object('a', repeat('x', 256 * 1024))$$);
SELECT * FROM test.enqueue($$'Register', '493021', jsonb_build_object('a', repeat('x', 256 * 1024 - 100))$$);
SELECT * FROM test.enqueue($$'Register', '493021', '{}'$$);
SELECT * FROM test.enqueue($$'Register', locale => ''$$);
SELECT * FROM test.enqueue($$'Register', locale => repeat('x', 65)$$);
SELECT * FROM test.enqueue($$'Register', locale => E'pt\r'$$);
SELECT * FROM test.enqueue($$'Register', locale => repeat('x', 64)$$);
SELECT * FROM test.enqueue($$'Register', connector => 'nowhere'$$);
SELECT * FROM test.enqueue($$'Register', connector => 'a b'$$);

-- usage types: neither known nor configured
SELECT * FROM test.enqueue($$'Regster', '493021'$$);
SELECT * FROM test.enqueue($$'register', '493021'$$);
SELECT * FROM test.enqueue($$'sign-in', '493021'$$);
SELECT * FROM test.enqueue($$'newsleter'$$);
SELECT * FROM test.enqueue($$'SomethingElseAltogether'$$);
-- code and usage type mixed up: the code must not be shown
SELECT * FROM test.enqueue($$'493021', 'Register'$$);
-- configured in another locale only
SELECT * FROM test.enqueue($$'Survey'$$);
SELECT * FROM test.enqueue($$'Survey', locale => 'de-AT'$$);

--
-- send_after, expires_in, and the defaults
--
DELETE FROM postmark_queue;
SELECT * FROM test.enqueue($$'Register', send_after => 'infinity'$$);
SELECT * FROM test.enqueue($$'Register', send_after => '-infinity'$$);
SELECT * FROM test.enqueue($$'Register', expires_in => '0 s'$$);
SELECT * FROM test.enqueue($$'Register', expires_in => '-1 s'$$);
SELECT * FROM test.enqueue($$'Register', expires_in => '-1 s', send_after => now() + interval '1 hour'$$);
SELECT * FROM test.enqueue($$'Register', expires_in => '290000 years'$$);
SELECT * FROM test.enqueue($$'Register', expires_in => '1 us'::interval * 1000$$);
DELETE FROM postmark_queue;

SELECT postmark_enqueue('with-code@example.com', 'Register', '493021') IS NOT NULL;
SELECT postmark_enqueue('without@example.com', 'Register') IS NOT NULL;
SELECT postmark_enqueue('template@example.com', 'SignIn', '493021') IS NOT NULL;
SELECT postmark_enqueue('month@example.com', 'SignIn', '493021', expires_in => '30 days') IS NOT NULL;
SELECT postmark_enqueue('past@example.com', 'Register', '493021', send_after => '2001-01-01', expires_in => '1 hour') IS NOT NULL;
SELECT postmark_enqueue('later@example.com', 'Register', '493021', send_after => now() + interval '1 hour') IS NOT NULL;
SELECT postmark_enqueue('later-1m@example.com', 'Register', '493021', send_after => now() + interval '1 hour', expires_in => '1 min') IS NOT NULL;
SELECT email, status, date_trunc('minute', expires_at - created_at + interval '1 s') AS lives,
	date_trunc('minute', due_at - created_at + interval '1 s') AS waits
FROM postmark_messages WHERE email <> 'month@example.com' ORDER BY id;
SELECT expires_at - created_at BETWEEN interval '29 days 22 hours' AND interval '30 days 2 hours' FROM postmark_messages WHERE email = 'month@example.com';

--
-- INSERT
--
DELETE FROM postmark_queue;
DELETE FROM postmark_deferred;
INSERT INTO postmark_queue (email, usage_type, code) VALUES ('ann@example.com', 'Register', '493021');
INSERT INTO postmark_queue (email, usage_type, code, payload, locale, connector, expires_at)
VALUES ('ben@example.com', 'Register', '493021', '{"a": 1}', 'pt', 'default', now() + interval '1 hour');
-- whatever is supplied
INSERT INTO postmark_queue (id, lane, created_at, email, usage_type) VALUES (1, 1, '2001-01-01', 'cid@example.com', 'SignIn');
INSERT INTO postmark_queue (email, usage_type) VALUES ('dan@example.com', 'Register') RETURNING email, code, connector, created_at > now() - interval '1 hour';
SELECT email, id > 1 AS id, created_at > '2002-01-01' AS created_at, lane, expires_at - created_at > interval '50 s' AS expires, connector
FROM postmark_queue ORDER BY postmark_queue.id;
SELECT * FROM test.attempt($$INSERT INTO postmark_queue (email, usage_type, code) VALUES (NULL, 'Register', '493021')$$);
SELECT * FROM test.attempt($$INSERT INTO postmark_queue (email, usage_type, code) VALUES ('a b', 'Register', '493021')$$);
SELECT * FROM test.attempt($$INSERT INTO postmark_queue (email, code) VALUES ('ann@example.com', '493021')$$);
SELECT * FROM test.attempt($$INSERT INTO postmark_queue (email, usage_type, code) VALUES ('ann@example.com', 'Regster', '493021')$$);
SELECT * FROM test.attempt($$INSERT INTO postmark_queue (email, usage_type, code, payload) VALUES ('ann@example.com', 'Register', '493021', '[]')$$);
SELECT * FROM test.attempt($$INSERT INTO postmark_queue (email, usage_type, code, expires_at) VALUES ('ann@example.com', 'Register', '493021', 'infinity')$$);
SELECT * FROM test.attempt($$INSERT INTO postmark_queue (email, usage_type, code, connector) VALUES ('ann@example.com', 'Register', '493021', 'nowhere')$$);
SELECT * FROM test.attempt($$INSERT INTO postmark_queue VALUES (1)$$);
SELECT * FROM test.attempt($$UPDATE postmark_queue SET email = 'eve@example.com'$$);
SELECT * FROM test.attempt($$INSERT INTO postmark_queue (lane, id, email, usage_type, code) SELECT lane, id, email, usage_type, '493021' FROM postmark_queue ON CONFLICT (lane, id) DO UPDATE SET email = 'eve@example.com'$$);

-- bulk
DELETE FROM postmark_queue;
INSERT INTO postmark_queue (email, usage_type, code)
	SELECT format('user%s@example.com', i), CASE i % 2 WHEN 0 THEN 'SignIn' ELSE 'Register' END, i FROM generate_series(1, 2500) i;
SELECT count(*), count(DISTINCT id), count(DISTINCT lane) FROM postmark_queue;
-- one bad row and none is queued
SELECT * FROM test.attempt($$INSERT INTO postmark_queue (email, usage_type, code)
	SELECT CASE i WHEN 99 THEN 'bad' ELSE format('user%s@example.com', i) END, 'Register', '493021' FROM generate_series(1, 100) i$$);
SELECT count(*) FROM postmark_queue;
DELETE FROM postmark_queue;

-- COPY
COPY postmark_queue (email, usage_type, code, payload, expires_at) FROM stdin;
ann@example.com	Register	493021	{"a": 1}	\N
ben@example.com	SignIn	493022	\N	tomorrow
\.
COPY postmark_queue (id, created_at, email, usage_type, code) FROM stdin;
1	2001-01-01	cid@example.com	Register	493021
1	2001-01-01	dan@example.com	Register	493021
\.
-- the CONTEXT is what COPY itself says of its input
\set SHOW_CONTEXT never
COPY postmark_queue (email, usage_type, code) FROM stdin;
eve@example.com	Register	493021
eve at example.com	Register	493021
\.
COPY postmark_queue (email, usage_type, code, payload) FROM stdin;
eve@example.com	Register	493021	["secret"]
\.
\set SHOW_CONTEXT errors
SELECT email, usage_type, code, id > 1 AS id, created_at > '2002-01-01' AS created_at FROM postmark_queue ORDER BY postmark_queue.id;
DELETE FROM postmark_queue;

--
-- What is rolled back was not queued
--
BEGIN;
SELECT postmark_enqueue('rolledback@example.com', 'Register', '493021') IS NOT NULL;
ROLLBACK;
BEGIN;
SELECT postmark_enqueue('first@example.com', 'Register', '493021') IS NOT NULL;
SAVEPOINT a;
SELECT postmark_enqueue('rolledback@example.com', 'Register', '493021') IS NOT NULL;
SELECT postmark_enqueue('rolledback@example.com', 'Register', '493021', send_after => now() + interval '1 s') IS NOT NULL;
ROLLBACK TO a;
SELECT postmark_enqueue('second@example.com', 'Register', '493021') IS NOT NULL;
COMMIT;
SELECT email FROM postmark_messages ORDER BY id;
SELECT postmark_resume();
SELECT postmark_flush();
SELECT email, status FROM postmark_messages ORDER BY id;
SELECT test.sandbox('GET', 'messages?recipient=rolledback@example.com') -> 'total';

--
-- Which template: within the usage type exact locale, language, none; then Generic
--
SELECT count(postmark_enqueue(format('t%s@example.com', n), usage_type, '493021', locale => locale))
FROM (VALUES (1, 'Register', NULL), (2, 'Register', 'pt-BR'), (3, 'Register', 'pt-PT'), (4, 'Register', 'pt'),
	(5, 'Register', 'fr'), (6, 'ForgotPassword', 'fr'), (7, 'ForgotPassword', 'pt'), (8, 'ForgotPassword', NULL),
	(9, 'SignIn', 'pt'), (10, 'MfaVerification', NULL), (11, 'BindMfa', 'fr-CA'), (12, 'Newsletter', 'xx'),
	(13, 'OrganizationInvitation', 'pt'), (14, 'UserPermissionValidation', 'de'), (15, 'BindNewIdentifier', NULL),
	(16, 'Survey', 'de'), (17, 'Register', 'p'), (18, 'Register', 'ptx')) AS v(n, usage_type, locale);
SELECT postmark_flush();
SELECT usage_type, locale, template_alias, status FROM postmark_messages WHERE email ~ '^t\d+@' ORDER BY id;
SELECT count(*) FROM postmark_messages m, jsonb_array_elements(test.sandbox('GET', 'messages?render=0') -> 'messages') s
WHERE m.message_id = (s ->> 'MessageID')::uuid AND m.template_alias <> s -> 'Request' ->> 'TemplateAlias';

--
-- What the owner attaches to the tables works for messages that functions queue, too
--
CREATE TABLE test.seen (n serial, what text, email text);
CREATE FUNCTION test.see() RETURNS trigger LANGUAGE plpgsql AS
	$$BEGIN INSERT INTO test.seen (what, email) VALUES (TG_TABLE_NAME || ' ' || TG_WHEN, NEW.email); RETURN NEW; END$$;
GRANT USAGE ON SCHEMA test TO PUBLIC;
CREATE TRIGGER see AFTER INSERT ON postmark_queue FOR EACH ROW EXECUTE FUNCTION test.see();
CREATE TRIGGER see BEFORE INSERT ON postmark_history FOR EACH ROW EXECUTE FUNCTION test.see();
SELECT postmark_enqueue('seen@example.com', 'Register', '493021') IS NOT NULL;
SELECT postmark_flush();
ALTER TABLE postmark_queue DISABLE TRIGGER see;
DROP TRIGGER see ON postmark_history;
SELECT postmark_enqueue('notseen@example.com', 'Register', '493021') IS NOT NULL;
DROP TRIGGER see ON postmark_queue;
CREATE UNIQUE INDEX one_each ON postmark_queue (email, (lower(usage_type))) WHERE code IS NOT NULL;
BEGIN;
SELECT postmark_enqueue('one@example.com', 'Register', '493021') IS NOT NULL;
SELECT test.attempt($$SELECT postmark_enqueue('one@example.com', 'Register', '493021')$$);
COMMIT;
DROP INDEX one_each;
ALTER TABLE postmark_queue ALTER code SET NOT NULL;
SELECT test.attempt($$SELECT postmark_enqueue('nocode@example.com', 'Register')$$);
ALTER TABLE postmark_queue ALTER code DROP NOT NULL;
SELECT postmark_flush();
SELECT what, email FROM test.seen ORDER BY n;
SELECT email, status FROM postmark_messages WHERE email ~ '^(seen|notseen|one)' ORDER BY id;

--
-- A transaction that may not write
--
BEGIN READ ONLY;
SELECT postmark_enqueue('readonly@example.com', 'Register', '493021');
ROLLBACK;

--
-- An id that the history has already, as after a failover, holds up nothing
--
INSERT INTO postmark_history (id, connector, email, usage_type, status, attempts, created_at, expires_at, finished_at)
SELECT postmark_last_id() + n, 'default', 'before@example.com', 'Register', 'sent', 1, now(), now(), now()
FROM generate_series(2, 3) n;
SELECT postmark_pause();
SELECT count(postmark_enqueue(format('again%s@example.com', n), 'Register', '493021')) FROM generate_series(1, 5) n;
-- what is secret is in no statistics
ANALYZE postmark_queue, postmark_deferred, postmark_history, postmark_secrets, postmark_codes;
SELECT tablename, attname FROM pg_stats WHERE tablename ~ '^postmark_'
	AND attname IN ('code', 'payload', 'server_token', 'webhook_secret', 'code_key', 'hmac');
SELECT count(*) FROM pg_stats WHERE tablename = 'postmark_queue' AND attname = 'usage_type';
SELECT postmark_resume();
SELECT postmark_flush();
SELECT email, status FROM postmark_messages WHERE email ~ '^(again|before)' ORDER BY id;
SELECT test.sandbox('GET', format('messages?recipient=again%s@example.com', n)) -> 'total' FROM generate_series(1, 5) n;
