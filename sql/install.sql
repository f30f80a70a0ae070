--
-- What CREATE EXTENSION makes, where, and for whom.
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir /sql/common.inc
\set ECHO none
\i :common
\set ECHO all

--
-- The objects, in public
--
CREATE VIEW test.objects AS
SELECT d.classid::regclass::text AS kind, d.objid,
	i.type, i.schema, coalesce(i.name, (SELECT proname FROM pg_proc WHERE oid = d.objid)) AS name, obj_description(d.objid, d.classid::regclass::name) AS comment
FROM pg_depend d
	JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
	CROSS JOIN LATERAL pg_identify_object(d.classid, d.objid, d.objsubid) i
WHERE e.extname = 'postmark_connector' AND d.deptype = 'e';

SELECT kind, name FROM test.objects WHERE kind <> 'pg_type' ORDER BY kind, name COLLATE "C";

-- one schema, one prefix
SELECT DISTINCT schema FROM test.objects;
SELECT kind, name FROM test.objects WHERE name !~ '^_?postmark_';
-- indexes and triggers are no members of their own
SELECT c.relname FROM pg_index x JOIN test.objects o ON o.objid = x.indrelid JOIN pg_class c ON c.oid = x.indexrelid
WHERE c.relname !~ '^postmark_';
SELECT tgname FROM pg_trigger t JOIN test.objects o ON o.objid = t.tgrelid
WHERE NOT tgisinternal AND tgname !~ '^postmark_';

-- none without a comment
SELECT kind, type, name FROM test.objects WHERE comment IS NULL AND kind <> 'pg_type';
SELECT c.relname, a.attname FROM pg_class c JOIN test.objects o ON o.objid = c.oid JOIN pg_attribute a ON a.attrelid = c.oid
WHERE c.relkind IN ('r', 'v') AND a.attnum > 0 AND NOT a.attisdropped AND col_description(c.oid, a.attnum) IS NULL;
-- of many arguments each is explained
SELECT p.proname, a FROM pg_proc p JOIN test.objects o ON o.objid = p.oid, unnest(p.proargnames[1:p.pronargs]) a
WHERE p.pronargs > 4 AND a NOT IN ('email', 'connector') AND o.comment !~ ('\m' || a || '\M');

-- no function name is overloaded
SELECT proname FROM pg_proc p JOIN test.objects o ON o.objid = p.oid GROUP BY 1 HAVING count(*) > 1;

-- names and order of arguments, defaults, results
SELECT p.proname || '(' || pg_get_function_arguments(p.oid) || ') -> ' || pg_get_function_result(p.oid)
FROM pg_proc p JOIN test.objects o ON o.objid = p.oid ORDER BY p.proname COLLATE "C";
SELECT p.proname FROM pg_proc p JOIN test.objects o ON o.objid = p.oid WHERE p.prosecdef;
SELECT extrelocatable FROM pg_extension WHERE extname = 'postmark_connector';
SELECT DISTINCT trusted FROM pg_available_extension_versions WHERE name = 'postmark_connector';

-- a table without a primary key cannot be updated while a publication holds it
SELECT o.name FROM pg_class c JOIN test.objects o ON o.objid = c.oid
WHERE c.relkind = 'r' AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary);

-- of what is secret, or made of that, ANALYZE keeps nothing
SELECT c.relname, string_agg(a.attname, ', ' ORDER BY a.attnum)
FROM pg_class c JOIN test.objects o ON o.objid = c.oid JOIN pg_attribute a ON a.attrelid = c.oid
WHERE c.relkind = 'r' AND a.attnum > 0 AND a.attstattarget = 0 GROUP BY 1 ORDER BY 1;

-- columns of the views
SELECT c.relname, string_agg(a.attname, ', ' ORDER BY a.attnum)
FROM pg_class c JOIN test.objects o ON o.objid = c.oid JOIN pg_attribute a ON a.attrelid = c.oid
WHERE c.relkind = 'v' GROUP BY 1 ORDER BY 1;

-- what pg_dump keeps
SELECT extconfig::regclass[] FROM pg_extension WHERE extname = 'postmark_connector';

-- nothing for anybody but the owner
CREATE VIEW test.grants AS
SELECT c.relname AS object, a.grantee, a.privilege_type
FROM test.objects o JOIN pg_class c ON c.oid = o.objid AND o.kind = 'pg_class'
	CROSS JOIN LATERAL aclexplode(c.relacl) a WHERE a.grantee <> c.relowner
UNION ALL
SELECT p.proname, a.grantee, a.privilege_type
FROM test.objects o JOIN pg_proc p ON p.oid = o.objid AND o.kind = 'pg_proc'
	CROSS JOIN LATERAL aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
WHERE a.grantee <> p.proowner;
SELECT * FROM test.grants;

