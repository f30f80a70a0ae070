--
-- Verification codes: arguments, policy, limits.  What a mail carries, and
-- what parallel sessions do, is tested in test/t/090_codes.pl.
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir /sql/common.inc
\set ECHO none
\i :common
\set ECHO all

SELECT * FROM test.attempt($$SELECT postmark_issue_code('a@t.example', 'Register')$$);
SELECT * FROM test.attempt($$SELECT postmark_verify_code('a@t.example', 'Register', '123456')$$);
SET test.delivery = capture;
SELECT postmark_configure(test.config());
-- nothing was ever issued
SELECT postmark_verify_code('a@t.example', 'Register', '123456');
SELECT * FROM postmark_verify_token(repeat('A', 32), 'Register');
SELECT code_key IS NULL FROM postmark_secrets;

-- the round; as long as the transaction that issued it is open, a code cannot
-- have reached anybody, and guesses at it would be free for who rolls back
BEGIN;
SELECT postmark_issue_code('Ann@T.example', 'Register', '{"name": "Ann"}') > 0;
SELECT code ~ '^\d{6}$' AS digits, payload, code AS code FROM postmark_queue \gset
SELECT :'digits', :'payload';
SELECT postmark_verify_code('ann@t.example', 'Register', :'code');
COMMIT;
SELECT postmark_verify_code('ann@t.example', 'Register', CASE :'code' WHEN '000000' THEN '000001' ELSE '000000' END);
SELECT postmark_verify_code('ann@t.example', 'SignIn', :'code');
SELECT postmark_verify_code('ANN@T.EXAMPLE', 'Register', :'code');
SELECT postmark_verify_code('ann@t.example', 'Register', :'code');
SELECT length(code_key) FROM postmark_secrets;

-- as people type it, and as a form hands on an address
BEGIN;
SELECT postmark_issue_code('ben@t.example', 'Register') > 0;
SELECT code FROM postmark_queue WHERE email = 'ben@t.example' \gset
COMMIT;
SELECT n, postmark_verify_code(E' \tben@t.example\n', 'Register', typed)
FROM (VALUES (1, '-' || :'code' || '0'), (2, :'code' || '.'), (3, '12 3'), (4, '- - - -'),
	(5, repeat(' ', 100000) || repeat('1', 13))) v(n, typed) ORDER BY n;
BEGIN;
SELECT postmark_verify_code(' ben@t.example ', 'Register', ' ' || left(:'code', 3) || E' -\t' || substr(:'code', 4) || E'\r\n');
ROLLBACK;
SELECT postmark_verify_code('ben@t.example', 'Register', left(:'code', 3) || '-' || substr(:'code', 4));

-- a token: looked at and then used up
BEGIN;
SELECT postmark_issue_token('cid@t.example', 'Register', 'https://t.example/%7Btoken%7D?again=%7btoken%7d&and={token}') > 0;
SELECT payload ->> 'link' ~ '^https://t.example/([\w-]{32})\?again=\1&and=\1$' AS everywhere,
	substr(payload ->> 'link', 19, 32) AS token FROM postmark_queue WHERE email = 'cid@t.example' \gset
SELECT :'everywhere';
SELECT * FROM postmark_verify_token(:'token', 'Register');
COMMIT;
BEGIN READ ONLY;
SELECT * FROM postmark_verify_token(:'token', 'Register', consume => false);
SELECT * FROM postmark_verify_token(:'token', 'SignIn', consume => false);
SELECT * FROM postmark_verify_token(repeat('A', 32), 'Register', consume => false);
COMMIT;

-- an edited row is nobody's, not even the editor's; edited back it is good again
SELECT format('UPDATE postmark_codes SET %s WHERE token', edit),
	format('SELECT * FROM postmark_verify_token(%L, %L, consume => false)', :'token', usage_type),
	format('UPDATE postmark_codes SET %s WHERE token', back)
FROM (VALUES ($$email = 'eve@t.example'$$, 'Register', $$email = 'cid@t.example'$$),
	($$address = 'eve@t.example'$$, 'Register', $$address = 'cid@t.example'$$),
	($$usage_type = 'SignIn'$$, 'SignIn', $$usage_type = 'Register'$$),
	($$expires_at = expires_at + interval '1 hour'$$, 'Register', $$expires_at = expires_at - interval '1 hour'$$),
	($$id = -id$$, 'Register', $$id = -id$$),
	($$hmac = '\x00'$$, 'Register', format('hmac = %L', (SELECT hmac FROM postmark_codes WHERE token)))) v(edit, usage_type, back)
