--
-- The tables are held against what the install script made before they are
-- used, and what is attached to them is looked at
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir /sql/common.inc
\set ECHO none
\i :common
\set ECHO all

SELECT postmark_configure(test.config());

-- as the install script made them: nothing is wrong
SELECT state <> 'unconfigured' AS in_order FROM postmark_state('default');

-- every column is known by its number: whichever gets another name is missed
CREATE FUNCTION test.unnoticed() RETURNS SETOF text LANGUAGE plpgsql AS $function$
DECLARE
	c record;
	found text;
BEGIN
	FOR c IN SELECT r.relname, a.attname
		FROM pg_class r JOIN pg_attribute a ON a.attrelid = r.oid
			JOIN pg_depend d ON d.objid = r.oid AND d.classid = 'pg_class'::regclass AND d.deptype = 'e'
			JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'postmark_connector'
		WHERE r.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
	LOOP
		EXECUTE format('ALTER TABLE %I RENAME COLUMN %I TO another', c.relname, c.attname);
		SELECT detail INTO found FROM postmark_state('default') WHERE state = 'unconfigured';
		IF found IS DISTINCT FROM format('column "%s" of table "%s" is missing, or not in its place', c.attname, c.relname) THEN
			RETURN NEXT format('%s.%s: %s', c.relname, c.attname, found);
		END IF;
		EXECUTE format('ALTER TABLE %I RENAME COLUMN another TO %I', c.relname, c.attname);
	END LOOP;
END
$function$;
BEGIN;
SELECT test.unnoticed();
ROLLBACK;

-- what an owner does to a table, what the state says, and what comes of work
CREATE FUNCTION test.after(change text, work text) RETURNS TABLE (fault text, outcome text) LANGUAGE plpgsql AS $function$
BEGIN
	EXECUTE change;
	SELECT detail INTO fault FROM postmark_state('default') WHERE state = 'unconfigured';
	SELECT string_agg(a, ' | ') INTO outcome FROM test.attempt(work) a;
	RAISE EXCEPTION USING ERRCODE = 'T0000', MESSAGE = coalesce(fault, '-') || E'\n' || outcome;
EXCEPTION WHEN SQLSTATE 'T0000' THEN
	fault := split_part(SQLERRM, E'\n', 1);
	outcome := split_part(SQLERRM, E'\n', 2);
	RETURN NEXT;
