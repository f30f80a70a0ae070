--
-- A connector that is bound to roles: who may use it, by whatever way
--
\set ECHO none
\i sql/common.inc
\set ECHO all
CREATE ROLE regress_postmark_shop;
CREATE ROLE regress_postmark_shop_app IN ROLE regress_postmark_shop;
CREATE ROLE regress_postmark_aside NOINHERIT IN ROLE regress_postmark_shop;
CREATE ROLE regress_postmark_forum;
GRANT USAGE ON SCHEMA test TO PUBLIC;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA test, public TO regress_postmark_shop, regress_postmark_forum;
GRANT INSERT ON postmark_queue TO regress_postmark_shop, regress_postmark_forum;
GRANT EXECUTE ON FUNCTION test.attempt, postmark_enqueue TO regress_postmark_aside;
SELECT postmark_configure(test.config(), 'free');
SELECT postmark_configure(test.config('{"roles": ["regress_postmark_shop"], "webhookSecret": "0123456789abcdef-one"}'), 'shop');
SELECT postmark_config('shop') -> 'roles', postmark_config('free') ? 'roles';
-- fed back
SELECT postmark_configure(postmark_config('shop'), 'shop');

-- every function that takes a connector, or a message's id
CREATE FUNCTION test.try_all(connector text, id bigint) RETURNS TABLE (statement text, outcome text) LANGUAGE plpgsql AS $function$
BEGIN
	FOREACH statement IN ARRAY ARRAY[
		$$SELECT postmark_enqueue('ann@example.com', 'SignIn', '493021', connector => %1$L) > 0$$,
		$$SELECT postmark_enqueue('ann@example.com', 'SignIn', '493021', connector => %1$L, send_after => now() + interval '1 hour') > 0$$,
		$$SELECT postmark_enqueue('ann@example.com', 'SignIn', '493021', connector => %1$L, dedup_key => 'k' || random()) > 0$$,
		$$INSERT INTO postmark_queue (email, usage_type, connector) VALUES ('ann@example.com', 'SignIn', %1$L)$$,
		$$SELECT postmark_send('ann@example.com', 'SignIn', '493021', connector => %1$L) IS NOT NULL$$,
		$$SELECT postmark_issue_code('ann@example.com', 'SignIn', connector => %1$L) > 0$$,
		$$SELECT postmark_issue_token('ann@example.com', 'SignIn', 'https://shop.example/{token}', connector => %1$L) > 0$$,
		$$SELECT postmark_verify_code('ann@example.com', 'Register', '493021', %1$L)$$,
		$$SELECT verdict FROM postmark_verify_token(repeat('x', 32), 'SignIn', %1$L)$$,
		$$SELECT postmark_retry_after('ann@example.com', 'SignIn', %1$L)$$,
		$$CREATE TEMP TABLE s (email text); CREATE TRIGGER s AFTER INSERT ON s FOR EACH ROW EXECUTE FUNCTION postmark_enqueue_trigger('email', 'SignIn', 'connector=%1$s'); INSERT INTO s VALUES ('ann@example.com')$$,
		$$CREATE TEMP TABLE t (email text); CREATE TRIGGER t AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION postmark_issue_code_trigger('email', 'SignIn', 'connector=%1$s'); INSERT INTO t VALUES ('ann@example.com')$$,
		$$SELECT postmark_wait(%2$s, '0 s') IS NOT NULL$$,
		$$SELECT postmark_cancel(%2$s)$$,
		$$SELECT postmark_requeue(%2$s)$$,
		$$SELECT postmark_cancel_all(%1$L, 'Generic')$$,
		$$SELECT postmark_requeue_all(%1$L, '1 us')$$,
		$$SELECT postmark_config(%1$L) ? 'fromEmail'$$,
		$$SELECT postmark_configure(postmark_config(%1$L), %1$L)$$,
		$$SELECT postmark_configure(test.config(), %1$L)$$,
		$$SELECT postmark_set_token('sandbox-token', %1$L)$$,
		$$SELECT bool_and(ok) FROM postmark_check(%1$L)$$,
		$$SELECT bool_and(ok) FROM postmark_check(%1$L, test.config() - 'serverToken')$$,
		$$SELECT postmark_test('ann@example.com', NULL, %1$L) IS NOT NULL$$,
		$$SELECT postmark_test('ann@example.com', test.config() - 'serverToken', %1$L) IS NOT NULL$$,
		$$SELECT postmark_pause(%1$L)$$,
		$$SELECT postmark_resume(%1$L)$$,
		$$SELECT postmark_rotate_code_key(%1$L) >= 0$$,
		$$SELECT postmark_unlock('bob@example.com', %1$L)$$,
		$$SELECT postmark_unsuppress('bob@example.com', %1$L)$$,
		$$SELECT count(*) > 0 FROM postmark_install_templates(%1$L)$$,
		$$SELECT postmark_remove(%1$L)$$]
	LOOP
		statement := format(statement, connector, id);
		BEGIN
			SELECT a INTO outcome FROM test.attempt(statement) a LIMIT 1;
			RAISE data_exception;
		EXCEPTION WHEN data_exception THEN
			RETURN NEXT;
		END;
	END LOOP;
