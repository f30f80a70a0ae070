--
-- postmark_enqueue_trigger
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir /sql/common.inc
\set ECHO none
\i :common
\set ECHO all

SET test.delivery = capture;
SELECT postmark_configure(test.config());
SELECT postmark_configure(test.config(), 'other');
SELECT postmark_pause();
SELECT postmark_pause('other');

-- What was queued since the last call
CREATE FUNCTION test.queued() RETURNS TABLE (email text, usage_type text, code text, payload jsonb, locale text, connector text, lives interval)
LANGUAGE sql AS $$
	WITH gone AS (DELETE FROM postmark_queue RETURNING *)
	SELECT email, usage_type, code, payload, locale, connector, date_trunc('minute', expires_at - created_at + interval '1 s')
	FROM gone ORDER BY id $$;

CREATE TABLE test.signup (id serial, email text, code text, details jsonb, language text);

-- AFTER INSERT, the shortest form
CREATE TRIGGER mail AFTER INSERT ON test.signup FOR EACH ROW EXECUTE FUNCTION postmark_enqueue_trigger('email', 'Register');
INSERT INTO test.signup (email, code) VALUES ('ann@example.com', '493021');
INSERT INTO test.signup (email) SELECT format('u%s@example.com', i) FROM generate_series(1, 3) i;
INSERT INTO test.signup (email) VALUES (NULL);
SELECT * FROM test.queued();
SELECT count(*) FROM test.signup;
-- the INSERT fails with an invalid one
SELECT * FROM test.attempt($$INSERT INTO test.signup (email, code) VALUES ('ann@example', '493021')$$);
SELECT * FROM test.attempt($$INSERT INTO test.signup (email, code) VALUES ('', '493021')$$);
SELECT count(*) FROM test.signup;
-- an UPDATE is not its business
UPDATE test.signup SET email = 'new@example.com';
SELECT * FROM test.queued();
BEGIN;
INSERT INTO test.signup (email) VALUES ('ann@example.com');
ROLLBACK;
SELECT * FROM test.queued();

-- with the code column
DROP TRIGGER mail ON test.signup;
CREATE TRIGGER mail AFTER INSERT ON test.signup FOR EACH ROW EXECUTE FUNCTION postmark_enqueue_trigger('email', 'Register', 'code');
INSERT INTO test.signup (email, code) VALUES ('ann@example.com', '493021'), ('ben@example.com', NULL);
SELECT * FROM test.queued();
SELECT email, code FROM test.signup WHERE email IN ('ann@example.com', 'ben@example.com');
SELECT * FROM test.attempt($$INSERT INTO test.signup (email, code) VALUES ('ann@example.com', E'493021\n')$$);
SELECT * FROM test.attempt($$INSERT INTO test.signup (email, code) VALUES ('ann@example.com', '')$$);
TRUNCATE test.signup;

-- name=value, all of them; UPDATE sees the new row
DROP TRIGGER mail ON test.signup;
CREATE TRIGGER mail AFTER INSERT OR UPDATE OF email ON test.signup FOR EACH ROW
	EXECUTE FUNCTION postmark_enqueue_trigger('email', 'SignIn', 'code=code', 'payload=details', 'locale=language', 'connector=other', 'expires_in=2 hours');
INSERT INTO test.signup (email, code, details, language) VALUES ('ann@example.com', '493021', '{"a": [1]}', 'de');
UPDATE test.signup SET email = 'ann2@example.com', code = '493022', details = NULL, language = NULL;
UPDATE test.signup SET email = NULL;
UPDATE test.signup SET code = '493023';
SELECT * FROM test.queued();
SELECT * FROM test.attempt($$INSERT INTO test.signup (email, code, details) VALUES ('ann@example.com', '493021', '["secret"]')$$);
DROP TRIGGER mail ON test.signup;
CREATE TRIGGER mail AFTER UPDATE ON test.signup FOR EACH ROW
	EXECUTE FUNCTION postmark_enqueue_trigger('email', 'Generic', 'code', 'payload=details');
UPDATE test.signup SET email = 'ann3@example.com', details = '{}';
SELECT * FROM test.queued();
SELECT email, code, details FROM test.signup;
DROP TRIGGER mail ON test.signup;

--
-- Wrong arguments
--
CREATE FUNCTION test.with_arguments(arguments text, event text DEFAULT 'AFTER INSERT', level text DEFAULT 'ROW') RETURNS SETOF text
LANGUAGE plpgsql AS $function$
BEGIN
	EXECUTE format('CREATE TRIGGER mail %s ON test.signup FOR EACH %s EXECUTE FUNCTION postmark_enqueue_trigger(%s)', event, level, arguments);
	RETURN QUERY SELECT * FROM test.attempt(CASE WHEN event ~ 'DELETE' THEN 'DELETE FROM test.signup'
		WHEN event ~ 'TRUNCATE' THEN 'TRUNCATE test.signup'
		ELSE $$INSERT INTO test.signup (email, code, language) VALUES ('ann@example.com', '493021', '')$$ END);
	DROP TRIGGER mail ON test.signup;
