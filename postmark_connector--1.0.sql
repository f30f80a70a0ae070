/* postmark_connector--1.0.sql */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION postmark_connector" to load this file. \quit

--
-- Settings
--

CREATE TABLE @extschema@.postmark_settings (
	connector text COLLATE "C" PRIMARY KEY
		CHECK (connector ~ '^[a-z0-9_-]{1,63}$'),
	number integer NOT NULL UNIQUE CHECK (number BETWEEN 1 AND 200000000),
	config jsonb NOT NULL,
	paused_at timestamptz,
	pause_reason text,
	configured_at timestamptz NOT NULL DEFAULT pg_catalog.now()
);
COMMENT ON TABLE @extschema@.postmark_settings IS
	'one row a connector; written by postmark_configure, postmark_pause, postmark_resume and postmark_remove';
COMMENT ON COLUMN @extschema@.postmark_settings.number IS
	'number of the connector in this database; the queue''s lanes are made of it';
COMMENT ON COLUMN @extschema@.postmark_settings.config IS
	'the connector JSON without serverToken and templates';

CREATE TABLE @extschema@.postmark_templates (
	connector text COLLATE "C" NOT NULL
		REFERENCES @extschema@.postmark_settings ON UPDATE CASCADE ON DELETE CASCADE,
	usage_type text NOT NULL,
	locale text NOT NULL DEFAULT '',
	template_alias text NOT NULL,
	priority integer NOT NULL DEFAULT 5 CHECK (priority BETWEEN 0 AND 9),
	expires_in integer CHECK (expires_in > 0),
	PRIMARY KEY (connector, usage_type, locale)
);
COMMENT ON TABLE @extschema@.postmark_templates IS
	'the template alias of each usage type, and of each locale where there are several';
COMMENT ON COLUMN @extschema@.postmark_templates.locale IS
	'empty: any locale';
COMMENT ON COLUMN @extschema@.postmark_templates.expires_in IS
	'seconds until a message expires; null: 10 minutes with a code, 1 day without';

CREATE TABLE @extschema@.postmark_secrets (
	connector text COLLATE "C" PRIMARY KEY,
	server_token text,
	webhook_secret text,
	code_key bytea
);
COMMENT ON TABLE @extschema@.postmark_secrets IS
	'tokens and keys; granted to nobody and not part of a dump';

-- statistics would keep them after the row is gone
ALTER TABLE @extschema@.postmark_secrets ALTER server_token SET STATISTICS 0,
	ALTER webhook_secret SET STATISTICS 0, ALTER code_key SET STATISTICS 0;

