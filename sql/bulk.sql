-- Many messages at once: postmark_cancel_all and postmark_requeue_all.
\set ECHO none
\i sql/common.inc
\set ECHO all
SELECT postmark_configure(test.config());
SELECT postmark_configure(test.config(), 'other');
CREATE FUNCTION test.statuses() RETURNS TABLE (connector text, usage_type text, status text, n bigint) LANGUAGE sql AS $$
	SELECT connector, usage_type, status, count(*) FROM public.postmark_messages GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
$$;
--
-- Cancelling
--
SELECT postmark_pause();
SELECT postmark_pause('other');
INSERT INTO postmark_queue (email, usage_type, code, connector)
SELECT 'm' || n || '@example.com', CASE n % 3 WHEN 0 THEN 'SignIn' ELSE 'Register' END, '493021', CASE WHEN n <= 3000 THEN 'default' ELSE 'other' END
FROM generate_series(1, 3100) n;
SELECT count(postmark_enqueue('later' || n || '@example.com', 'Register', '493021', send_after => now() + interval '1 hour')) FROM generate_series(1, 5) n;
SELECT * FROM test.statuses();
BEGIN;
SELECT postmark_cancel_all('default', 'SignIn');
ROLLBACK;
SELECT postmark_cancel_all('default', 'SignIn');
SELECT postmark_cancel_all('default', 'SignIn');
SELECT * FROM test.statuses();
-- what was cancelled keeps neither code nor payload
SELECT count(*) FROM postmark_history WHERE code IS NOT NULL OR payload IS NOT NULL;
SELECT postmark_cancel_all('default');
SELECT * FROM test.statuses();
-- another connector goes on
SELECT postmark_resume('other');
SELECT postmark_flush();
SELECT (test.sandbox('GET', 'counts') -> 'accepted')::int AS sent;
SELECT test.attempt($$SELECT postmark_cancel_all('nobody')$$);
SELECT test.attempt($$SELECT postmark_cancel_all(NULL)$$);
-- an empty usage type does not stand for all
SELECT test.attempt($$SELECT postmark_cancel_all('default', '')$$);
-- an error in the middle of it ends the transaction as any other does
SELECT postmark_enqueue('refused@example.com', 'Register', '493021') IS NOT NULL AS queued;
CREATE FUNCTION test.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not this one'; END $$;
CREATE TRIGGER refuse BEFORE INSERT ON postmark_history FOR EACH ROW EXECUTE FUNCTION test.refuse();
\set VERBOSITY terse
SELECT postmark_cancel_all('default');
SELECT 'another transaction' AS this;
SELECT test.attempt($$SELECT postmark_cancel_all('default')$$);
SELECT pg_current_xact_id_if_assigned() IS NULL AS over;
SELECT status FROM postmark_messages WHERE email = 'refused@example.com';
DROP TRIGGER refuse ON postmark_history;
SELECT postmark_cancel_all('default');
\set VERBOSITY default
-- what is on its way is not promised to stay here
SELECT test.sandbox('POST', 'rules', '{"path": "/email*", "action": {"latency": 2}}') IS NOT NULL;
SELECT postmark_enqueue('way@example.com', 'Register', '493021', connector => 'other') AS way \gset
SELECT test.sandbox('GET', 'wait?in_flight=1') -> 'reached';
SELECT postmark_cancel_all('other');
SELECT postmark_wait(:way);
SELECT test.sandbox('DELETE', 'rules') IS NOT NULL;

--
-- Putting back what failed
--
SELECT postmark_resume();
SELECT test.sandbox('POST', 'rules', '{"path": "/email*", "action": {"refuse": {"error_code": 300, "message": "no"}}}') IS NOT NULL;
SELECT count(postmark_enqueue('f' || n || '@example.com', 'Register', '493021')) FROM generate_series(1, 50) n;
SELECT postmark_flush();
SELECT count(*), min(status) FROM postmark_messages WHERE email ~ '^f\d';
SELECT test.sandbox('DELETE', 'rules') IS NOT NULL;
SELECT postmark_requeue_all('other', '1 hour');
SELECT postmark_requeue_all('default', '1 hour');
SELECT postmark_flush();
SELECT count(*), min(status) FROM postmark_messages WHERE email ~ '^f\d';
SELECT postmark_requeue_all('default', '1 hour');
SELECT test.attempt($$SELECT postmark_requeue_all('default', NULL)$$);
SELECT test.attempt($$SELECT postmark_requeue_all('default', '-1 hour')$$);
SELECT test.attempt($$SELECT postmark_requeue_all('nobody', '1 hour')$$);