END
$function$;
SELECT * FROM test.with_arguments('');
SELECT * FROM test.with_arguments($$'email'$$);
SELECT * FROM test.with_arguments($$'mail', 'Register'$$);
SELECT * FROM test.with_arguments($$'email', 'Register', 'kode'$$);
SELECT * FROM test.with_arguments($$'email', 'Register', 'code=kode'$$);
SELECT * FROM test.with_arguments($$'email', 'Register', 'payload=nothing'$$);
SELECT * FROM test.with_arguments($$'email', 'Register', 'code', 'details'$$);
SELECT * FROM test.with_arguments($$'email', 'Register', 'kode=code'$$);
SELECT * FROM test.with_arguments($$'email', 'Register', 'code', '=code'$$);
SELECT * FROM test.with_arguments($$'email', 'Register', 'code', 'expires_in=soon'$$);
SELECT * FROM test.with_arguments($$'email', 'Register', 'code', 'expires_in=-1 hour'$$);
SELECT * FROM test.with_arguments($$'email', 'Register', 'code', 'connector=nowhere'$$);
SELECT * FROM test.with_arguments($$'email', 'Register', 'code', 'connector=NO WHERE'$$);
SELECT * FROM test.with_arguments($$'email', 'Regster', 'code'$$);
SELECT * FROM test.with_arguments($$'email', '', 'code'$$);
SELECT * FROM test.with_arguments($$'email', 'Register', 'locale=language'$$);
SELECT * FROM test.with_arguments($$'ctid', 'Register'$$);
SELECT * FROM test.with_arguments($$'email', 'Register'$$, 'AFTER INSERT', 'STATEMENT');
INSERT INTO test.signup (email) VALUES ('ann@example.com');
SELECT * FROM test.with_arguments($$'email', 'Register'$$, 'AFTER DELETE');
SELECT * FROM test.with_arguments($$'email', 'Register'$$, 'AFTER TRUNCATE', 'STATEMENT');
SELECT * FROM test.attempt('SELECT postmark_enqueue_trigger()');
SELECT * FROM test.attempt('SELECT postmark_queue_row()');
CREATE TRIGGER mail BEFORE INSERT ON test.signup FOR EACH ROW EXECUTE FUNCTION postmark_queue_row();
SELECT * FROM test.attempt($$INSERT INTO test.signup (email, code) VALUES ('ann@example.com', '493021')$$);
DROP TRIGGER mail ON test.signup;
-- nor are the settings' functions anybody else's
SELECT * FROM test.attempt('SELECT postmark_settings_row()');
SELECT * FROM test.attempt('SELECT postmark_settings_changed()');
CREATE TRIGGER mail BEFORE UPDATE ON test.signup FOR EACH ROW EXECUTE FUNCTION postmark_settings_row();
SELECT * FROM test.attempt($$UPDATE test.signup SET code = '1'$$);
DROP TRIGGER mail ON test.signup;
SELECT * FROM test.queued();

--
-- Types of columns: read by the output function, no cast is called
--
CREATE DOMAIN test.address AS text CHECK (VALUE <> 'nobody@example.com');
CREATE TYPE test.language AS ENUM ('de', 'en');
CREATE TABLE test.typed (email test.address, email_varchar varchar(100), email_char char(20), code integer, language test.language,
	payload_json json, payload_text text, payload_domain text);
CREATE TRIGGER a AFTER INSERT ON test.typed FOR EACH ROW
	EXECUTE FUNCTION postmark_enqueue_trigger('email', 'Register', 'code', 'locale=language', 'payload=payload_json');
CREATE TRIGGER b AFTER INSERT ON test.typed FOR EACH ROW
	EXECUTE FUNCTION postmark_enqueue_trigger('email_varchar', 'Register', 'code', 'payload=payload_text');
INSERT INTO test.typed (email, email_varchar, code, language, payload_json, payload_text)
VALUES ('ann@example.com', 'ben@example.com', 493021, 'de', '{"a": 1, "a": 2}', '{"b": "ü"}');
SELECT * FROM test.queued();
-- char(n) comes with its spaces, and nothing is trimmed silently
CREATE TRIGGER c AFTER INSERT ON test.typed FOR EACH ROW EXECUTE FUNCTION postmark_enqueue_trigger('email_char', 'Register');
SELECT * FROM test.attempt($$INSERT INTO test.typed (email_char) VALUES ('ann@example.com')$$);
DROP TRIGGER c ON test.typed;
-- text that is no JSON, or no object, is not echoed
SELECT * FROM test.attempt($$INSERT INTO test.typed (email_varchar, payload_text) VALUES ('ben@example.com', '{"secret": 493021')$$);
SELECT * FROM test.attempt($$INSERT INTO test.typed (email_varchar, payload_text) VALUES ('ben@example.com', '')$$);
SELECT * FROM test.attempt($$INSERT INTO test.typed (email_varchar, payload_text) VALUES ('ben@example.com', '"secret"')$$);
SELECT * FROM test.attempt($$INSERT INTO test.typed (email_varchar, payload_text) VALUES ('ben@example.com', '{"a": "\u0000secret"}')$$);
\set SHOW_CONTEXT always
INSERT INTO test.typed (email_varchar, payload_text) VALUES ('ben@example.com', '{"secret": 493021');
\set SHOW_CONTEXT errors
SELECT * FROM test.queued();