\set ECHO none
\gexec
\set ECHO all
SELECT * FROM postmark_verify_token(:'token', 'Register', consume => false);
UPDATE postmark_codes SET seal = NULL WHERE token;
SELECT * FROM postmark_verify_token(:'token', 'Register', consume => false);
DELETE FROM postmark_codes;
BEGIN;
SELECT postmark_issue_token('cid@t.example', 'Register', 'https://t.example/{token}') > 0;
SELECT substr(payload ->> 'link', 19) AS token FROM postmark_queue WHERE email = 'cid@t.example' ORDER BY id DESC LIMIT 1 \gset
COMMIT;
SELECT * FROM postmark_verify_token(:'token', 'Register', consume => NULL);
SELECT * FROM postmark_verify_token(:'token', 'Register', consume => false);
BEGIN;
SELECT postmark_issue_code('cid@t.example', 'Register') > 0;
SELECT code FROM postmark_queue WHERE email = 'cid@t.example' AND code IS NOT NULL \gset
COMMIT;
SELECT format('UPDATE postmark_codes SET %s WHERE NOT token', edit),
	format('SELECT postmark_verify_code(%L, %L, %L)', address, usage_type, :'code'),
	format('UPDATE postmark_codes SET %s WHERE NOT token', back)
FROM (VALUES ($$address = 'eve@t.example'$$, 'eve@t.example', 'Register', $$address = 'cid@t.example'$$),
	($$usage_type = 'SignIn'$$, 'cid@t.example', 'SignIn', $$usage_type = 'Register'$$),
	($$expires_at = expires_at + interval '1 hour'$$, 'cid@t.example', 'Register', $$expires_at = expires_at - interval '1 hour'$$),
	($$id = -id$$, 'cid@t.example', 'Register', $$id = -id$$)) v(edit, address, usage_type, back)
\set ECHO none
\gexec
\set ECHO all
SELECT postmark_verify_code('cid@t.example', 'Register', :'code');
DELETE FROM postmark_codes;

-- arguments
SELECT postmark_verify_code(NULL, NULL, NULL, NULL);
SELECT postmark_verify_code('a@t.example', 'Register', NULL);
SELECT postmark_verify_code('a@t.example', 'Register', '12a456');
SELECT postmark_verify_code('a', 'Register', '123456');
SELECT * FROM postmark_verify_token(NULL, NULL, NULL);
SELECT * FROM test.attempt($$SELECT postmark_verify_code('a@t.example', 'Register', '123456', 'none')$$);
SELECT * FROM test.attempt($$SELECT postmark_verify_code('a@t.example', 'Registr', '123456')$$);
SELECT * FROM test.attempt($$SELECT postmark_verify_token(repeat('A', 32), 'Registr')$$);
SELECT * FROM test.attempt($$SELECT postmark_issue_code(NULL, 'Register')$$);
SELECT * FROM test.attempt($$SELECT postmark_issue_code('a@t.example', NULL)$$);
SELECT * FROM test.attempt($$SELECT postmark_issue_code('a@t.example', 'Register', connector => NULL)$$);
SELECT * FROM test.attempt($$SELECT postmark_issue_code('a@b@t.example', 'Register')$$);
SELECT * FROM test.attempt($$SELECT postmark_issue_code('a@t.example', 'register')$$);
SELECT * FROM test.attempt($$SELECT postmark_issue_code('a@t.example', 'Register', '"x"')$$);
SELECT * FROM test.attempt($$SELECT postmark_issue_code('a@t.example', 'Register', '493021')$$);
SELECT * FROM test.attempt($$SELECT postmark_issue_token('a@t.example', 'Register', NULL)$$);
SELECT * FROM test.attempt($$SELECT postmark_issue_token('a@t.example', 'Register', 'https://t.example/')$$);
SELECT * FROM test.attempt($$SELECT postmark_issue_token('a@t.example', 'Register', '/verify/{token}')$$);
SELECT * FROM test.attempt($$SELECT postmark_issue_token('a@t.example', 'Register', 'https://t.example/{token} ')$$);
SELECT * FROM test.attempt($$SELECT postmark_issue_token('a@t.example', 'Register', 'https://t.example/{token}' || repeat('x', 2048))$$);

