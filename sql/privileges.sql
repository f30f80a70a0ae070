--
-- Who may do what: nobody anything, and what the pages' GRANTs give
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir /sql/common.inc
\set ECHO none
\i :common
\set ECHO all

SELECT postmark_configure(test.config());
CREATE ROLE regress_postmark_nobody;
CREATE ROLE regress_postmark_sender;
CREATE ROLE regress_postmark_inserter;
CREATE ROLE regress_postmark_monitor;
CREATE ROLE regress_postmark_signup;
GRANT USAGE ON SCHEMA test, public TO PUBLIC;
GRANT EXECUTE ON FUNCTION postmark_enqueue TO regress_postmark_sender;
GRANT INSERT ON postmark_queue TO regress_postmark_inserter;
GRANT SELECT ON postmark_messages, postmark_status TO regress_postmark_monitor;
GRANT EXECUTE ON FUNCTION postmark_state TO regress_postmark_monitor;
GRANT EXECUTE ON FUNCTION postmark_enqueue_trigger TO regress_postmark_signup;

-- Everything there is to try: an SQLSTATE each, and what came of it
CREATE FUNCTION test.try_all() RETURNS TABLE (statement text, outcome text) LANGUAGE plpgsql AS $function$
BEGIN
	FOREACH statement IN ARRAY ARRAY[
		'SELECT postmark_configure(''{}'')', 'SELECT postmark_config()', 'SELECT postmark_set_token(''x'')',
		'SELECT * FROM postmark_check()', 'SELECT * FROM postmark_install_templates()', 'SELECT postmark_test(''ann@example.com'')', 'SELECT postmark_pause()', 'SELECT postmark_resume()',
		'SELECT postmark_remove(''default'')', 'SELECT postmark_send(''ann@example.com'', ''SignIn'')',
		'SELECT postmark_cancel(1)', 'SELECT postmark_requeue(1)', 'SELECT postmark_wait(1)', 'SELECT postmark_flush()',
		'SELECT state FROM postmark_state(''default'')', 'SELECT count(*) FROM postmark_settings', 'SELECT count(*) FROM postmark_templates',
		'SELECT count(*) FROM postmark_secrets', 'SELECT count(*) FROM postmark_instance', 'SELECT count(*) FROM postmark_queue',
		'SELECT count(*) FROM postmark_deferred', 'SELECT count(*) FROM postmark_intents', 'SELECT count(*) FROM postmark_history',
		'SELECT count(*) FROM postmark_trouble', 'SELECT count(*) > 0 FROM postmark_messages', 'SELECT state FROM postmark_status',
		'SELECT nextval(''postmark_message_id_seq'')', 'SELECT last_value FROM postmark_message_id_seq',
		'INSERT INTO postmark_queue (email, usage_type, code) VALUES (''ann@example.com'', ''SignIn'', ''493021'')',
		'INSERT INTO postmark_queue (email, usage_type, code) VALUES (''ann@example.com'', ''SignIn'', ''493021'') RETURNING code',
		'UPDATE postmark_queue SET code = NULL', 'DELETE FROM postmark_queue', 'TRUNCATE postmark_queue',
		'INSERT INTO postmark_deferred SELECT', 'INSERT INTO postmark_history SELECT', 'DELETE FROM postmark_secrets',
		'SELECT postmark_enqueue(''ann@example.com'', ''SignIn'', ''493021'') > 0',
		'SELECT postmark_enqueue(''ann@example.com'', ''SignIn'', ''493021'', send_after => now() + interval ''1 hour'') > 0',
		'CREATE TEMP TABLE t (email text); CREATE TRIGGER t AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION postmark_enqueue_trigger(''email'', ''SignIn'')',
		'CREATE TEMP TABLE t (email text); CREATE TRIGGER t AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION postmark_queue_row()']
	LOOP
		SELECT left(a, 100) INTO outcome FROM test.attempt(statement) a LIMIT 1;
		RETURN NEXT;
	END LOOP;
END
$function$;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA test TO PUBLIC;

