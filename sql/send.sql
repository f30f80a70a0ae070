--
-- postmark_send, postmark_test and postmark_check
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir /sql/common.inc
\set ECHO none
\i :common
\set ECHO all

SELECT * FROM test.attempt($$SELECT postmark_send('ann@example.com', 'SignIn', '493021')$$);
SELECT postmark_configure(test.config());
SELECT pg_typeof(postmark_send('ann@example.com', 'SignIn', '493021', '{"name": "Ann"}', 'en'));
SELECT m ->> 'Path' AS path, m #>> '{Request,From}' AS "from", m #>> '{Request,To}' AS "to", m #>> '{Request,TemplateAlias}' AS alias,
	m #> '{Request,TemplateModel}' AS model, m #> '{Request,TrackOpens}' AS opens, m #>> '{Request,TrackLinks}' AS links,
	m #>> '{Request,MessageStream}' AS stream
FROM jsonb_array_elements(test.sandbox('GET', 'messages') -> 'messages') m;
SELECT postmark_send('ann@example.com', 'SignIn', '493021') AS id \gset
SELECT m ->> 'MessageID' = :'id' FROM jsonb_array_elements(test.sandbox('GET', 'messages?limit=1') -> 'messages') m;

-- a known usage type without a template, NULLs, and a paused connector
SELECT postmark_pause();
SELECT postmark_send('ann@example.com', 'MfaVerification', NULL, NULL, NULL) IS NOT NULL;
SELECT postmark_resume();
-- no row, no transaction id, read-only; and it stays sent
BEGIN READ ONLY;
SELECT postmark_send('ben@example.com', 'Register', '493021') IS NOT NULL;
SELECT postmark_test('ben@example.com') IS NOT NULL;
SELECT count(*) FROM postmark_check();
SELECT pg_current_xact_id_if_assigned();
ROLLBACK;
SELECT test.sandbox('GET', 'messages?recipient=ben@example.com') -> 'total';
SELECT count(*) FROM postmark_messages;
-- for each row
SELECT count(DISTINCT postmark_send(format('s%s@example.com', i), 'SignIn', i::text)) FROM generate_series(1, 5) i;

--
-- Errors without asking Postmark
--
SELECT test.sandbox('GET', 'counts') #> '{requests,/email/withTemplate}' AS requests \gset
SELECT * FROM test.attempt($$SELECT postmark_send('ann', 'SignIn', '493021')$$);
SELECT * FROM test.attempt($$SELECT postmark_send(NULL, 'SignIn', '493021')$$);
SELECT * FROM test.attempt($$SELECT postmark_send('ann@example.com,ben@example.com', 'SignIn', '493021')$$);
SELECT * FROM test.attempt($$SELECT postmark_send('ann@example.com', NULL, '493021')$$);
SELECT * FROM test.attempt($$SELECT postmark_send('ann@example.com', 'SingIn', '493021')$$);
SELECT * FROM test.attempt($$SELECT postmark_send('ann@example.com', 'SignIn', '493021', '[]')$$);
SELECT * FROM test.attempt($$SELECT postmark_send('ann@example.com', 'SignIn', '493021', locale => repeat('x', 65))$$);
SELECT * FROM test.attempt($$SELECT postmark_send('ann@example.com', 'SignIn', '493021', connector => 'nowhere')$$);
SELECT * FROM test.attempt($$SELECT postmark_send('ann@example.com', 'SignIn', '493021', connector => 'NO WHERE')$$);
SELECT test.sandbox('GET', 'counts') #> '{requests,/email/withTemplate}' = :'requests';

--
-- Errors of Postmark's
--
CREATE FUNCTION test.send_with(action jsonb) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM test.sandbox('POST', 'rules', jsonb_build_object('path', '/email/withTemplate', 'times', 1, 'action', action));
	RETURN QUERY SELECT * FROM test.attempt('SELECT postmark_send(''ann@example.com'', ''SignIn'', ''493021'', ''{"name": "sesame"}'')');
	PERFORM test.sandbox('DELETE', 'rules');
