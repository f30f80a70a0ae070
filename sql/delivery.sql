--
-- What becomes of a queued message
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir /sql/common.inc
\set ECHO none
\i :common
\set ECHO all

SELECT postmark_configure(test.config());

--
-- Sent
--
SELECT postmark_enqueue('ann@example.com', 'Register', '493021', '{"name": "Ann"}', 'en') AS id \gset
SELECT postmark_wait(:id);
SELECT connector, email, usage_type, locale, template_alias, status, attempts, message_id IS NOT NULL AS message_id, error_code, last_error,
	created_at <= finished_at AS finished, due_at IS NOT NULL AS due, expires_at > finished_at AS expires
FROM postmark_messages WHERE id = :id;
-- what Postmark got
SELECT m ->> 'Path' AS path, m #>> '{Request,From}' AS "from", m #>> '{Request,To}' AS "to", m #>> '{Request,TemplateAlias}' AS alias,
	m #> '{Request,TemplateModel}' AS model, m #> '{Request,TrackOpens}' AS opens, m #>> '{Request,TrackLinks}' AS links,
	m #>> '{Request,MessageStream}' AS stream, m #> '{Request,Metadata}' ?& '{postmark_id,postmark_batch}' AS metadata,
	(m ->> 'MessageID')::uuid = (SELECT message_id FROM postmark_messages WHERE id = :id) AS message_id
FROM jsonb_array_elements(test.sandbox('GET', 'messages?recipient=ann@example.com') -> 'messages') m;
-- nothing secret is left in any table
SELECT (SELECT count(*) FROM postmark_queue), (SELECT count(*) FROM postmark_deferred), (SELECT count(*) FROM postmark_intents),
	(SELECT count(*) FROM postmark_history WHERE code IS NOT NULL OR payload IS NOT NULL);
SELECT postmark_cancel(:id), postmark_requeue(:id);
SELECT postmark_wait(:id, '0 s');

-- as given
SELECT postmark_configure(test.config('{"replyTo": "Help <help@shop.example>", "tag": "verify", "trackOpens": true, "trackLinks": "TextOnly", "messageStream": "broadcast"}'));
SELECT postmark_enqueue('ben@example.com', 'SignIn') AS id \gset
SELECT postmark_wait(:id);
SELECT m #>> '{Request,ReplyTo}' AS reply_to, m #>> '{Request,Tag}' AS tag, m #> '{Request,TrackOpens}' AS opens,
	m #>> '{Request,TrackLinks}' AS links, m #>> '{Request,MessageStream}' AS stream, m #> '{Request,TemplateModel}' AS model
FROM jsonb_array_elements(test.sandbox('GET', 'messages?recipient=ben@example.com') -> 'messages') m;
SELECT postmark_configure(test.config('{"replyTo": null}'));

--
-- Later, cancelled
--
SELECT postmark_enqueue('cid@example.com', 'Register', '493021', send_after => clock_timestamp() + interval '0.2 s') AS id \gset
SELECT postmark_wait(:id);
SELECT finished_at >= due_at FROM postmark_messages WHERE id = :id;
SELECT postmark_enqueue('dan@example.com', 'Register', '493021', send_after => now() + interval '1 hour') AS id \gset
SELECT postmark_wait(:id, '0 s');
SELECT state, queued, deferred, in_flight FROM postmark_status;
-- not due, so nothing to wait for
SELECT postmark_flush();
SELECT postmark_cancel(:id), postmark_cancel(:id);
SELECT postmark_wait(:id);
SELECT status, attempts, message_id, code, payload FROM postmark_history WHERE id = :id;
-- rolled back
SELECT postmark_enqueue('dan@example.com', 'Register', '493021', send_after => now() + interval '1 hour') AS id \gset
BEGIN;
SELECT postmark_cancel(:id);
ROLLBACK;
SELECT status FROM postmark_messages WHERE id = :id;
-- in the transaction that queued it
BEGIN;
SELECT postmark_enqueue('eve@example.com', 'Register', '493021') AS id \gset
SELECT postmark_cancel(:id);
COMMIT;
SELECT postmark_wait(:id);
SELECT postmark_cancel(0), postmark_cancel(NULL), postmark_requeue(0), postmark_requeue(NULL);