-- no privilege at all
SET ROLE regress_postmark_nobody;
SELECT left(outcome, 5) AS state, count(*) FROM test.try_all() GROUP BY 1;
SELECT * FROM test.try_all() WHERE outcome !~ '^42501';
RESET ROLE;
SELECT count(*) FROM postmark_messages;

-- a sending role
SET ROLE regress_postmark_sender;
SELECT * FROM test.try_all() WHERE outcome !~ '^42501';
-- neither the token nor anybody's code is in an error, whatever is wrong
SELECT * FROM test.attempt($$SELECT postmark_enqueue('ann', 'SignIn', '493021')$$);
SELECT postmark_enqueue('bob@example.com', 'SignIn', '493021') AS id \gset
RESET ROLE;
SELECT postmark_wait(:id);
SELECT email, status FROM postmark_messages ORDER BY id;

-- one that may only insert
SET ROLE regress_postmark_inserter;
SELECT * FROM test.try_all() WHERE outcome !~ '^42501';
COPY postmark_queue (email, usage_type, code) FROM stdin;
cid@example.com	SignIn	493021
\.
INSERT INTO postmark_queue (email, usage_type, code) SELECT format('u%s@example.com', i), 'SignIn', '493021' FROM generate_series(1, 3) i;
RESET ROLE;
SELECT postmark_flush();
SELECT email, status FROM postmark_messages WHERE email ~ '^(cid|u)' ORDER BY id;

-- one that looks
SET ROLE regress_postmark_monitor;
SELECT * FROM test.try_all() WHERE outcome !~ '^42501';
SELECT connector, state, queued FROM postmark_status;
SELECT count(*) > 0 FROM postmark_messages;
RESET ROLE;

-- one that made a trigger with the function: the mail is queued whoever inserts
CREATE SCHEMA regress_postmark_signup AUTHORIZATION regress_postmark_signup;
SET ROLE regress_postmark_signup;
CREATE TABLE regress_postmark_signup.users (email text, code text);
CREATE TRIGGER mail AFTER INSERT ON regress_postmark_signup.users FOR EACH ROW EXECUTE FUNCTION postmark_enqueue_trigger('email', 'Register', 'code');
GRANT USAGE ON SCHEMA regress_postmark_signup TO regress_postmark_nobody;
GRANT INSERT ON regress_postmark_signup.users TO regress_postmark_nobody;
SET ROLE regress_postmark_nobody;
INSERT INTO regress_postmark_signup.users VALUES ('dan@example.com', '493021');
RESET ROLE;
SELECT postmark_flush();
SELECT email, usage_type, status FROM postmark_messages WHERE email LIKE 'dan%';

-- what a user attaches to the queue is not run with the owner's rights: it
-- cannot be attached
GRANT EXECUTE ON FUNCTION postmark_send TO regress_postmark_sender;
SET ROLE regress_postmark_sender;
SELECT * FROM test.attempt('CREATE TRIGGER x BEFORE INSERT ON postmark_queue FOR EACH ROW EXECUTE FUNCTION postmark_queue_row()');
SELECT postmark_send('eve@example.com', 'SignIn', '493021') IS NOT NULL;
-- the proxy may hold a password
SELECT left(said, 5) FROM test.attempt('SHOW postmark_connector.proxy') AS said LIMIT 1;
SELECT left(said, 5) FROM test.attempt($$SELECT current_setting('postmark_connector.proxy')$$) AS said LIMIT 1;
RESET ROLE;

-- the extension itself is not for everybody, not even for the database's owner
SET client_min_messages = warning;
DROP EXTENSION postmark_connector CASCADE;
DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO regress_postmark_signup', current_database()); END $$;
SET ROLE regress_postmark_signup;
SELECT * FROM test.attempt('CREATE EXTENSION postmark_connector SCHEMA regress_postmark_signup');
RESET ROLE;

DO $$ BEGIN EXECUTE format('REVOKE CREATE ON DATABASE %I FROM regress_postmark_signup', current_database()); END $$;
DROP SCHEMA regress_postmark_signup CASCADE;
DROP ROLE regress_postmark_nobody, regress_postmark_sender, regress_postmark_inserter, regress_postmark_monitor, regress_postmark_signup;
