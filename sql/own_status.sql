--
-- What became of a message, for who queued it: postmark_message_status and
-- postmark_last_id.
--
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir /sql/common.inc
\set ECHO none
\i :common
\set ECHO all
SET test.delivery = capture;
SELECT postmark_configure(test.config());
CREATE ROLE regress_postmark_shop;
CREATE ROLE regress_postmark_member IN ROLE regress_postmark_shop;
CREATE ROLE regress_postmark_other;
GRANT EXECUTE ON FUNCTION postmark_enqueue, postmark_issue_code, postmark_message_status, postmark_last_id
	TO regress_postmark_shop, regress_postmark_other;
GRANT INSERT (email, usage_type, code), SELECT (id) ON postmark_queue TO regress_postmark_shop;
CREATE TABLE test.account (email text, plan text);
CREATE TRIGGER account_code AFTER INSERT ON test.account
	FOR EACH ROW EXECUTE FUNCTION postmark_issue_code_trigger('email', 'Register');
GRANT USAGE ON SCHEMA test TO regress_postmark_shop, regress_postmark_member, regress_postmark_other;
GRANT INSERT, SELECT ON test.account TO regress_postmark_shop, regress_postmark_other;

-- nothing was queued yet
SELECT postmark_last_id();

--
-- Through a trigger, in the transaction that queues and after it
--
SET ROLE regress_postmark_shop;
BEGIN;
INSERT INTO test.account VALUES ('ann@example.com');
SELECT postmark_last_id() AS ann \gset
SELECT postmark_message_status(:ann);
COMMIT;
SELECT postmark_last_id() = :ann;
RESET ROLE;
SELECT postmark_wait(:ann);
SET ROLE regress_postmark_shop;
SELECT postmark_message_status(:ann);
-- by the other ways
SELECT postmark_enqueue('ben@example.com', 'SignIn', '1') = postmark_last_id();
INSERT INTO postmark_queue (email, usage_type) VALUES ('cid@example.com', 'Generic') RETURNING id AS cid \gset
SELECT postmark_last_id() = :cid, postmark_message_status(:cid) IN ('queued', 'sent');
SELECT postmark_enqueue('dan@example.com', 'Generic', send_after => now() + interval '1 day') AS dan \gset
SELECT postmark_message_status(:dan);
SELECT postmark_issue_code('eve@example.com', 'SignIn') = postmark_last_id();
-- nobody queues in another one's name
SELECT * FROM test.attempt('INSERT INTO postmark_queue (email, usage_type, queued_by) VALUES (''x@example.com'', ''Generic'', 10)');
RESET ROLE;
GRANT INSERT (queued_by) ON postmark_queue TO regress_postmark_shop;
SET ROLE regress_postmark_shop;
INSERT INTO postmark_queue (email, usage_type, queued_by) VALUES ('x@example.com', 'Generic', 10);

--
-- Whose it is
--
SET ROLE regress_postmark_other;
SELECT postmark_message_status(:ann), postmark_message_status(:dan), postmark_message_status(0), postmark_message_status(NULL);
SET ROLE regress_postmark_member;
SELECT postmark_message_status(:ann), postmark_message_status(:dan);
RESET ROLE;
SELECT postmark_message_status(:ann), postmark_message_status(:dan), postmark_message_status(0);
-- in a function that runs with its owner's rights it is the owner's
CREATE FUNCTION test.mail(email text) RETURNS bigint LANGUAGE sql SECURITY DEFINER
	AS $$ SELECT public.postmark_enqueue(email, 'Generic') $$;
ALTER FUNCTION test.mail OWNER TO regress_postmark_shop;
SET ROLE regress_postmark_other;
SELECT test.mail('fay@example.com') AS fay \gset
SELECT postmark_message_status(:fay);
SET ROLE regress_postmark_shop;
SELECT postmark_message_status(:fay) IS NOT NULL;
RESET ROLE;

