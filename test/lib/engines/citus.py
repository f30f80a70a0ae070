#!/usr/bin/python3
"""Citus: a coordinator and two workers, each with a queue and a worker of the
extension's of its own.
"""

import os

import psycopg

from common import (BINDIR, CONNECTOR, Sandbox, Server, Trouble, attempted, equal, finish, heading, ok, skipped, until)

CONF = ("wal_level = logical", "max_prepared_transactions = 50", "max_connections = 100",
        "citus.node_conninfo = 'sslmode=prefer'", "citus.shard_count = 8", "citus.enable_unsafe_triggers = on", "citus.max_background_task_executors = 2")
TRIGGER = """CREATE TRIGGER {table}_mail AFTER INSERT ON {table} FOR EACH ROW {when}
    EXECUTE FUNCTION postmark_enqueue_trigger('email', 'Register', 'code')"""


class Citus:
    def __init__(self, sandbox):
        self.sandbox = sandbox
        self.nodes = [self._server("coordinator")]
        self.coordinator = self.nodes[0]
        self.sql("SELECT citus_set_coordinator_host('127.0.0.1', %s)", self.coordinator.port)
        for name in ("one", "two"):
            self.add_node(name)

    def _server(self, name):
        server = Server(name, self.sandbox, *CONF, preload="citus,postmark_connector")
        server.sql("CREATE EXTENSION citus")
        return server

    def add_node(self, name):
        node = self._server(name)
        self.sql("SELECT citus_add_node('127.0.0.1', %s)", node.port)
        self.nodes.append(node)
        return node

    def configure(self):
        """What has to be said to each node, as doc/scaling.md does"""
        self.everywhere(f"SELECT postmark_configure($config${CONNECTOR}$config$)")
        self.everywhere("SELECT postmark_set_node(groupid + 1) FROM pg_dist_local_group")
        for node in self.nodes:
            node.wait("SELECT state = 'running' FROM postmark_status")

    def sql(self, statement, *parameters):
        return self.coordinator.sql(statement, *parameters)

    def value(self, statement, *parameters):
        return self.coordinator.value(statement, *parameters)

    def everywhere(self, statement):
        """A statement on all nodes; its results"""
        rows = self.sql("SELECT success, result FROM run_command_on_all_nodes(%s)", statement)
        bad = [result for success, result in rows if not success]
        if bad:
            raise Trouble(f"{statement}: {bad}")
        return [result for _, result in rows]

    def flush(self):
        """Until each node has finished what it has"""
        for node in self.nodes:
            node.wait("SELECT postmark_flush()")
            node.wait("SELECT count(*) = 0 FROM postmark_messages WHERE status IN ('queued', 'deferred', 'sending')")

    def mails(self, table):
        """How many addresses of a table's rows have mail, and how many mails there are"""
        self.flush()
        mails = [came for address, came in self.sandbox.mails().items() if address.removeprefix("old-").startswith(table)]
        return len(mails), sum(map(len, mails))

    def refused(self, statement):
        """The SQLSTATE"""
        try:
            self.sql(statement)
        except psycopg.Error as error:
            return error.sqlstate
        return None

    def table(self, name, rows=0):
        self.sql(f"CREATE TABLE {name} (email text PRIMARY KEY, code text)")
        self.sql(f"INSERT INTO {name} SELECT 'old-{name}' || i || '@t.example', '1' FROM generate_series(1, {rows}) i")

    def add(self, table, rows, start=1):
        self.sql(f"INSERT INTO {table} SELECT '{table}' || i || '@t.example', '1'"
                 f" FROM generate_series({start}, {start + rows - 1}) i")

    def trigger(self, table, when=""):
        self.sql(TRIGGER.format(table=table, when=when))


def code_to(citus, address):
    def find():
        mails = citus.sandbox.call("messages", recipient=address)["messages"]
        return mails and mails[-1]["Request"]["TemplateModel"]["code"]
    return until(find, f"no code comes to {address}")


def setting_up(citus):
    heading("a coordinator and two workers")
    citus.sql("CREATE EXTENSION postmark_connector")
    equal(citus.everywhere("SELECT 1 FROM pg_extension WHERE extname = 'postmark_connector'"), ["1"] * 3,
          "CREATE EXTENSION reaches all nodes")
    citus.configure()
    ok(True, "each node has a worker, with the settings that it was given")