END
$function$;
GRANT EXECUTE ON FUNCTION test.try_all TO PUBLIC;
SELECT postmark_enqueue('ann@example.com', 'SignIn', connector => 'shop', send_after => now() + interval '1 hour') AS id \gset

-- others nothing, and a message's id is to them as unknown
SET ROLE regress_postmark_forum;
SELECT outcome, count(*) FROM test.try_all('shop', :id) WHERE outcome ~ '^42501' GROUP BY 1;
SELECT replace(statement, '(' || :'id', '(ID'), outcome FROM test.try_all('shop', :id) WHERE outcome !~ '^42501';
SELECT postmark_enqueue('ann@example.com', 'SignIn', connector => 'free') > 0 AS free;
SELECT test.attempt($$SELECT postmark_enqueue('ann@example.com', 'Unknown', connector => 'shop')$$);
-- nor do they wait for it
SELECT postmark_flush();
RESET ROLE;

-- a member of a role that is named: everything
SET ROLE regress_postmark_shop_app;
SELECT replace(replace(statement, '(' || :'id', '(ID'), 'postmark_', ''), outcome FROM test.try_all('shop', :id);
RESET ROLE;
SELECT test.attempt($$SELECT postmark_enqueue('ann@example.com', 'SignIn', connector => 'shop') > 0$$);

-- the webhook goes by its secret, for whoever has it
SET ROLE regress_postmark_forum;
SELECT postmark_webhook('{"RecordType": "Open"}', '0123456789abcdef-one', 'shop');
RESET ROLE;

-- a member that inherits nothing is none until it says so
SET ROLE regress_postmark_aside;
SELECT a FROM test.attempt($$SELECT postmark_enqueue('ann@example.com', 'SignIn', connector => 'shop')$$) a LIMIT 1;
RESET ROLE;

-- a sign-up table uses the connector as its owner, whoever writes a row
CREATE SCHEMA regress_postmark_shop AUTHORIZATION regress_postmark_shop;
CREATE SCHEMA regress_postmark_forum AUTHORIZATION regress_postmark_forum;
GRANT USAGE ON SCHEMA regress_postmark_shop, regress_postmark_forum TO PUBLIC;
SET ROLE regress_postmark_shop;
CREATE TABLE regress_postmark_shop.signup (email text);
CREATE TRIGGER mail AFTER INSERT ON regress_postmark_shop.signup FOR EACH ROW EXECUTE FUNCTION postmark_enqueue_trigger('email', 'Register', 'connector=shop');
CREATE TRIGGER code AFTER INSERT ON regress_postmark_shop.signup FOR EACH ROW EXECUTE FUNCTION postmark_issue_code_trigger('email', 'SignIn', 'connector=shop');
GRANT INSERT ON regress_postmark_shop.signup TO PUBLIC;
SET ROLE regress_postmark_forum;
INSERT INTO regress_postmark_shop.signup VALUES ('cid@example.com');
CREATE TABLE regress_postmark_forum.signup (email text);
CREATE TRIGGER mail AFTER INSERT ON regress_postmark_forum.signup FOR EACH ROW EXECUTE FUNCTION postmark_enqueue_trigger('email', 'Register', 'connector=shop');
GRANT INSERT ON regress_postmark_forum.signup TO PUBLIC;
SET ROLE regress_postmark_shop;
SELECT test.attempt($$INSERT INTO regress_postmark_forum.signup VALUES ('dan@example.com')$$);
RESET ROLE;
SELECT email, usage_type FROM postmark_messages WHERE email ~ '^(cid|dan)' ORDER BY id;