--
-- Again with default privileges that give everything away
--
DROP EXTENSION postmark_connector;
CREATE ROLE regress_postmark_given;
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC, regress_postmark_given;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO PUBLIC, regress_postmark_given;
ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO PUBLIC, regress_postmark_given;
ALTER DEFAULT PRIVILEGES GRANT ALL ON TYPES TO PUBLIC, regress_postmark_given;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON TABLES TO PUBLIC;
CREATE EXTENSION postmark_connector;
-- that it does give them
CREATE TABLE test.given ();
SELECT count(DISTINCT grantee) FROM pg_class, aclexplode(relacl) WHERE relname = 'given';
DROP TABLE test.given;
SELECT * FROM test.grants;
SELECT has_table_privilege('regress_postmark_given', 'postmark_secrets', 'SELECT'),
	has_sequence_privilege('regress_postmark_given', 'postmark_message_id_seq', 'USAGE'),
	has_function_privilege('regress_postmark_given', 'postmark_cancel(bigint)', 'EXECUTE');
ALTER DEFAULT PRIVILEGES REVOKE ALL ON TABLES FROM PUBLIC, regress_postmark_given;
ALTER DEFAULT PRIVILEGES REVOKE ALL ON SEQUENCES FROM PUBLIC, regress_postmark_given;
ALTER DEFAULT PRIVILEGES REVOKE ALL ON FUNCTIONS FROM regress_postmark_given;
ALTER DEFAULT PRIVILEGES REVOKE ALL ON TYPES FROM regress_postmark_given;
ALTER DEFAULT PRIVILEGES IN SCHEMA public REVOKE ALL ON TABLES FROM PUBLIC;
DROP ROLE regress_postmark_given;
-- and with some that do not even give what the server would
ALTER DEFAULT PRIVILEGES REVOKE ALL ON FUNCTIONS FROM PUBLIC;
DROP EXTENSION postmark_connector;
CREATE EXTENSION postmark_connector;
SELECT * FROM test.grants;
ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO PUBLIC;
-- what others have named like a function of ours is left alone
CREATE FUNCTION postmark_last_id(integer) RETURNS integer LANGUAGE sql AS 'SELECT $1';
DROP EXTENSION postmark_connector;
CREATE EXTENSION postmark_connector;
SELECT proacl IS NULL FROM pg_proc WHERE oid = 'postmark_last_id(integer)'::regprocedure;
DROP FUNCTION postmark_last_id(integer);

--
-- In a schema of its own, with a name that needs quotes, which is renamed
--
DROP EXTENSION postmark_connector;
CREATE SCHEMA "Mail @ Home";
CREATE EXTENSION postmark_connector SCHEMA "Mail @ Home";
SELECT DISTINCT schema FROM test.objects;
SELECT "Mail @ Home".postmark_configure(test.config());
SELECT "Mail @ Home".postmark_enqueue('ann@example.com', 'Register', '493021') AS id \gset
SELECT "Mail @ Home".postmark_wait(:id);
ALTER SCHEMA "Mail @ Home" RENAME TO post;
SELECT post.postmark_config() ->> 'fromEmail';
SELECT post.postmark_enqueue('ben@example.com', 'Register', '493021') AS id \gset
SELECT post.postmark_wait(:id);
SELECT post.postmark_flush();
SELECT post.postmark_enqueue('cid@example.com', 'Register', '493021', send_after => now() + interval '1 hour') AS id \gset
SELECT post.postmark_cancel(:id);
SELECT email, status FROM post.postmark_messages ORDER BY id;
SELECT connector, state FROM post.postmark_status;
ALTER EXTENSION postmark_connector SET SCHEMA public;

-- gone, and there again
DROP EXTENSION postmark_connector;
SELECT count(*) FROM pg_proc WHERE proname ~ 'postmark';
SELECT count(*) FROM pg_class WHERE relname ~ 'postmark' AND relnamespace <> 'test'::regnamespace;
CREATE EXTENSION postmark_connector SCHEMA post;
SELECT * FROM test.attempt($$SELECT post.postmark_enqueue('ann@example.com', 'Register', '493021')$$);
SELECT post.postmark_configure(test.config());
SELECT post.postmark_enqueue('ann@example.com', 'Register', '493021') AS id \gset
SELECT post.postmark_wait(:id);

-- several times in a row: a worker is there in the end
DROP EXTENSION postmark_connector;
CREATE EXTENSION postmark_connector SCHEMA public;
DROP EXTENSION postmark_connector;
CREATE EXTENSION postmark_connector SCHEMA post;
DROP EXTENSION postmark_connector;
CREATE EXTENSION postmark_connector SCHEMA public;
DROP EXTENSION postmark_connector;
CREATE EXTENSION postmark_connector SCHEMA post;
SELECT post.postmark_configure(test.config());
SELECT post.postmark_enqueue('ann@example.com', 'Register', '493021') AS id \gset
SELECT post.postmark_wait(:id);
-- in one transaction, and rolled back
BEGIN;
DROP EXTENSION postmark_connector;
CREATE EXTENSION postmark_connector SCHEMA public;
ROLLBACK;
SELECT post.postmark_enqueue('ann@example.com', 'Register', '493021') AS id \gset
SELECT post.postmark_wait(:id);
BEGIN;
DROP EXTENSION postmark_connector;
CREATE EXTENSION postmark_connector SCHEMA post;
SELECT post.postmark_configure(test.config());
SELECT post.postmark_enqueue('ann@example.com', 'Register', '493021') AS id \gset
COMMIT;
SELECT post.postmark_wait(:id);
DROP SCHEMA post CASCADE;