-- what links must begin with
SELECT * FROM test.attempt($$SELECT postmark_configure(test.config('{"linkPrefix": "http://t.example/"}'))$$);
SELECT * FROM test.attempt($$SELECT postmark_configure(test.config('{"linkPrefix": "https://t.example"}'))$$);
SELECT * FROM test.attempt($$SELECT postmark_configure(test.config('{"linkPrefix": "https://t.example@evil.example/"}'))$$);
BEGIN;
SELECT postmark_configure(test.config('{"linkPrefix": "https://t.example/v/"}'));
SELECT postmark_issue_token('prefix@t.example', 'Register', 'https://t.example/v/{token}') > 0;
SELECT * FROM test.attempt($$SELECT postmark_issue_token('prefix@t.example', 'Register', 'https://t.example.evil.example/v/{token}')$$);
SELECT * FROM test.attempt($$SELECT postmark_issue_token('prefix@t.example', 'Register', 'http://t.example/v/{token}')$$);
SELECT postmark_configure(test.config('{"linkPrefix": "http://localhost:8025/"}'));
SELECT postmark_issue_token('prefix@t.example', 'Register', 'http://localhost:8025/{token}') > 0;
ROLLBACK;

-- policy
SELECT a FROM (VALUES ('{"recipientPolicy": 1}'::jsonb), ('{"recipientPolicy": {"blockSubaddressing": 1}}'),
	('{"recipientPolicy": {"customBlocklist": "x"}}'), ('{"recipientPolicy": {"customBlocklist": ["@t.example", "t.example"]}}'),
	('{"recipientPolicy": {"customAllowlist": ["*@*"]}}'), ('{"recipientPolicy": {"customAllowlist": [null]}}'),
	('{"recipientPolicy": {"customAllowList": []}}'), ('{"codeLength": 3}'), ('{"codeLength": 13}'),
	('{"codeTtl": 59}'), ('{"codeMaxAttempts": 0}'), ('{"verifyLimit": -1}')) v(c),
	LATERAL test.attempt(format('SELECT postmark_configure(%L)', test.config(c))) a;
SELECT postmark_configure(test.config('{"recipientPolicy": {"blockSubaddressing": true,
	"customBlocklist": ["Eve@t.example", "@*.bad.example"], "customAllowlist": ["@t.example", "@*.bad.example"]}}'));
SELECT postmark_config() -> 'recipientPolicy';
SELECT * FROM test.attempt($$SELECT postmark_issue_code('a+b@t.example', 'Register')$$);
SELECT * FROM test.attempt($$SELECT postmark_issue_code('EVE@T.example', 'Register')$$);
SELECT * FROM test.attempt($$SELECT postmark_issue_code('x@y.BAD.example', 'Register')$$);
SELECT * FROM test.attempt($$SELECT postmark_issue_code('x@u.example', 'Register')$$);
SELECT count(*) FROM postmark_codes;
-- what an asterisk stands for: as much as it takes, or nothing
BEGIN;
SELECT pattern, address, array(SELECT test.attempt(format('SELECT postmark_configure(%L)',
		test.config(jsonb_build_object('recipientPolicy', jsonb_build_object('customBlocklist', jsonb_build_array(pattern)))))))
	|| array(SELECT left(a, 2) FROM test.attempt(format('SELECT postmark_issue_code(%L, ''Register'')', address)) a LIMIT 1) AS said
FROM (VALUES ('a*b@t.example', 'ab@t.example'), ('a*b@t.example', 'axbxb@t.example'), ('a*b@t.example', 'axc@t.example'),
	('a*b@t.example', 'xab@t.example'), ('*ab@t.example', 'aab@t.example'), ('*aab@t.example', 'aaab@t.example'), ('a@t.example*', 'a@t.example'),
	('a@t.example*', 'a@t.example.org'), ('a@*.t.example', 'a@t.example'), ('a@*t.example', 'a@t.example'), ('@t.example', 'a@u.t.example'),
	('a@t.exampl', 'a@t.example'), ('*@t.e*e*e', 'a@t.example'), ('*@t.e*m*e', 'a@t.example')) v(pattern, address);
ROLLBACK;

