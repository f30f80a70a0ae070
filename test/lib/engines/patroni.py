#!/usr/bin/python3
"""Patroni: three servers that take over from each other, and who signs up
meanwhile.

    patroni.py [async] [sync] [SCENARIO...]

A sign-up that the last leader has must have its mail, and once. What was
committed and did not reach the new leader, and its mail, is lost with
asynchronous replication alone.
"""

import contextlib
import datetime
import glob
import itertools
import json
import os
import re
import signal
import sys

import psycopg

from common import (BINDIR, CONNECTOR, DIR, SIGNUP, UNFINISHED, Sandbox, Trouble, Writer, ask, attempted, finish,
                    free_ports, heading, log_of, none, note, ok, query, start, until, value)

PATRONI, ETCD = "/usr/bin/patroni", "/usr/bin/etcd"
NAMES = ["alpha", "beta", "gamma"]
LEASE = 20                      # s; Patroni's least
PROMOTED = re.compile(r"^(\S+ \S+) UTC \[\d+\] LOG:  database system is ready to accept connections$", re.M)
NEW_CODE_LIMIT = 1.0            # s from promotion to the request with a new code
INVITED = "CREATE TABLE invited (email text PRIMARY KEY)"
SURVIVORS = "SELECT email FROM signup UNION ALL SELECT email FROM invited"
MANY = 10500                    # more than offsets of Postmark's search reach


def tree(pid):
    """A process with all that it started, itself first"""
    children = {}
    for path in glob.glob("/proc/[0-9]*/stat"):
        with contextlib.suppress(OSError):
            with open(path) as file:
                number, rest = file.read().split(" (", 1)
            children.setdefault(int(rest.rsplit(") ", 1)[1].split()[1]), []).append(int(number))
    found = [pid]
    for parent in found:
        found += children.get(parent, [])
    return found


def send(signal_, pids):
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal_)


class Node:
    def __init__(self, cluster, name, port, rest):
        self.cluster, self.name, self.port, self.rest = cluster, name, port, rest
        self.data = os.path.join(DIR, cluster.name, name)
        self.log = f"{cluster.name}-{name}"
        self.conninfo = f"host=127.0.0.1 port={port} dbname=postgres user=postgres"
        self.file = os.path.join(DIR, self.log + ".yml")
        self.process = None
        with open(self.file, "w") as file:
            json.dump(self._settings(), file)       # which is YAML, too

    def _settings(self):
        return {
            "scope": self.cluster.name,
            "name": self.name,
            "restapi": {"listen": f"127.0.0.1:{self.rest}", "connect_address": f"127.0.0.1:{self.rest}"},
            "etcd3": {"host": f"127.0.0.1:{self.cluster.etcd_port}"},
            "bootstrap": {
                "dcs": {
                    "ttl": LEASE, "loop_wait": 2, "retry_timeout": 5,
                    "maximum_lag_on_failover": 100 * 1024 * 1024,
                    "synchronous_mode": self.cluster.synchronous,
                    "postgresql": {
                        "use_pg_rewind": True,
                        "use_slots": True,
                        "parameters": {
                            "shared_preload_libraries": "postmark_connector",
                            "postmark_connector.api_url": self.cluster.sandbox.url,
                            "max_worker_processes": 16, "max_connections": 50,
                            "wal_log_hints": "on", "fsync": "off",
                            "log_timezone": "UTC", "log_line_prefix": "%m [%p] ",
                        }}},
                "initdb": [{"encoding": "UTF8"}, {"locale": "C"}]},
            "postgresql": {
                "listen": f"127.0.0.1:{self.port}", "connect_address": f"127.0.0.1:{self.port}",
                "bin_dir": BINDIR, "data_dir": self.data, "pgpass": os.path.join(DIR, self.log + ".pgpass"),
                "pg_hba": ["local all all trust", "host all all 127.0.0.1/32 trust",
                           "host replication all 127.0.0.1/32 trust"],
                "authentication": {kind: {"username": "postgres"} for kind in ("superuser", "replication", "rewind")},
                "parameters": {"unix_socket_directories": DIR}}}

    def start(self):
        self.process = start(self.log, [sys.executable, PATRONI, self.file], LC_ALL="C.UTF-8")

    def ask(self, path, method="GET", body=None, timeout=5):
        return ask(f"http://127.0.0.1:{self.rest}/{path}", method, body, timeout)

    def value(self, statement):
        """None if it does not answer"""
        try:
            return value(self.conninfo, statement)
        except psycopg.Error:
            return None

    def sql(self, statement, *parameters):
        return query(self.conninfo, statement, *parameters)

    def postmaster(self):
        with open(os.path.join(self.data, "postmaster.pid")) as file:
            return int(file.readline())

    def processes(self):
        """Patroni, and the server with all of its processes"""
        return [self.process.pid] + tree(self.postmaster())

    def kill(self):
        send(signal.SIGKILL, self.processes())
        self.process.wait()

    def walreceiver(self):
        pid = self.value("SELECT pid FROM pg_stat_wal_receiver")
        if not pid:
            raise Trouble(f"{self.name} has no walreceiver")
        return pid

    def promoted_at(self):
        """When it last began to take writes, us"""
        def said():
            with open(os.path.join(DIR, self.log + ".log"), errors="replace") as file:
                return PROMOTED.search(file.read().rpartition("selected new timeline ID")[2])
        at = until(said, f"{self.name} does not say when it was promoted")[1]
        time_ = datetime.datetime.strptime(at, "%Y-%m-%d %H:%M:%S.%f").replace(tzinfo=datetime.timezone.utc)
        return int(time_.timestamp() * 1_000_000)