END
$$;
-- PM002
SELECT * FROM test.send_with('{"status": 422, "error_code": 1101, "message": "The Template is not valid."}');
-- PM004
SELECT * FROM test.send_with('{"status": 422, "error_code": 406, "message": "Inactive."}');
-- PM005; what repeats the code or the payload is masked
SELECT * FROM test.send_with('{"status": 422, "error_code": 300, "message": "Invalid: 493021 and sesame"}');
SELECT * FROM test.send_with('{"status": 200, "error_code": 300, "message": "Invalid."}');
SELECT * FROM test.send_with('{"status": 422, "error_code": 412, "message": "Pending approval."}');
SELECT * FROM test.send_with('{"status": 413, "error_code": 300}');
-- PM006
SELECT * FROM test.send_with('{"status": 413}');
SELECT * FROM test.send_with('{"status": 401}');
SELECT * FROM test.send_with('{"status": 401, "error_code": 10, "message": "The token sandbox-token is bad."}');
SELECT * FROM test.send_with('{"status": 422, "error_code": 400, "message": "No such sender."}');
SELECT * FROM test.send_with('{"status": 422, "error_code": 401, "message": "Not confirmed."}');
SELECT * FROM test.send_with('{"status": 422, "error_code": 405, "message": "Not allowed to send."}');
SELECT * FROM test.send_with('{"status": 422, "error_code": 1235, "message": "No such stream."}');
-- PM007
SELECT * FROM test.send_with('{"status": 429}');
SELECT * FROM test.send_with('{"status": 429, "retry_after": 17}');
-- PM008: not sent
SELECT * FROM test.send_with('{"status": 503}');
SELECT * FROM test.send_with('{"status": 422, "error_code": 100, "message": "Maintenance."}');
-- PM008: perhaps sent
SELECT * FROM test.send_with('{"status": 500}');
SELECT * FROM test.send_with('{"status": 502}');
SELECT * FROM test.send_with('{"garble": "not_json"}');
SELECT * FROM test.send_with('{"garble": "empty"}');
-- what libcurl says is not ours to fix
CREATE FUNCTION test.outcome(action jsonb) RETURNS TABLE (state text, perhaps_sent boolean, has_hint boolean) LANGUAGE sql AS $$
	SELECT left(min(line) FILTER (WHERE line !~ '^ '), 5), bool_or(line ~ 'may have been sent'), bool_or(line ~ '^  HINT') FROM test.send_with(action) line $$;
SELECT * FROM test.outcome('{"drop": "before_accept"}');
SELECT * FROM test.outcome('{"drop": "after_accept"}');
SELECT * FROM test.outcome('{"garble": "truncated"}');
SELECT * FROM test.outcome('{"garble": "not_utf8"}');
SELECT * FROM test.outcome('{"garble": "endless"}');
SET postmark_connector.request_timeout = '300 ms';
SELECT * FROM test.outcome('{"latency": 5}');
SELECT * FROM test.outcome('{"latency_after": 5}');
SELECT * FROM test.outcome('{"garble": "slow"}');
RESET postmark_connector.request_timeout;
SELECT test.sandbox('POST', 'rules', '{"path": "/email/withTemplate", "action": {"latency": 20}}') \g /dev/null
SET statement_timeout = '300 ms';
SELECT postmark_send('ann@example.com', 'SignIn', '493021');
RESET statement_timeout;
SELECT test.sandbox('DELETE', 'rules') \g /dev/null
-- redirects are not followed, the token would go with them
SELECT * FROM test.send_with('{"status": 302, "headers": {"Location": "http://127.0.0.1:1/"}}');
-- long text, and control characters
SELECT line ~ 'PM005', length(line) < 450, line ~ '[\x01-\x1f]' FROM test.send_with(jsonb_build_object('status', 422, 'error_code', 300,
	'message', E'a\nb\x01' || repeat('x', 1000))) line WHERE line !~ 'HINT';
-- all is well again
SELECT postmark_send('ann@example.com', 'SignIn', '493021') IS NOT NULL;
SELECT count(*) FROM postmark_messages;