-- limits
SELECT postmark_configure(test.config('{"sendLimit": 2, "sendWindow": 100000}'));
BEGIN;
SELECT count(postmark_issue_code('b@t.example', u)) FROM unnest('{Register,SignIn}'::text[]) u;
SELECT test.attempt($$SELECT postmark_issue_code('B@t.example', 'Generic')$$) ~ '^PM007' LIMIT 1;
SELECT count(*) FROM postmark_codes;
-- how long to wait, as a number
SELECT extract(epoch FROM postmark_retry_after('B@t.example', 'Generic')) BETWEEN 99990 AND 100000;
SELECT postmark_retry_after('c@t.example', 'Generic');
ROLLBACK;
SELECT postmark_retry_after('b@t.example', 'Generic');
SELECT * FROM test.attempt($$SELECT postmark_retry_after('b', 'Generic')$$);
SELECT * FROM test.attempt($$SELECT postmark_retry_after('b@t.example', 'Genric')$$);
SELECT * FROM test.attempt($$SELECT postmark_retry_after('b@t.example', 'Generic', 'none')$$);

-- an owner's trigger that keeps the mail out of the queue
CREATE FUNCTION test.swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER swallow BEFORE INSERT ON postmark_queue FOR EACH ROW EXECUTE FUNCTION test.swallow();
SELECT * FROM test.attempt($$SELECT postmark_issue_code('a@t.example', 'Register')$$);
SELECT * FROM test.attempt($$SELECT postmark_enqueue('a@t.example', 'Register', '1')$$);
SELECT count(*) FROM postmark_codes WHERE id = 0;
DROP TRIGGER swallow ON postmark_queue;

-- a subaddress is another recipient, and the trigger skips NULL
CREATE TABLE test.signup (email text, lang text);
CREATE TRIGGER code AFTER INSERT ON test.signup FOR EACH ROW
	EXECUTE FUNCTION postmark_issue_code_trigger('email', 'Register', 'locale=lang');
BEGIN;
INSERT INTO test.signup VALUES ('a@t.example', 'de'), (NULL, NULL);
SELECT email, usage_type, locale, length(code) FROM postmark_queue;
ROLLBACK;
SELECT * FROM test.attempt($$INSERT INTO test.signup VALUES ('not an address', 'de')$$);
SELECT * FROM test.attempt($$SELECT postmark_issue_code_trigger()$$);
CREATE TRIGGER bad AFTER INSERT ON test.signup FOR EACH ROW
	EXECUTE FUNCTION postmark_issue_code_trigger('email', 'Register', 'code=lang');
SELECT * FROM test.attempt($$INSERT INTO test.signup VALUES ('a@t.example', 'de')$$);

-- nothing of it is for PUBLIC, or in a dump
SELECT relname, relacl FROM pg_class WHERE relname IN ('postmark_codes', 'postmark_sends', 'postmark_attempts') ORDER BY 1;
SELECT count(*) FROM pg_extension e, unnest(extconfig) c
WHERE extname = 'postmark_connector' AND c IN ('postmark_codes'::regclass, 'postmark_sends'::regclass, 'postmark_attempts'::regclass);

--
-- Failed attempts taken back
--
SELECT postmark_configure(test.config('{"codeMaxAttempts": 2, "verifyLimit": 3}'));
SELECT postmark_issue_code('unlock@example.com', 'SignIn') IS NOT NULL;
CREATE FUNCTION test.guess() RETURNS text LANGUAGE sql AS $$
	SELECT public.postmark_verify_code('unlock@example.com', 'SignIn', guess)
	FROM (VALUES ('000000'), ('000001'), ('000002'), ('000003')) v (guess)
	WHERE guess <> (SELECT template_model ->> 'code' FROM public.postmark_captured WHERE email = 'unlock@example.com')
	LIMIT 1
$$;
SELECT postmark_flush();
SELECT test.guess(), test.guess();
SELECT test.guess();
SELECT postmark_unlock('UNLOCK@example.com');
SELECT postmark_unlock('unlock@example.com');
SELECT test.guess(), test.guess();
SELECT test.guess();
SELECT postmark_unlock('unlock@example.com');
SELECT postmark_verify_code('unlock@example.com', 'SignIn', template_model ->> 'code')
FROM postmark_captured WHERE email = 'unlock@example.com';
SELECT test.attempt($$SELECT postmark_unlock('no address')$$);
SELECT test.attempt($$SELECT postmark_unlock('ann@example.com', 'nobody')$$);
