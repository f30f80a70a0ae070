--
-- Messages that are kept instead of being sent: "delivery": "capture".
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir /sql/common.inc
\set ECHO none
\i :common
\set ECHO all

-- no Postmark: not even a token
SELECT * FROM test.attempt($$SELECT postmark_configure(test.config('{"serverToken": null}'))$$);
SELECT * FROM test.attempt($$SELECT postmark_configure(test.config('{"delivery": "nowhere"}'))$$);
SELECT postmark_configure(test.config('{"serverToken": null, "delivery": "capture"}'));
SELECT postmark_config() ->> 'delivery';
SELECT postmark_flush();
SELECT state, detail, hint FROM postmark_status;
SELECT item, ok, detail FROM postmark_check() LIMIT 2;

--
-- What is kept is what a template would be filled in with
--
SELECT postmark_stats_reset();
BEGIN;
SELECT postmark_enqueue('ann@example.com', 'Register', '493021') AS ann \gset
SELECT postmark_enqueue('ben@example.com', 'SignIn', '123456', '{"code": "other", "shop": "Ärzte \"&\" <co>", "n": 1.50}') AS ben \gset
SELECT postmark_enqueue('cid@example.com', 'Generic') AS cid \gset
INSERT INTO postmark_queue (email, usage_type, payload) VALUES ('dan@example.com', 'OrganizationInvitation', '{"link": "https://shop.example/join"}');
COMMIT;
SELECT postmark_flush();
SELECT id - :ann AS nth, connector, email, usage_type, template_alias, template_model FROM postmark_captured ORDER BY id;
SELECT pg_typeof(id), pg_typeof(template_model), pg_typeof(captured_at), captured_at BETWEEN now() - interval '5 minutes' AND clock_timestamp() FROM postmark_captured LIMIT 1;
-- all the rest is as in earnest
SELECT email, template_alias, status, attempts, message_id IS NOT NULL, error_code, last_error FROM postmark_messages ORDER BY id;
SELECT postmark_wait(:ann);
SELECT queued, deferred, in_flight, sent_last_hour, failed_last_hour FROM postmark_status;
SELECT metric, value FROM postmark_stats() WHERE metric IN ('queued', 'sent', 'requests') ORDER BY metric;
SELECT count(*) FROM postmark_history WHERE code IS NOT NULL OR payload IS NOT NULL;
SELECT test.sandbox('GET', 'counts') -> 'requests';
SELECT count(*) FROM postmark_intents;

-- rolled back: not kept; cancelled, expired: neither
SELECT postmark_captured_clear();
BEGIN;
SELECT postmark_enqueue('ann@example.com', 'Register', '493021') IS NOT NULL;
ROLLBACK;
SELECT postmark_pause();
INSERT INTO postmark_queue (email, usage_type, expires_at) VALUES ('late@example.com', 'Generic', clock_timestamp() + interval '1 microsecond');
SELECT postmark_cancel(postmark_enqueue('ann@example.com', 'Register', '493021', send_after => now() + interval '1 hour'));
SELECT state FROM postmark_status;
SELECT postmark_resume();
SELECT postmark_flush();
SELECT email, status FROM postmark_messages WHERE id > :cid + 1 ORDER BY id;
SELECT count(*) FROM postmark_captured;

-- the order of priorities, and what was to wait
SELECT postmark_enqueue('ann@example.com', 'Register', '1', send_after => now() + interval '100 milliseconds') AS id \gset
SELECT postmark_wait(:id);
SELECT email FROM postmark_captured;

--
-- At once: postmark_send and postmark_test, in the caller's transaction
--
SELECT postmark_captured_clear();
SELECT postmark_send('ann@example.com', 'SignIn', '493021') AS sent \gset
SELECT postmark_test('me@example.com') IS NOT NULL;
SELECT c.id, c.email, c.usage_type, c.template_alias, c.template_model, c.message_id = :'sent' FROM postmark_captures c ORDER BY captured_at;
BEGIN;
SELECT postmark_send('gone@example.com', 'SignIn', '493021') IS NOT NULL;
SELECT count(*) FROM postmark_captured WHERE email = 'gone@example.com';
ROLLBACK;
SELECT count(*) FROM postmark_captured WHERE email = 'gone@example.com';
BEGIN READ ONLY;
SELECT * FROM test.attempt($$SELECT postmark_send('gone@example.com', 'SignIn', '493021')$$);
SELECT * FROM test.attempt($$SELECT postmark_captured_clear()$$);
ROLLBACK;
-- the same checks
SELECT * FROM test.attempt($$SELECT postmark_send('no address', 'SignIn', '493021')$$);
SELECT * FROM test.attempt($$SELECT postmark_send('ann@example.com', 'Sigin', '493021')$$);

--
-- Suppressed addresses, codes and limits
--
SELECT postmark_configure(postmark_config() || '{"webhookSecret": "a-webhook-secret", "sendLimit": 2}');
SELECT postmark_enqueue('gone@example.com', 'SignIn', '493021') AS id \gset
SELECT postmark_wait(:id);
-- a bounce can be played: the event goes by the message's metadata
SELECT postmark_webhook(jsonb_build_object('RecordType', 'Bounce', 'Type', 'HardBounce', 'Inactive', true,
	'Email', email, 'MessageID', message_id, 'MessageStream', 'outbound', 'BouncedAt', '2026-01-01T00:00:00Z',
	'Metadata', jsonb_build_object('postmark_id', id || '-' || (extract(epoch FROM created_at) * 1000000)::bigint - 946684800000000)), 'a-webhook-secret')
