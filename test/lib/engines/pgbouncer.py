#!/usr/bin/python3
"""pgbouncer: what an application gets through it, with one connection of the
server's for many of its own."""

import concurrent.futures
import itertools
import json
import os
import re
import sys

import psycopg

from common import (CONNECTOR, DIR, Sandbox, Server, attempted, equal, finish, free_ports, heading, none, note, ok, run, skipped,
                    start, until)

PGBOUNCER = "/usr/sbin/pgbouncer"
CLIENTS, EACH = 20, 50
VERSION = tuple(map(int, re.search(r"PgBouncer (\d+)\.(\d+)", run([PGBOUNCER, "--version"])).groups()))
# named prepared statements in transaction mode
PREPARED = VERSION >= (1, 21)


class Pool:
    """pgbouncer before a server, with a few connections to it for everybody"""

    numbers = itertools.count(1)

    def __init__(self, server, mode):
        self.mode, self.port = mode, free_ports(1)[0]
        name = f"pgbouncer-{next(self.numbers)}"
        file = os.path.join(DIR, name + ".ini")
        with open(file, "w") as ini:
            ini.write(f"""[databases]
postgres = host=127.0.0.1 port={server.port} dbname=postgres user=postgres

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {self.port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = 3
max_client_conn = 100
server_reset_query =
""" + ("max_prepared_statements = 100\n" if PREPARED else ""))
        self.process = start(name, [PGBOUNCER, file])
        until(lambda: self._answers(), f"{name} does not answer")

    def _answers(self):
        try:
            self.session().close()
        except psycopg.Error:
            return False
        return True

    def session(self):
        """As a driver has to be told: without named statements where pgbouncer
        does not know them"""
        session = psycopg.connect(f"host=127.0.0.1 port={self.port} dbname=postgres user=postgres", autocommit=True,
                                  prepare_threshold=1 if PREPARED else None, connect_timeout=5)
        return session

    def end(self):
        self.process.terminate()
        self.process.wait()


def answer(session, statement, *parameters):
    return session.execute(statement, parameters or None).fetchone()[0]


def refused(session, *statements):
    try:
        for statement in statements:
            session.execute(statement)
    except psycopg.Error as error:
        return str(error)
    return None


def code_to(sandbox, address):
    """The code of the newest mail"""
    def find():
        mails = sandbox.call("messages", recipient=address)["messages"]
        return mails and mails[-1]["Request"]["TemplateModel"]["code"]
    return until(find, f"no mail comes to {address}")


def statements(server, sandbox, pool):
    """The SQL functions, each call on whatever connection of the server's it gets"""
    mode = pool.mode
    with pool.session() as session:
        number = answer(session, "SELECT postmark_enqueue(%s, 'Register', '493021')", f"ann-{mode}@t.example")
        equal(answer(session, "SELECT postmark_wait(%s)", number), "sent", f"{mode}: postmark_enqueue, postmark_wait")
        session.execute("INSERT INTO signup VALUES (%s, '118205')", (f"bea-{mode}@t.example",))
        session.execute("INSERT INTO postmark_queue (email, usage_type, code) VALUES (%s, 'SignIn', '1')",
                        (f"cat-{mode}@t.example",))
        ok(answer(session, "SELECT postmark_flush()"), f"{mode}: a trigger, INSERT into postmark_queue, postmark_flush")
        none([name for name in ("ann", "bea", "cat") if len(sandbox.mails(f"{name}-{mode}@")) != 1],
             f"{mode}: each has one mail")
        ok(answer(session, "SELECT postmark_send(%s, 'SignIn', '1')", f"dan-{mode}@t.example"), f"{mode}: postmark_send")

        address = f"eve-{mode}@t.example"
        session.execute("SELECT postmark_issue_code(%s, 'SignIn')", (address,))
        code = code_to(sandbox, address)
        wrong = "000000" if code != "000000" else "000001"
        equal([answer(session, "SELECT postmark_verify_code(%s, 'SignIn', %s)", address, tried)
               for tried in (wrong, code, code)],
              ["mismatch", "verified", "not_found"], f"{mode}: postmark_issue_code, postmark_verify_code")

        session.execute("SELECT postmark_pause()")
        number = answer(session, "SELECT postmark_enqueue(%s, 'Register')", f"fay-{mode}@t.example")
        equal((answer(session, "SELECT postmark_cancel(%s)", number),
               answer(session, "SELECT status FROM postmark_messages WHERE id = %s", number)),
              (True, "cancelled"), f"{mode}: postmark_cancel")
        session.execute("SELECT postmark_resume()")

    def many(client):
        with pool.session() as session:
            for number in range(EACH):
                session.execute("INSERT INTO signup VALUES (%s, '1')", (f"many-{mode}-{client}-{number}@t.example",))

    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as executor:
        list(executor.map(many, range(CLIENTS)))
    with pool.session() as session:
        session.execute("SELECT postmark_flush()")
    mails = sandbox.mails(f"many-{mode}-")
    equal((len(mails), sum(map(len, mails.values()))), (CLIENTS * EACH,) * 2,
          f"{mode}: {CLIENTS} clients on 3 connections, each sign-up has one mail")


