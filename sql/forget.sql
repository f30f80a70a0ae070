-- postmark_forget: a person is erased from every table.
\set ECHO none
\i sql/common.inc
\set ECHO all
SET test.delivery = capture;
SELECT postmark_configure(test.config('{"webhookSecret": "0123456789abcdef-one"}'));
SELECT postmark_configure(test.config('{"webhookSecret": "0123456789abcdef-one"}'), 'other');
-- every row of the extension's tables that shows an address, in any column
CREATE FUNCTION test.traces(pattern text) RETURNS TABLE (relation text, n bigint) LANGUAGE plpgsql AS $$
BEGIN
	FOR relation IN SELECT c.relname FROM pg_class c JOIN pg_depend d ON d.objid = c.oid AND d.deptype = 'e'
		JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'postmark_connector'
		WHERE c.relkind = 'r' ORDER BY 1
	LOOP
		EXECUTE format('SELECT count(*) FROM %I t WHERE t::text ~* $1', relation) INTO n USING pattern;
		IF n > 0 THEN
			RETURN NEXT;
		END IF;
	END LOOP;
END
$$;
-- ann has done all there is to do
SELECT postmark_enqueue('Ann@example.com', 'Register', '493021') AS sent \gset
SELECT postmark_issue_code('ann@example.com', 'SignIn') IS NOT NULL;
SELECT postmark_issue_code('ann@example.com', 'SignIn', connector => 'other') IS NOT NULL;
SELECT postmark_enqueue('bob@example.com', 'Register', '493021') IS NOT NULL;
SELECT postmark_flush();
SELECT postmark_verify_code('ANN@example.com', 'SignIn', '000000') IN ('mismatch', 'verified');
CREATE FUNCTION test.event(kind text, id bigint, more jsonb) RETURNS jsonb LANGUAGE sql AS $$
	SELECT jsonb_build_object('RecordType', kind, 'Email', m.email, 'Recipient', m.email,
		'Metadata', jsonb_build_object('postmark_id',
			m.id || '-' || (extract(epoch FROM m.created_at) * 1000000)::bigint - 946684800000000)) || more
	FROM public.postmark_messages m WHERE m.id = $2
$$;
SELECT test.event('Bounce', :sent, '{"Type": "HardBounce", "Inactive": true, "BouncedAt": "2026-03-01T12:00:00Z"}') AS bounce \gset
SELECT postmark_webhook(:'bounce', '0123456789abcdef-one');
SELECT postmark_pause('other');
SELECT postmark_webhook('{"RecordType": "SubscriptionChange", "Recipient": "ann@example.com", "ChangedAt": "2026-03-01T12:00:00Z", "SuppressSending": true}',
	'0123456789abcdef-one', 'other');
SELECT postmark_pause();
SELECT postmark_enqueue('aNN@example.com', 'Register', '493021', '{"name": "Ann"}') AS unsent \gset
SELECT postmark_enqueue('ann@example.com', 'Register', '493021', send_after => now() + interval '1 day') AS later \gset
SELECT relation FROM test.traces('ann@example\.com') ORDER BY 1;
-- as Postmark says it of an address that is suppressed
UPDATE postmark_history SET last_error = 'Found inactive addresses: ann@example.com.' WHERE id = :sent;
ANALYZE;
SELECT postmark_forget('ann@EXAMPLE.com') > 10 AS rows;
SELECT * FROM test.traces('ann@example\.com');
SELECT count(*) FROM postmark_feedback;
SELECT count(*) FROM postmark_messages WHERE email = 'bob@example.com';
-- again there is nothing
SELECT postmark_forget('ann@example.com');
SELECT count(*) FROM postmark_forgotten;
-- what comes late brings nothing back
SELECT postmark_webhook(:'bounce', '0123456789abcdef-one');
SELECT postmark_webhook('{"RecordType": "SubscriptionChange", "Recipient": "Ann@example.com", "ChangedAt": "2026-03-01T12:00:00Z", "SuppressSending": true}',
	'0123456789abcdef-one');
SELECT * FROM test.traces('ann@example\.com');
-- news of what happened after that counts
SELECT postmark_webhook(jsonb_build_object('RecordType', 'SubscriptionChange', 'Recipient', 'Ann@example.com',
	'ChangedAt', to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), 'SuppressSending', true),
	'0123456789abcdef-one');
SELECT relation FROM test.traces('ann@example\.com');
-- nor do statistics, which were made before
SELECT tablename, attname FROM pg_stats WHERE schemaname = 'public' AND tablename ~ '^postmark_'
	AND concat(most_common_vals, histogram_bounds) ~* 'ann@';
-- rolled back
BEGIN;
SELECT postmark_forget('bob@example.com');
ROLLBACK;
SELECT count(*) FROM postmark_messages WHERE email = 'bob@example.com';
SELECT test.attempt(format('SELECT postmark_forget(%L)', who)) FROM unnest('{ann,"",NULL}'::text[]) who;
