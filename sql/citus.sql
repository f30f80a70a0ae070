--
-- A signup table that Citus distributes, played without Citus: its setting, its
-- catalog, and shards named as its are. test/engines has the real one.
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir /sql/common.inc
\set ECHO none
\i :common
\set ECHO all

SET test.delivery = capture;
SELECT postmark_configure(test.config());
SELECT postmark_pause();

CREATE FUNCTION test.queued() RETURNS TABLE (email text)
LANGUAGE sql AS $$ WITH gone AS (DELETE FROM postmark_queue RETURNING *) SELECT email FROM gone ORDER BY id $$;

SET citus.shard_count = 2;
SET allow_system_table_mods = on;
CREATE TABLE pg_catalog.pg_dist_partition (logicalrelid oid, partmethod "char", partkey text, colocationid integer, repmodel "char");
CREATE FUNCTION pg_catalog.citus_is_coordinator() RETURNS boolean LANGUAGE sql AS 'SELECT true';
RESET allow_system_table_mods;

-- a table, two of its shards, and others that are none: each has the trigger
CREATE TABLE test.signup (email text);
CREATE TABLE test.signup_102008 (email text);
CREATE TABLE test.signup_102009 (email text);
CREATE TABLE test.signup_v2 (email text);
CREATE TABLE test.signup_ (email text);
CREATE TABLE test.lonely_102010 (email text);
CREATE FUNCTION test.create_triggers(condition text DEFAULT '') RETURNS void
LANGUAGE plpgsql AS $function$
DECLARE
	name text;
BEGIN
	FOREACH name IN ARRAY '{signup,signup_102008,signup_102009,signup_v2,signup_,lonely_102010}'::text[] LOOP
		EXECUTE format('CREATE OR REPLACE TRIGGER mail AFTER INSERT ON test.%I FOR EACH ROW %s EXECUTE FUNCTION postmark_enqueue_trigger(''email'', ''Register'')',
			name, condition);
	END LOOP;
END
$function$;
SELECT test.create_triggers();
INSERT INTO pg_dist_partition VALUES ('test.signup_v2'::regclass, 'n', NULL, 1, 't');

-- a row of a distributed table is in one shard: whoever is fired there sends
INSERT INTO pg_dist_partition VALUES ('test.signup'::regclass, 'h', 'email', 1, 's');
INSERT INTO test.signup_102008 VALUES ('ann@example.com');
INSERT INTO test.signup_102009 VALUES ('ben@example.com');
SELECT * FROM test.queued();

-- neither is a table refused that has a shard on one node, nor one that is
-- replicated by statements
UPDATE pg_dist_partition SET partmethod = 'n', repmodel = 's' WHERE logicalrelid = 'test.signup'::regclass;
SELECT test.create_triggers();
\c -
SET citus.shard_count = 2;
INSERT INTO test.signup_102008 VALUES ('ann@example.com');
SELECT * FROM test.queued();

-- a reference table has each row on every node
UPDATE pg_dist_partition SET repmodel = 't' WHERE logicalrelid = 'test.signup'::regclass;
\c -
SET citus.shard_count = 2;
SELECT * FROM test.attempt($$INSERT INTO test.signup_102008 VALUES ('ann@example.com')$$);
-- and is refused again: nothing is remembered of a refusal
SELECT * FROM test.attempt($$INSERT INTO test.signup_102008 VALUES ('ann@example.com')$$);
-- what only looks like a shard's name is not its shard
INSERT INTO test.signup_v2 VALUES ('v2@example.com');
INSERT INTO test.signup_ VALUES ('empty@example.com');
INSERT INTO test.lonely_102010 VALUES ('lonely@example.com');
SELECT * FROM test.queued();
-- where it asks for the coordinator it is fired once
SELECT test.create_triggers('WHEN (citus_is_coordinator())');
INSERT INTO test.signup_102008 VALUES ('ann@example.com');
SELECT * FROM test.queued();
-- another condition does not say that, nor does one that was there before
SELECT test.create_triggers('WHEN (pg_is_in_recovery() IS NOT NULL)');
SELECT * FROM test.attempt($$INSERT INTO test.signup_102008 VALUES ('ann@example.com')$$);
SELECT * FROM test.attempt($$INSERT INTO test.signup_102009 VALUES ('ben@example.com')$$);
SELECT * FROM test.queued();
UPDATE pg_dist_partition SET partmethod = 'h', repmodel = 's' WHERE logicalrelid = 'test.signup'::regclass;

-- Rows that are copied into new shards were there before. On this node one
-- statement makes the shard and fills it; elsewhere a session of Citus's does, by
-- COPY. What such a session inserts is new, and so is what an application adds to
-- a table that it has just made.
SELECT test.create_triggers();
CREATE FUNCTION test.distribute(shard text) RETURNS void
LANGUAGE plpgsql AS $function$
BEGIN
	EXECUTE format('CREATE TABLE test.%I (email text)', shard);
	EXECUTE format('CREATE TRIGGER mail AFTER INSERT ON test.%I FOR EACH ROW EXECUTE FUNCTION postmark_enqueue_trigger(''email'', ''Register'')', shard);
	EXECUTE format('INSERT INTO test.%I VALUES (%L)', shard, shard || '@example.com');
END
$function$;
SELECT test.distribute('signup_102011');
SELECT test.distribute('unheard_102012');
SELECT * FROM test.queued();
INSERT INTO test.signup_102011 VALUES ('new@example.com');
SELECT * FROM test.queued();
BEGIN;
CREATE TABLE test.signup_102013 (email text);
CREATE TRIGGER mail AFTER INSERT ON test.signup_102013 FOR EACH ROW EXECUTE FUNCTION postmark_enqueue_trigger('email', 'Register');
INSERT INTO test.signup_102013 VALUES ('session@example.com');
SET LOCAL application_name = 'citus_internal gpid=10000000001';
INSERT INTO test.signup_102013 VALUES ('inserted@example.com');
COPY test.signup_102013 FROM stdin;
copied@example.com
\.
COMMIT;
SELECT * FROM test.queued();
SET application_name = 'citus_internal gpid=10000000001';
COPY test.signup_102013 FROM stdin;
later@example.com
\.
RESET application_name;
SELECT * FROM test.queued();

-- without Citus a name says nothing
UPDATE pg_dist_partition SET partmethod = 'n', repmodel = 't' WHERE logicalrelid = 'test.signup'::regclass;
\c -
INSERT INTO test.signup_102008 VALUES ('ann@example.com');
SELECT test.distribute('signup_102014');
SELECT * FROM test.queued();

SET allow_system_table_mods = on;
DROP TABLE pg_catalog.pg_dist_partition;
DROP FUNCTION pg_catalog.citus_is_coordinator() CASCADE;