--
-- postmark_test
--
SELECT postmark_test('cid@example.com') IS NOT NULL;
SELECT m #>> '{Request,To}' AS "to", m #>> '{Request,From}' AS "from", m #>> '{Request,TemplateAlias}' AS alias, m #> '{Request,TemplateModel}' AS model
FROM jsonb_array_elements(test.sandbox('GET', 'messages?recipient=cid@example.com') -> 'messages') m;
-- a configuration that is not stored, of a connector that is not there
SELECT postmark_test('dan@example.com', test.config('{"fromEmail": "new@shop.example"}')) IS NOT NULL;
SELECT postmark_test('dan@example.com', test.config('{"fromEmail": "newer@shop.example"}'), 'new') IS NOT NULL;
SELECT m #>> '{Request,From}' FROM jsonb_array_elements(test.sandbox('GET', 'messages?recipient=dan@example.com') -> 'messages') m;
SELECT postmark_config() ->> 'fromEmail';
SELECT count(*) FROM postmark_settings;
-- the stored token, by its mask or left away, is there for the stored connector only
SELECT postmark_test('dan@example.com', test.config('{"serverToken": null}')) IS NOT NULL;
SELECT postmark_test('dan@example.com', postmark_config()) IS NOT NULL;
SELECT * FROM test.attempt($$SELECT postmark_test('dan@example.com', test.config('{"serverToken": null}'), 'new')$$);
SELECT * FROM test.attempt($$SELECT postmark_test('dan@example.com', postmark_config(), 'new')$$);
SELECT * FROM test.attempt($$SELECT postmark_test('dan@example.com', test.config('{"tag": 1}'))$$);
SELECT * FROM test.attempt($$SELECT postmark_test('dan@example.com', test.config('{"serverToken": "wrong"}'))$$);
SELECT * FROM test.attempt($$SELECT postmark_test('dan@example.com', test.config('{"fromEmail": "dan@elsewhere.invalid"}'))$$);
SELECT * FROM test.attempt($$SELECT postmark_test('dan@example.com', test.config('{"messageStream": "nowhere"}'))$$);
SELECT * FROM test.attempt($$SELECT postmark_test('dan@example.com', jsonb_set(test.config(), '{templates,3,templateAlias}', '"unknown"'))$$);
SELECT * FROM test.attempt($$SELECT postmark_test('dan', test.config())$$);
SELECT * FROM test.attempt($$SELECT postmark_test(NULL)$$);
SELECT * FROM test.attempt($$SELECT postmark_test('dan@example.com', connector => 'nowhere')$$);

--
-- postmark_check: sends nothing
--
SELECT jsonb_array_length(test.sandbox('GET', 'requests?path=/email*') -> 'requests') AS sent \gset
SELECT * FROM postmark_check();
SELECT * FROM postmark_check(config => jsonb_set(test.config('{"messageStream": "nowhere"}'), '{templates,1,templateAlias}', '"unknown"'));
SELECT * FROM postmark_check('new', test.config('{"messageStream": "inbound"}'));
SELECT test.sandbox('POST', 'config', '{"templates": [{"Alias": "logto-sign-in", "Active": false}]}') \g /dev/null
SELECT item, ok FROM postmark_check();
SELECT item, ok, detail ~ '401' FROM postmark_check(config => test.config('{"serverToken": "wrong"}'));
SELECT item, ok FROM postmark_check('new', test.config('{"serverToken": null}'));
SELECT * FROM test.attempt($$SELECT * FROM postmark_check('nowhere')$$);
SELECT * FROM test.attempt($$SELECT * FROM postmark_check(config => '{}')$$);
SELECT test.sandbox('POST', 'rules', '{"path": "/templates", "action": {"status": 500}}') \g /dev/null
SELECT item, ok FROM postmark_check();
SELECT jsonb_array_length(test.sandbox('GET', 'requests?path=/email*') -> 'requests') = :sent;
SELECT count(*) FROM postmark_settings;
SELECT test.sandbox('POST', 'reset') \g /dev/null
