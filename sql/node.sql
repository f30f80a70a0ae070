-- Ids that carry a node: postmark_set_node.
\set ECHO none
\i sql/common.inc
\set ECHO all
SELECT postmark_configure(test.config());
CREATE FUNCTION test.queue(email text) RETURNS bigint LANGUAGE sql AS $$
	SELECT public.postmark_enqueue(email, 'Register', '493021')
$$;
-- without one ids begin with 1
SELECT test.queue('a@example.com');
SELECT test.attempt('SELECT postmark_set_node(NULL)');
SELECT test.attempt('SELECT postmark_set_node(0)');
SELECT test.attempt('SELECT postmark_set_node(9001)');
-- what a rollback would take back
\set VERBOSITY sqlstate
BEGIN;
SELECT postmark_set_node(3);
ROLLBACK;
\set VERBOSITY default
SELECT postmark_set_node(3);
SELECT test.queue('b@example.com');
INSERT INTO postmark_queue (email, usage_type, code)
SELECT 'bulk' || i || '@example.com', 'Register', '493021' FROM generate_series(1, 3) i;
SELECT postmark_issue_code('c@example.com', 'SignIn');
-- once more changes nothing
SELECT postmark_set_node(3);
SELECT test.queue('d@example.com');
-- ids only grow
SELECT postmark_set_node(2);
SELECT postmark_set_node(4);
SELECT test.queue('e@example.com');
SELECT postmark_set_node(9000);
SELECT test.queue('f@example.com');
SELECT postmark_flush();
SELECT id, email, status FROM postmark_messages ORDER BY id;
SELECT (test.sandbox('GET', 'counts') ->> 'distinct')::int AS sent;
-- nor can the sequence be taken back to before
SELECT test.attempt($$SELECT setval('postmark_message_id_seq', 3000000000009)$$);
SELECT setval('postmark_message_id_seq', 9000000000000000);
SELECT test.queue('g@example.com');
-- a database that had messages does not pass for one that had none
SELECT postmark_flush();
SELECT is_called FROM postmark_message_id_seq;
-- one that had none still does
DROP EXTENSION postmark_connector;
CREATE EXTENSION postmark_connector;
SELECT postmark_set_node(1);
SELECT is_called FROM postmark_message_id_seq;
SELECT postmark_configure(test.config());
SELECT test.queue('h@example.com');
-- who administrates may
CREATE ROLE regress_postmark_node;
SET ROLE regress_postmark_node;
SELECT postmark_set_node(2);
RESET ROLE;
GRANT EXECUTE ON FUNCTION postmark_set_node TO regress_postmark_node;
SET ROLE regress_postmark_node;
SELECT postmark_set_node(2);
RESET ROLE;
SELECT test.queue('i@example.com');
REVOKE ALL ON FUNCTION postmark_set_node FROM regress_postmark_node;
DROP ROLE regress_postmark_node;
