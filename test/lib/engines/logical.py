#!/usr/bin/python3
"""Logical replication: a subscriber with mail of its own, and the cut-over of
an upgrade.

Blue publishes all of its tables, the extension's among them, green subscribes.
"""

import json

from common import (CONNECTOR, SIGNUP, UNFINISHED, Sandbox, Server, Writer, attempted, equal, finish, heading, none, note, ok,
                    until)

OWN = 300
TAGGED = json.dumps(dict(json.loads(CONNECTOR), tag="green"))


def caught_up(blue):
    """Until what was committed until now is there"""
    at = blue.value("SELECT pg_current_wal_lsn()")
    blue.wait(f"SELECT coalesce(bool_and(replay_lsn >= '{at}'), false) FROM pg_stat_replication"
              " WHERE application_name = 'green'", "green does not catch up")


def mails_of(sandbox, prefix):
    """How many addresses have mail, and how many mails there are"""
    mails = sandbox.mails(prefix)
    return len(mails), sum(map(len, mails.values()))


def finished(server):
    server.wait(f"SELECT ({UNFINISHED}) = 0")


def subscribe(blue, green):
    """Steps 1 to 3 of the upgrade: green has the tables and the extension, is a
    node of its own, and takes everything in."""
    green.sql("CREATE EXTENSION postmark_connector")
    green.sql("SELECT postmark_set_node(1)")
    green.sql(SIGNUP)
    blue.sql("CREATE PUBLICATION everything FOR ALL TABLES")
    green.sql(f"CREATE SUBSCRIPTION green CONNECTION '{blue.conninfo()}' PUBLICATION everything")
    green.wait("SELECT bool_and(srsubstate = 'r') FROM pg_subscription_rel", "the initial copy does not end")


def initial_copy(blue, green, sandbox):
    heading("initial copy")
    blue.sql("INSERT INTO signup SELECT 'before' || i || '@t.example', '1' FROM generate_series(1, 200) i")
    finished(blue)
    blue.sql("SELECT postmark_enqueue(format('later%s@t.example', i), 'Register', send_after => now() + interval '8 s')"
             " FROM generate_series(1, 50) i")
    subscribe(blue, green)
    equal(green.value("SELECT count(*) FROM signup"), 200, "the rows are there")
    equal(green.value("SELECT count(*) FROM postmark_messages"), 0, "and none of the publisher's messages")
    green.wait("SELECT state = 'running' FROM postmark_status", "the copied settings do not take effect")
    ok(True, "the subscriber's worker runs with the settings that were copied")


def settings(blue, green, sandbox):
    heading("live changes of settings")
    green.sql("SELECT postmark_enqueue('untagged@t.example', 'Register')")
    blue.sql("SELECT postmark_configure(%s)", TAGGED)
    caught_up(blue)
    green.sql("SELECT postmark_enqueue('tagged@t.example', 'Register')")
    finished(green)
    equal([sandbox.call("messages", recipient=f"{name}@t.example")["messages"][0]["Tag"] for name in ("untagged", "tagged")],
          [None, "green"], "a change of the publisher's settings reaches the subscriber's worker")
    blue.sql("SELECT postmark_pause()")
    green.wait("SELECT state = 'paused' FROM postmark_status", "a pause does not arrive")
    blue.sql("SELECT postmark_resume()")
    green.wait("SELECT state = 'running' FROM postmark_status", "a resume does not arrive")
    ok(True, "so do a pause and its end")


def own_messages(blue, green, sandbox):
    """The publisher deletes what it has sent; the subscriber's messages are not
    those that it means."""
    heading("a subscriber's own messages")
    green.sql("ALTER SUBSCRIPTION green DISABLE")
    green.sql("SELECT postmark_pause()")
    green.sql("SELECT postmark_enqueue(format('own%%s@t.example', i), 'Register') FROM generate_series(1, %s) i", OWN)
    blue.sql("INSERT INTO signup SELECT 'while' || i || '@t.example', '1' FROM generate_series(1, 1000) i")
    finished(blue)
    green.sql("ALTER SUBSCRIPTION green ENABLE")
    caught_up(blue)
    equal(green.value("SELECT count(*) FROM postmark_queue WHERE email LIKE 'own%'"), OWN,
          "the publisher's deletions leave them alone")
    green.sql("SELECT postmark_resume()")
    finished(green)
    equal(mails_of(sandbox, "own"), (OWN, OWN), "each is sent, once")
    equal(mails_of(sandbox, "while"), (1000, 1000), "and the publisher's by the publisher alone, once")
    ids = [server.sql("SELECT min(id), max(id) FROM postmark_messages")[0] for server in (blue, green)]
    note(f"ids of the publisher: {ids[0][0]} to {ids[0][1]}, of the subscriber: {ids[1][0]} to {ids[1][1]}")
    ok(ids[0][1] < ids[1][0], "their ids do not meet")


def cut_over(blue, green, sandbox):
    """Green takes over, as doc/scaling.md says, while somebody signs up."""
    heading("cut-over")
    equal(green.value("SELECT count(*) FROM signup") - green.value("SELECT count(*) FROM postmark_messages"),
          1200 - OWN - 2, "replicated rows queue no message")
    code = blue.value("SELECT postmark_issue_code('half@t.example', 'SignIn')")
    finished(blue)

    writer = Writer("moving", [blue.port])
    writer.wait(100)
    # 4. nobody writes to blue any more
    blue.sql("ALTER DATABASE postgres SET default_transaction_read_only = on")
    blue.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
             " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()")
    until(lambda: writer._session is None, "who signs up does not notice")
    # 5. what it queued is sent, by blue
    ok(blue.value("SELECT postmark_flush('60 s')"), "what was queued on the old server is sent there")
    # 6. and green has all rows
    caught_up(blue)
    green.sql("DROP SUBSCRIPTION green")
    # 7. the application goes on with green
    writer.ports = [green.port]
    writer.wait(100)
    writer.stop()
    finished(green)
    there = {address for address, in green.sql("SELECT email FROM signup WHERE email LIKE 'moving%'")}
    mails = sandbox.mails("moving")
    none(set(writer.committed) - there, "no sign-up is lost")
    none(there - set(mails), "each has its mail")
    none([address for address in mails if len(mails[address]) > 1], "none has two")
    note(f"{len(there)} sign-ups, {len(mails)} mails, "
         f"{green.value('SELECT count(*) FROM postmark_messages') - OWN - 2} of them the new server's")
    equal((bool(code), green.value("SELECT postmark_verify_code('half@t.example', 'SignIn', '000000')")),
          (True, "not_found"), "a code under way stays behind")
    equal(blue.value("SELECT state FROM postmark_status"), "running",
          "the old server can go: all of its messages are finished")


def main():
    sandbox = Sandbox()
    blue = Server("blue", sandbox, "wal_level = logical")
    blue.prepare()
    green = Server("green", sandbox, "wal_level = logical")
    with attempted("logical replication"):
        for step in (initial_copy, settings, own_messages, cut_over):
            step(blue, green, sandbox)
        equal(mails_of(sandbox, "later"), (50, 50), "what was due later was sent by the publisher, once")
    for server in (green, blue):
        server.stop()
    finish()


if __name__ == "__main__":
    main()