class Cluster:
    def __init__(self, name, sandbox, synchronous):
        self.name, self.sandbox, self.synchronous = name, sandbox, synchronous
        self.etcd_port, peer, *ports = free_ports(2 + 2 * len(NAMES))
        own, others = f"http://127.0.0.1:{self.etcd_port}", f"http://127.0.0.1:{peer}"
        self.etcd = start(f"{name}-etcd", [
            ETCD, "--data-dir", os.path.join(DIR, f"{name}-etcd"), "--listen-client-urls", own,
            "--advertise-client-urls", own, "--listen-peer-urls", others,
            "--initial-advertise-peer-urls", others, "--initial-cluster", f"default={others}", "--unsafe-no-fsync"])
        os.mkdir(os.path.join(DIR, name))
        self.nodes = [Node(self, node, *ports[2 * i:2 * i + 2]) for i, node in enumerate(NAMES)]
        until(lambda: ask(f"{own}/health")[0] == 200, "etcd did not start")
        for node in self.nodes:
            node.start()
        self.settle()

    def end(self):
        """Patroni stops its server when it is stopped."""
        for process in [node.process for node in self.nodes] + [self.etcd]:
            process.terminate()
            process.wait()

    def leader(self, *but):
        """The node that takes writes"""
        def find():
            found = [node for node in self.nodes if node not in but and node.process.poll() is None
                     and node.value("SELECT NOT pg_is_in_recovery()")]
            return found[0] if len(found) == 1 else None
        return until(find, lambda: f"{self.name} has no leader: {self._logs()}")

    def replicas(self):
        leader = self.leader()
        return [node for node in self.nodes if node is not leader]

    def _logs(self):
        return "\n".join(f"{node.name}:\n{log_of(node.log, 15)}" for node in self.nodes)

    def settle(self):
        """Until all three are there, on the same timeline, the replicas streaming"""
        def settled():
            for node in self.nodes:
                status, answer = node.ask("cluster")
                if status == 200:
                    break
            else:
                return False
            members = answer["members"]
            good = (len(members) == len(NAMES) and sum(m["role"] == "leader" for m in members) == 1
                    and all(m["state"] in ("running", "streaming") for m in members)
                    and len({m.get("timeline") for m in members}) == 1
                    and (not self.synchronous or any(m["role"] == "sync_standby" for m in members)))
            leader = good and self.leader()
            return good and leader.value(
                "SELECT count(*) = 2 AND bool_and(state = 'streaming' AND pg_wal_lsn_diff(sent_lsn, replay_lsn) = 0)"
                " FROM pg_stat_replication WHERE application_name = ANY (%r)" % "{alpha,beta,gamma}")
        until(settled, lambda: f"{self.name} does not settle: {self._logs()}", 120)

    def switchover(self, candidate=None):
        """To a replica, in the orderly way; returns the new leader."""
        leader = self.leader()
        body = {"leader": leader.name}
        if self.synchronous:
            candidate = next(node for node in self.nodes if node.name == leader.value(
                "SELECT application_name FROM pg_stat_replication WHERE sync_state = 'sync'"))
        if candidate:
            body["candidate"] = candidate.name
        status, answer = leader.ask("switchover", "POST", body, 60)
        if status not in (200, 202):
            raise Trouble(f"switchover: {status} {answer}")
        return self.leader(leader)