FROM postmark_messages WHERE id = :id;
SELECT status FROM postmark_messages WHERE id = :id;
SELECT email, reason FROM postmark_suppressions;
SELECT * FROM test.attempt($$SELECT postmark_send('gone@example.com', 'SignIn', '493021')$$);
SELECT postmark_captured_clear();
SELECT postmark_enqueue('gone@example.com', 'SignIn', '493021') AS id \gset
SELECT postmark_wait(:id);
SELECT postmark_issue_code('eve@example.com', 'SignIn') AS id \gset
SELECT postmark_issue_token('fay@example.com', 'ForgotPassword', 'https://shop.example/reset?token={token}') AS link \gset
SELECT postmark_flush();
SELECT email, jsonb_object_keys(template_model) FROM postmark_captured ORDER BY id;
SELECT postmark_verify_code('eve@example.com', 'SignIn', (SELECT template_model ->> 'code' FROM postmark_captured WHERE id = :id));
SELECT v.* FROM postmark_captured c, postmark_verify_token(substring(template_model ->> 'link' FROM 'token=(.*)'), 'ForgotPassword') v WHERE id = :link;
SELECT postmark_issue_code('eve@example.com', 'SignIn') > 0;
SELECT * FROM test.attempt($$SELECT postmark_issue_code('eve@example.com', 'SignIn')$$);

--
-- Erasing a person, and a connector
--
SELECT postmark_flush();
SELECT count(*) FROM postmark_captured WHERE email = 'eve@example.com';
SELECT postmark_forget('EVE@example.com') > 0;
SELECT count(*) FROM postmark_captured WHERE email = 'eve@example.com';
SELECT postmark_configure(test.config('{"delivery": "capture"}'), 'other');
SELECT postmark_send('ann@example.com', 'SignIn', '493021', connector => 'other') IS NOT NULL;
SELECT connector, count(*) FROM postmark_captured GROUP BY 1 ORDER BY 1;
SELECT postmark_remove('other');
SELECT connector, count(*) FROM postmark_captured GROUP BY 1 ORDER BY 1;

--
-- To and fro: what was kept is not sent, what was sent is not kept
--
SELECT postmark_captured_clear() > 0;
SELECT postmark_configure(test.config('{"delivery": "postmark"}'));
SELECT postmark_enqueue('ann@example.com', 'Register', '1') AS sent \gset
SELECT postmark_wait(:sent);
SELECT state FROM postmark_status;
SELECT postmark_configure(test.config('{"delivery": "capture"}'));
SELECT postmark_enqueue('ann@example.com', 'Register', '2') AS kept \gset
SELECT postmark_wait(:kept);
SELECT template_model FROM postmark_captured;
SELECT m #> '{Request,TemplateModel}' FROM jsonb_array_elements(test.sandbox('GET', 'messages') -> 'messages') m;
-- a connector in trouble: nobody is asked
SELECT postmark_configure(test.config());
SELECT test.sandbox('POST', 'rules', '{"action": {"status": 401, "error_code": 10}}') \g /dev/null
SELECT postmark_enqueue('ann@example.com', 'Register', '3') AS id \gset
SELECT postmark_flush();
SELECT state FROM postmark_status;
SELECT test.sandbox('GET', 'counts') -> 'requests' AS before \gset
SELECT postmark_configure(test.config('{"delivery": "capture"}'));
SELECT postmark_flush();
SELECT state FROM postmark_status;
SELECT postmark_wait(:id);
SELECT template_model FROM postmark_captured ORDER BY id;
SELECT test.sandbox('GET', 'counts') -> 'requests' = :'before';
SELECT test.sandbox('POST', 'reset') \g /dev/null

--
-- A bulk, with a payload each: no more memory than a request would take
--
SELECT postmark_captured_clear();
INSERT INTO postmark_queue (email, usage_type, payload)
SELECT format('bulk%s@example.com', n), 'Generic', jsonb_build_object('n', n, 'text', repeat('x', 200000 * (n % 2))) FROM generate_series(1, 100) n;
SELECT postmark_flush();
SELECT count(*), count(DISTINCT id), sum((template_model ->> 'n')::int) FROM postmark_captured;
SELECT count(*) FROM postmark_queue;

-- who may see it, and what is dumped
CREATE ROLE regress_postmark_reader;
GRANT SELECT ON postmark_captured TO regress_postmark_reader;
GRANT EXECUTE ON FUNCTION postmark_captured_clear TO regress_postmark_reader;
SET ROLE regress_postmark_reader;
SELECT count(*) FROM postmark_captured;
SELECT has_table_privilege('postmark_captures', 'SELECT');
SELECT postmark_captured_clear();
RESET ROLE;
SELECT 'postmark_captures'::regclass = ANY (extconfig) FROM pg_extension WHERE extname = 'postmark_connector';
REVOKE ALL ON postmark_captured FROM regress_postmark_reader;
REVOKE ALL ON FUNCTION postmark_captured_clear FROM regress_postmark_reader;
DROP ROLE regress_postmark_reader;
