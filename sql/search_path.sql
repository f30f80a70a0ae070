--
-- Nothing that lies before pg_catalog in a search_path is called: not by the
-- functions, and nothing that lies in the schema chosen by the install script.
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir /sql/common.inc
\set ECHO none
\i :common
\set ECHO all

-- Operators of every pair of types that the extension compares and of those
-- that it might compare by mistake; each one raises when it is called.
CREATE FUNCTION test.set_traps(schema text) RETURNS void LANGUAGE plpgsql AS $function$
DECLARE
	types text[] := '{oid,regclass,regtype,regproc,regrole,integer,bigint,smallint,numeric,"char",text,varchar,name,timestamptz,interval,uuid,jsonb,boolean}';
	l text;
	r text;
	operator text;
BEGIN
	FOREACH l IN ARRAY types LOOP
		FOREACH r IN ARRAY types LOOP
			EXECUTE format('CREATE FUNCTION %I.op(%s, %s) RETURNS boolean LANGUAGE plpgsql AS
				$$BEGIN RAISE EXCEPTION ''trapped in operator(%s,%s)''; END$$', schema, l, r, l, r);
			FOREACH operator IN ARRAY '{=,<>,<,<=,>,>=,~,+,-,*}'::text[] LOOP
				EXECUTE format('CREATE OPERATOR %I.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = %I.op)',
					schema, operator, l, r, schema);
			END LOOP;
		END LOOP;
	END LOOP;
	FOR operator, l, r IN VALUES ('now', '', 'timestamptz'), ('clock_timestamp', '', 'timestamptz'),
		('nextval', 'regclass', 'bigint'), ('current_database', '', 'name'), ('unnest', 'bigint[]', 'bigint'),
		('generate_series', 'integer, integer', 'integer'), ('cardinality', 'bigint[]', 'integer'),
		('jsonb_typeof', 'jsonb', 'text'), ('length', 'text', 'integer'), ('format', 'text, text, oid', 'text'),
		('postmark_state', 'text', 'text'), ('postmark_queue_row', '', 'text')
	LOOP
		EXECUTE format('CREATE FUNCTION %I.%s(%s) RETURNS %s LANGUAGE plpgsql AS
			$$BEGIN RAISE EXCEPTION ''trapped in %s''; END$$', schema, operator, l, r, operator);
	END LOOP;
END
$function$;

--
-- The install script, in a schema where somebody could make objects before
--
DROP EXTENSION postmark_connector;
CREATE SCHEMA shop;
SELECT test.set_traps('shop');
DROP FUNCTION shop.postmark_state(text), shop.postmark_queue_row();
CREATE EXTENSION postmark_connector SCHEMA shop;
SELECT shop.postmark_configure(test.config());
SELECT shop.postmark_enqueue('ann@example.com', 'Register', '493021') AS id \gset
SELECT shop.postmark_wait(:id);
SELECT connector, state FROM shop.postmark_status;
SET client_min_messages = warning;
DROP SCHEMA shop CASCADE;
RESET client_min_messages;

--
-- The functions, called with a hostile search_path
--
CREATE EXTENSION IF NOT EXISTS postmark_connector SCHEMA public;
CREATE SCHEMA hostile;
SELECT test.set_traps('hostile');
CREATE TYPE hostile.text AS ENUM ('hostile');
CREATE TYPE hostile.jsonb AS ENUM ('hostile');
CREATE TYPE hostile.uuid AS ENUM ('hostile');
CREATE TYPE hostile.timestamptz AS ENUM ('hostile');
CREATE TABLE hostile.postmark_settings (connector pg_catalog.text);
CREATE TABLE hostile.postmark_templates (connector pg_catalog.text);
CREATE TABLE hostile.postmark_secrets (connector pg_catalog.text);
CREATE TABLE hostile.postmark_queue (id bigint);
CREATE TABLE hostile.postmark_deferred (id bigint);
CREATE TABLE hostile.postmark_intents (id bigint);
CREATE TABLE hostile.postmark_history (id bigint);
CREATE TABLE hostile.postmark_trouble (id bigint);
CREATE TABLE hostile.postmark_instance (id bigint);
CREATE SEQUENCE hostile.postmark_message_id_seq START 4711;
CREATE TABLE test.signup (email pg_catalog.text, code pg_catalog.text);
CREATE TRIGGER mail AFTER INSERT ON test.signup
	FOR EACH ROW EXECUTE FUNCTION public.postmark_enqueue_trigger('email', 'Register', 'code');
SELECT test.config() AS config \gset

-- a new session, in which nothing is planned yet
\c -
SET search_path = hostile, test, public, pg_temp, pg_catalog;
\set SHOW_CONTEXT never
SELECT 1 = 1;
SELECT now();
\set SHOW_CONTEXT errors
SELECT public.postmark_configure(:'config');
SELECT public.postmark_configure(:'config', 'second');
SELECT public.postmark_config() OPERATOR(pg_catalog.->>) 'fromEmail';
SELECT public.postmark_set_token('sandbox-token');
SELECT public.postmark_pause();
SELECT public.postmark_resume();
SELECT item, ok FROM public.postmark_check();
SELECT public.postmark_test('tom@example.com') IS NOT NULL;
SELECT public.postmark_send('sue@example.com', 'SignIn', '493021') IS NOT NULL;
SELECT public.postmark_enqueue('ann@example.com', 'Register', '493021') AS id \gset
SELECT public.postmark_wait(:id);
INSERT INTO public.postmark_queue (email, usage_type, code) VALUES ('ben@example.com', 'Register', '493021');
INSERT INTO signup VALUES ('cid@example.com', '493021');
SELECT public.postmark_flush();
SELECT public.postmark_enqueue('dan@example.com', 'Register', '493021',
	send_after => pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) '1 hour'::interval) AS id \gset
SELECT public.postmark_cancel(:id);
SELECT public.postmark_requeue(:id);
SELECT email, status FROM public.postmark_messages ORDER BY email USING OPERATOR(pg_catalog.<);
SELECT connector, state, queued, sent_last_hour FROM public.postmark_status ORDER BY connector USING OPERATOR(pg_catalog.<);
SELECT public.postmark_remove('second');
RESET search_path;
SET client_min_messages = warning;
DROP SCHEMA hostile CASCADE;