-- where rows of the queue cannot be put in directly
CREATE FUNCTION test.nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER nothing AFTER INSERT ON postmark_queue FOR EACH ROW EXECUTE FUNCTION test.nothing();
SET ROLE regress_postmark_forum;
SELECT test.attempt($$SELECT postmark_enqueue('ann@example.com', 'SignIn', connector => 'shop')$$);
SET ROLE regress_postmark_shop_app;
SELECT postmark_enqueue('ann@example.com', 'SignIn', connector => 'shop') > 0;
RESET ROLE;
DROP TRIGGER nothing ON postmark_queue;

-- who configures a connector must not lock itself out
SET ROLE regress_postmark_forum;
SELECT test.attempt($$SELECT postmark_configure(test.config('{"roles": ["regress_postmark_shop"]}'), 'new')$$);
SELECT test.attempt($$SELECT postmark_configure(test.config('{"roles": ["regress_postmark_forum"]}'), 'new')$$);
RESET ROLE;

-- what the key may be
SELECT test.attempt(format('SELECT postmark_configure(test.config(%L), %L)', jsonb_build_object('roles', roles), 'new'))
FROM unnest('{"\"regress_postmark_shop\"", "[1]", "[\"\"]", "[\"regress_postmark_nobody\"]", "[\"public\"]"}'::jsonb[]) roles;
SELECT test.attempt(format('SELECT postmark_configure(test.config(%L), %L)', jsonb_build_object('roles', (SELECT jsonb_agg('regress_postmark_shop'::text) FROM generate_series(1, 101))), 'new'));
-- nobody but the tables' owner and superusers
SELECT postmark_configure(test.config('{"roles": []}'), 'new');
SET ROLE regress_postmark_forum;
SELECT outcome, count(*) FROM test.try_all('new', 0) WHERE outcome ~ '^42501' GROUP BY 1;
RESET ROLE;
SELECT test.attempt($$SELECT postmark_enqueue('ann@example.com', 'SignIn', connector => 'new') > 0$$);
-- one that was edited so that nobody can tell is for these, too
UPDATE postmark_settings SET config = config || '{"roles": [1]}' WHERE connector = 'new';
SET ROLE regress_postmark_forum;
SELECT test.attempt($$SELECT postmark_configure(test.config(), 'new')$$);
RESET ROLE;
SELECT postmark_configure(test.config(), 'new');
-- a role that is gone
UPDATE postmark_settings SET config = config || '{"roles": ["regress_postmark_gone"]}' WHERE connector = 'new';
SET ROLE regress_postmark_forum;
SELECT test.attempt($$SELECT postmark_enqueue('ann@example.com', 'SignIn', connector => 'new')$$);
RESET ROLE;
SELECT test.attempt($$SELECT postmark_enqueue('ann@example.com', 'SignIn', connector => 'new') > 0$$);
-- anybody again
SELECT postmark_configure(postmark_config('shop') - 'roles', 'shop');
SET ROLE regress_postmark_forum;
SELECT postmark_enqueue('ann@example.com', 'SignIn', connector => 'shop') > 0;
RESET ROLE;
SELECT postmark_flush();

SET client_min_messages = warning;
DROP SCHEMA regress_postmark_shop, regress_postmark_forum CASCADE;
DROP EXTENSION postmark_connector;
DROP OWNED BY regress_postmark_shop, regress_postmark_aside, regress_postmark_forum;
DROP ROLE regress_postmark_shop_app, regress_postmark_aside, regress_postmark_shop, regress_postmark_forum;
