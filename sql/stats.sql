-- postmark_stats counts what was committed, and agrees with the tables.
\set ECHO none
\i sql/common.inc
\set ECHO all
SELECT postmark_configure(test.config('{"webhookSecret": "0123456789abcdef-one"}'));
SELECT postmark_configure(test.config(), 'other');
SELECT postmark_stats_reset();
CREATE FUNCTION test.counted(which text DEFAULT 'default') RETURNS TABLE (metric text, value float) LANGUAGE sql AS $$
	SELECT metric, value FROM public.postmark_stats()
	WHERE connector = which AND metric !~ '_(le|sum|p50|p99)' AND metric !~ '^bytes' AND value > 0 ORDER BY metric
$$;
-- of each connector, whether or not it has done anything
SELECT connector, count(*) > 50 AS metrics, sum(value) FROM postmark_stats() GROUP BY 1 ORDER BY 1;
--
-- What is rolled back is not counted, whole or in part
--
BEGIN;
SELECT postmark_enqueue('no@example.com', 'Register', '493021') IS NOT NULL;
ROLLBACK;
BEGIN;
SELECT postmark_enqueue('m1@example.com', 'Register', '493021') IS NOT NULL;
SAVEPOINT a;
SELECT postmark_enqueue('no@example.com', 'Register', '493021') IS NOT NULL;
SAVEPOINT b;
SELECT postmark_enqueue('no@example.com', 'Register', '493021', connector => 'other') IS NOT NULL;
RELEASE b;
ROLLBACK TO a;
SAVEPOINT c;
SELECT postmark_enqueue('m2@example.com', 'Register', '493021') IS NOT NULL;
RELEASE c;
SELECT * FROM test.counted();
COMMIT;
SELECT * FROM test.counted() WHERE metric = 'queued';
SELECT * FROM test.counted('other');
--
-- Every end that a message can have
--
SELECT test.sandbox('POST', 'config', '{"inactive_recipients": ["gone@example.com"]}') IS NOT NULL;
INSERT INTO postmark_queue (email, usage_type, code) SELECT 'm' || n || '@example.com', 'Register', '493021' FROM generate_series(3, 1200) n;
SELECT postmark_enqueue('gone@example.com', 'Register', '493021') IS NOT NULL;
SELECT test.sandbox('POST', 'rules', '{"path": "/email*", "action": {"refuse": {"error_code": 300, "message": "no"}}, "recipient": "bad@example.com"}') IS NOT NULL;
SELECT postmark_enqueue('bad@example.com', 'Register', '493021') IS NOT NULL;
SELECT postmark_flush();
SELECT postmark_pause();
SELECT postmark_enqueue('late@example.com', 'Register', '493021', expires_in => '1 ms') AS late \gset
SELECT postmark_enqueue('c1@example.com', 'Register', '493021') AS c1 \gset
SELECT postmark_enqueue('c2@example.com', 'Register', '493021', send_after => now() + interval '1 hour') IS NOT NULL;
SELECT postmark_wait(:late);
SELECT postmark_cancel(:c1);
SELECT postmark_cancel_all('default');
SELECT coalesce(c.metric, h.status) AS status, c.value = h.n AS agrees, h.n FROM test.counted() c
FULL JOIN (SELECT status, count(*) AS n FROM postmark_history GROUP BY 1) h ON h.status = c.metric
WHERE h.status IS NOT NULL OR c.metric IN ('sent', 'failed', 'expired', 'cancelled', 'suppressed') ORDER BY 1;
SELECT c.value = (SELECT count(*) FROM postmark_messages) AS every_message FROM test.counted() c WHERE metric = 'queued';
-- requests, and how long what took
SELECT r.metric, r.value > 0 AS counted FROM postmark_stats() r WHERE connector = 'default'
	AND metric IN ('requests', 'answers_2xx', 'bytes_sent', 'bytes_received', 'commit_to_request_sum', 'request_to_answer_p50', 'request_to_answer_p99') ORDER BY 1;
SELECT (SELECT value FROM test.counted() WHERE metric = 'requests') = (SELECT value FROM test.counted() WHERE metric = 'answers_2xx') AS all_answered,
	(SELECT value FROM test.counted() WHERE metric = 'requests') = (SELECT value FROM test.counted() WHERE metric = 'request_to_answer_count') AS all_timed,
	(SELECT value FROM test.counted() WHERE metric = 'commit_to_request_count') >= 1201 AS each_message_timed;
SELECT bool_and(more >= value) AS cumulative FROM (SELECT value, lead(value, 1, value) OVER (ORDER BY metric) AS more
	FROM postmark_stats() WHERE connector = 'default' AND metric ~ '^request_to_answer_le_') b;

--
-- Events, and who had no secret
--
SELECT count(postmark_webhook(jsonb_build_object('RecordType', kind, 'Recipient', email, 'Email', email, 'Type', 'HardBounce',
	'DeliveredAt', '2026-03-01T12:00:00Z', 'BouncedAt', '2026-03-01T12:00:00Z', 'Metadata', jsonb_build_object('postmark_id',
	id || '-' || (extract(epoch FROM created_at) * 1000000)::bigint - 946684800000000)), '0123456789abcdef-one'))
FROM postmark_messages, unnest('{Delivery,Delivery,Bounce,SpamComplaint,Open}'::text[]) kind WHERE email IN ('m1@example.com', 'm2@example.com');
SELECT test.attempt($$SELECT postmark_webhook('{"RecordType": "Open"}', 'wrong')$$) ~ '28000' AS refused;
SELECT * FROM test.counted() WHERE metric IN ('delivered', 'bounced', 'complained', 'events', 'events_refused');
SELECT postmark_issue_code('m1@example.com', 'SignIn') IS NOT NULL;
SELECT DISTINCT postmark_verify_code('m1@example.com', 'SignIn', code) IN ('mismatch', 'verified') FROM unnest('{000000,000001}'::text[]) code;
SELECT * FROM test.counted() WHERE metric = 'wrong_guesses' AND value IN (1, 2);
--
-- A connector that is removed is none any more, and its number begins anew
--
SELECT postmark_resume();
SELECT postmark_enqueue('m@example.com', 'Register', '493021', connector => 'other') IS NOT NULL;
SELECT postmark_flush();
SELECT value FROM test.counted('other') WHERE metric = 'queued';
SELECT postmark_remove('other');
SELECT count(*) FROM test.counted('other');
SELECT postmark_configure(test.config(), 'third');
SELECT * FROM test.counted('third');
-- since when
SELECT postmark_stats_reset();
SELECT count(*) FROM test.counted();
SELECT count(DISTINCT since), bool_and(since BETWEEN now() - interval '1 minute' AND clock_timestamp()) FROM postmark_stats() WHERE connector = 'default';
-- who asks for the state does not count messages
DO $$
DECLARE
	line text;
BEGIN
	FOR line IN EXPLAIN SELECT connector, state, detail, hint, state_age, worker_pid FROM postmark_status LOOP
		IF line ~ 'postmark_(history|queue|deferred|feedback)' THEN
			RAISE WARNING '%', line;
		END IF;
	END LOOP;
END
$$;