def distributed(citus):
    heading("a distributed table")
    citus.table("after", 100)
    citus.sql("SELECT create_distributed_table('after', 'email')")
    citus.trigger("after")
    citus.add("after", 300)
    citus.sql("INSERT INTO after VALUES ('after-one@t.example', '1')")
    equal(citus.mails("after"), (301, 301), "each new row is mailed, once")
    ids = [node.sql("SELECT min(id), max(id) FROM postmark_messages WHERE email LIKE 'after%'")[0]
           for node in citus.nodes[1:]]
    ok(all(ids[n][0] // 10**12 == ids[n][1] // 10**12 == n + 2 for n in (0, 1)), "by the node that has it, with its ids",
       ids)

    citus.table("before", 100)
    citus.trigger("before")
    citus.sql("SELECT create_distributed_table('before', 'email')")
    equal(citus.mails("before"), (0, 0), "rows that were there when the table is distributed are not mailed")
    citus.sql("INSERT INTO before VALUES ('before-one@t.example', '1')")
    equal(citus.mails("before"), (1, 1), "a new one is")


def reference(citus):
    heading("a reference table")
    citus.table("everywhere")
    citus.sql("SELECT create_reference_table('everywhere')")
    citus.trigger("everywhere")
    equal(citus.refused("INSERT INTO everywhere VALUES ('everywhere1@t.example', '1')"), "39P01",
          "a trigger that is fired on every node is refused")
    citus.sql("DROP TRIGGER everywhere_mail ON everywhere")
    citus.trigger("everywhere", "WHEN (citus_is_coordinator())")
    citus.add("everywhere", 10)
    equal(citus.mails("everywhere"), (10, 10), "WHEN (citus_is_coordinator()): each row is mailed, once")
    citus.table("became", 10)
    citus.trigger("became", "WHEN (citus_is_coordinator())")
    citus.sql("SELECT create_reference_table('became')")
    equal(citus.mails("became"), (0, 0), "rows that were there when a table becomes one are not mailed")


def codes(citus):
    heading("codes")
    for name, arguments, body in (
            ("issue", "email text", "postmark_issue_code(email, 'SignIn')"),
            ("verify", "email text, code text", "postmark_verify_code(email, 'SignIn', code)")):
        # one in SQL would be inlined before Citus looks for it
        citus.sql(f"CREATE FUNCTION {name}_code({arguments}) RETURNS text LANGUAGE plpgsql"
                  f" AS $$ BEGIN RETURN {body}; END $$")
        types = arguments.replace("email ", "").replace("code ", "")
        citus.sql(f"SELECT create_distributed_function('{name}_code({types})', 'email', colocate_with := 'after',"
                  " force_delegation := true)")
    for how, literal in (("literals", True), ("parameters", False)):
        found, verdicts = {}, []
        for number in range(8):
            address = f"code-{how}{number}@t.example"
            # from wherever the application is connected
            citus.nodes[number % 3].call("issue_code", address, literal=literal)
            found[address] = code_to(citus, address)
        for number, (address, code) in enumerate(found.items(), 1):
            verdicts.append(citus.nodes[number % 3].call("verify_code", address, code, literal=literal))
        equal(verdicts, ["verified"] * 8, f"issue and verify, distributed by the address, meet, from any node ({how})")


def moving(citus):
    heading("moving")
    before = citus.mails("after")
    citus.coordinator.call("issue_code", "moved@t.example")
    code = code_to(citus, "moved@t.example")
    shard = citus.value("SELECT get_shard_id_for_distribution_column('after', 'moved@t.example')")
    ports = [node.port for node in citus.nodes[1:]]
    for mode, verdict in (("block_writes", "not_found"), ("force_logical", "verified")):
        port = citus.value("SELECT nodeport FROM citus_shards WHERE shardid = %s", shard)
        other = next(other for other in ports if other != port)
        citus.sql("SELECT citus_move_shard_placement(%s, '127.0.0.1', %s, '127.0.0.1', %s, %s)", shard, port, other, mode)
        equal(citus.mails("after"), before, f"a shard that is moved ({mode}) is not mailed")
        equal(citus.coordinator.call("verify_code", "moved@t.example", code), verdict,
              "a code under way stays on the old node" if verdict == "not_found" else "and is there when the shard is back")
    citus.sql("INSERT INTO after VALUES ('moved@t.example', '1')")
    equal(citus.mails("moved@"), (1, 2), "a new row of the shard is mailed")


def growing(citus):
    heading("one node more")
    new = citus.add_node("three")
    new.wait("SELECT count(*) = 1 FROM pg_extension WHERE extname = 'postmark_connector'", "the extension does not come")
    equal(new.value("SELECT count(*) FROM postmark_settings"), 0, "it gets the extension, and no settings")
    citus.configure()
    before = [citus.mails(name) for name in ("after", "before", "everywhere")]
    citus.sql("SELECT rebalance_table_shards(shard_transfer_mode := 'block_writes')")
    citus.sql("SELECT replicate_reference_tables('block_writes')")
    equal([citus.mails(name) for name in ("after", "before", "everywhere")], before, "rebalancing mails nothing")
    citus.add("after", 300, 1000)
    equal(citus.mails("after1")[1] >= 300, True, "new rows are mailed")
    ok(new.value("SELECT count(*) FROM postmark_messages WHERE email LIKE 'after%'") > 0, "by the new node, too")
    citus.add("everywhere", 10, 100)
    equal(citus.mails("everywhere"), (20, 20), "and those of a reference table once")


def order(sandbox):
    """The other way round the server does not start."""
    try:
        Server("wrong", sandbox, *CONF, preload="postmark_connector,citus").stop()
    except Trouble:
        return ok(True, "preloaded in the other order the server does not start")
    return ok(False, "preloaded in the other order the server does not start")


def main():
    if not os.path.exists(f"{BINDIR}/../lib/citus.so"):
        skipped("Citus: it is not installed, and no suite of Debian has it; see test/engines --help")
        finish()
    sandbox = Sandbox()
    with attempted("Citus"):
        order(sandbox)
        citus = Citus(sandbox)
        for step in (setting_up, distributed, reference, codes, moving, growing):
            step(citus)
        for node in citus.nodes:
            node.stop()
    finish()


if __name__ == "__main__":
    main()