class Watch:
    """One scenario: who signs up meanwhile, and what is counted in the end."""

    numbers = itertools.count(1)

    def __init__(self, cluster, name):
        self.cluster, self.name = cluster, f"{cluster.name}, {name}"
        self.prefix = f"{cluster.name}-{next(Watch.numbers)}-"
        self.writer = None
        self.promoted = None

    def __enter__(self):
        heading(self.name)
        self.write()
        self.writer.wait(100)
        return self

    def write(self):
        """Somebody signs up, from now on."""
        self.writer = Writer(self.prefix, [node.port for node in self.cluster.nodes], self.writer)

    def sign_up(self, node, number):
        """So many more at once"""
        node.sql("INSERT INTO signup SELECT %s || 'many' || i || '@t.example', '000000'"
                 " FROM generate_series(1, %s) i", self.prefix, number)

    def invite(self, node, number, after):
        """Messages that are sent later"""
        node.sql("WITH made AS (INSERT INTO invited SELECT %s || 'invited' || i || '@t.example'"
                 " FROM generate_series(1, %s) i RETURNING email)"
                 " SELECT postmark_enqueue(email, 'Register', send_after => now() + %s::interval) FROM made",
                 self.prefix, number, after)

    def wait_mails(self, which, number):
        def arrived():
            return len(self.cluster.sandbox.mails(self.prefix + which))
        until(lambda: arrived() >= number, lambda: f"of {number} mails {arrived()} arrive")

    def taken_over_by(self, node):
        """Somebody else is the leader now; goes on until who signs up has
        noticed."""
        self.promoted = node.promoted_at()
        self.writer.wait(100)

    def __exit__(self, kind, *error):
        self.writer.stop()
        if kind:
            return
        self.cluster.settle()
        leader = self.cluster.leader()
        until(lambda: leader.value(UNFINISHED) == 0,
              lambda: f"messages are not finished: {leader.sql('SELECT * FROM postmark_status')}")
        mails = self.cluster.sandbox.mails(self.prefix)
        there = {address for address, in leader.sql(SURVIVORS) if address.startswith(self.prefix)}
        lost = [address for address in there if address not in mails]
        twice = [address for address in mails if len(mails[address]) > 1]
        gone = set(self.writer.committed) - there
        more = set(mails) - there
        note(f"{len(self.writer.tried)} sign-ups tried, {len(self.writer.committed)} acknowledged, {len(there)} survived"
             f" ({len(gone)} acknowledged ones did not), {len(mails)} arrived, {len(lost)} lost, {len(twice)} twice"
             + (f", {len(more)} of sign-ups that did not survive" if more else ""))
        none(lost, f"{self.name}: each sign-up that survived has its mail")
        none(twice, f"{self.name}: none twice")
        if self.cluster.synchronous:
            none(gone | more, f"{self.name}: nothing that was acknowledged or mailed is gone")
        if self.promoted:
            self.in_time(mails)

    def in_time(self, mails):
        """s from promotion to the first request with a code of after it"""
        after = [min(mails[address]) for address, at in self.writer.tried.items()
                 if at > self.promoted and address in mails]
        first = (min(after) - self.promoted) / 1e6 if after else float("inf")
        note(f"promotion to the first request with a new code: {first:.3f} s")
        ok(first <= NEW_CODE_LIMIT, f"{self.name}: a new code is on the wire at most {NEW_CODE_LIMIT:.0f} s"
           " after the promotion", f"{first:.3f} s")


# ----------------------------------------------------------------------
# What happens to them
# ----------------------------------------------------------------------

def switchover(cluster):
    with Watch(cluster, "switchover") as watch:
        watch.taken_over_by(cluster.switchover())


def kill(cluster):
    with Watch(cluster, "leader and Patroni killed") as watch:
        leader = cluster.leader()
        leader.kill()
        watch.taken_over_by(cluster.leader(leader))
        leader.start()


