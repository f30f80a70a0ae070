-- dedup_key: a message that is queued again is queued once.
\set ECHO none
\i sql/common.inc
\set ECHO all
SELECT postmark_configure(test.config());
SELECT postmark_configure(test.config(), 'other');
SELECT postmark_pause();
SELECT postmark_pause('other');

--
-- The first one's id, and nothing is queued
--
SELECT postmark_enqueue('ann@example.com', 'Register', '493021', dedup_key => 'request 1') AS first \gset
SELECT postmark_enqueue('ann@example.com', 'Register', '493021', dedup_key => 'request 1') = :first AS same;
-- whatever else is in the second
SELECT postmark_enqueue('bob@example.com', 'SignIn', dedup_key => 'request 1', send_after => now() + interval '1 hour') = :first AS same;
SELECT email, usage_type, status FROM postmark_messages ORDER BY id;
SELECT postmark_enqueue('ann@example.com', 'Register', '493021', dedup_key => 'Request 1') <> :first AS another;
SELECT postmark_enqueue('ann@example.com', 'Register', '493021', connector => 'other', dedup_key => 'request 1') <> :first AS another;
SELECT postmark_enqueue('ann@example.com', 'Register', '493021') <> postmark_enqueue('ann@example.com', 'Register', '493021') AS another;
SELECT connector, count(*) FROM postmark_messages GROUP BY 1 ORDER BY 1;
-- one for later holds it, too
SELECT postmark_enqueue('cid@example.com', 'Register', send_after => now() + interval '1 hour', dedup_key => 'later') AS later \gset
SELECT postmark_enqueue('cid@example.com', 'Register', dedup_key => 'later') = :later AS same;
SELECT postmark_enqueue('cid@example.com', 'Register', send_after => now() + interval '2 hours', dedup_key => 'later') = :later AS same;
SELECT count(*), min(due_at - created_at) > interval '59 min' AS later FROM postmark_messages WHERE email = 'cid@example.com';
-- a message that could not be sent is refused all the same
SELECT test.attempt($$SELECT postmark_enqueue('ann', 'Register', dedup_key => 'request 1')$$);
SELECT test.attempt($$SELECT postmark_enqueue('ann@example.com', 'Nothing', dedup_key => 'request 1')$$);

--
-- Rows of postmark_queue: RETURNING has none for what is not inserted
--
SELECT postmark_cancel_all('default'), postmark_cancel_all('other');
INSERT INTO postmark_queue (email, usage_type, dedup_key) VALUES ('dan@example.com', 'Register', 'row') RETURNING email, dedup_key;
INSERT INTO postmark_queue (email, usage_type, dedup_key) VALUES ('dan@example.com', 'Register', 'row') RETURNING id;
SELECT postmark_enqueue('dan@example.com', 'Register', dedup_key => 'row') = id AS same FROM postmark_queue WHERE dedup_key = 'row';
-- many in one statement
INSERT INTO postmark_queue (email, usage_type, dedup_key)
SELECT format('m%s@example.com', n % 10), 'Register', 'bulk ' || n % 10 FROM generate_series(1, 1000) n;
SELECT email, count(*) FROM postmark_queue WHERE dedup_key ~ 'bulk' GROUP BY 1 ORDER BY 1;
COPY postmark_queue (email, usage_type, dedup_key) FROM stdin;
m1@example.com	Register	bulk 1
eve@example.com	Register	copied
eve@example.com	Register	copied
eve@example.com	Register	\N
eve@example.com	Register	\N
\.
SELECT email, dedup_key FROM postmark_queue WHERE email ~ '^eve' ORDER BY id;
-- a sign-up table
CREATE TABLE test.signup (email text, request text);
CREATE TRIGGER mail AFTER INSERT OR UPDATE ON test.signup
	FOR EACH ROW EXECUTE FUNCTION postmark_enqueue_trigger('email', 'Register', 'dedup_key=request');