-- a type with a cast that must not be called
CREATE TYPE test.hostile AS ENUM ('eve@example.com');
CREATE FUNCTION test.trap(test.hostile) RETURNS text LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'trapped'; END$$;
CREATE FUNCTION test.trap_json(test.hostile) RETURNS jsonb LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'trapped'; END$$;
CREATE CAST (test.hostile AS text) WITH FUNCTION test.trap(test.hostile) AS IMPLICIT;
CREATE CAST (test.hostile AS jsonb) WITH FUNCTION test.trap_json(test.hostile) AS IMPLICIT;
CREATE TABLE test.hostile_table (email test.hostile);
CREATE TRIGGER mail AFTER INSERT ON test.hostile_table FOR EACH ROW EXECUTE FUNCTION postmark_enqueue_trigger('email', 'Register', 'email');
INSERT INTO test.hostile_table VALUES ('eve@example.com');
SELECT * FROM test.queued();
CREATE TRIGGER mail2 AFTER INSERT ON test.hostile_table FOR EACH ROW EXECUTE FUNCTION postmark_enqueue_trigger('email', 'Register', 'payload=email');
SELECT * FROM test.attempt($$INSERT INTO test.hostile_table VALUES ('eve@example.com')$$);

-- a dropped column before, a partitioned table, a generated column
ALTER TABLE test.signup DROP COLUMN id;
CREATE TRIGGER mail AFTER INSERT ON test.signup FOR EACH ROW EXECUTE FUNCTION postmark_enqueue_trigger('email', 'Register', 'code');
INSERT INTO test.signup (email, code) VALUES ('ann@example.com', '493021');
CREATE TABLE test.parted (code text, email text) PARTITION BY LIST (code);
CREATE TABLE test.part (email text, code text);
ALTER TABLE test.parted ATTACH PARTITION test.part FOR VALUES IN ('493021');
CREATE TRIGGER mail AFTER INSERT ON test.parted FOR EACH ROW EXECUTE FUNCTION postmark_enqueue_trigger('email', 'Register', 'code');
INSERT INTO test.parted (email, code) VALUES ('ben@example.com', '493021');
CREATE TABLE test.generated (name text, email text GENERATED ALWAYS AS (name || '@example.com') STORED);
CREATE TRIGGER mail AFTER INSERT ON test.generated FOR EACH ROW EXECUTE FUNCTION postmark_enqueue_trigger('email', 'Register');
INSERT INTO test.generated (name) VALUES ('cid');
SELECT * FROM test.queued();
-- one row too many spoils the whole statement
SELECT * FROM test.attempt($$INSERT INTO test.signup (email, code) VALUES ('ann@example.com', '493021'), ('ben', '493021')$$);
SELECT * FROM test.queued();

--
-- The owner of a sign-up table is no superuser: what is to be granted is said
--
CREATE ROLE "regress postmark owner";
CREATE TABLE test.owned (email text);
ALTER TABLE test.owned OWNER TO "regress postmark owner";
GRANT USAGE ON SCHEMA test TO "regress postmark owner";
SET ROLE "regress postmark owner";
SELECT * FROM test.attempt($$CREATE TRIGGER mail AFTER INSERT ON test.owned FOR EACH ROW EXECUTE FUNCTION public.postmark_enqueue_trigger('email', 'Register')$$);
-- not of what has nothing to do with it
SELECT * FROM test.attempt($$CREATE TRIGGER mail AFTER INSERT ON test.owned FOR EACH ROW EXECUTE FUNCTION public.postmark_not_replicated()$$);
RESET ROLE;
GRANT EXECUTE ON FUNCTION postmark_enqueue_trigger TO "regress postmark owner";
SET ROLE "regress postmark owner";
CREATE TRIGGER mail AFTER INSERT ON test.owned FOR EACH ROW EXECUTE FUNCTION public.postmark_enqueue_trigger('email', 'Register');
RESET ROLE;
DROP TABLE test.owned;
REVOKE ALL ON FUNCTION postmark_enqueue_trigger FROM "regress postmark owner";
REVOKE ALL ON SCHEMA test FROM "regress postmark owner";
DROP ROLE "regress postmark owner";