def stand_still(cluster):
    with Watch(cluster, "leader and Patroni stopped for longer than the lease") as watch:
        leader = cluster.leader()
        pids = leader.processes()
        send(signal.SIGSTOP, pids)
        try:
            watch.writer.avoid(leader.port)
            watch.taken_over_by(cluster.leader(leader))
        finally:
            send(signal.SIGCONT, reversed(pids))
        watch.writer.wait(200)


def cut_off(cluster):
    """The replicas hear of nothing more, then the leader is killed: what it
    sent last is unsent where they stand, with more than a page of Postmark's
    search, and more than offsets reach, accepted since."""
    if cluster.synchronous:
        return                  # then it commits nothing, as it should
    with Watch(cluster, "walreceivers stopped, leader killed") as watch:
        leader = cluster.leader()
        watch.invite(leader, 300, "4 s")
        watch.writer.stop()
        cluster.settle()
        receivers = [node.walreceiver() for node in cluster.replicas()]
        send(signal.SIGSTOP, receivers)
        try:
            watch.wait_mails("invited", 300)
            watch.sign_up(leader, MANY)
            watch.wait_mails("many", MANY)
            leader.kill()
        finally:
            # They are not to read what the network still holds.
            send(signal.SIGTERM, receivers)
            send(signal.SIGCONT, receivers)
        watch.write()
        watch.taken_over_by(cluster.leader(leader))
        leader.start()
    found = cluster.leader().value("SELECT value FROM postmark_stats() WHERE metric = 'found_again'")
    ok(found >= 300, f"{watch.name}: the new leader finds in Postmark what the old one sent", found)
    ok("running pg_rewind" in log_of(leader.log, 10000), f"{cluster.name}: pg_rewind takes the old leader back")
    with Watch(cluster, "switchover to a leader that was rewound") as watch:
        watch.taken_over_by(cluster.switchover(leader))


def search(cluster):
    for what, action in (("slow", {"latency": 5}), ("down", {"status": 500})):
        with Watch(cluster, f"switchover, Postmark's search is {what}") as watch:
            leader = cluster.leader()
            watch.sign_up(leader, MANY)
            watch.wait_mails("many", MANY)
            watch.invite(leader, 300, "8 s")
            cluster.sandbox.rule(path="/messages/outbound", action=action)
            try:
                watch.taken_over_by(cluster.switchover())
                watch.writer.wait(500)
            finally:
                cluster.sandbox.clear_rules()


def reinit(cluster):
    with Watch(cluster, "reinit of a replica while the queue drains") as watch:
        leader = cluster.leader()
        cluster.sandbox.rule(path="/email/batch*", action={"latency": 2})
        try:
            watch.sign_up(leader, 2 * MANY)
            replica = cluster.replicas()[0]
            status, answer = replica.ask("reinitialize", "POST", {"force": True}, 60)
            if status != 200:
                raise Trouble(f"reinitialize: {status} {answer}")
            watch.wait_mails("many", 2 * MANY)
        finally:
            cluster.sandbox.clear_rules()
        cluster.settle()
        ok("Removing data directory" in log_of(replica.log, 10000), f"{watch.name}: it begins anew")
        watch.taken_over_by(cluster.switchover(replica))


SCENARIOS = {"switchover": switchover, "kill": kill, "stop": stand_still, "cut-off": cut_off, "search": search,
             "reinit": reinit}


def main():
    wanted = sys.argv[1:]
    modes = [mode for mode in ("async", "sync") if mode in wanted] or ["async", "sync"]
    scenarios = [name for name in SCENARIOS if name in wanted] or list(SCENARIOS)
    sandbox = Sandbox()
    # Postmark's search does not show at once what was accepted.
    sandbox.config(search_lag=1)
    for mode in modes:
        with attempted(f"{mode}: Patroni"):
            cluster = Cluster(mode, sandbox, mode == "sync")
            leader = cluster.leader()
            leader.sql("CREATE EXTENSION postmark_connector")
            leader.sql("SELECT postmark_configure(%s)", CONNECTOR)
            leader.sql(SIGNUP)
            leader.sql(INVITED)
            cluster.settle()
            for name in scenarios:
                SCENARIOS[name](cluster)
            cluster.end()
    finish()


if __name__ == "__main__":
    main()
