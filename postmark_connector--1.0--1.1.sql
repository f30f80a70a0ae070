/* postmark_connector--1.0--1.1.sql */

-- complain if script is sourced in psql rather than via ALTER EXTENSION
\echo Use "ALTER EXTENSION postmark_connector UPDATE TO '1.1'" to load this file. \quit

-- Version 1.1. CREATE EXTENSION runs 1.0's script and then this one, so each
-- change stands here alone. The worker and the sessions of a server go on
-- while it runs, with 1.0's objects until it commits.

-- A function with another argument is another function, and no name may be
-- overloaded. Whoever may execute the old one may execute the one in its place.
CREATE FUNCTION @extschema@.postmark_replace_function(old text, new text, definition text)
	RETURNS void
	LANGUAGE plpgsql AS $$
DECLARE
	owner pg_catalog.regrole;
	given pg_catalog.aclitem[];
	initial pg_catalog.aclitem[];
	command text;
BEGIN
	SELECT p.proowner, coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner)) INTO STRICT owner, given
		FROM pg_catalog.pg_proc p
		WHERE p.oid OPERATOR(pg_catalog.=) old::pg_catalog.regprocedure::pg_catalog.oid;
	EXECUTE pg_catalog.concat('DROP FUNCTION ', old);
	EXECUTE definition;
	EXECUTE pg_catalog.concat('ALTER FUNCTION ', new, ' OWNER TO ', owner);

	-- Also where ALTER DEFAULT PRIVILEGES gave PUBLIC nothing: it has the server
	-- note what the function begins with.
	EXECUTE pg_catalog.concat('REVOKE ALL ON FUNCTION ', new, ' FROM PUBLIC');
	FOR command IN
		SELECT pg_catalog.concat('REVOKE ALL ON FUNCTION ', new, ' FROM ',
				a.grantee::pg_catalog.regrole)
		FROM pg_catalog.pg_proc p
			CROSS JOIN LATERAL pg_catalog.aclexplode(p.proacl) a
		WHERE p.oid OPERATOR(pg_catalog.=) new::pg_catalog.regprocedure::pg_catalog.oid
			AND a.grantee OPERATOR(pg_catalog.<>) p.proowner
	LOOP
		EXECUTE command;
	END LOOP;

	-- What is granted in an extension's script counts as the extension's, and a
	-- dump leaves that out. These grants are the administrator's.
	SELECT i.initprivs INTO STRICT initial
		FROM pg_catalog.pg_init_privs i
		WHERE i.objoid OPERATOR(pg_catalog.=) new::pg_catalog.regprocedure::pg_catalog.oid
			AND i.classoid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass::pg_catalog.oid;
	FOR command IN
		SELECT pg_catalog.concat('GRANT EXECUTE ON FUNCTION ', new, ' TO ',
				CASE WHEN a.grantee OPERATOR(pg_catalog.=) 0 THEN 'PUBLIC' ELSE a.grantee::pg_catalog.regrole::text END,
				CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' END)
		FROM pg_catalog.pg_proc p
			CROSS JOIN LATERAL pg_catalog.aclexplode(given) a
		WHERE p.oid OPERATOR(pg_catalog.=) new::pg_catalog.regprocedure::pg_catalog.oid
			AND a.grantee OPERATOR(pg_catalog.<>) p.proowner
	LOOP
		EXECUTE command;
	END LOOP;
	UPDATE pg_catalog.pg_init_privs SET initprivs = initial
		WHERE objoid OPERATOR(pg_catalog.=) new::pg_catalog.regprocedure::pg_catalog.oid
			AND classoid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass::pg_catalog.oid;
	DELETE FROM pg_catalog.pg_shdepend
		WHERE objid OPERATOR(pg_catalog.=) new::pg_catalog.regprocedure::pg_catalog.oid
			AND classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass::pg_catalog.oid
			AND deptype OPERATOR(pg_catalog.=) 'i'
			AND dbid OPERATOR(pg_catalog.=) (SELECT d.oid FROM pg_catalog.pg_database d
				WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database());
END
$$;

-- ----------------------------------------------------------------------
-- Settings
-- ----------------------------------------------------------------------

-- pg_dump does not carry a foreign key between two configuration tables into
-- the order of an archive: a parallel restore lost the templates, and so did
-- one of the data alone. What the key did is the row trigger's work.
ALTER TABLE @extschema@.postmark_templates
	DROP CONSTRAINT postmark_templates_connector_fkey;

CREATE FUNCTION @extschema@.postmark_settings_row() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.postmark_settings_row() IS
	'keeps a connector''s name and number as they are, and deletes its templates with it';
CREATE TRIGGER postmark_settings_row
	BEFORE UPDATE OR DELETE ON @extschema@.postmark_settings
	FOR EACH ROW EXECUTE FUNCTION @extschema@.postmark_settings_row();

CREATE FUNCTION @extschema@.postmark_install_templates(connector text DEFAULT 'default',
		overwrite boolean DEFAULT false)
	RETURNS TABLE (template_alias text, action text)
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.postmark_install_templates(text, boolean) IS
	'put templates for the connector''s aliases into the Postmark server; keeps those that are there unless told otherwise';

-- The triggers that announce a change are fired by statements, but what
-- replication changes are rows. Fired for replicas only, it costs nobody else
-- anything.
CREATE TRIGGER postmark_settings_replicated
	AFTER INSERT OR UPDATE OR DELETE ON @extschema@.postmark_settings
	FOR EACH ROW EXECUTE FUNCTION @extschema@.postmark_settings_changed();
CREATE TRIGGER postmark_settings_replicated
	AFTER INSERT OR UPDATE OR DELETE ON @extschema@.postmark_templates
	FOR EACH ROW EXECUTE FUNCTION @extschema@.postmark_settings_changed();
CREATE TRIGGER postmark_settings_replicated
	AFTER INSERT OR UPDATE OR DELETE ON @extschema@.postmark_secrets
	FOR EACH ROW EXECUTE FUNCTION @extschema@.postmark_settings_changed();
ALTER TABLE @extschema@.postmark_settings ENABLE REPLICA TRIGGER postmark_settings_replicated;
ALTER TABLE @extschema@.postmark_templates ENABLE REPLICA TRIGGER postmark_settings_replicated;
ALTER TABLE @extschema@.postmark_secrets ENABLE REPLICA TRIGGER postmark_settings_replicated;

-- ----------------------------------------------------------------------
-- Queue and history
-- ----------------------------------------------------------------------

-- Statistics would keep addresses after their rows are gone; those that there
-- are go now. Postmark names the recipient in some of its errors.
ALTER TABLE @extschema@.postmark_deferred ALTER email SET STATISTICS 0, ALTER last_error SET STATISTICS 0;
ALTER TABLE @extschema@.postmark_history ALTER email SET STATISTICS 0, ALTER last_error SET STATISTICS 0;
ALTER TABLE @extschema@.postmark_codes ALTER address SET STATISTICS 0, ALTER email SET STATISTICS 0;
ALTER TABLE @extschema@.postmark_sends ALTER address SET STATISTICS 0;
DELETE FROM pg_catalog.pg_statistic s USING pg_catalog.pg_attribute a
WHERE a.attrelid OPERATOR(pg_catalog.=) s.starelid AND a.attnum OPERATOR(pg_catalog.=) s.staattnum
	AND a.attname OPERATOR(pg_catalog.=) ANY ('{email,address,last_error}'::pg_catalog.name[])
	AND s.starelid OPERATOR(pg_catalog.=) ANY (ARRAY['@extschema@.postmark_queue', '@extschema@.postmark_deferred',
		'@extschema@.postmark_history', '@extschema@.postmark_codes', '@extschema@.postmark_sends']::pg_catalog.regclass[]::pg_catalog.oid[]);

-- 1.0 could store a time that is none, and then nobody can read the row.
UPDATE @extschema@.postmark_deferred SET expires_at = due_at
	WHERE expires_at OPERATOR(pg_catalog.>) '294276-01-01'::pg_catalog.timestamptz;

ALTER TABLE @extschema@.postmark_deferred ADD COLUMN doubts uuid[];
COMMENT ON COLUMN @extschema@.postmark_deferred.doubts IS
	'batches in which it may have been accepted, though Postmark''s search did not show it; NULL: none';

-- Who queued a message may ask what became of it.
ALTER TABLE @extschema@.postmark_queue ADD COLUMN queued_by oid;
ALTER TABLE @extschema@.postmark_deferred ADD COLUMN queued_by oid;
ALTER TABLE @extschema@.postmark_history ADD COLUMN queued_by oid;
COMMENT ON COLUMN @extschema@.postmark_queue.queued_by IS
	'role that queued it; set by the row trigger whatever anybody but the owner supplies; null: before 1.1';
COMMENT ON COLUMN @extschema@.postmark_deferred.queued_by IS
	'as in postmark_queue';
COMMENT ON COLUMN @extschema@.postmark_history.queued_by IS
	'as in postmark_queue';

CREATE FUNCTION @extschema@.postmark_message_status(id bigint)
	RETURNS text
	LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.postmark_message_status(bigint) IS
	'status of a message that the caller''s role queued, or one whose rights it has; null: of any other';

CREATE FUNCTION @extschema@.postmark_last_id()
	RETURNS bigint
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.postmark_last_id() IS
	'id of the message that this session queued last, by a trigger for instance; null: none';

CREATE FUNCTION @extschema@.postmark_set_node(node integer)
	RETURNS void
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.postmark_set_node(integer) IS
	'from now on the ids of messages are those of a node, which no other database has: from node times 10^12';

-- The queue's own row has a message's key for those who insert it; what counts
-- lies apart, since it holds longer than the message is in the queue, and since
-- messages without one are to pay nothing for it.
ALTER TABLE @extschema@.postmark_queue ADD COLUMN dedup_key text;
ALTER TABLE @extschema@.postmark_queue ALTER dedup_key SET STATISTICS 0;
COMMENT ON COLUMN @extschema@.postmark_queue.dedup_key IS
	'a row whose key another message of the connector holds is not inserted';
COMMENT ON TABLE @extschema@.postmark_queue IS
	'messages to send now; INSERT email, usage_type and optionally code, payload, locale, connector, expires_at, dedup_key';

CREATE TABLE @extschema@.postmark_dedup_keys (
	connector text COLLATE "C" NOT NULL,
	dedup_key text COLLATE "C" NOT NULL,
	id bigint NOT NULL,
	address text COLLATE "C" NOT NULL,
	expires_at timestamptz NOT NULL,
	PRIMARY KEY (connector, dedup_key)
);
ALTER TABLE @extschema@.postmark_dedup_keys ALTER dedup_key SET STATISTICS 0, ALTER address SET STATISTICS 0;
CREATE INDEX postmark_dedup_keys_id ON @extschema@.postmark_dedup_keys (id);
CREATE INDEX postmark_dedup_keys_expires ON @extschema@.postmark_dedup_keys (expires_at);
COMMENT ON TABLE @extschema@.postmark_dedup_keys IS
	'keys of messages, so that none is queued twice with the same one';
COMMENT ON COLUMN @extschema@.postmark_dedup_keys.connector IS
	'within which it is a key';
COMMENT ON COLUMN @extschema@.postmark_dedup_keys.dedup_key IS
	'as it was given';
COMMENT ON COLUMN @extschema@.postmark_dedup_keys.id IS
	'of the message that holds it, unless that was cancelled or suppressed';
COMMENT ON COLUMN @extschema@.postmark_dedup_keys.address IS
	'the recipient with A to Z folded to a to z, for postmark_forget';
COMMENT ON COLUMN @extschema@.postmark_dedup_keys.expires_at IS
	'the message''s; counts for nothing from then on';

SELECT @extschema@.postmark_replace_function(
	'@extschema@.postmark_enqueue(text, text, text, jsonb, text, timestamptz, interval, text)',
	'@extschema@.postmark_enqueue(text, text, text, jsonb, text, timestamptz, interval, text, text)',
	$function$
CREATE FUNCTION @extschema@.postmark_enqueue(email text, usage_type text,
	code text DEFAULT NULL, payload jsonb DEFAULT NULL, locale text DEFAULT NULL,
	send_after timestamptz DEFAULT NULL, expires_in interval DEFAULT NULL,
	connector text DEFAULT 'default', dedup_key text DEFAULT NULL)
	RETURNS bigint
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME'
	$function$);

-- ----------------------------------------------------------------------
-- Codes
-- ----------------------------------------------------------------------

CREATE FUNCTION @extschema@.postmark_rotate_code_key(connector text DEFAULT 'default')
	RETURNS bigint
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.postmark_rotate_code_key(text) IS
	'replace the key of a connector''s codes; those under way are void: how many there were';

-- Several codes of a recipient and usage type may be good: the one that was
-- mailed last, and newer ones whose mail has not left yet.
ALTER TABLE @extschema@.postmark_codes
	DROP CONSTRAINT postmark_codes_connector_address_usage_type_token_key,
	ADD COLUMN seal bytea;
ALTER TABLE @extschema@.postmark_codes ALTER seal SET STATISTICS 0;
CREATE INDEX postmark_codes_recipient
	ON @extschema@.postmark_codes (connector, address, usage_type, token, created_at, id);
COMMENT ON COLUMN @extschema@.postmark_codes.seal IS
	'of a token: an HMAC of whose it is and until when, so that an edited row verifies nothing';

CREATE FUNCTION @extschema@.postmark_retry_after(email text, usage_type text,
	connector text DEFAULT 'default')
	RETURNS interval
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.postmark_retry_after(text, text, text) IS
	'how long until sendLimit and resendInterval let a code be sent; zero: they do now';

SELECT @extschema@.postmark_replace_function(
	'@extschema@.postmark_verify_token(text, text, text)',
	'@extschema@.postmark_verify_token(text, text, text, boolean)',
	$function$
CREATE FUNCTION @extschema@.postmark_verify_token(token text, usage_type text,
	connector text DEFAULT 'default', consume boolean DEFAULT true)
	RETURNS TABLE (verdict text, email text)
	LANGUAGE c VOLATILE ROWS 1 AS 'MODULE_PATHNAME'
	$function$);
COMMENT ON FUNCTION @extschema@.postmark_verify_token(text, text, text, boolean) IS
	'use a token up, or only look at it: verified and whose it is, or mismatch, expired, not_found';

-- ----------------------------------------------------------------------
-- Operations
-- ----------------------------------------------------------------------

CREATE FUNCTION @extschema@.postmark_cancel_all(connector text, usage_type text DEFAULT NULL)
	RETURNS bigint
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.postmark_cancel_all(text, text) IS
	'cancel what is unsent of a connector, of one usage type or of all; returns how many messages';

CREATE FUNCTION @extschema@.postmark_stats()
	RETURNS TABLE (connector text, metric text, value double precision, since timestamptz)
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.postmark_stats() IS
	'what was counted of each connector since the server started, or since postmark_stats_reset; times in seconds';

CREATE FUNCTION @extschema@.postmark_stats_reset() RETURNS void
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.postmark_stats_reset() IS
	'begin to count anew in this database';

CREATE FUNCTION @extschema@.postmark_requeue_all(connector text, since interval)
	RETURNS bigint
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.postmark_requeue_all(text, interval) IS
	'put what failed in that time, and has not expired, back into the queue; returns how many messages';

-- ----------------------------------------------------------------------
-- What became of messages and addresses
-- ----------------------------------------------------------------------

-- Beside the messages, since news can come before the worker has stored that
-- a message was sent, and since the history is only ever inserted into.
CREATE TABLE @extschema@.postmark_feedback (
	id bigint NOT NULL,
	created_at timestamptz NOT NULL,
	delivered_at timestamptz,
	standing smallint NOT NULL CHECK (standing BETWEEN 0 AND 4),
	event_at timestamptz NOT NULL,
	feedback text NOT NULL,
	PRIMARY KEY (id, created_at)
);
ALTER TABLE @extschema@.postmark_feedback ALTER feedback SET STATISTICS 0;
COMMENT ON TABLE @extschema@.postmark_feedback IS
	'what Postmark said of a message after it had accepted it';
COMMENT ON COLUMN @extschema@.postmark_feedback.created_at IS
	'the message''s; with its id it names the message beyond this server''s life';
COMMENT ON COLUMN @extschema@.postmark_feedback.standing IS
	'of event_at and feedback: 4 a complaint, 3 a bounce that ends delivery, 2 a soft one, 1 a note, 0 none';

CREATE VIEW @extschema@.postmark_outcomes AS
SELECT f.id, f.created_at,
	CASE WHEN f.standing OPERATOR(pg_catalog.=) 4 THEN 'complained'
		WHEN f.standing OPERATOR(pg_catalog.=) 3 THEN 'bounced'
		WHEN f.standing OPERATOR(pg_catalog.=) 2
			AND coalesce(f.event_at OPERATOR(pg_catalog.>=) f.delivered_at, true) THEN 'bounced'
		WHEN f.delivered_at IS NOT NULL THEN 'delivered'
	END AS status,
	f.delivered_at, nullif(f.feedback, '') AS feedback
FROM @extschema@.postmark_feedback f;
COMMENT ON VIEW @extschema@.postmark_outcomes IS
	'what became of messages that Postmark accepted; status null: no news but a note';

CREATE TABLE @extschema@.postmark_suppressed (
	connector text COLLATE "C" NOT NULL,
	message_stream text COLLATE "C" NOT NULL,
	address text COLLATE "C" NOT NULL,
	email text NOT NULL,
	reason text,
	origin text,
	since timestamptz NOT NULL,
	lifted boolean NOT NULL,
	key bigint NOT NULL GENERATED ALWAYS AS (pg_catalog.hashtextextended(
		connector OPERATOR(pg_catalog.||) ' ' OPERATOR(pg_catalog.||) message_stream
			OPERATOR(pg_catalog.||) ' ' OPERATOR(pg_catalog.||) address, 0)) STORED,
	PRIMARY KEY (connector, message_stream, address)
);
CREATE INDEX postmark_suppressed_key ON @extschema@.postmark_suppressed (key) WHERE NOT lifted;
ALTER TABLE @extschema@.postmark_suppressed ALTER address SET STATISTICS 0, ALTER email SET STATISTICS 0,
	ALTER key SET STATISTICS 0;
CREATE FUNCTION @extschema@.postmark_suppressed_changed() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.postmark_suppressed_changed() IS
	'tells the worker that a suppression changed';
CREATE TRIGGER postmark_suppressed_changed
	BEFORE INSERT OR UPDATE OR DELETE ON @extschema@.postmark_suppressed
	FOR EACH ROW EXECUTE FUNCTION @extschema@.postmark_suppressed_changed();
ALTER TABLE @extschema@.postmark_suppressed ENABLE ALWAYS TRIGGER postmark_suppressed_changed;
COMMENT ON TABLE @extschema@.postmark_suppressed IS
	'addresses that Postmark does not deliver to, and those of which it said so once';
COMMENT ON COLUMN @extschema@.postmark_suppressed.address IS
	'the email with A to Z folded to a to z';
COMMENT ON COLUMN @extschema@.postmark_suppressed.key IS
	'a hash of connector, stream and address: what a batch of messages is looked up by';
COMMENT ON COLUMN @extschema@.postmark_suppressed.lifted IS
	'true: suppressed no more; the row keeps an older event from counting';

CREATE VIEW @extschema@.postmark_suppressions AS
SELECT s.connector, s.message_stream, s.email, s.reason, s.origin, s.since
FROM @extschema@.postmark_suppressed s
WHERE NOT s.lifted;
COMMENT ON VIEW @extschema@.postmark_suppressions IS
	'addresses that Postmark does not deliver to, so that nothing is sent to them';

CREATE TABLE @extschema@.postmark_inquiries (
	connector text COLLATE "C" NOT NULL,
	message_stream text COLLATE "C" NOT NULL,
	address text COLLATE "C" NOT NULL,
	noted_at timestamptz NOT NULL,
	PRIMARY KEY (connector, message_stream, address)
);
ALTER TABLE @extschema@.postmark_inquiries ALTER address SET STATISTICS 0;
COMMENT ON TABLE @extschema@.postmark_inquiries IS
	'addresses that the worker is to ask Postmark about';

-- Not part of a dump: what a restored database was told is not there.
CREATE TABLE @extschema@.postmark_feedback_progress (
	connector text COLLATE "C" NOT NULL,
	message_stream text COLLATE "C" NOT NULL,
	bounces_until timestamptz NOT NULL,
	suppressions_until timestamptz NOT NULL,
	PRIMARY KEY (connector, message_stream)
);
COMMENT ON TABLE @extschema@.postmark_feedback_progress IS
	'up to which time the worker has asked Postmark for bounces and suppressions, see feedbackInterval; deleted, it asks for all anew';

ALTER TABLE @extschema@.postmark_instance ADD COLUMN forget_key bytea;
ALTER TABLE @extschema@.postmark_instance ALTER forget_key SET STATISTICS 0;

CREATE TABLE @extschema@.postmark_forgotten (
	address_hash bytea PRIMARY KEY,
	forgotten_at timestamptz NOT NULL
);
ALTER TABLE @extschema@.postmark_forgotten ALTER address_hash SET STATISTICS 0;
COMMENT ON TABLE @extschema@.postmark_forgotten IS
	'addresses that were erased, as HMAC-SHA-256 under postmark_instance.forget_key, so that old news does not bring them back';

-- The key is of nothing that a test would order by; it lets rows be deleted
-- while a publication holds the table.
CREATE TABLE @extschema@.postmark_captures (
	message_id uuid PRIMARY KEY,
	id bigint,
	connector text COLLATE "C" NOT NULL,
	email text NOT NULL,
	usage_type text NOT NULL,
	template_alias text NOT NULL,
	template_model jsonb NOT NULL,
	captured_at timestamptz NOT NULL
);
CREATE INDEX postmark_captures_captured_at ON @extschema@.postmark_captures (captured_at);
ALTER TABLE @extschema@.postmark_captures ALTER email SET STATISTICS 0, ALTER template_model SET STATISTICS 0;
COMMENT ON TABLE @extschema@.postmark_captures IS
	'messages that a connector with "delivery": "capture" kept instead of sending them; codes and links in plain';
COMMENT ON COLUMN @extschema@.postmark_captures.message_id IS
	'made here: what postmark_send returned, or postmark_messages shows';
COMMENT ON COLUMN @extschema@.postmark_captures.id IS
	'the queued message''s; NULL: postmark_send or postmark_test, which queue none';
COMMENT ON COLUMN @extschema@.postmark_captures.connector IS
	'of postmark_settings';
COMMENT ON COLUMN @extschema@.postmark_captures.email IS
	'recipient';
COMMENT ON COLUMN @extschema@.postmark_captures.usage_type IS
	'as it was given';
COMMENT ON COLUMN @extschema@.postmark_captures.template_alias IS
	'of the template that it would have been sent with';
COMMENT ON COLUMN @extschema@.postmark_captures.template_model IS
	'what the template would have been filled in with';
COMMENT ON COLUMN @extschema@.postmark_captures.captured_at IS
	'when the message was finished';

CREATE VIEW @extschema@.postmark_captured AS
SELECT c.id, c.connector, c.email, c.usage_type, c.template_alias, c.template_model, c.captured_at
FROM @extschema@.postmark_captures c;
COMMENT ON VIEW @extschema@.postmark_captured IS
	'messages that were kept instead of being sent, as "delivery": "capture" says';
COMMENT ON COLUMN @extschema@.postmark_captured.id IS
	'of postmark_messages; null: postmark_send or postmark_test, which queue none';
COMMENT ON COLUMN @extschema@.postmark_captured.connector IS
	'of postmark_settings';
COMMENT ON COLUMN @extschema@.postmark_captured.email IS
	'recipient';
COMMENT ON COLUMN @extschema@.postmark_captured.usage_type IS
	'as it was given';
COMMENT ON COLUMN @extschema@.postmark_captured.template_alias IS
	'of the template that it would have been sent with';
COMMENT ON COLUMN @extschema@.postmark_captured.template_model IS
	'what the template would have been filled in with, code and link in plain';
COMMENT ON COLUMN @extschema@.postmark_captured.captured_at IS
	'when the message was finished';

CREATE FUNCTION @extschema@.postmark_captured_clear()
	RETURNS bigint
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.postmark_captured_clear() IS
	'forget the messages in postmark_captured; returns how many there were';

DO $$
DECLARE
	name text;
BEGIN
	FOREACH name IN ARRAY ARRAY['feedback', 'feedback_progress', 'suppressed', 'inquiries', 'forgotten', 'captures', 'dedup_keys']
	LOOP
		EXECUTE pg_catalog.format('CREATE TRIGGER postmark_not_replicated
			BEFORE INSERT OR UPDATE OR DELETE ON %2$s.%1$I
			FOR EACH ROW EXECUTE FUNCTION %2$s.postmark_not_replicated();
			ALTER TABLE %2$s.%1$I ENABLE REPLICA TRIGGER postmark_not_replicated',
			pg_catalog.concat('postmark_', name), '@extschema@');
	END LOOP;
END
$$;

CREATE FUNCTION @extschema@.postmark_webhook(event jsonb, secret text DEFAULT NULL,
	connector text DEFAULT 'default')
	RETURNS boolean
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.postmark_webhook(jsonb, text, text) IS
	'take an event that Postmark posted to the application; false: its kind does not concern us';

CREATE FUNCTION @extschema@.postmark_unlock(email text, connector text DEFAULT 'default')
	RETURNS boolean
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.postmark_unlock(text, text) IS
	'take back the failed attempts of an address; true if there were any';

CREATE FUNCTION @extschema@.postmark_unsuppress(email text, connector text DEFAULT 'default')
	RETURNS boolean
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.postmark_unsuppress(text, text) IS
	'ask Postmark to deliver to an address again, and take it from postmark_suppressions';

CREATE FUNCTION @extschema@.postmark_forget(email text)
	RETURNS bigint
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.postmark_forget(text) IS
	'erase a person: messages, codes, counters and suppressions; returns the number of rows';

CREATE OR REPLACE VIEW @extschema@.postmark_messages AS
SELECT q.id, q.connector, q.email, q.usage_type, q.locale,
	NULL::text AS template_alias,
	CASE WHEN i.id IS NULL THEN 'queued' ELSE 'sending' END AS status,
	0 AS attempts, NULL::uuid AS message_id, NULL::integer AS error_code,
	NULL::text AS last_error, q.created_at, q.created_at AS due_at,
	q.expires_at, NULL::timestamptz AS finished_at,
	NULL::timestamptz AS delivered_at, NULL::text AS feedback
FROM @extschema@.postmark_settings s
	CROSS JOIN pg_catalog.generate_series(0, 9) AS p(offset_)
	JOIN @extschema@.postmark_queue q ON q.lane = s.number * 10 + p.offset_
	LEFT JOIN (SELECT pg_catalog.unnest(ids) AS id FROM @extschema@.postmark_intents) i
		ON i.id = q.id
UNION ALL
SELECT d.id, d.connector, d.email, d.usage_type, d.locale,
	NULL::text,
	CASE WHEN i.id IS NULL THEN 'deferred' ELSE 'sending' END,
	d.attempts, NULL::uuid, d.error_code,
	d.last_error, d.created_at, d.due_at,
	d.expires_at, NULL::timestamptz,
	NULL::timestamptz, NULL::text
FROM @extschema@.postmark_deferred d
	LEFT JOIN (SELECT pg_catalog.unnest(ids) AS id FROM @extschema@.postmark_intents) i
		ON i.id = d.id
UNION ALL
SELECT h.id, h.connector, h.email, h.usage_type, h.locale,
	h.template_alias, coalesce(o.status, h.status), h.attempts, h.message_id, h.error_code,
	h.last_error, h.created_at, h.due_at, h.expires_at, h.finished_at,
	o.delivered_at, o.feedback
FROM @extschema@.postmark_history h
	LEFT JOIN @extschema@.postmark_outcomes o ON o.id = h.id AND o.created_at = h.created_at;

-- The view is made of nothing while the function that it calls is replaced: it
-- keeps its grants, and what others have made of it.
CREATE OR REPLACE VIEW @extschema@.postmark_status AS
SELECT s.connector, NULL::text AS state, NULL::text AS detail, NULL::text AS hint,
	0::bigint AS queued, 0::bigint AS deferred, 0::bigint AS in_flight,
	NULL::interval AS oldest_age, 0::bigint AS sent_last_hour,
	0::bigint AS failed_last_hour, NULL::timestamptz AS last_sent_at,
	NULL::text AS last_error, NULL::integer AS worker_pid
FROM @extschema@.postmark_settings s;

SELECT @extschema@.postmark_replace_function(
	'@extschema@.postmark_state(text)', '@extschema@.postmark_state(text)',
	$function$
CREATE FUNCTION @extschema@.postmark_state(connector text,
	OUT state text, OUT detail text, OUT hint text, OUT worker_pid integer,
	OUT state_age interval, OUT next_attempt_at timestamptz,
	OUT latency_p50 interval, OUT latency_p99 interval)
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME'
	$function$);
COMMENT ON FUNCTION @extschema@.postmark_state(text) IS
	'the state of a connector, as postmark_status shows it; NULL: of a database that has no connector';

-- Left joins, so that who asks for the state alone does not count messages.
CREATE OR REPLACE VIEW @extschema@.postmark_status AS
SELECT s.connector, st.state, st.detail, st.hint,
	q.n - coalesce(f.hot, 0) AS queued,
	d.n - coalesce(f.deferred, 0) AS deferred,
	coalesce(f.hot, 0) + coalesce(f.deferred, 0) AS in_flight,
	pg_catalog.now() - least(q.oldest, d.oldest) AS oldest_age,
	h.sent AS sent_last_hour,
	h.failed AS failed_last_hour,
	(SELECT l.finished_at FROM @extschema@.postmark_history l
	 WHERE l.connector = s.connector AND l.status IN ('sent', 'delivered', 'bounced', 'complained')
	 ORDER BY l.finished_at DESC LIMIT 1) AS last_sent_at,
	coalesce(t.detail,
		(SELECT l.last_error FROM @extschema@.postmark_history l
		 WHERE l.connector = s.connector
			AND l.finished_at > pg_catalog.now() - interval '1 hour'
			AND l.last_error IS NOT NULL
		 ORDER BY l.finished_at DESC LIMIT 1)) AS last_error,
	st.worker_pid,
	o.delivered AS delivered_last_hour,
	o.bounced AS bounced_last_hour,
	o.complained AS complained_last_hour,
	st.state_age,
	st.next_attempt_at,
	pg_catalog.now() - least(q.oldest, d.overdue) AS overdue_age,
	st.latency_p50,
	st.latency_p99
FROM (SELECT) AS database
	LEFT JOIN @extschema@.postmark_settings s ON true
	CROSS JOIN LATERAL @extschema@.postmark_state(s.connector) st
	LEFT JOIN @extschema@.postmark_trouble t ON t.connector = s.connector
	LEFT JOIN LATERAL (SELECT pg_catalog.count(*) AS n, pg_catalog.min(created_at) AS oldest
		FROM @extschema@.postmark_queue
		WHERE lane BETWEEN s.number * 10 AND s.number * 10 + 9) q ON true
	LEFT JOIN LATERAL (SELECT pg_catalog.count(*) AS n, pg_catalog.min(created_at) AS oldest,
			pg_catalog.min(CASE WHEN last_error IS NULL THEN due_at ELSE created_at END)
				FILTER (WHERE last_error IS NOT NULL OR due_at < pg_catalog.now()) AS overdue
		FROM @extschema@.postmark_deferred
		WHERE lane BETWEEN s.number * 10 AND s.number * 10 + 9) d ON true
	LEFT JOIN LATERAL (SELECT
			pg_catalog.sum(pg_catalog.cardinality(ids)) FILTER (WHERE NOT deferred) AS hot,
			pg_catalog.sum(pg_catalog.cardinality(ids)) FILTER (WHERE deferred) AS deferred
		FROM @extschema@.postmark_intents
		WHERE lane BETWEEN s.number * 10 AND s.number * 10 + 9) f ON true
	LEFT JOIN LATERAL (SELECT
			pg_catalog.count(*) FILTER (WHERE status IN ('sent', 'delivered', 'bounced', 'complained')) AS sent,
			pg_catalog.count(*) FILTER (WHERE status IN ('failed', 'expired', 'suppressed')) AS failed
		FROM @extschema@.postmark_history
		WHERE connector = s.connector
			AND finished_at > pg_catalog.now() - interval '1 hour') h ON true
	LEFT JOIN LATERAL (SELECT
			pg_catalog.count(*) FILTER (WHERE f.status = 'delivered') AS delivered,
			pg_catalog.count(*) FILTER (WHERE f.status = 'bounced') AS bounced,
			pg_catalog.count(*) FILTER (WHERE f.status = 'complained') AS complained
		FROM @extschema@.postmark_history m
			JOIN @extschema@.postmark_outcomes f ON f.id = m.id AND f.created_at = m.created_at
		WHERE m.connector = s.connector
			AND m.finished_at > pg_catalog.now() - interval '1 hour') o ON true;

-- ----------------------------------------------------------------------
-- What \df+ says of functions with many arguments, and \d+ of each column
-- ----------------------------------------------------------------------

COMMENT ON FUNCTION @extschema@.postmark_configure IS
	'validate and store a connector''s settings, all of them or none. config: the connector JSON, of which serverToken, fromEmail and templates are required; postmark_config gives an example back';
COMMENT ON FUNCTION @extschema@.postmark_check IS
	'ask Postmark whether token, stream and templates are in order; sends nothing. config: settings that are not stored yet; null: the stored ones';
COMMENT ON FUNCTION @extschema@.postmark_test IS
	'send a real test mail to email: usage type Generic, code 000000. config: settings that are not stored yet; null: the stored ones';
COMMENT ON FUNCTION @extschema@.postmark_pause IS
	'stop sending queued messages of a connector; queueing goes on, and messages expire. reason: what postmark_status is to say';
COMMENT ON FUNCTION @extschema@.postmark_send IS
	'send a message now and return Postmark''s MessageID, or raise an error; not transactional: the mail stays sent. usage_type: chooses the template; code, payload: the template''s model; locale: chooses among the usage type''s templates';
COMMENT ON FUNCTION @extschema@.postmark_enqueue IS
	'queue a message with the transaction and return its id. usage_type: chooses the template; code, payload: the template''s model; locale: chooses among the usage type''s templates; send_after: not before that; expires_in: never sent later than that, by default 10 minutes with a code, 1 day without; dedup_key: with one that another message holds, nothing is queued and that one''s id is returned';
COMMENT ON FUNCTION @extschema@.postmark_issue_code IS
	'make a verification code, queue the mail that carries it, and return the message''s id; an older code for the same address and usage type ends when the mail is sent. usage_type: chooses the template; payload: further keys of its model; locale: chooses among the usage type''s templates';
COMMENT ON FUNCTION @extschema@.postmark_issue_token IS
	'make a token, queue the mail that carries the link with it in place of {token}, and return the message''s id. usage_type: chooses the template; link: begins with the connector''s linkPrefix, if it has one; payload: further keys of the template''s model; locale: chooses among the usage type''s templates';
COMMENT ON FUNCTION @extschema@.postmark_verify_code IS
	'use a code up: verified (once), mismatch, expired, exhausted or not_found; a wrong guess counts also if the transaction rolls back';
COMMENT ON FUNCTION @extschema@.postmark_wait IS
	'wait until a message is finished and return its status, or the present one at the timeout; null: there is no such message';
COMMENT ON FUNCTION @extschema@.postmark_flush IS
	'wait until what is due now is finished: true; false at the timeout, or at once if a connector concerned does not send: a NOTICE says which, and why';
COMMENT ON FUNCTION @extschema@.postmark_enqueue_trigger IS
	'row trigger that queues a message: (''email column'', ''usage type'', ''code column''), or name=value pairs after the usage type: code, payload, locale, dedup_key (columns), connector, expires_in';
COMMENT ON FUNCTION @extschema@.postmark_issue_code_trigger IS
	'row trigger that issues a code: (''email column'', ''usage type''), then name=value pairs: payload, locale (columns), connector';

COMMENT ON COLUMN @extschema@.postmark_settings.connector IS
	'name of the connector';
COMMENT ON COLUMN @extschema@.postmark_settings.paused_at IS
	'since when it is paused by hand; null: it is not';
COMMENT ON COLUMN @extschema@.postmark_settings.pause_reason IS
	'as given to postmark_pause';
COMMENT ON COLUMN @extschema@.postmark_settings.configured_at IS
	'when postmark_configure was last called';
COMMENT ON COLUMN @extschema@.postmark_templates.connector IS
	'of postmark_settings';
COMMENT ON COLUMN @extschema@.postmark_templates.usage_type IS
	'Register, SignIn and so on';
COMMENT ON COLUMN @extschema@.postmark_templates.template_alias IS
	'alias of the template in Postmark';
COMMENT ON COLUMN @extschema@.postmark_templates.priority IS
	'0 to 9; higher goes first';
COMMENT ON COLUMN @extschema@.postmark_secrets.connector IS
	'of postmark_settings';
COMMENT ON COLUMN @extschema@.postmark_secrets.server_token IS
	'Postmark''s; null: from the token directory, or none';
COMMENT ON COLUMN @extschema@.postmark_secrets.webhook_secret IS
	'what postmark_webhook asks for; two of them with a line break between while they are changed';
COMMENT ON COLUMN @extschema@.postmark_secrets.code_key IS
	'key of the HMACs of codes and tokens';
COMMENT ON COLUMN @extschema@.postmark_queue.created_at IS
	'when it was queued; set by the row trigger whatever is supplied';
COMMENT ON COLUMN @extschema@.postmark_queue.expires_at IS
	'it is never sent after; null when it is inserted: by the template, or 10 minutes with a code, 1 day without';
COMMENT ON COLUMN @extschema@.postmark_queue.email IS
	'recipient, one address';
COMMENT ON COLUMN @extschema@.postmark_queue.usage_type IS
	'chooses the template';
COMMENT ON COLUMN @extschema@.postmark_queue.code IS
	'in the template''s model; gone when the message is finished';
COMMENT ON COLUMN @extschema@.postmark_queue.payload IS
	'further keys of the template''s model, an object; gone when the message is finished';
COMMENT ON COLUMN @extschema@.postmark_queue.locale IS
	'chooses among the usage type''s templates';
COMMENT ON COLUMN @extschema@.postmark_queue.connector IS
	'of postmark_settings; null when it is inserted: default';
COMMENT ON COLUMN @extschema@.postmark_deferred.id IS
	'of the message';
COMMENT ON COLUMN @extschema@.postmark_deferred.lane IS
	'as in postmark_queue';
COMMENT ON COLUMN @extschema@.postmark_deferred.due_at IS
	'when it is to be sent';
COMMENT ON COLUMN @extschema@.postmark_deferred.created_at IS
	'when it was queued';
COMMENT ON COLUMN @extschema@.postmark_deferred.expires_at IS
	'it is never sent after';
COMMENT ON COLUMN @extschema@.postmark_deferred.email IS
	'recipient';
COMMENT ON COLUMN @extschema@.postmark_deferred.usage_type IS
	'chooses the template';
COMMENT ON COLUMN @extschema@.postmark_deferred.code IS
	'as in postmark_queue';
COMMENT ON COLUMN @extschema@.postmark_deferred.payload IS
	'as in postmark_queue';
COMMENT ON COLUMN @extschema@.postmark_deferred.locale IS
	'chooses among the usage type''s templates';
COMMENT ON COLUMN @extschema@.postmark_deferred.connector IS
	'of postmark_settings';
COMMENT ON COLUMN @extschema@.postmark_deferred.attempts IS
	'requests in which it was, as far as they count';
COMMENT ON COLUMN @extschema@.postmark_deferred.error_code IS
	'Postmark''s ErrorCode of the last one';
COMMENT ON COLUMN @extschema@.postmark_deferred.last_error IS
	'why it was put off; null: send_after';
COMMENT ON COLUMN @extschema@.postmark_deferred.no_track IS
	'as in postmark_queue';
COMMENT ON COLUMN @extschema@.postmark_intents.batch IS
	'names the request in Postmark, as Metadata.postmark_batch';
COMMENT ON COLUMN @extschema@.postmark_intents.lane IS
	'of its messages';
COMMENT ON COLUMN @extschema@.postmark_intents.deferred IS
	'whether they are rows of postmark_deferred, else of postmark_queue';
COMMENT ON COLUMN @extschema@.postmark_intents.created_at IS
	'when the request was to begin';
COMMENT ON COLUMN @extschema@.postmark_intents.ids IS
	'of its messages';
COMMENT ON COLUMN @extschema@.postmark_history.id IS
	'of the message';
COMMENT ON COLUMN @extschema@.postmark_history.connector IS
	'of postmark_settings';
COMMENT ON COLUMN @extschema@.postmark_history.email IS
	'recipient';
COMMENT ON COLUMN @extschema@.postmark_history.usage_type IS
	'chose the template';
COMMENT ON COLUMN @extschema@.postmark_history.locale IS
	'chose among the usage type''s templates';
COMMENT ON COLUMN @extschema@.postmark_history.template_alias IS
	'the template that was sent';
COMMENT ON COLUMN @extschema@.postmark_history.status IS
	'sent, failed, expired, cancelled or suppressed; what became of it then is in postmark_feedback';
COMMENT ON COLUMN @extschema@.postmark_history.attempts IS
	'requests in which it was, as far as they count';
COMMENT ON COLUMN @extschema@.postmark_history.message_id IS
	'Postmark''s MessageID';
COMMENT ON COLUMN @extschema@.postmark_history.error_code IS
	'Postmark''s ErrorCode';
COMMENT ON COLUMN @extschema@.postmark_history.last_error IS
	'why it failed or expired';
COMMENT ON COLUMN @extschema@.postmark_history.created_at IS
	'when it was queued';
COMMENT ON COLUMN @extschema@.postmark_history.due_at IS
	'when it was to be sent, if not at once';
COMMENT ON COLUMN @extschema@.postmark_history.expires_at IS
	'it was not to be sent after';
COMMENT ON COLUMN @extschema@.postmark_history.finished_at IS
	'when that was stored';
COMMENT ON COLUMN @extschema@.postmark_history.code IS
	'of a failed message until it expires';
COMMENT ON COLUMN @extschema@.postmark_history.payload IS
	'of a failed message until it expires';
COMMENT ON COLUMN @extschema@.postmark_history.no_track IS
	'as in postmark_queue';
COMMENT ON COLUMN @extschema@.postmark_trouble.connector IS
	'of postmark_settings';
COMMENT ON COLUMN @extschema@.postmark_trouble.state IS
	'blocked, backing_off, or running where some mail waits';
COMMENT ON COLUMN @extschema@.postmark_trouble.detail IS
	'what Postmark, or the network, said';
COMMENT ON COLUMN @extschema@.postmark_trouble.hint IS
	'what to do';
COMMENT ON COLUMN @extschema@.postmark_trouble.since IS
	'when that was written';
COMMENT ON COLUMN @extschema@.postmark_instance.singleton IS
	'true: there is one row';
COMMENT ON COLUMN @extschema@.postmark_instance.database IS
	'OID of the database; another one''s: this is a copy';
COMMENT ON COLUMN @extschema@.postmark_instance.timeline IS
	'of the server when the worker last looked; another one: there was a failover';
COMMENT ON COLUMN @extschema@.postmark_instance.forget_key IS
	'key of the HMACs of postmark_forgotten';
COMMENT ON COLUMN @extschema@.postmark_codes.connector IS
	'of postmark_settings';
COMMENT ON COLUMN @extschema@.postmark_codes.usage_type IS
	'for which it is good';
COMMENT ON COLUMN @extschema@.postmark_codes.token IS
	'true: a token, false: a code';
COMMENT ON COLUMN @extschema@.postmark_codes.email IS
	'as it was given';
COMMENT ON COLUMN @extschema@.postmark_codes.hmac IS
	'of the code or token';
COMMENT ON COLUMN @extschema@.postmark_codes.created_at IS
	'when it was issued';
COMMENT ON COLUMN @extschema@.postmark_codes.expires_at IS
	'it is good until then';
COMMENT ON COLUMN @extschema@.postmark_sends.connector IS
	'of postmark_settings';
COMMENT ON COLUMN @extschema@.postmark_sends.address IS
	'the email with A to Z folded to a to z';
COMMENT ON COLUMN @extschema@.postmark_sends.sent_at IS
	'when it was queued';
COMMENT ON COLUMN @extschema@.postmark_sends.id IS
	'of the message';
COMMENT ON COLUMN @extschema@.postmark_sends.usage_type IS
	'for resendInterval';
COMMENT ON COLUMN @extschema@.postmark_attempts.attempts IS
	'how many failed';
COMMENT ON COLUMN @extschema@.postmark_attempts.since IS
	'the first of them';
COMMENT ON COLUMN @extschema@.postmark_attempts.until IS
	'counts for nothing from then on';
COMMENT ON COLUMN @extschema@.postmark_feedback.id IS
	'of the message';
COMMENT ON COLUMN @extschema@.postmark_feedback.delivered_at IS
	'when the recipient''s server took it';
COMMENT ON COLUMN @extschema@.postmark_feedback.event_at IS
	'when what feedback says happened';
COMMENT ON COLUMN @extschema@.postmark_feedback.feedback IS
	'type and description, as Postmark said them; empty: none';
COMMENT ON COLUMN @extschema@.postmark_outcomes.id IS
	'of the message';
COMMENT ON COLUMN @extschema@.postmark_outcomes.created_at IS
	'of the message';
COMMENT ON COLUMN @extschema@.postmark_outcomes.status IS
	'complained, bounced or delivered; null: none of them';
COMMENT ON COLUMN @extschema@.postmark_outcomes.delivered_at IS
	'when the recipient''s server took it';
COMMENT ON COLUMN @extschema@.postmark_outcomes.feedback IS
	'what Postmark said of a bounce or complaint';
COMMENT ON COLUMN @extschema@.postmark_suppressed.connector IS
	'of postmark_settings';
COMMENT ON COLUMN @extschema@.postmark_suppressed.message_stream IS
	'of Postmark''s server';
COMMENT ON COLUMN @extschema@.postmark_suppressed.email IS
	'as Postmark writes it';
COMMENT ON COLUMN @extschema@.postmark_suppressed.reason IS
	'HardBounce, SpamComplaint or ManualSuppression; InactiveRecipient until Postmark says more';
COMMENT ON COLUMN @extschema@.postmark_suppressed.origin IS
	'Recipient, Customer or Admin';
COMMENT ON COLUMN @extschema@.postmark_suppressed.since IS
	'as far as Postmark has said, or since it was heard of';
COMMENT ON COLUMN @extschema@.postmark_suppressions.connector IS
	'of postmark_settings';
COMMENT ON COLUMN @extschema@.postmark_suppressions.message_stream IS
	'of Postmark''s server';
COMMENT ON COLUMN @extschema@.postmark_suppressions.email IS
	'as Postmark writes it';
COMMENT ON COLUMN @extschema@.postmark_suppressions.reason IS
	'HardBounce, SpamComplaint or ManualSuppression; InactiveRecipient until Postmark says more';
COMMENT ON COLUMN @extschema@.postmark_suppressions.origin IS
	'Recipient, Customer or Admin';
COMMENT ON COLUMN @extschema@.postmark_suppressions.since IS
	'as far as Postmark has said, or since it was heard of';
COMMENT ON COLUMN @extschema@.postmark_inquiries.connector IS
	'of postmark_settings';
COMMENT ON COLUMN @extschema@.postmark_inquiries.message_stream IS
	'of Postmark''s server';
COMMENT ON COLUMN @extschema@.postmark_inquiries.address IS
	'the email with A to Z folded to a to z';
COMMENT ON COLUMN @extschema@.postmark_inquiries.noted_at IS
	'when it turned out that there is something to ask, or when asking was last in vain: the first is asked about next';
COMMENT ON COLUMN @extschema@.postmark_feedback_progress.connector IS
	'of postmark_settings';
COMMENT ON COLUMN @extschema@.postmark_feedback_progress.message_stream IS
	'of Postmark''s server';
COMMENT ON COLUMN @extschema@.postmark_feedback_progress.bounces_until IS
	'bounces and complaints until then are known';
COMMENT ON COLUMN @extschema@.postmark_feedback_progress.suppressions_until IS
	'suppressions until then are known';
COMMENT ON COLUMN @extschema@.postmark_forgotten.address_hash IS
	'HMAC of the folded address';
COMMENT ON COLUMN @extschema@.postmark_forgotten.forgotten_at IS
	'when postmark_forget was called; news from before it are ignored';
COMMENT ON COLUMN @extschema@.postmark_messages.id IS
	'as postmark_enqueue returned it';
COMMENT ON COLUMN @extschema@.postmark_messages.connector IS
	'of postmark_settings';
COMMENT ON COLUMN @extschema@.postmark_messages.email IS
	'recipient';
COMMENT ON COLUMN @extschema@.postmark_messages.usage_type IS
	'chooses the template';
COMMENT ON COLUMN @extschema@.postmark_messages.locale IS
	'chooses among the usage type''s templates';
COMMENT ON COLUMN @extschema@.postmark_messages.template_alias IS
	'the template that was sent';
COMMENT ON COLUMN @extschema@.postmark_messages.status IS
	'queued, deferred, sending, sent, delivered, bounced, complained, failed, expired, cancelled or suppressed';
COMMENT ON COLUMN @extschema@.postmark_messages.attempts IS
	'requests in which it was, as far as they count';
COMMENT ON COLUMN @extschema@.postmark_messages.message_id IS
	'Postmark''s MessageID';
COMMENT ON COLUMN @extschema@.postmark_messages.error_code IS
	'Postmark''s ErrorCode';
COMMENT ON COLUMN @extschema@.postmark_messages.last_error IS
	'why it was put off, failed or expired';
COMMENT ON COLUMN @extschema@.postmark_messages.created_at IS
	'when it was queued';
COMMENT ON COLUMN @extschema@.postmark_messages.due_at IS
	'when it is to be sent';
COMMENT ON COLUMN @extschema@.postmark_messages.expires_at IS
	'it is never sent after';
COMMENT ON COLUMN @extschema@.postmark_messages.finished_at IS
	'when it got its final status';
COMMENT ON COLUMN @extschema@.postmark_messages.delivered_at IS
	'when the recipient''s server took it';
COMMENT ON COLUMN @extschema@.postmark_messages.feedback IS
	'what Postmark said of it after it had accepted it';
COMMENT ON COLUMN @extschema@.postmark_status.connector IS
	'of postmark_settings; null: the database has no connector yet';
COMMENT ON COLUMN @extschema@.postmark_status.state IS
	'running, paused, blocked, backing_off, unconfigured, no_worker, copied or capturing';
COMMENT ON COLUMN @extschema@.postmark_status.detail IS
	'why it is in that state';
COMMENT ON COLUMN @extschema@.postmark_status.hint IS
	'what to do';
COMMENT ON COLUMN @extschema@.postmark_status.queued IS
	'messages to send now';
COMMENT ON COLUMN @extschema@.postmark_status.deferred IS
	'messages to send later';
COMMENT ON COLUMN @extschema@.postmark_status.in_flight IS
	'messages in requests that are under way or in doubt';
COMMENT ON COLUMN @extschema@.postmark_status.oldest_age IS
	'since the oldest of these was queued';
COMMENT ON COLUMN @extschema@.postmark_status.sent_last_hour IS
	'messages that Postmark accepted in the last hour';
COMMENT ON COLUMN @extschema@.postmark_status.failed_last_hour IS
	'messages of the last hour that failed, expired or were suppressed';
COMMENT ON COLUMN @extschema@.postmark_status.last_sent_at IS
	'when Postmark last accepted a message';
COMMENT ON COLUMN @extschema@.postmark_status.last_error IS
	'newest error of the connector, or of a message of the last hour';
COMMENT ON COLUMN @extschema@.postmark_status.worker_pid IS
	'process of the database''s worker; null: there is none';
COMMENT ON COLUMN @extschema@.postmark_status.delivered_last_hour IS
	'of sent_last_hour, as far as Postmark has said';
COMMENT ON COLUMN @extschema@.postmark_status.bounced_last_hour IS
	'of sent_last_hour, as far as Postmark has said';
COMMENT ON COLUMN @extschema@.postmark_status.complained_last_hour IS
	'of sent_last_hour, as far as Postmark has said';
COMMENT ON COLUMN @extschema@.postmark_status.state_age IS
	'for how long it has been in this state, as far as this server has seen';
COMMENT ON COLUMN @extschema@.postmark_status.next_attempt_at IS
	'when it, or the next deferred message, is tried; null: nothing is to be tried';
COMMENT ON COLUMN @extschema@.postmark_status.overdue_age IS
	'for how long the message that was to be sent first waits';
COMMENT ON COLUMN @extschema@.postmark_status.latency_p50 IS
	'from queueing to request, half of the messages of the last minutes; null: there were none';
COMMENT ON COLUMN @extschema@.postmark_status.latency_p99 IS
	'the same, all of them but one in a hundred';

-- ----------------------------------------------------------------------
-- What this version adds belongs to the owner of what there was: all is done
-- with the rights of the queue's. And nothing of it is for anybody else, also
-- where ALTER DEFAULT PRIVILEGES would give it; what was given of 1.0's objects
-- remains
-- ----------------------------------------------------------------------

DO $$
DECLARE
	added CONSTANT text[] := ARRAY[
		'postmark_set_node', 'postmark_rotate_code_key', 'postmark_retry_after', 'postmark_install_templates',
		'postmark_feedback', 'postmark_outcomes', 'postmark_suppressed',
		'postmark_suppressions', 'postmark_inquiries', 'postmark_suppressed_changed', 'postmark_feedback_progress', 'postmark_webhook',
		'postmark_forgotten', 'postmark_forget', 'postmark_cancel_all', 'postmark_requeue_all',
		'postmark_stats', 'postmark_stats_reset', 'postmark_unsuppress', 'postmark_unlock', 'postmark_settings_row',
		'postmark_captures', 'postmark_captured', 'postmark_captured_clear',
		'postmark_message_status', 'postmark_last_id', 'postmark_dedup_keys'
	];
	functions CONSTANT pg_catalog.oid[] := ARRAY(
		SELECT p.oid
		FROM pg_catalog.pg_proc p
			JOIN pg_catalog.pg_depend d ON d.objid OPERATOR(pg_catalog.=) p.oid
				AND d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass::pg_catalog.oid
				AND d.deptype OPERATOR(pg_catalog.=) 'e'
		WHERE p.pronamespace OPERATOR(pg_catalog.=) '@extschema@'::pg_catalog.regnamespace::pg_catalog.oid
			AND p.proname OPERATOR(pg_catalog.=) ANY (added::pg_catalog.name[]));
	object record;
BEGIN
	FOR object IN
		SELECT pg_catalog.format('ALTER %s %s OWNER TO %s',
				CASE WHEN c.relkind OPERATOR(pg_catalog.=) 'v' THEN 'VIEW' ELSE 'TABLE' END,
				c.oid::pg_catalog.regclass, q.relowner::pg_catalog.regrole) AS command
		FROM pg_catalog.pg_class c
			JOIN pg_catalog.pg_class q ON q.oid OPERATOR(pg_catalog.=) '@extschema@.postmark_queue'::pg_catalog.regclass::pg_catalog.oid
		WHERE c.relnamespace OPERATOR(pg_catalog.=) q.relnamespace
			AND c.relname OPERATOR(pg_catalog.=) ANY (added::pg_catalog.name[])
			AND c.relowner OPERATOR(pg_catalog.<>) q.relowner
		UNION ALL
		SELECT pg_catalog.format('ALTER FUNCTION %s OWNER TO %s',
				p.oid::pg_catalog.regprocedure, f.proowner::pg_catalog.regrole)
		FROM pg_catalog.pg_proc p
			JOIN pg_catalog.pg_proc f ON f.oid OPERATOR(pg_catalog.=) '@extschema@.postmark_configure'::pg_catalog.regproc::pg_catalog.oid
		WHERE p.oid OPERATOR(pg_catalog.=) ANY (functions)
			AND p.proowner OPERATOR(pg_catalog.<>) f.proowner
	LOOP
		EXECUTE object.command;
	END LOOP;

	FOR object IN
		SELECT pg_catalog.format('REVOKE ALL ON TABLE %s FROM %s',
				c.oid::pg_catalog.regclass,
				CASE WHEN a.grantee OPERATOR(pg_catalog.=) 0 THEN 'PUBLIC' ELSE a.grantee::pg_catalog.regrole::text END) AS command
		FROM pg_catalog.pg_class c
			CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) a
		WHERE c.relnamespace OPERATOR(pg_catalog.=) '@extschema@'::pg_catalog.regnamespace::pg_catalog.oid
			AND c.relname OPERATOR(pg_catalog.=) ANY (added::pg_catalog.name[])
			AND a.grantee OPERATOR(pg_catalog.<>) c.relowner
		UNION
		SELECT pg_catalog.format('REVOKE ALL ON FUNCTION %s FROM %s',
				p.oid::pg_catalog.regprocedure,
				CASE WHEN a.grantee OPERATOR(pg_catalog.=) 0 THEN 'PUBLIC' ELSE a.grantee::pg_catalog.regrole::text END)
		FROM pg_catalog.pg_proc p
			CROSS JOIN LATERAL pg_catalog.aclexplode(
				coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) a
		WHERE p.oid OPERATOR(pg_catalog.=) ANY (functions)
			AND a.grantee OPERATOR(pg_catalog.<>) p.proowner
	LOOP
		EXECUTE object.command;
	END LOOP;
END
$$;

DROP FUNCTION @extschema@.postmark_replace_function(text, text, text);

-- ----------------------------------------------------------------------
-- Last: an ALTER of a table that 1.0 had, which tells every session to read
-- the extension's version anew
-- ----------------------------------------------------------------------

ALTER TABLE @extschema@.postmark_queue ALTER COLUMN email SET STATISTICS 0;