END
$function$;
\set enqueue '$$SELECT postmark_enqueue(''ann@example.com'', ''SignIn'', ''493021'') > 0$$'
\set insert '$$INSERT INTO postmark_queue (email, usage_type, code) VALUES (''ann@example.com'', ''SignIn'', ''493021'')$$'
\set issue '$$SELECT postmark_issue_code(''ann@example.com'', ''SignIn'') > 0$$'
\x on
SELECT * FROM test.after('ALTER TABLE postmark_queue ALTER code TYPE bigint USING 1', :enqueue);
SELECT * FROM test.after('ALTER TABLE postmark_queue ALTER code TYPE bigint USING 1', :insert);
SELECT * FROM test.after('ALTER TABLE postmark_queue DROP no_track', :enqueue);
SELECT * FROM test.after('ALTER TABLE postmark_queue DROP no_track, ADD no_track boolean', :insert);
SELECT * FROM test.after('ALTER TABLE postmark_queue ALTER email DROP NOT NULL', :enqueue);
SELECT * FROM test.after('ALTER TABLE postmark_settings ALTER config TYPE bigint USING 1', :enqueue);
SELECT * FROM test.after('ALTER TABLE postmark_templates ALTER expires_in TYPE bigint', :enqueue);
SELECT * FROM test.after('ALTER TABLE postmark_secrets ALTER server_token TYPE integer USING 1', 'SELECT postmark_set_token(''x'')');
SELECT * FROM test.after('ALTER TABLE postmark_codes ALTER hmac TYPE text USING ''''', :issue);
SELECT * FROM test.after('ALTER TABLE postmark_codes ALTER created_at TYPE timestamptz(0)', :issue);
SELECT * FROM test.after('ALTER TABLE postmark_deferred RENAME TO another', :enqueue);
SELECT * FROM test.after('ALTER TABLE postmark_history SET SCHEMA test', 'SELECT postmark_wait(1)');
SELECT * FROM test.after('CREATE TABLE test.child () INHERITS (postmark_queue)', :enqueue);
-- a column more does no harm
SELECT * FROM test.after('ALTER TABLE postmark_queue ADD remark text', :insert);
\x off

-- what somebody attaches runs with the owner's rights: only the owner's and a
-- superuser's functions may
CREATE ROLE regress_postmark_attacher;
CREATE SCHEMA regress_postmark_attacher AUTHORIZATION regress_postmark_attacher;
GRANT TRIGGER ON postmark_queue, postmark_codes, postmark_history TO regress_postmark_attacher;
SET ROLE regress_postmark_attacher;
CREATE FUNCTION regress_postmark_attacher.rise() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	ALTER ROLE regress_postmark_attacher SUPERUSER;
	RETURN NEW;
END $$;
CREATE FUNCTION regress_postmark_attacher.eq(integer, integer) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1 = $2';
RESET ROLE;
CREATE OPERATOR test.=== (FUNCTION = regress_postmark_attacher.eq, LEFTARG = integer, RIGHTARG = integer);
CREATE FUNCTION test.harmless() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
CREATE FUNCTION test.as_attacher(statement text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	SET LOCAL ROLE regress_postmark_attacher;
	EXECUTE statement;
	RESET ROLE;
END $$;
GRANT USAGE ON SCHEMA test TO regress_postmark_attacher;
\x on
SELECT * FROM test.after($$SELECT test.as_attacher('CREATE TRIGGER x BEFORE INSERT ON postmark_codes FOR EACH ROW EXECUTE FUNCTION regress_postmark_attacher.rise()')$$, :issue);
SELECT * FROM test.after($$SELECT test.as_attacher('CREATE TRIGGER x BEFORE INSERT ON postmark_queue FOR EACH ROW EXECUTE FUNCTION regress_postmark_attacher.rise()')$$, :enqueue);
SELECT * FROM test.after($$SELECT test.as_attacher('CREATE TRIGGER x AFTER DELETE ON postmark_codes EXECUTE FUNCTION regress_postmark_attacher.rise()')$$, :issue);
-- a condition can call any function there is
SELECT * FROM test.after($$SELECT test.as_attacher('CREATE TRIGGER x BEFORE INSERT ON postmark_codes FOR EACH ROW WHEN (pg_catalog.query_to_xml(''SELECT 1'', true, true, '''') IS NOT NULL) EXECUTE FUNCTION pg_catalog.suppress_redundant_updates_trigger()')$$, :issue);
-- what queues messages never came to an end, and is not for tables of ours, whosever it is
SELECT * FROM test.after('CREATE TRIGGER x AFTER INSERT ON postmark_history FOR EACH ROW EXECUTE FUNCTION postmark_enqueue_trigger(''email'', ''SignIn'')', 'SELECT postmark_wait(1)');
SELECT * FROM test.after('CREATE TRIGGER x AFTER INSERT ON postmark_codes FOR EACH ROW EXECUTE FUNCTION postmark_issue_code_trigger(''email'', ''SignIn'')', :issue);
SELECT * FROM test.after('CREATE RULE x AS ON INSERT TO postmark_codes DO ALSO SELECT regress_postmark_attacher.eq(1, 1)', :issue);
SELECT * FROM test.after('ALTER TABLE postmark_queue ADD remark boolean DEFAULT regress_postmark_attacher.eq(1, 1)', :enqueue);
SELECT * FROM test.after('ALTER TABLE postmark_queue ADD CHECK (1 OPERATOR(test.===) lane)', :enqueue);
SELECT * FROM test.after('CREATE POLICY x ON postmark_codes USING (regress_postmark_attacher.eq(1, 1))', :issue);
SELECT * FROM test.after('CREATE INDEX ON postmark_queue (regress_postmark_attacher.eq(lane, 1))', :enqueue);
SELECT * FROM test.after('CREATE INDEX ON postmark_queue (id) WHERE regress_postmark_attacher.eq(lane, 1)', :enqueue);
SELECT * FROM test.after('ALTER TABLE postmark_codes OWNER TO regress_postmark_attacher', :issue);
SELECT * FROM test.after('ALTER VIEW postmark_messages OWNER TO regress_postmark_attacher', 'SELECT postmark_message_status(1)');
-- the owner's and a superuser's are none of our business
SELECT * FROM test.after('CREATE TRIGGER x BEFORE INSERT ON postmark_codes FOR EACH ROW EXECUTE FUNCTION test.harmless()', :issue);
SELECT * FROM test.after('CREATE INDEX ON postmark_queue (lower(email)) WHERE length(email) > 3', :enqueue);
\x off
SELECT rolsuper FROM pg_roles WHERE rolname = 'regress_postmark_attacher';