INSERT INTO test.signup VALUES ('fay@example.com', 'f'), ('fay@example.com', NULL);
UPDATE test.signup SET email = lower(email);
SELECT dedup_key, count(*) FROM postmark_queue WHERE email ~ '^fay' GROUP BY 1 ORDER BY 1;
INSERT INTO test.signup VALUES ('fay@example.com', 'f');
SELECT postmark_last_id() = id AS first FROM postmark_queue WHERE email ~ '^fay' AND dedup_key = 'f';
-- where a trigger of the owner's keeps rows from being put in directly
CREATE FUNCTION test.nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER nothing AFTER INSERT ON postmark_queue FOR EACH ROW EXECUTE FUNCTION test.nothing();
SELECT postmark_enqueue('gus@example.com', 'Register', dedup_key => 'through SPI') = postmark_enqueue('gus@example.com', 'Register', dedup_key => 'through SPI') AS same;
DROP TRIGGER nothing ON postmark_queue;
SELECT count(*) FROM postmark_queue WHERE email = 'gus@example.com';
-- a session that may only insert
CREATE ROLE regress_postmark_dedup;
GRANT INSERT (email, usage_type, dedup_key) ON postmark_queue TO regress_postmark_dedup;
SET ROLE regress_postmark_dedup;
INSERT INTO postmark_queue (email, usage_type, dedup_key) VALUES ('hal@example.com', 'Register', 'role'), ('hal@example.com', 'Register', 'role');
\set VERBOSITY sqlstate
SELECT * FROM postmark_dedup_keys;
\set VERBOSITY default
RESET ROLE;
SELECT count(*) FROM postmark_queue WHERE email = 'hal@example.com';
REVOKE ALL ON postmark_queue FROM regress_postmark_dedup;
DROP ROLE regress_postmark_dedup;

--
-- Rolled back it was not queued, and nobody holds the key
--
BEGIN;
SELECT postmark_enqueue('ian@example.com', 'Register', dedup_key => 'undone') AS undone \gset
SELECT postmark_enqueue('ian@example.com', 'Register', dedup_key => 'undone') = :undone AS same;
ROLLBACK;
BEGIN;
SAVEPOINT s;
SELECT postmark_enqueue('ian@example.com', 'Register', dedup_key => 'undone') <> :undone AS another;
ROLLBACK TO s;
SELECT postmark_enqueue('ian@example.com', 'Register', dedup_key => 'undone') <> :undone AS another;
COMMIT;
SELECT count(*) FROM postmark_queue WHERE email = 'ian@example.com';

-- while it is prepared others wait, as for a unique key
BEGIN;
SELECT postmark_enqueue('ivy@example.com', 'Register', dedup_key => 'prepared') AS prepared \gset
PREPARE TRANSACTION 'regress_postmark_dedup';
SET lock_timeout = '20ms';
SELECT test.attempt($$SELECT postmark_enqueue('ivy@example.com', 'Register', dedup_key => 'prepared')$$);
RESET lock_timeout;
COMMIT PREPARED 'regress_postmark_dedup';
SELECT postmark_enqueue('ivy@example.com', 'Register', dedup_key => 'prepared') = :prepared AS same;

--
-- It is held after the mail was sent, until the message's time is over
--
SELECT postmark_resume();
SELECT postmark_enqueue('jim@example.com', 'Register', dedup_key => 'sent', expires_in => '1 day') AS sent \gset
SELECT postmark_wait(:sent);
SELECT postmark_enqueue('jim@example.com', 'Register', dedup_key => 'sent') = :sent AS same;
SELECT postmark_flush();
SELECT test.sandbox('GET', 'messages?recipient=jim@example.com') -> 'total';
-- also when the history does not know it any more
DELETE FROM postmark_history WHERE id = :sent;
SELECT postmark_enqueue('jim@example.com', 'Register', dedup_key => 'sent') = :sent AS same;
SELECT postmark_enqueue('jim@example.com', 'Register', dedup_key => 'short', expires_in => '1 s') AS short \gset
SELECT postmark_wait(:short);
SELECT pg_sleep(1.1) IS NOT NULL;
SELECT postmark_enqueue('jim@example.com', 'Register', dedup_key => 'short') <> :short AS another;