--
-- Paused
--
SELECT postmark_pause();
SELECT postmark_enqueue('fay@example.com', 'Register', '493021') AS id \gset
SELECT postmark_wait(:id, '0.3 s');
SELECT postmark_flush();
SELECT state, queued, in_flight, oldest_age > interval '0' AS has_age FROM postmark_status;
SELECT postmark_enqueue('gil@example.com', 'Register', '493021') AS gil \gset
SELECT postmark_cancel(:gil);
-- says what will expire meanwhile
SELECT postmark_pause();
SELECT postmark_enqueue('gus@example.com', 'Register') AS gus \gset
SELECT postmark_pause();
SELECT postmark_resume();
SELECT postmark_wait(:id), postmark_wait(:gil), postmark_wait(:gus);

--
-- Expired
--
SELECT postmark_pause();
SELECT postmark_enqueue('hal@example.com', 'Register', '493021', expires_in => '1 ms') AS id \gset
SELECT postmark_wait(:id, '50 ms') IS NOT NULL;
SELECT postmark_resume();
SELECT postmark_wait(:id);
SELECT test.sandbox('GET', 'messages?recipient=hal@example.com') -> 'total';
SELECT status, message_id, code, payload FROM postmark_history WHERE id = :id;
SELECT postmark_requeue(:id);

--
-- Refused by Postmark, and tried again by hand
--
SELECT test.sandbox('POST', 'rules', '{"recipient": "ian@example.com", "times": 1,
	"action": {"refuse": {"error_code": 300, "message": "Invalid, says 493021"}}}') \g /dev/null
SELECT postmark_enqueue('ian@example.com', 'Register', '493021', '{"name": "Ian"}') AS id \gset
SELECT postmark_enqueue('jan@example.com', 'Register', '493021') AS jan \gset
SELECT postmark_wait(:id), postmark_wait(:jan);
SELECT status, attempts, message_id, error_code, last_error LIKE '%Invalid%' AS says_why, last_error LIKE '%493021%' AS shows_the_code
FROM postmark_messages WHERE id = :id;
SELECT sent_last_hour, failed_last_hour, last_sent_at IS NOT NULL AS sent, last_error IS NOT NULL AS error FROM postmark_status;
SELECT postmark_cancel(:id);
BEGIN;
SELECT postmark_requeue(:id);
SELECT status FROM postmark_messages WHERE id = :id;
ROLLBACK;
SELECT status FROM postmark_messages WHERE id = :id;
SELECT postmark_requeue(:id);
SELECT postmark_wait(:id);
SELECT status, message_id IS NOT NULL AS message_id FROM postmark_messages WHERE id = :id;
SELECT m #> '{Request,TemplateModel}' FROM jsonb_array_elements(test.sandbox('GET', 'messages?recipient=ian@example.com') -> 'messages') m;
SELECT count(*) FROM postmark_history WHERE code IS NOT NULL OR payload IS NOT NULL;

-- requeued it has as much time as at first, and as many tries; the time of a
-- code is the code's
SELECT test.sandbox('POST', 'rules', '{"recipient": "later@example.com",
	"action": {"refuse": {"error_code": 412, "message": "Pending approval."}}}') \g /dev/null