SELECT pg_catalog.pg_extension_config_dump('@extschema@.postmark_settings', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.postmark_templates', '');

CREATE FUNCTION @extschema@.postmark_settings_changed() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.postmark_settings_changed() IS
	'tells sessions and the worker that settings changed';

CREATE TRIGGER postmark_settings_changed
	AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON @extschema@.postmark_settings
	FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.postmark_settings_changed();
CREATE TRIGGER postmark_settings_changed
	AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON @extschema@.postmark_templates
	FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.postmark_settings_changed();
CREATE TRIGGER postmark_settings_changed
	AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON @extschema@.postmark_secrets
	FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.postmark_settings_changed();
ALTER TABLE @extschema@.postmark_settings ENABLE ALWAYS TRIGGER postmark_settings_changed;
ALTER TABLE @extschema@.postmark_templates ENABLE ALWAYS TRIGGER postmark_settings_changed;
ALTER TABLE @extschema@.postmark_secrets ENABLE ALWAYS TRIGGER postmark_settings_changed;

CREATE FUNCTION @extschema@.postmark_configure(config jsonb, connector text DEFAULT 'default')
	RETURNS void
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.postmark_configure(jsonb, text) IS
	'validate and store a connector''s settings, all of them or none';

CREATE FUNCTION @extschema@.postmark_config(connector text DEFAULT 'default')
	RETURNS jsonb
	LANGUAGE c STABLE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.postmark_config(text) IS
	'a connector''s settings as postmark_configure takes them, secrets masked';

CREATE FUNCTION @extschema@.postmark_set_token(token text, connector text DEFAULT 'default')
	RETURNS void
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.postmark_set_token(text, text) IS
	'set or rotate a connector''s server token';

CREATE FUNCTION @extschema@.postmark_check(connector text DEFAULT 'default', config jsonb DEFAULT NULL)
	RETURNS TABLE (item text, ok boolean, detail text)
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.postmark_check(text, jsonb) IS
	'ask Postmark whether token, stream and templates are in order; sends nothing';

CREATE FUNCTION @extschema@.postmark_test(email text, config jsonb DEFAULT NULL, connector text DEFAULT 'default')
	RETURNS uuid
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.postmark_test(text, jsonb, text) IS
	'send a real test mail: usage type Generic, code 000000';

CREATE FUNCTION @extschema@.postmark_pause(connector text DEFAULT 'default', reason text DEFAULT NULL)
	RETURNS void
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.postmark_pause(text, text) IS
	'stop sending queued messages of a connector; queueing goes on';

CREATE FUNCTION @extschema@.postmark_resume(connector text DEFAULT 'default')
	RETURNS void
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.postmark_resume(text) IS
	'send queued messages of a connector again; also lets a copied database send';

CREATE FUNCTION @extschema@.postmark_remove(connector text)
	RETURNS void
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.postmark_remove(text) IS
	'forget a connector that has no unsent messages';

--
-- Sending
--

CREATE FUNCTION @extschema@.postmark_send(email text, usage_type text,
	code text DEFAULT NULL, payload jsonb DEFAULT NULL, locale text DEFAULT NULL,
	connector text DEFAULT 'default')
	RETURNS uuid
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.postmark_send(text, text, text, jsonb, text, text) IS
	'send a message now and return Postmark''s MessageID; not transactional';

--
-- Queue
--

-- Which database this is, to recognise a copy made by CREATE DATABASE ...
-- TEMPLATE, and the timeline on which the worker last ran, to recognise a
-- failover.  One row; it has a key so that a publication may hold the table,
-- which is updated.
CREATE TABLE @extschema@.postmark_instance (
	singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
	database oid NOT NULL,
	timeline integer
);
COMMENT ON TABLE @extschema@.postmark_instance IS
	'the database and the timeline that the queue belongs to';
INSERT INTO @extschema@.postmark_instance (database)
	SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database();

CREATE SEQUENCE @extschema@.postmark_message_id_seq;
COMMENT ON SEQUENCE @extschema@.postmark_message_id_seq IS
	'ids of messages, and of their order';

-- Insert and delete only.  The lane is connector and priority, so that a
-- choice of connectors and priorities is a choice of index ranges.
CREATE TABLE @extschema@.postmark_queue (
	lane integer NOT NULL,
	id bigint NOT NULL,
	created_at timestamptz NOT NULL,
	expires_at timestamptz NOT NULL,
	email text NOT NULL,
	usage_type text NOT NULL,
	code text,
	payload jsonb,
	locale text,
	connector text COLLATE "C" NOT NULL,
	no_track boolean,
	PRIMARY KEY (lane, id)
) WITH (
	-- all rows die within moments: vacuum is not to rest in between
	autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
	autovacuum_vacuum_cost_delay = 0,
	-- to shorten the file takes a lock that holds up writers for too long; the
	-- worker truncates the table when it is empty
	vacuum_truncate = off, toast.vacuum_truncate = off
);
-- statistics would keep them after the message is finished
ALTER TABLE @extschema@.postmark_queue ALTER code SET STATISTICS 0, ALTER payload SET STATISTICS 0;
COMMENT ON TABLE @extschema@.postmark_queue IS
	'messages to send now; INSERT email, usage_type and optionally code, payload, locale, connector, expires_at';
COMMENT ON COLUMN @extschema@.postmark_queue.lane IS
	'connector number * 10 + 9 - priority; set by the row trigger';
COMMENT ON COLUMN @extschema@.postmark_queue.id IS
	'set by the row trigger whatever is supplied';
COMMENT ON COLUMN @extschema@.postmark_queue.no_track IS
	'true: links are not tracked, whatever the connector says';

CREATE FUNCTION @extschema@.postmark_queue_row() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.postmark_queue_row() IS
	'checks a message and gives it its id and lane';

CREATE TRIGGER postmark_queue_row
	BEFORE INSERT OR UPDATE ON @extschema@.postmark_queue
	FOR EACH ROW EXECUTE FUNCTION @extschema@.postmark_queue_row();
ALTER TABLE @extschema@.postmark_queue ENABLE ALWAYS TRIGGER postmark_queue_row;

-- Messages for later: send_after, retries, requeued ones.
CREATE TABLE @extschema@.postmark_deferred (
	id bigint PRIMARY KEY,
	lane integer NOT NULL,
	due_at timestamptz NOT NULL,
	created_at timestamptz NOT NULL,
	expires_at timestamptz NOT NULL,
	email text NOT NULL,
	usage_type text NOT NULL,
	code text,
	payload jsonb,
	locale text,
	connector text COLLATE "C" NOT NULL,
	attempts integer NOT NULL DEFAULT 0,
	error_code integer,
	last_error text,
	no_track boolean
);
ALTER TABLE @extschema@.postmark_deferred ALTER code SET STATISTICS 0, ALTER payload SET STATISTICS 0;
CREATE INDEX postmark_deferred_due ON @extschema@.postmark_deferred (lane, due_at, id);
COMMENT ON TABLE @extschema@.postmark_deferred IS
	'messages to send at due_at';

-- A row a request under way: what is in it may have been sent.
CREATE TABLE @extschema@.postmark_intents (
	batch uuid PRIMARY KEY,
	lane integer NOT NULL,
	deferred boolean NOT NULL,
	created_at timestamptz NOT NULL,
	ids bigint[] NOT NULL
);
-- 500 ids are 4 kB: to compress them took 6 % of the worker's time
ALTER TABLE @extschema@.postmark_intents ALTER ids SET STORAGE PLAIN;
COMMENT ON TABLE @extschema@.postmark_intents IS
	'requests under way or in doubt, by the batch that their messages carry as postmark_batch';

CREATE TABLE @extschema@.postmark_history (
	id bigint PRIMARY KEY,
	connector text COLLATE "C" NOT NULL,
	email text NOT NULL,
	usage_type text NOT NULL,
	locale text,
	template_alias text,
	status text COLLATE "C" NOT NULL,
	attempts integer NOT NULL,
	message_id uuid,
	error_code integer,
	last_error text,
	created_at timestamptz NOT NULL,
	due_at timestamptz,
	expires_at timestamptz NOT NULL,
	finished_at timestamptz NOT NULL,
	code text,
	payload jsonb,
	no_track boolean
);
ALTER TABLE @extschema@.postmark_history ALTER code SET STATISTICS 0, ALTER payload SET STATISTICS 0;
CREATE INDEX postmark_history_finished ON @extschema@.postmark_history (connector, finished_at);
CREATE INDEX postmark_history_content ON @extschema@.postmark_history (expires_at)
	WHERE code IS NOT NULL OR payload IS NOT NULL;
COMMENT ON TABLE @extschema@.postmark_history IS
	'finished messages; code and payload only of failed ones, until they expire';

CREATE TABLE @extschema@.postmark_trouble (
	connector text COLLATE "C" PRIMARY KEY,
	state text NOT NULL,
	detail text NOT NULL,
	hint text,
	since timestamptz NOT NULL
);
COMMENT ON TABLE @extschema@.postmark_trouble IS
	'connectors that do not flow, written by the worker';

CREATE FUNCTION @extschema@.postmark_enqueue(email text, usage_type text,
	code text DEFAULT NULL, payload jsonb DEFAULT NULL, locale text DEFAULT NULL,
	send_after timestamptz DEFAULT NULL, expires_in interval DEFAULT NULL,
	connector text DEFAULT 'default')
	RETURNS bigint
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.postmark_enqueue(text, text, text, jsonb, text, timestamptz, interval, text) IS
	'queue a message with the transaction and return its id';

CREATE FUNCTION @extschema@.postmark_enqueue_trigger() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.postmark_enqueue_trigger() IS
	'row trigger that queues a message: email column, usage type, then code column or name=value pairs';

CREATE FUNCTION @extschema@.postmark_cancel(id bigint) RETURNS boolean
	LANGUAGE c STRICT VOLATILE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.postmark_cancel(bigint) IS
	'true: the message was unsent and never will be sent';

CREATE FUNCTION @extschema@.postmark_requeue(id bigint) RETURNS boolean
	LANGUAGE c STRICT VOLATILE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.postmark_requeue(bigint) IS
	'put a failed, unexpired message back into the queue';

CREATE FUNCTION @extschema@.postmark_wait(id bigint, timeout interval DEFAULT '30 s') RETURNS text
	LANGUAGE c STRICT VOLATILE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.postmark_wait(bigint, interval) IS
	'wait until a message is finished and return its status';

CREATE FUNCTION @extschema@.postmark_flush(timeout interval DEFAULT '30 s') RETURNS boolean
	LANGUAGE c STRICT VOLATILE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.postmark_flush(interval) IS
	'wait until what is due now is finished';

--
-- Verification codes.  None of these tables is part of a dump: after a restore
-- no code is good any more.
--

CREATE TABLE @extschema@.postmark_codes (
	id bigint PRIMARY KEY,
	connector text COLLATE "C" NOT NULL,
	address text COLLATE "C" NOT NULL,
	usage_type text COLLATE "C" NOT NULL,
	token boolean NOT NULL,
	email text NOT NULL,
	hmac bytea NOT NULL,
	created_at timestamptz NOT NULL,
	expires_at timestamptz NOT NULL,
	UNIQUE (connector, address, usage_type, token)
);
ALTER TABLE @extschema@.postmark_codes ALTER hmac SET STATISTICS 0;
CREATE UNIQUE INDEX postmark_codes_token ON @extschema@.postmark_codes (hmac) WHERE token;
CREATE INDEX postmark_codes_expires ON @extschema@.postmark_codes (expires_at);
COMMENT ON TABLE @extschema@.postmark_codes IS
	'codes and tokens that were issued and not used yet, as HMAC-SHA-256 under postmark_secrets.code_key';
COMMENT ON COLUMN @extschema@.postmark_codes.id IS
	'id of the message that carries it';
COMMENT ON COLUMN @extschema@.postmark_codes.address IS
	'the email with A to Z folded to a to z';

CREATE TABLE @extschema@.postmark_sends (
	connector text COLLATE "C" NOT NULL,
	address text COLLATE "C" NOT NULL,
	sent_at timestamptz NOT NULL,
	id bigint NOT NULL,
	usage_type text COLLATE "C" NOT NULL,
	until timestamptz NOT NULL,
	PRIMARY KEY (connector, address, sent_at, id)
);
CREATE INDEX postmark_sends_id ON @extschema@.postmark_sends (id);
CREATE INDEX postmark_sends_until ON @extschema@.postmark_sends (until);
COMMENT ON TABLE @extschema@.postmark_sends IS
	'messages with codes and tokens of late, for sendLimit and resendInterval';
COMMENT ON COLUMN @extschema@.postmark_sends.until IS
	'counts for nothing from then on';

CREATE TABLE @extschema@.postmark_attempts (
	counter bytea PRIMARY KEY,
	attempts integer NOT NULL,
	since timestamptz NOT NULL,
	until timestamptz NOT NULL
);
ALTER TABLE @extschema@.postmark_attempts ALTER counter SET STATISTICS 0;
CREATE INDEX postmark_attempts_until ON @extschema@.postmark_attempts (until);
COMMENT ON TABLE @extschema@.postmark_attempts IS
	'failed attempts by code and by address, stored by the worker behind the counters in shared memory';
COMMENT ON COLUMN @extschema@.postmark_attempts.counter IS
	'c and the first half of a code''s hmac, or a and half an HMAC of connector and address';

-- All but the settings is each server's own.  A trigger for replicas only
-- costs nobody else anything.
CREATE FUNCTION @extschema@.postmark_not_replicated() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.postmark_not_replicated() IS
	'keeps out what logical replication brings of another server''s messages';

DO $$
DECLARE
	name text;
BEGIN
	FOREACH name IN ARRAY ARRAY['deferred', 'intents', 'history', 'trouble',
		'instance', 'codes', 'sends', 'attempts']
	LOOP
		EXECUTE pg_catalog.format('CREATE TRIGGER postmark_not_replicated
			BEFORE INSERT OR UPDATE OR DELETE ON @extschema@.%1$I
			FOR EACH ROW EXECUTE FUNCTION @extschema@.postmark_not_replicated();
			ALTER TABLE @extschema@.%1$I ENABLE REPLICA TRIGGER postmark_not_replicated',
			pg_catalog.concat('postmark_', name));
	END LOOP;
END
$$;

CREATE FUNCTION @extschema@.postmark_issue_code(email text, usage_type text,
	payload jsonb DEFAULT NULL, locale text DEFAULT NULL,
	connector text DEFAULT 'default')
	RETURNS bigint
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.postmark_issue_code(text, text, jsonb, text, text) IS
	'make a verification code, queue the mail that carries it, and return the message''s id';

CREATE FUNCTION @extschema@.postmark_verify_code(email text, usage_type text,
	code text, connector text DEFAULT 'default')
	RETURNS text
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.postmark_verify_code(text, text, text, text) IS
	'use a code up: verified, mismatch, expired, exhausted or not_found';

CREATE FUNCTION @extschema@.postmark_issue_code_trigger() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.postmark_issue_code_trigger() IS
	'row trigger that issues a code: email column, usage type, then name=value pairs';

CREATE FUNCTION @extschema@.postmark_issue_token(email text, usage_type text,
	link text, payload jsonb DEFAULT NULL, locale text DEFAULT NULL,
	connector text DEFAULT 'default')
	RETURNS bigint
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.postmark_issue_token(text, text, text, jsonb, text, text) IS
	'make a token, queue the mail that carries the link with it in place of {token}, and return the message''s id';

CREATE FUNCTION @extschema@.postmark_verify_token(token text, usage_type text,
	connector text DEFAULT 'default')
	RETURNS TABLE (verdict text, email text)
	LANGUAGE c VOLATILE ROWS 1 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.postmark_verify_token(text, text, text) IS
	'use a token up: verified and whose it is, or mismatch, expired, not_found';

--
-- What goes on
--

CREATE FUNCTION @extschema@.postmark_state(connector text,
	OUT state text, OUT detail text, OUT hint text, OUT worker_pid integer)
	LANGUAGE c STRICT VOLATILE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.postmark_state(text) IS
	'the state of a connector, as postmark_status shows it';

-- Lanes are joined so that a look-up by id probes the primary key lane by
-- lane.
CREATE VIEW @extschema@.postmark_messages AS
SELECT q.id, q.connector, q.email, q.usage_type, q.locale,
	NULL::text AS template_alias,
	CASE WHEN i.id IS NULL THEN 'queued' ELSE 'sending' END AS status,
	0 AS attempts, NULL::uuid AS message_id, NULL::integer AS error_code,
	NULL::text AS last_error, q.created_at, q.created_at AS due_at,
	q.expires_at, NULL::timestamptz AS finished_at
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
	d.expires_at, NULL::timestamptz
FROM @extschema@.postmark_deferred d
	LEFT JOIN (SELECT pg_catalog.unnest(ids) AS id FROM @extschema@.postmark_intents) i
		ON i.id = d.id
UNION ALL
SELECT h.id, h.connector, h.email, h.usage_type, h.locale,
	h.template_alias, h.status, h.attempts, h.message_id, h.error_code,
	h.last_error, h.created_at, h.due_at, h.expires_at, h.finished_at
FROM @extschema@.postmark_history h;
COMMENT ON VIEW @extschema@.postmark_messages IS
	'every message, wherever it is; never its code or payload';

CREATE VIEW @extschema@.postmark_status AS
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
	st.worker_pid
FROM @extschema@.postmark_settings s
	CROSS JOIN LATERAL @extschema@.postmark_state(s.connector) st
	LEFT JOIN @extschema@.postmark_trouble t ON t.connector = s.connector
	CROSS JOIN LATERAL (SELECT pg_catalog.count(*) AS n, pg_catalog.min(created_at) AS oldest
		FROM @extschema@.postmark_queue
		WHERE lane BETWEEN s.number * 10 AND s.number * 10 + 9) q
	CROSS JOIN LATERAL (SELECT pg_catalog.count(*) AS n, pg_catalog.min(created_at) AS oldest
		FROM @extschema@.postmark_deferred
		WHERE lane BETWEEN s.number * 10 AND s.number * 10 + 9) d
	CROSS JOIN LATERAL (SELECT
			pg_catalog.sum(pg_catalog.cardinality(ids)) FILTER (WHERE NOT deferred) AS hot,
			pg_catalog.sum(pg_catalog.cardinality(ids)) FILTER (WHERE deferred) AS deferred
		FROM @extschema@.postmark_intents
		WHERE lane BETWEEN s.number * 10 AND s.number * 10 + 9) f
	CROSS JOIN LATERAL (SELECT
			pg_catalog.count(*) FILTER (WHERE status IN ('sent', 'delivered', 'bounced', 'complained')) AS sent,
			pg_catalog.count(*) FILTER (WHERE status IN ('failed', 'expired', 'suppressed')) AS failed
		FROM @extschema@.postmark_history
		WHERE connector = s.connector
			AND finished_at > pg_catalog.now() - interval '1 hour') h;
COMMENT ON VIEW @extschema@.postmark_status IS
	'a row a connector: is it running, and if not, why';

--
-- Nothing for anybody but the owner, also where ALTER DEFAULT PRIVILEGES
-- would give it.
--

DO $$
DECLARE
	object record;
BEGIN
	FOR object IN
		SELECT pg_catalog.format('REVOKE ALL ON %s %s FROM %s',
				CASE WHEN c.relkind OPERATOR(pg_catalog.=) 'S' THEN 'SEQUENCE' ELSE 'TABLE' END,
				c.oid::pg_catalog.regclass,
				CASE WHEN a.grantee OPERATOR(pg_catalog.=) 0 THEN 'PUBLIC' ELSE a.grantee::pg_catalog.regrole::text END) AS command
		FROM pg_catalog.pg_class c
			JOIN pg_catalog.pg_depend d ON d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid
				AND d.objid OPERATOR(pg_catalog.=) c.oid AND d.objsubid OPERATOR(pg_catalog.=) 0 AND d.deptype OPERATOR(pg_catalog.=) 'e'
				AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass::pg_catalog.oid
			JOIN pg_catalog.pg_extension e ON e.oid OPERATOR(pg_catalog.=) d.refobjid AND e.extname OPERATOR(pg_catalog.=) 'postmark_connector'
			CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) a
		WHERE c.relkind OPERATOR(pg_catalog.=) ANY ('{r,v,S}'::pg_catalog."char"[]) AND a.grantee OPERATOR(pg_catalog.<>) c.relowner
		UNION
		SELECT pg_catalog.format('REVOKE ALL ON FUNCTION %s FROM %s',
				p.oid::pg_catalog.regprocedure,
				CASE WHEN a.grantee OPERATOR(pg_catalog.=) 0 THEN 'PUBLIC' ELSE a.grantee::pg_catalog.regrole::text END)
		FROM pg_catalog.pg_proc p
			JOIN pg_catalog.pg_depend d ON d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass::pg_catalog.oid
				AND d.objid OPERATOR(pg_catalog.=) p.oid AND d.deptype OPERATOR(pg_catalog.=) 'e'
				AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass::pg_catalog.oid
			JOIN pg_catalog.pg_extension e ON e.oid OPERATOR(pg_catalog.=) d.refobjid AND e.extname OPERATOR(pg_catalog.=) 'postmark_connector'
			CROSS JOIN LATERAL pg_catalog.aclexplode(
				coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) a
		WHERE a.grantee OPERATOR(pg_catalog.<>) p.proowner
	LOOP
		EXECUTE object.command;
	END LOOP;
END
$$;
