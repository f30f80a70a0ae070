-- What became of messages: postmark_webhook, and what it changes.
\set ECHO none
\i sql/common.inc
\set ECHO all
SELECT postmark_configure(test.config('{"webhookSecret": "0123456789abcdef-one"}'));
SELECT postmark_config() ->> 'webhookSecret';
-- an event as Postmark posts it, about a message of ours
CREATE FUNCTION test.event(kind text, who text, at timestamptz, more jsonb DEFAULT '{}') RETURNS jsonb
LANGUAGE sql AS $$
	SELECT jsonb_build_object('RecordType', kind, 'MessageID', m.message_id, 'MessageStream', 'outbound',
		CASE WHEN kind IN ('Bounce', 'SpamComplaint') THEN 'Email' ELSE 'Recipient' END, who,
		CASE kind WHEN 'Delivery' THEN 'DeliveredAt' WHEN 'SubscriptionChange' THEN 'ChangedAt' ELSE 'BouncedAt' END,
		to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"0Z"'),
		'Metadata', jsonb_build_object('postmark_id',
			m.id || '-' || (extract(epoch FROM m.created_at) * 1000000)::bigint - 946684800000000)) || more
	FROM public.postmark_messages m WHERE lower(m.email) = lower(who)
$$;
CREATE FUNCTION test.post(event jsonb) RETURNS boolean
LANGUAGE sql AS $$ SELECT public.postmark_webhook(event, '0123456789abcdef-one') $$;
SELECT count(postmark_enqueue(who || '@example.com', 'Register', '493021'))
FROM unnest('{ann,bob,carl,dora,Emil,fay,gus}'::text[]) who;
SELECT postmark_flush();

--
-- Who may post
--
SELECT test.attempt($$SELECT postmark_webhook('{"RecordType": "Delivery"}')$$);
SELECT test.attempt($$SELECT postmark_webhook('{"RecordType": "Delivery"}', '0123456789abcdef-two')$$);
SELECT test.attempt($$SELECT postmark_webhook('{"RecordType": "Delivery"}', '0123456789abcdef-one', 'other')$$);
SELECT test.attempt($$SELECT postmark_webhook('{"RecordType": "Delivery"}', '0123456789abcdef-one', NULL)$$);
SELECT test.attempt($$SELECT postmark_webhook('{"RecordType": "Delivery"}', '********-one')$$);
SELECT test.attempt($$SELECT postmark_webhook(NULL, NULL)$$);
-- two secrets while it is changed
SELECT postmark_configure(test.config('{"webhookSecret": ["********-one", "0123456789abcdef-two"]}'));
SELECT postmark_config() -> 'webhookSecret';
SELECT postmark_webhook('{"RecordType": "Open"}', '0123456789abcdef-one'),
	postmark_webhook('{"RecordType": "Open"}', '0123456789abcdef-two');
-- what postmark_config gives can be given back; a key that is left out changes nothing
SELECT postmark_configure(postmark_config());
SELECT postmark_configure(test.config());
SELECT postmark_config() -> 'webhookSecret';
SELECT postmark_webhook('{"RecordType": "Open"}', '0123456789abcdef-two');
SELECT test.attempt($$SELECT postmark_configure(test.config('{"webhookSecret": "********ffff"}'))$$);
SELECT test.attempt($$SELECT postmark_configure(test.config('{"webhookSecret": "short"}'))$$);
SELECT test.attempt($$SELECT postmark_configure(test.config('{"webhookSecret": ["a", "b", "c"]}'))$$);
SELECT test.attempt($$SELECT postmark_configure(test.config('{"webhookSecret": 5}'))$$);
-- none: everything is refused (test.config drops nulls)
SELECT postmark_configure(test.config() || '{"webhookSecret": null}');
SELECT postmark_config() ? 'webhookSecret';
SELECT test.attempt($$SELECT postmark_webhook('{"RecordType": "Open"}', '0123456789abcdef-two')$$);
SELECT test.attempt($$SELECT postmark_webhook('{"RecordType": "Open"}', '')$$);
SELECT postmark_configure(test.config('{"webhookSecret": "0123456789abcdef-one"}'));