-- an index expression runs with the owner's rights, whoever queues
CREATE FUNCTION test.note_role(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	RAISE NOTICE 'runs as %', current_user;
	RETURN $1;
END $$;
CREATE ROLE regress_postmark_owner;
GRANT ALL ON SCHEMA test, public TO regress_postmark_owner;
DO $$
DECLARE
	name text;
BEGIN
	FOR name IN SELECT relname FROM pg_class r JOIN pg_depend d ON d.objid = r.oid AND d.classid = 'pg_class'::regclass AND d.deptype = 'e'
		JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'postmark_connector' WHERE r.relkind IN ('r', 'S')
	LOOP
		EXECUTE format('ALTER TABLE %I OWNER TO regress_postmark_owner', name);
	END LOOP;
END $$;
SELECT postmark_pause() \g /dev/null
SET ROLE regress_postmark_owner;
CREATE INDEX noting ON postmark_queue (test.note_role(email));
RESET ROLE;
SELECT postmark_enqueue('ann@example.com', 'SignIn', '493021') > 0 AS queued;
SELECT count(*) FROM postmark_queue;

-- and finds tables by a path that is nobody's to set
SET ROLE regress_postmark_owner;
DROP INDEX noting;
CREATE FUNCTION test.note_path() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RAISE NOTICE 'search_path is %', current_setting('search_path');
	RETURN NEW;
END $$;
CREATE TRIGGER path BEFORE INSERT ON postmark_queue FOR EACH ROW EXECUTE FUNCTION test.note_path();
RESET ROLE;
SET search_path = test, public;
SELECT postmark_enqueue('ann@example.com', 'SignIn', '493021') > 0 AS queued;
SHOW search_path;
RESET search_path;
SET ROLE regress_postmark_owner;
DROP TRIGGER path ON postmark_queue;
RESET ROLE;

-- nor leaves it anything for later, when the caller is itself again
SET ROLE regress_postmark_owner;
CREATE TABLE test.later (who text);
CREATE FUNCTION test.rise_later() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	ALTER ROLE regress_postmark_owner SUPERUSER;
	RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER later AFTER INSERT ON test.later DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW EXECUTE FUNCTION test.rise_later();
CREATE FUNCTION test.put_later() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO test.later VALUES (current_user);
	RETURN NEW;
END $$;
CREATE TRIGGER later BEFORE INSERT ON postmark_queue FOR EACH ROW EXECUTE FUNCTION test.put_later();
RESET ROLE;
SELECT * FROM test.attempt($$SELECT postmark_enqueue('ann@example.com', 'SignIn', '493021')$$);
SELECT rolsuper FROM pg_roles WHERE rolname = 'regress_postmark_owner';
SET ROLE regress_postmark_owner;
DROP TRIGGER later ON postmark_queue;
DROP TABLE test.later;
RESET ROLE;

-- a constraint that somebody adds shows no row
DELETE FROM postmark_queue;
ALTER TABLE postmark_queue ADD CONSTRAINT never CHECK (code <> '666666'), ADD UNIQUE (code);
ALTER TABLE postmark_history ADD CONSTRAINT never CHECK (email !~ 'cancel');
\set VERBOSITY default
\set SHOW_CONTEXT never
SELECT postmark_enqueue('ann@example.com', 'SignIn', '666666');
SELECT postmark_enqueue('ann@example.com', 'SignIn', '493021') > 0 AS queued;
SELECT postmark_enqueue('ann@example.com', 'SignIn', '493021');
INSERT INTO postmark_queue (email, usage_type, code) VALUES ('ann@example.com', 'SignIn', '666666');
COPY postmark_queue (email, usage_type, code) FROM stdin;
ann@example.com	SignIn	666666
\.
SELECT postmark_enqueue('cancel@example.com', 'SignIn', '493022') AS id \gset
SELECT postmark_cancel(:id);
-- which leaves no transaction behind
SELECT 'goes on';
\set VERBOSITY terse

SET client_min_messages = warning;
DROP EXTENSION postmark_connector CASCADE;
DROP SCHEMA test, regress_postmark_attacher CASCADE;
REVOKE ALL ON SCHEMA public FROM regress_postmark_owner;
DROP ROLE regress_postmark_attacher, regress_postmark_owner;