--
-- What was cancelled or suppressed lets go of it; what failed does not, for it
-- can be requeued
--
SELECT postmark_enqueue('kim@example.com', 'Register', dedup_key => 'cancelled', send_after => now() + interval '1 hour') AS cancelled \gset
BEGIN;
SELECT postmark_cancel(:cancelled);
SELECT postmark_enqueue('kim@example.com', 'Register', dedup_key => 'cancelled') <> :cancelled AS another;
ROLLBACK;
SELECT postmark_enqueue('kim@example.com', 'Register', dedup_key => 'cancelled') = :cancelled AS same;
SELECT postmark_cancel(:cancelled);
SELECT postmark_enqueue('kim@example.com', 'Register', dedup_key => 'cancelled') AS again \gset
SELECT :again <> :cancelled AS another;
SELECT postmark_enqueue('kim@example.com', 'Register', dedup_key => 'cancelled') = :again AS same;
SELECT test.sandbox('POST', 'rules', '{"recipient": "lee@example.com", "times": 1, "action": {"refuse": {"error_code": 300, "message": "Invalid"}}}') IS NOT NULL;
SELECT postmark_enqueue('lee@example.com', 'Register', dedup_key => 'failed') AS failed \gset
SELECT postmark_wait(:failed);
SELECT postmark_enqueue('lee@example.com', 'Register', dedup_key => 'failed') = :failed AS same;
-- for as long as it then lives
UPDATE postmark_history SET created_at = created_at - interval '1 hour', due_at = due_at - interval '1 hour', expires_at = expires_at - interval '1 hour' WHERE id = :failed;
UPDATE postmark_dedup_keys SET expires_at = expires_at - interval '1 hour' WHERE id = :failed;
SELECT postmark_requeue(:failed);
SELECT postmark_wait(:failed);
SELECT k.expires_at = m.expires_at AS same, k.expires_at > now() + interval '23 hours 59 min' AS anew
FROM postmark_dedup_keys k JOIN postmark_messages m USING (id) WHERE id = :failed;
SELECT test.sandbox('POST', 'config', '{"inactive_recipients": ["mia@example.com"]}') IS NOT NULL;
SELECT postmark_enqueue('mia@example.com', 'Register', dedup_key => 'suppressed') AS suppressed \gset
SELECT postmark_wait(:suppressed);
SELECT postmark_enqueue('mia@example.com', 'Register', dedup_key => 'suppressed') <> :suppressed AS another;
SELECT postmark_flush();

--
-- What a key may be; it is not shown
--
SELECT test.attempt(format('SELECT postmark_enqueue(%L, %L, dedup_key => %L)', 'ann@example.com', 'Register', key))
FROM unnest(ARRAY['', repeat('k', 256), E'a\nb', E'a\x7f']) key;
SELECT test.attempt(format('INSERT INTO postmark_queue (email, usage_type, dedup_key) VALUES (%L, %L, %L)', 'ann@example.com', 'Register', ''));
SELECT postmark_enqueue('ann@example.com', 'Register', dedup_key => repeat('k', 255)) IS NOT NULL;
SELECT postmark_enqueue('ann@example.com', 'Register', dedup_key => NULL) IS NOT NULL;
SELECT count(*) FROM postmark_messages m WHERE m::text ~ 'kkk';

--
-- A person, and a connector, that are forgotten
--
SELECT postmark_enqueue('NED@example.com', 'Register', dedup_key => 'ned@example.com') AS ned \gset
SELECT postmark_wait(:ned);
SELECT count(*) FROM postmark_dedup_keys k WHERE k::text ~* 'ned';
SELECT postmark_forget('ned@EXAMPLE.com') > 1 AS rows;
SELECT count(*) FROM postmark_dedup_keys k WHERE k::text ~* 'ned';
SELECT postmark_enqueue('ned@example.com', 'Register', dedup_key => 'ned@example.com') <> :ned AS another;
SELECT count(*) > 0 AS keys FROM postmark_dedup_keys WHERE connector = 'other';
SELECT postmark_cancel_all('other');
SELECT postmark_remove('other');
SELECT count(*) FROM postmark_dedup_keys WHERE connector = 'other';

--
-- The worker forgets those whose time is over
--
SELECT postmark_enqueue('ola@example.com', 'Register', dedup_key => 'kept') IS NOT NULL;
SELECT postmark_enqueue('ola@example.com', 'Register', dedup_key => 'swept') IS NOT NULL;
SELECT postmark_flush();
UPDATE postmark_dedup_keys SET expires_at = now() - interval '1 s' WHERE dedup_key = 'swept';
SELECT pg_terminate_backend(worker_pid) FROM postmark_status;
DO $$
BEGIN
	FOR i IN 1..6000 LOOP
		EXIT WHEN NOT EXISTS (SELECT FROM postmark_dedup_keys WHERE dedup_key = 'swept');
		PERFORM pg_sleep(0.01);
	END LOOP;
END
$$;
SELECT dedup_key FROM postmark_dedup_keys WHERE dedup_key IN ('kept', 'swept');