SELECT postmark_enqueue('later@example.com', 'Register', expires_in => '2 hours') AS plain \gset
SELECT postmark_enqueue('later@example.com', 'Register', '493021', expires_in => '2 hours') AS code \gset
SELECT postmark_issue_token('later@example.com', 'Register', 'https://shop.example/{token}') AS token \gset
SELECT postmark_flush();
SELECT status, count(*) FROM postmark_messages WHERE email = 'later@example.com' GROUP BY 1;
SELECT test.sandbox('DELETE', 'rules') IS NOT NULL;
UPDATE postmark_history SET attempts = 4, created_at = created_at - interval '5 min', due_at = due_at - interval '5 min', expires_at = expires_at - interval '5 min'
WHERE email = 'later@example.com';
SELECT postmark_pause();
SELECT postmark_requeue_all('default', '1 hour');
SELECT id - :plain AS n, attempts, error_code, last_error, expires_at - due_at > interval '2 hours' - interval '1 s' AS whole, expires_at < now() + interval '2 hours' - interval '4 min' AS shorter
FROM postmark_messages WHERE email = 'later@example.com' ORDER BY id;
SELECT postmark_resume();
SELECT postmark_flush();
SELECT status, attempts, count(*) FROM postmark_messages WHERE email = 'later@example.com' GROUP BY 1, 2;
-- one that has expired is not requeued
SELECT test.sandbox('POST', 'rules', '{"times": 1, "action": {"refuse": {"error_code": 412, "message": "Pending approval."}}}') \g /dev/null
SELECT postmark_enqueue('over@example.com', 'Register') AS id \gset
SELECT postmark_wait(:id);
UPDATE postmark_history SET expires_at = now() WHERE id = :id;
SELECT postmark_requeue(:id);
DELETE FROM postmark_history WHERE id = :id;

-- an inactive recipient: accepted here, finished as suppressed
SELECT test.sandbox('POST', 'config', '{"inactive_recipients": ["kim@example.com"]}') \g /dev/null
SELECT postmark_enqueue('kim@example.com', 'Register', '493021') AS id \gset
SELECT postmark_wait(:id);
SELECT status, error_code, message_id FROM postmark_messages WHERE id = :id;
SELECT code, payload FROM postmark_history WHERE id = :id;
SELECT postmark_requeue(:id);

-- one that spoils the whole request does not hold up the others
SELECT test.sandbox('POST', 'rules', '{"recipient": "poison@example.com", "action": {"status": 422, "error_code": 402}}') \g /dev/null
INSERT INTO postmark_queue (email, usage_type, code, payload, locale)
	SELECT CASE i WHEN 17 THEN 'poison@example.com' ELSE format('p%s@example.com', i) END, 'Register', '4930' || i,
		jsonb_build_object('name', 'P' || i), 'de' FROM generate_series(11, 30) i;