--
-- What is no event, and what does not concern us
--
SELECT test.attempt(format('SELECT test.post(%L)', event)) FROM unnest('{
	"[]", "5", "{}", "{\"RecordType\": 1}",
	"{\"RecordType\": \"Delivery\"}",
	"{\"RecordType\": \"Delivery\", \"Recipient\": \"ann@example.com\"}",
	"{\"RecordType\": \"Delivery\", \"Recipient\": \"ann@example.com\", \"DeliveredAt\": \"yesterday\"}",
	"{\"RecordType\": \"Bounce\", \"Email\": \"ann@example.com\", \"BouncedAt\": \"2026-01-01T00:00:00Z\"}",
	"{\"RecordType\": \"SubscriptionChange\", \"Recipient\": \"ann@example.com\", \"ChangedAt\": \"2026-01-01T00:00:00Z\"}",
	"{\"RecordType\": \"Open\"}", "{\"RecordType\": \"Click\"}", "{\"RecordType\": \"Inbound\"}",
	"{\"RecordType\": \"SomethingNew\", \"Recipient\": 5}"}'::text[]) event;
SELECT test.attempt($$SELECT test.post(NULL)$$);

--
-- What each event changes
--
SELECT test.post(test.event('Delivery', 'ann@example.com', '2026-03-01 12:00:00.25+00'));
SELECT test.post(test.event('Bounce', 'bob@example.com', '2026-03-01 12:00+00',
	'{"Type": "HardBounce", "TypeCode": 1, "Inactive": true,
	"Description": "The server was unable to deliver your message 493021 (ex: unknown user,\n\u0007 mailbox not found): https://shop.example/r?t=abc code A1b2C3d4E5f6G7h8I9j0"}'));
SELECT test.post(test.event('SpamComplaint', 'carl@example.com', '2026-03-01 12:00+00', '{"Type": "SpamComplaint"}'));
SELECT test.post(test.event('Bounce', 'dora@example.com', '2026-03-01 12:00+00', '{"Type": "AutoResponder", "Description": "Out of office"}'));
SELECT test.post(test.event('SubscriptionChange', 'emil@EXAMPLE.com', '2026-03-01 12:00+00',
	'{"SuppressSending": true, "SuppressionReason": "ManualSuppression", "Origin": "Recipient"}'));
SELECT test.post(test.event('Bounce', 'fay@example.com', '2026-03-01 12:00+00', '{"TypeCode": 4096, "Type": null}'));
SELECT email, status, delivered_at AT TIME ZONE 'UTC' AS delivered_at, feedback FROM postmark_messages ORDER BY id;
SELECT connector, message_stream, email, reason, origin, since AT TIME ZONE 'UTC' FROM postmark_suppressions ORDER BY email COLLATE "C";
SELECT sent_last_hour, delivered_last_hour, bounced_last_hour, complained_last_hour FROM postmark_status;
-- a delivery after a soft bounce; the same again, and an older one, change nothing
SELECT test.post(test.event('Delivery', 'fay@example.com', '2026-03-01 12:00:01+00'));
SELECT f.ctid AS place FROM postmark_feedback f JOIN postmark_messages m USING (id) WHERE email ~ '^fay' \gset
SELECT test.post(test.event('Delivery', 'fay@example.com', '2026-03-01 12:00:01+00')),
	test.post(test.event('Delivery', 'fay@example.com', '2026-03-01 11:00+00')),
	test.post(test.event('Bounce', 'fay@example.com', '2026-03-01 12:00+00', '{"TypeCode": 4096, "Type": null}'));
SELECT status, f.ctid = :'place' AS untouched FROM postmark_feedback f JOIN postmark_messages m USING (id) WHERE email ~ '^fay';
-- a time in the future counts as now
SELECT test.post(test.event('Delivery', 'gus@example.com', '2126-03-01 12:00+00'));
SELECT delivered_at <= clock_timestamp() FROM postmark_messages WHERE email ~ '^gus';

-- a time as ISO 8601 has it: with any offset and any number of digits; anything
-- else is refused. A day apart in both directions are two that differ by a sign.
CREATE FUNCTION test.delivered(at text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	said text;
BEGIN
	DELETE FROM public.postmark_feedback f USING public.postmark_history h WHERE h.id = f.id AND h.email ~ '^gus';
	SELECT test.attempt(format('SELECT test.post(%L)', test.event('Delivery', 'gus@example.com', now(), jsonb_build_object('DeliveredAt', at))))
	INTO said;
	RETURN coalesce((SELECT (delivered_at AT TIME ZONE 'UTC')::text FROM public.postmark_messages WHERE email ~ '^gus'), said);
END
$$;
SELECT at, test.delivered(at) FROM unnest('{2026-01-31T23:30:00-05:45,2026-03-01T01:15:00+05:45,2026-03-01T01:15:00-00:00,
	2024-02-29T12:00:00Z,2023-02-29T12:00:00Z,2026-04-31T12:00:00Z,2026-03-01T12:00:00,2026-03-01T12:00:00.1234567Z,
	2026-03-01T12:00:00.9999999-04:00,2026-03-01T12:00:00.Z,2026-03-01T12:00:60Z,2026-03-01T12:00:61Z,2026-03-01T24:00:00Z,
	2026-03-01T12:60:00Z,2026-13-01T12:00:00Z,2026-00-01T12:00:00Z,2026-03-00T12:00:00Z,2026-03-01 12:00:00Z,2026-03-01T12:00Z,
	2026-03-01T12:00:00+1,2026-03-01T12:00:00+16:00,2026-03-01T12:00:00+05:60,2026-03-01T12:00:00+0500,2026-03-01T12:00:00ZZ,
	2026-03-01T12:00:00Z+01:00,0000-03-01T12:00:00Z,0001-03-01T12:00:00Z,-2026-03-01T12:00:00Z,2026-3-1T12:00:00Z,
	" 2026-03-01T12:00:00Z",""}'::text[]) at;

--
-- What names no message of ours changes nothing
--
CREATE FUNCTION test.state() RETURNS text LANGUAGE sql AS $$
	SELECT md5((SELECT string_agg(f::text, ';' ORDER BY f::text) FROM public.postmark_feedback f) ||
		(SELECT string_agg(s::text, ';' ORDER BY s::text) FROM public.postmark_suppressed s))
$$;
SELECT test.state() AS before \gset
-- another address, another time of creation, another id, no number at all
SELECT test.post(test.event('Bounce', 'ann@example.com', '2026-03-02+00', '{"Type": "HardBounce", "Inactive": true, "Email": "bob@example.com"}'));
SELECT test.post(jsonb_set(e, '{Metadata,postmark_id}', to_jsonb(id)))
FROM test.event('Bounce', 'ann@example.com', '2026-03-02+00', '{"Type": "HardBounce", "Inactive": true}') e,
	LATERAL (VALUES (split_part(e #>> '{Metadata,postmark_id}', '-', 1) || '-5'),
		(e #>> '{Metadata,postmark_id}' || '0'), ('0' || (e #>> '{Metadata,postmark_id}')), (' ' || (e #>> '{Metadata,postmark_id}')),
		('1' || (e #>> '{Metadata,postmark_id}')), ('99999999999999999999-1'), ('x'), ('')) v (id);
-- another connector
SELECT postmark_configure(test.config('{"webhookSecret": "0123456789abcdef-two"}'), 'other');
SELECT postmark_webhook(test.event('Bounce', 'ann@example.com', '2026-03-02+00', '{"Type": "HardBounce", "Inactive": true}'),
	'0123456789abcdef-two', 'other');
-- an address that cannot be one is not asked for again and again
SELECT test.post('{"RecordType": "Bounce", "Type": "HardBounce", "Email": "no address", "BouncedAt": "2026-01-01T00:00:00Z"}');
SELECT test.state() = :'before' AS unchanged;

--
-- Any order, any repetition: the same in the end
--
CREATE FUNCTION test.shuffled() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	events jsonb[];
	all_states text[] := '{}';
	state text;
	n int;
BEGIN
	SELECT array_agg(test.event(kind, 'gus@example.com', '2026-03-01+00'::timestamptz + v.n * interval '1 min', more)) INTO events
	FROM (VALUES (1, 'Delivery', '{}'::jsonb), (5, 'Delivery', '{}'), (2, 'Bounce', '{"Type": "SoftBounce"}'),
		(9, 'Bounce', '{"Type": "SoftBounce", "Description": "full"}'), (9, 'Bounce', '{"Type": "SoftBounce", "Description": "slow"}'),
		(3, 'Bounce', '{"Type": "Transient"}'), (4, 'Bounce', '{"Type": "Blocked", "Inactive": true}'),
		(4, 'SubscriptionChange', '{"SuppressSending": false}'), (6, 'SubscriptionChange', '{"SuppressSending": true}'),
		(6, 'SubscriptionChange', '{"SuppressSending": false}'), (8, 'SpamComplaint', '{"Type": "SpamComplaint"}')) v (n, kind, more);
	FOR subset IN 1..40 LOOP
		-- a subset, in ten orders, with repetitions
		FOR i IN 1..10 LOOP
			DELETE FROM public.postmark_feedback f USING public.postmark_history h WHERE h.id = f.id AND h.email ~ '^gus';
			DELETE FROM public.postmark_suppressed WHERE address ~ '^gus';
			PERFORM test.post(e) FROM (SELECT e FROM unnest(events) WITH ORDINALITY AS u (e, o), generate_series(1, 1 + (random() < 0.3)::int)
				WHERE (subset * 7919) >> o::int % 12 & 1 = 1 ORDER BY random()) s;
			SELECT m.status || coalesce(m.feedback, '-') || coalesce(m.delivered_at::text, '-') || coalesce((SELECT s::text FROM public.postmark_suppressed s WHERE s.address ~ '^gus'), '-')
			INTO state FROM public.postmark_messages m WHERE m.email ~ '^gus';
			all_states := all_states || (subset || state);
		END LOOP;
	END LOOP;
	SELECT count(DISTINCT s) INTO n FROM unnest(all_states) s;
	RETURN n;
END
$$;
SELECT test.shuffled() AS outcomes_of_forty_sets;

--
-- News before the worker has stored that the message was sent
--
SELECT postmark_pause();
SELECT postmark_enqueue('hal@example.com', 'Register', '493021') IS NOT NULL;
SELECT test.post(test.event('Delivery', 'hal@example.com', '2026-03-01 12:00+00'));
SELECT status FROM postmark_messages WHERE email ~ '^hal';
SELECT postmark_resume();
SELECT postmark_flush();
SELECT status, delivered_at AT TIME ZONE 'UTC' FROM postmark_messages WHERE email ~ '^hal';

--
-- What has no metadata only makes the worker ask
--
SELECT test.post('{"RecordType": "SubscriptionChange", "Recipient": "Ida@example.com", "ChangedAt": "2026-01-01T00:00:00Z", "SuppressSending": true}');
SELECT count(*) FROM postmark_suppressions WHERE email ~* '^ida';

--
-- Nothing of it is said in a plan, whatever the caller sets
--
SELECT test.attempt($$SELECT postmark_webhook('{"RecordType": "Delivery"}', '0123456789abcdef-1wo')$$) ~ '1wo' AS said;
BEGIN READ ONLY;
SELECT postmark_webhook('{"RecordType": "Open"}', '0123456789abcdef-one');
ROLLBACK;

--
-- Nothing is sent to an address that is suppressed
--
CREATE FUNCTION test.requests() RETURNS bigint LANGUAGE sql AS $$
	SELECT sum(value::bigint) FROM jsonb_each_text(test.sandbox('GET', 'counts') -> 'requests') WHERE key ~ '^/email'
$$;
SELECT test.requests() AS before \gset
SELECT test.attempt($$SELECT postmark_send('BOB@example.com', 'Register', '493021')$$);
SELECT count(postmark_enqueue(who, 'Register', '493021')) FROM unnest('{Bob@Example.com,carl@example.com}'::text[]) who;
SELECT postmark_enqueue('bob@example.com', 'Register', '493021', send_after => clock_timestamp() + interval '1 ms') AS later \gset
SELECT postmark_wait(:later);
SELECT postmark_flush();
SELECT email, status, last_error, template_alias, message_id IS NULL AS unsent FROM postmark_messages
WHERE id > (SELECT max(id) FROM postmark_messages WHERE email ~ '^hal') ORDER BY id;
SELECT test.requests() - :before AS requests;
-- the news of the same connector about messages that were not sent is no news
SELECT test.post(jsonb_set(e, '{Metadata,postmark_id}', to_jsonb(m.id || '-' || (extract(epoch FROM m.created_at) * 1000000)::bigint - 946684800000000)))
FROM postmark_messages m, test.event('Delivery', 'ann@example.com', '2026-03-02+00', '{"Recipient": "bob@example.com"}') e
WHERE m.email = 'bob@example.com' AND m.status = 'suppressed';
SELECT DISTINCT status FROM postmark_messages WHERE lower(email) ~ '^bob' ORDER BY 1;
-- one connector's addresses are not another's, nor one stream's another's
SELECT postmark_enqueue('bob@example.com', 'Register', '493021', connector => 'other') IS NOT NULL;
SELECT postmark_flush();
SELECT status FROM postmark_messages WHERE connector = 'other';
SELECT postmark_configure(test.config('{"messageStream": "other"}'));
SELECT test.attempt($$SELECT postmark_send('bob@example.com', 'Register', '493021')$$) ~ 'Postmark does not deliver' AS refused_here;
SELECT postmark_configure(test.config());
-- no longer suppressed; an old event does not bring it back
SELECT test.post(test.event('SubscriptionChange', 'gus@example.com', '2026-03-03+00', '{"SuppressSending": true}'));
SELECT test.attempt($$SELECT postmark_send('gus@example.com', 'Register', '493021')$$);
SELECT test.post(test.event('SubscriptionChange', 'gus@example.com', '2026-03-04+00', '{"SuppressSending": false}'));
SELECT test.post(test.event('SubscriptionChange', 'gus@example.com', '2026-03-03+00', '{"SuppressSending": true}'));
SELECT postmark_send('gus@example.com', 'Register', '493021') IS NOT NULL;
-- works in a read-only transaction
BEGIN READ ONLY;
SELECT test.attempt($$SELECT postmark_send('bob@example.com', 'Register', '493021')$$);
ROLLBACK;
-- what Postmark itself refuses is known from then on
SELECT test.sandbox('POST', 'config', '{"inactive_recipients": ["kim@example.com"]}') IS NOT NULL;
SELECT postmark_enqueue('Kim@example.com', 'Register', '493021') IS NOT NULL;
SELECT postmark_flush();
SELECT email, status, error_code FROM postmark_messages WHERE email ~* '^kim';
-- first that it is so, then, when the worker has asked, why
SELECT reason IN ('InactiveRecipient', 'HardBounce') AS known FROM postmark_suppressions WHERE email ~* '^kim';
SELECT test.requests() AS before \gset
SELECT postmark_enqueue('kim@example.com', 'Register', '493021') IS NOT NULL;
SELECT postmark_flush();
SELECT email, status, error_code FROM postmark_messages WHERE email ~ '^kim';
SELECT test.requests() - :before AS requests;

--
-- Asking Postmark: what it says of an address counts
--
CREATE FUNCTION test.asked(who text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1..600 LOOP
		EXIT WHEN NOT EXISTS (SELECT FROM public.postmark_inquiries WHERE address = lower(who));
		PERFORM pg_sleep(0.05);
	END LOOP;
	RETURN (SELECT concat_ws('|', reason, origin) FROM public.postmark_suppressions WHERE lower(email) = lower(who));
END
$$;
SELECT test.asked('kim@example.com');
CREATE FUNCTION test.hearsay(who text, suppressed boolean) RETURNS boolean LANGUAGE sql AS $$
	SELECT test.post(jsonb_build_object('RecordType', 'SubscriptionChange', 'Recipient', who,
		'ChangedAt', '2026-01-01T00:00:00Z', 'SuppressSending', suppressed))
$$;
-- an event says so, Postmark knows better; it says nothing, Postmark knows worse
SELECT test.hearsay('lea@example.com', true);
SELECT test.asked('lea@example.com');
SELECT test.sandbox('POST', 'config', '{"inactive_recipients": ["kim@example.com", "max@example.com"]}') IS NOT NULL;
SELECT test.hearsay('Max@example.com', false);
SELECT test.asked('max@example.com');
-- a stream that Postmark does not know is no question
CREATE FUNCTION test.hearsay_of(stream text, who text) RETURNS boolean LANGUAGE sql AS $$
	SELECT test.post(jsonb_build_object('RecordType', 'SpamComplaint', 'Email', who,
		'BouncedAt', '2026-01-01T00:00:00Z', 'MessageStream', stream))
$$;
SELECT test.hearsay_of('gone', 'noa@example.com');
SELECT test.asked('noa@example.com');
SELECT count(*) FROM postmark_inquiries;
-- one that is not answered keeps no other waiting
SELECT test.sandbox('POST', 'rules', '{"path": "/message-streams/broken/*", "action": {"status": 500}}') IS NOT NULL;
BEGIN;
SELECT test.hearsay_of('broken', 'ora@example.com');
SELECT test.hearsay('pia@example.com', true);
COMMIT;
DO $$
BEGIN
	FOR i IN 1..600 LOOP
		EXIT WHEN (SELECT min(address) = 'pia@example.com' FROM (SELECT address FROM postmark_inquiries ORDER BY noted_at LIMIT 1) first);
		PERFORM pg_sleep(0.05);
	END LOOP;
END
$$;
SELECT test.hearsay('quin@example.com', true);
SELECT test.asked('pia@example.com');
SELECT address FROM postmark_inquiries WHERE address ~ '^(ora|pia)';
DELETE FROM postmark_inquiries;
SELECT test.sandbox('DELETE', 'rules') IS NOT NULL;
-- suppressed no more
SELECT postmark_unsuppress('MAX@example.com');
SELECT count(*) FROM postmark_suppressions WHERE email ~* '^max';
SELECT postmark_send('max@example.com', 'Register', '493021') IS NOT NULL;
SELECT postmark_unsuppress('max@example.com');
-- what came before that does not bring it back
SELECT test.post(test.event('SubscriptionChange', 'gus@example.com', '2026-03-05+00', '{"SuppressSending": true}'));
SELECT test.attempt($$SELECT postmark_send('gus@example.com', 'Register', '493021')$$) ~ '^PM004' AS refused LIMIT 1;
SELECT test.attempt($$SELECT postmark_unsuppress('gus@example.com')$$);
SELECT test.post(test.event('SubscriptionChange', 'gus@example.com', '2026-03-05+00', '{"SuppressSending": true}'));
SELECT postmark_send('gus@example.com', 'Register', '493021') IS NOT NULL;
-- a complaint can't be lifted, in Postmark's words
SELECT postmark_send('spamcomplaint@example.com', 'Register', '493021') IS NOT NULL;
CREATE FUNCTION test.refused(who text) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
	-- the complaint comes a moment after the mail
	FOR i IN 1..300 LOOP
		EXIT WHEN EXISTS (SELECT FROM test.attempt(format('SELECT public.postmark_unsuppress(%L)', who)) a WHERE a ~ '^PM');
		PERFORM pg_sleep(0.1);
	END LOOP;
	RETURN QUERY SELECT test.attempt(format('SELECT public.postmark_unsuppress(%L)', who));
END
$$;
SELECT test.refused('spamcomplaint@example.com');
SELECT test.attempt(format('SELECT postmark_unsuppress(%L)', who)) FROM unnest('{ann,NULL}'::text[]) who;
SELECT test.attempt($$SELECT postmark_unsuppress('ann@example.com', 'nobody')$$);

--
-- What is to be asked about stays in bounds
--
SELECT postmark_pause('other');
INSERT INTO postmark_inquiries SELECT 'other', 'outbound', format('n%s@example.com', n), now() FROM generate_series(1, 999) n;
SELECT postmark_webhook(jsonb_build_object('RecordType', 'SubscriptionChange', 'Recipient', who,
	'ChangedAt', '2026-01-01T00:00:00Z', 'SuppressSending', true), '0123456789abcdef-two', 'other')
FROM unnest('{one@example.com,more@example.com}'::text[]) who;
SELECT count(*) FROM postmark_inquiries WHERE connector = 'other';

--
-- Settings that change while an event is taken, as a trigger of the owner's may
--
CREATE FUNCTION test.pause() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM public.postmark_pause('default', 'a complaint');
	PERFORM public.postmark_config();
	RETURN NULL;
END
$$;
SELECT postmark_enqueue('ria@example.com', 'Register', '493021') > 0;
SELECT postmark_flush();
CREATE TRIGGER pause AFTER INSERT ON postmark_feedback FOR EACH ROW EXECUTE FUNCTION test.pause();
SELECT test.post(test.event('SpamComplaint', 'ria@example.com', now(), '{"Type": "SpamComplaint"}'));
DROP TRIGGER pause ON postmark_feedback;
SELECT postmark_resume();
SELECT connector, message_stream, email FROM postmark_suppressed WHERE email ~ '^ria';

--
-- A connector that is removed takes its suppressions along
--
SELECT postmark_webhook('{"RecordType": "SubscriptionChange", "Recipient": "max@example.com", "ChangedAt": "2026-01-01T00:00:00Z", "SuppressSending": true}',
	'0123456789abcdef-two', 'other');
INSERT INTO postmark_suppressed (connector, message_stream, address, email, reason, since, lifted)
VALUES ('other', 'outbound', 'a@example.com', 'a@example.com', 'HardBounce', now(), false);
SELECT postmark_remove('other');
SELECT count(*) FROM postmark_suppressed WHERE connector = 'other';
SELECT count(*) FROM postmark_inquiries WHERE connector = 'other';