def transactions(server, sandbox, pool):
    mode = pool.mode
    with pool.session() as session:
        with session.transaction():
            session.execute("INSERT INTO signup VALUES ('kept@t.example', '1')")
            answer(session, "SELECT postmark_enqueue('kept-too@t.example', 'Register')")
            session.execute("SAVEPOINT before")
            answer(session, "SELECT postmark_enqueue('dropped@t.example', 'Register')")
            session.execute("ROLLBACK TO before")
        with session.transaction(force_rollback=True):
            session.execute("INSERT INTO signup VALUES ('gone@t.example', '1')")
        session.execute("SELECT postmark_flush()")
        equal({name: len(sandbox.mails(name + "@")) for name in ("kept", "kept-too", "dropped", "gone")},
              {"kept": 1, "kept-too": 1, "dropped": 0, "gone": 0},
              f"{mode}: mail goes with the transaction, and with the savepoint")

        # A limit of the caller's own for one transaction
        with session.transaction():
            session.execute("SET LOCAL postmark_connector.request_timeout = '5 s'")
            ok(answer(session, "SELECT postmark_send('limit@t.example', 'SignIn', '1')"),
               f"{mode}: SET LOCAL for a transaction's postmark_send")


def listening(server, sandbox, pool):
    """LISTEN is of a session of the server's, which is not the client's for long."""
    server.sql("SELECT postmark_configure(%s)", json.dumps(dict(json.loads(CONNECTOR), notifyChannel="mail")))
    heard = {"through": [], "past": []}
    with pool.session() as through, psycopg.connect(server.conninfo(), autocommit=True) as past:
        for name, session in (("through", through), ("past", past)):
            session.add_notify_handler(lambda notify, name=name: heard[name].append(json.loads(notify.payload)["id"]))
            session.execute("LISTEN mail")
        number = answer(past, "SELECT postmark_enqueue('listen@t.example', 'Register')")

        def told():
            past.execute("SELECT 1")
            return heard["past"]
        equal(until(told, "nothing is heard"), [number], f"{pool.mode}: notifyChannel, past pgbouncer")
        through.execute("SELECT 1")
        note("LISTEN through pgbouncer: " + ("was heard, by chance" if heard["through"] else "nothing was heard"))
    server.sql("SELECT postmark_configure(%s)", CONNECTOR)


def prepared(server, sandbox, pool):
    if not PREPARED:
        skipped("named prepared statements: this is pgbouncer %d.%d, and 1.21 is the first that knows them" % VERSION)
        return
    with pool.session() as session:
        for number in range(20):
            session.execute("SELECT postmark_enqueue(%s, 'Register')", (f"prepared{number}@t.example",), prepare=True)
        session.execute("SELECT postmark_flush()")
    equal(len(sandbox.mails("prepared")), 20, f"{pool.mode}: named prepared statements")


def main():
    sandbox = Sandbox()
    server = Server("server", sandbox)
    server.prepare()
    note("pgbouncer %d.%d" % VERSION)

    with attempted("pgbouncer"):
        heading("transaction mode")
        pool = Pool(server, "transaction")
        statements(server, sandbox, pool)
        transactions(server, sandbox, pool)
        listening(server, sandbox, pool)
        prepared(server, sandbox, pool)
        pool.end()

        heading("statement mode")
        pool = Pool(server, "statement")
        statements(server, sandbox, pool)
        with pool.session() as session:
            ok(refused(session, "BEGIN", "SELECT postmark_enqueue('block@t.example', 'Register')", "COMMIT"),
               "statement: a transaction of several statements is refused, by pgbouncer")
        none(sandbox.mails("block@"), "statement: and nothing is sent of it")
        prepared(server, sandbox, pool)
        pool.end()

        equal(server.value("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
                           " AND application_name <> '' AND state = 'idle in transaction'"), 0,
              "no session is left in a transaction")
    server.stop()
    finish()


if __name__ == "__main__":
    main()