SELECT postmark_flush();
SELECT status, locale, count(*), min(error_code) FROM postmark_messages WHERE email LIKE 'p%' GROUP BY 1, 2 ORDER BY 1;
-- and they are what they were
SELECT count(*) FROM jsonb_array_elements(test.sandbox('GET', 'messages') -> 'messages') m, LATERAL (SELECT substring(m #>> '{Request,To}', '^p(\d+)@') AS i) p
WHERE m #>> '{Request,TemplateModel,name}' = 'P' || i AND m #>> '{Request,TemplateModel,code}' = '4930' || i;
SELECT test.sandbox('DELETE', 'rules') \g /dev/null

-- why, in Postmark's words: cut between two characters, no control character in it
SELECT test.sandbox('POST', 'rules', jsonb_build_object('recipient', 'utf@example.com', 'action', jsonb_build_object('refuse', jsonb_build_object(
	'error_code', 300, 'message', E'\u0085Zo\u00EB\u009Fsaid: \U0001F642 \u201Eno\u201C ' || repeat('ä', 1000))))) \g /dev/null
SELECT postmark_enqueue('utf@example.com', 'Register', '493021') AS id \gset
SELECT postmark_wait(:id);
SELECT left(why, 18) AS begins, right(why, 2) AS ends, octet_length(why) AS length
FROM postmark_messages, substring(last_error from 'ErrorCode 300: (.*)') why WHERE id = :id;
SELECT test.sandbox('DELETE', 'rules') \g /dev/null

-- expired before the worker could see it
BEGIN;
SELECT postmark_enqueue('late@example.com', 'Register', '493021', expires_in => '10 ms') AS id \gset
SELECT pg_sleep(0.02);
COMMIT;
SELECT postmark_wait(:id);
SELECT code, payload FROM postmark_history WHERE id = :id;
SELECT test.sandbox('GET', 'messages?recipient=late@example.com') -> 'messages';

--
-- Waiting
--
SELECT postmark_wait(0), postmark_wait(NULL), postmark_wait(4711, '-1 s'::interval + '2 s');
SELECT * FROM test.attempt($$SELECT postmark_wait(1, '-1 s')$$);
SELECT * FROM test.attempt($$SELECT postmark_flush('-1 s')$$);
BEGIN;
SELECT postmark_enqueue('lea@example.com', 'Register', '493021') AS id \gset
SELECT regexp_replace(test.attempt(format('SELECT postmark_wait(%s)', :id)), '\d+ was', '<id> was');
SELECT * FROM test.attempt('SELECT postmark_flush()');
SAVEPOINT a;
SELECT regexp_replace(test.attempt(format('SELECT postmark_wait(%s)', :id)), '\d+ was', '<id> was');
COMMIT;
SELECT postmark_wait(:id);
BEGIN;
SELECT postmark_enqueue('moe@example.com', 'Register', '493021', send_after => now() + interval '1 hour') AS id \gset
SELECT regexp_replace(test.attempt(format('SELECT postmark_wait(%s)', :id)), '\d+ was', '<id> was');
SELECT * FROM test.attempt('SELECT postmark_flush()');
ROLLBACK;
SELECT postmark_wait(:id);
-- a subtransaction that was rolled back queued nothing
BEGIN;
SAVEPOINT a;
SELECT postmark_enqueue('ned@example.com', 'Register', '493021') AS id \gset
ROLLBACK TO a;
SELECT postmark_wait(:id);
ROLLBACK;
-- while the request is under way
SELECT test.sandbox('POST', 'rules', '{"recipient": "ned@example.com", "action": {"latency": 0.5}}') \g /dev/null
SELECT postmark_enqueue('ned@example.com', 'Register', '493021') AS id \gset
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT status IN ('queued', 'sending') FROM postmark_messages WHERE id = :id;
SELECT postmark_wait(:id);
SELECT status IN ('queued', 'sending') FROM postmark_messages WHERE id = :id;
SELECT postmark_flush();
COMMIT;
SELECT postmark_enqueue('ned@example.com', 'Register', '493021') AS id \gset
BEGIN READ ONLY;
SELECT postmark_wait(:id);
SELECT postmark_flush();
COMMIT;

--
-- Trouble with the configuration blocks, and is over when it is mended
--
SELECT postmark_configure(test.config('{"serverToken": "a-wrong-token"}'));
SELECT postmark_enqueue('oda@example.com', 'Register', '493021') AS id \gset
SELECT postmark_flush();
SELECT state, detail LIKE '%401%' AS says_why, hint IS NOT NULL AS hint, detail LIKE '%a-wrong-token%' AS shows_the_token, queued + deferred AS waiting, last_error IS NOT NULL AS error FROM postmark_status;
SELECT postmark_wait(:id, '0 s') IN ('queued', 'deferred');
SELECT postmark_set_token('sandbox-token');
SELECT postmark_wait(:id);
SELECT state, detail, hint FROM postmark_status;
-- without a token
SELECT postmark_pause();
DELETE FROM postmark_secrets;
SELECT postmark_enqueue('pia@example.com', 'Register', '493021') AS id \gset
SELECT postmark_resume();
SELECT postmark_flush();
SELECT state, detail FROM postmark_status;
SELECT postmark_set_token('sandbox-token');
SELECT postmark_wait(:id);

--
-- A large number
--
SELECT count(postmark_enqueue(format('q%s@example.com', i), 'Register', '493021')) FROM generate_series(1, 3000) i;
SELECT postmark_flush();
SELECT status, count(*), count(DISTINCT message_id) FROM postmark_messages WHERE email ~ '^q\d' GROUP BY 1;
SELECT test.sandbox('GET', 'counts') -> 'duplicates', test.sandbox('GET', 'counts') -> 'without_postmark_id';
SELECT (SELECT count(*) FROM postmark_queue), (SELECT count(*) FROM postmark_intents),
	(SELECT count(*) FROM postmark_history WHERE (code IS NOT NULL OR payload IS NOT NULL) AND status <> 'failed');
SELECT connector, state, detail, hint, queued, deferred, in_flight, oldest_age > '0' AS has_age, sent_last_hour > 3000 AS sent, failed_last_hour, worker_pid IS NOT NULL AS worker_pid FROM postmark_status;
SELECT test.sandbox('POST', 'reset') \g /dev/null
