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
SELECT postmark_configure(test.config());
-- nothing was ever issued
SELECT postmark_verify_code('a@t.example', 'Register', '123456');
SELECT * FROM postmark_verify_token(repeat('A', 32), 'Register');
SELECT code_key IS NULL FROM postmark_secrets;

-- the round, within one transaction
BEGIN;
SELECT postmark_issue_code('Ann@T.example', 'Register', '{"name": "Ann"}') > 0;
SELECT code ~ '^\d{6}$' AS digits, payload, code AS code FROM postmark_queue \gset
SELECT :'digits', :'payload';
SELECT postmark_verify_code('ann@t.example', 'Register', CASE :'code' WHEN '000000' THEN '000001' ELSE '000000' END);
SELECT postmark_verify_code('ann@t.example', 'SignIn', :'code');
SELECT postmark_verify_code('ANN@T.EXAMPLE', 'Register', :'code');
SELECT postmark_verify_code('ann@t.example', 'Register', :'code');
SELECT length(code_key) FROM postmark_secrets;
ROLLBACK;

-- arguments
SELECT postmark_verify_code(NULL, NULL, NULL, NULL);
SELECT postmark_verify_code('a@t.example', 'Register', NULL);
SELECT postmark_verify_code('a@t.example', 'Register', '12a456');
SELECT postmark_verify_code('a', 'Register', '123456');
SELECT * FROM postmark_verify_token(NULL, NULL, NULL);
SELECT * FROM test.attempt($$SELECT postmark_verify_code('a@t.example', 'Register', '123456', 'none')$$);
SELECT * FROM test.attempt($$SELECT postmark_issue_code(NULL, 'Register')$$);
SELECT * FROM test.attempt($$SELECT postmark_issue_code('a@t.example', NULL)$$);
SELECT * FROM test.attempt($$SELECT postmark_issue_code('a@t.example', 'Register', connector => NULL)$$);
SELECT * FROM test.attempt($$SELECT postmark_issue_code('a@b@t.example', 'Register')$$);
SELECT * FROM test.attempt($$SELECT postmark_issue_code('a@t.example', 'register')$$);
SELECT * FROM test.attempt($$SELECT postmark_issue_code('a@t.example', 'Register', '"x"')$$);
SELECT * FROM test.attempt($$SELECT postmark_issue_token('a@t.example', 'Register', NULL)$$);
SELECT * FROM test.attempt($$SELECT postmark_issue_token('a@t.example', 'Register', 'https://t.example/')$$);
SELECT * FROM test.attempt($$SELECT postmark_issue_token('a@t.example', 'Register', '/verify/{token}')$$);
SELECT * FROM test.attempt($$SELECT postmark_issue_token('a@t.example', 'Register', 'https://t.example/{token} ')$$);
SELECT * FROM test.attempt($$SELECT postmark_issue_token('a@t.example', 'Register', 'https://t.example/{token}' || repeat('x', 2048))$$);

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

-- limits
SELECT postmark_configure(test.config('{"sendLimit": 2, "sendWindow": 100000}'));
BEGIN;
SELECT count(postmark_issue_code('b@t.example', u)) FROM unnest('{Register,SignIn}'::text[]) u;
SELECT test.attempt($$SELECT postmark_issue_code('B@t.example', 'Generic')$$) ~ '^PM007' LIMIT 1;
SELECT count(*) FROM postmark_codes;
ROLLBACK;

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