--
-- Through the life of a message: cancelled, failed and put back, news
--
SELECT postmark_cancel(:dan);
SELECT postmark_flush();
SELECT queued_by::regrole, count(*) FROM postmark_history GROUP BY 1 ORDER BY 1;
SET ROLE regress_postmark_shop;
SELECT postmark_message_status(:dan);
RESET ROLE;
UPDATE postmark_history SET status = 'failed', expires_at = now() + interval '1 hour' WHERE id = :ann;
SELECT postmark_pause();
SELECT postmark_requeue(:ann);
SET ROLE regress_postmark_shop;
SELECT postmark_message_status(:ann);
RESET ROLE;
SELECT postmark_resume();
SELECT postmark_wait(:ann);
INSERT INTO postmark_feedback SELECT id, created_at, now(), 0, now(), '' FROM postmark_history WHERE id = :ann;
SET ROLE regress_postmark_shop;
SELECT postmark_message_status(:ann);
-- under REPEATABLE READ, too
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) FROM test.account;
SELECT postmark_enqueue('gus@example.com', 'Generic') AS gus \gset
SELECT postmark_message_status(:gus);
ROLLBACK;
SELECT postmark_message_status(:gus);
RESET ROLE;

--
-- The slow ways into the tables, which somebody's constraint makes necessary
--
ALTER TABLE postmark_queue ADD CONSTRAINT shop_has_email CHECK (email <> '');
ALTER TABLE postmark_history ADD CONSTRAINT shop_has_email CHECK (email <> '');
SET ROLE regress_postmark_shop;
INSERT INTO test.account VALUES ('hal@example.com');
SELECT postmark_last_id() AS hal \gset
INSERT INTO postmark_queue (email, usage_type) VALUES ('ida@example.com', 'Generic') RETURNING id AS ida \gset
RESET ROLE;
SELECT postmark_flush();
SET ROLE regress_postmark_shop;
SELECT postmark_message_status(:hal), postmark_message_status(:ida);
RESET ROLE;

--
-- lastval() stays that of the application's own rows
--
CREATE TABLE test.member (id serial, email text);
CREATE TRIGGER member_code AFTER INSERT ON test.member
	FOR EACH ROW EXECUTE FUNCTION postmark_issue_code_trigger('email', 'Register');
GRANT INSERT ON test.member TO regress_postmark_shop;
GRANT USAGE, SELECT ON test.member_id_seq TO regress_postmark_shop;
SET ROLE regress_postmark_shop;
INSERT INTO test.member (email) VALUES ('jan@example.com');
SELECT lastval();
SELECT postmark_enqueue('kim@example.com', 'Generic', '1') > 0, lastval();
-- in bulk, and more than are reserved at once
INSERT INTO test.member (email) SELECT format('member%s@example.com', n) FROM generate_series(2, 250) n;
SELECT lastval();
INSERT INTO postmark_queue (email, usage_type) SELECT format('bulk%s@example.com', n), 'Generic' FROM generate_series(1, 250) n;
SELECT lastval();
RESET ROLE;
DROP TABLE test.member;
-- a role that is gone, and a row of an older version
UPDATE postmark_history SET queued_by = 1 WHERE id = :hal;
UPDATE postmark_history SET queued_by = NULL WHERE id = :ida;
SET ROLE regress_postmark_shop;
SELECT postmark_message_status(:hal), postmark_message_status(:ida);
RESET ROLE;
SELECT postmark_message_status(:hal), postmark_message_status(:ida);
DROP TABLE test.account;
DROP FUNCTION test.mail;
REVOKE USAGE ON SCHEMA test FROM regress_postmark_shop, regress_postmark_member, regress_postmark_other;
REVOKE ALL ON FUNCTION postmark_enqueue, postmark_issue_code, postmark_message_status, postmark_last_id
	FROM regress_postmark_shop, regress_postmark_other;
REVOKE ALL ON postmark_queue FROM regress_postmark_shop;
DROP ROLE regress_postmark_shop, regress_postmark_member, regress_postmark_other;
