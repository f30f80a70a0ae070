"""harness.py: what the measures stand on: the local Postmark, databases of a
cluster of our own, interleaved runs, settings, results.

A measure is a function of one of measures/*.py that is decorated with
@measure and gets a Bench. What it makes (databases, settings, processes) is
taken away after it, also if it fails.
"""

import collections
import contextlib
import http.client
import json
import os
import statistics
import subprocess
import urllib.parse

from cluster import Cluster, Database, until

Measure = collections.namedtuple('Measure', 'name what order run')
MEASURES = []


def measure(name, what, order=100):
    """Register a function of a Bench; it is run in the order of "order"."""
    def register(function):
        MEASURES.append(Measure(name, what, order, function))
        return function
    return register


def percentile(values, percent):
    """The value that so many percent of the values do not exceed."""
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * percent / 100))]


def context_switches(pid):
    """How often a process has gone to sleep or was made to."""
    with open(f'/proc/{pid}/status', encoding='ascii', errors='replace') as file:
        return sum(int(line.split()[1]) for line in file if 'ctxt_switches' in line)


class Postmark:
    """The local server (server.c), controlled over HTTP."""

    def __init__(self, url):
        self.url = url
        self.connection = None

    def ask(self, method, path, timeout=30):
        if self.connection is None:
            address = urllib.parse.urlsplit(self.url)
            self.connection = http.client.HTTPConnection(address.hostname, address.port)
        self.connection.timeout = timeout
        if self.connection.sock:
            self.connection.sock.settimeout(timeout)
        try:
            self.connection.request(method, '/_bench/' + path)
            return json.loads(self.connection.getresponse().read())
        except Exception:
            self.connection.close()
            self.connection = None
            raise

    def reset(self, delay_ms=0):
        """Forget what was counted; from now on answer a request delay_ms after
        it was received."""
        self.ask('POST', f'reset?delay_ms={delay_ms}')

    def stats(self):
        """What was seen since reset(): requests, messages, bytes, connections,
        in_flight, max_in_flight, duplicates, first_ns, last_ns."""
        return self.ask('GET', 'stats')

    def requests(self):
        """Of each request begun_ns, received_ns, messages, first_to."""
        return self.ask('GET', 'requests')

    def wait(self, messages, timeout=120):
        """Wait until so many messages were received since reset().

        The server answers when they were, so waiting disturbs nothing.
        """
        try:
            return self.ask('GET', f'wait?messages={messages}', timeout)
        except TimeoutError:
            raise RuntimeError(f'{messages} messages: not within {timeout} s, '
                               f'the server saw {self.stats()}') from None


class Bench:
    """What a measure gets: the machinery, and where to report."""

    def __init__(self, url, bindir, data, socket_dir, tools, scratch, pairs, quick):
        self.postmark = Postmark(url)
        self.pairs = pairs
        self.quick = quick
        self.bindir = bindir
        self.data = data
        self.socket_dir = socket_dir
        self.tools = tools
        self.scratch = scratch
        self.peers_dir = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'peers')
        self.node_env = {**os.environ, 'NODE_ENV': 'production', 'POSTMARK_URL': url}
        self.admin = Database('postgres', socket_dir)
        self.results = []
        self.measure = None             # name of the one that is running
        self.databases = []
        self.processes = []
        self.clusters = 0               # so far, for their directories' names

    def size(self, count):
        """count, or a tenth of it with --quick."""
        return count // 10 if self.quick else count

    def tool(self, name):
        return os.path.join(self.tools, name)

    # -- databases -----------------------------------------------------

    def database(self, name, extension=True):
        """A fresh database; with the extension, its connector "default"
        configured and its worker running."""
        self.admin.run(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        self.admin.run(f'CREATE DATABASE "{name}" TEMPLATE template0')
        database = Database(name, self.socket_dir)
        self.databases.append(database)
        if extension:
            database.configure()
        return database

    def drop(self, database):
        database.close()
        self.admin.run(f'DROP DATABASE IF EXISTS "{database.name}" WITH (FORCE)')
        if database in self.databases:
            self.databases.remove(database)

    @contextlib.contextmanager
    def second_cluster(self, bindir=None, **settings):
        """Another cluster, not started yet, that is gone after the block; of
        another installation, if bindir is given."""
        self.clusters += 1
        directory = os.path.join(self.scratch, f'cluster{self.clusters}')
        cluster = Cluster.create(bindir or self.bindir, directory, self.postmark.url, settings)
        try:
            yield cluster
        finally:
            cluster.remove()

    @contextlib.contextmanager
    def standby_of(self, primary):
        """A synchronous standby of a cluster that runs, until the block's end."""
        self.clusters += 1
        standby = Cluster.standby(primary, os.path.join(self.scratch, f'cluster{self.clusters}'))
        try:
            standby.start()
            admin = primary.database('postgres')
            admin.run("ALTER SYSTEM SET synchronous_standby_names = '*'")
            admin.run('SELECT pg_reload_conf()')
            until(lambda: admin.run("SELECT count(*) FROM pg_stat_replication"
                                    " WHERE sync_state = 'sync'") == [(1,)],
                  what='a synchronous standby')
            yield standby
            admin.run('ALTER SYSTEM RESET synchronous_standby_names')
            admin.run('SELECT pg_reload_conf()')
            admin.close()
        finally:
            standby.remove()

    # -- settings ------------------------------------------------------

    def setting(self, **settings):
        """Change settings of the server (None: back to the cluster's), and
        wait until they are in force in every process. They are set back after
        the measure."""
        for name, value in settings.items():
            if value is None:
                self.admin.run(f'ALTER SYSTEM RESET {name}')
            else:
                self.admin.run(f'ALTER SYSTEM SET {name} = %s', (str(value),))
        self.reload()

    def reload(self):
        [(before,)] = self.admin.run('SELECT pg_conf_load_time()')
        self.admin.run('SELECT pg_reload_conf()')
        probe = Database('postgres', self.socket_dir)

        # A new session has what the postmaster has, and the postmaster has
        # told its children by then...
        def reloaded():
            probe.close()
            [(now,)] = probe.run('SELECT pg_conf_load_time()')
            return now > before

        until(reloaded, what='reload of the settings')
        errors = probe.run('SELECT name, error FROM pg_file_settings WHERE error IS NOT NULL')
        probe.close()
        if errors:
            raise RuntimeError(f'settings not in force: {errors}')
        # ... who have acted on it when no SIGHUP is left and they sleep again.
        until(lambda: not any(map(busy_or_signalled, self.server_processes())),
              what='processes that have reloaded')

    def server_processes(self):
        """The pids of the postmaster's children."""
        with open(os.path.join(self.data, 'postmaster.pid'), encoding='ascii') as file:
            pid = int(file.readline())
        with open(f'/proc/{pid}/task/{pid}/children', encoding='ascii') as file:
            return [int(child) for child in file.read().split()]

    # -- processes -----------------------------------------------------

    def peer(self, script, *args, **env):
        """Start a script of peers/ with node; its output is a pipe of text."""
        process = subprocess.Popen(
            ['node', script, *map(str, args)], cwd=self.peers_dir, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            env={**self.node_env, **{name: str(value) for name, value in env.items()}})
        self.processes.append(process)
        return process

    # -- measuring -----------------------------------------------------

    def interleave(self, rounds=None, **kinds):
        """Run each kind in turn, as many rounds as there are pairs, in turned
        order every other round, so that what changes on the machine meanwhile
        falls on all. Returns a list of their results by name."""
        results = {name: [] for name in kinds}
        for number in range(rounds or self.pairs):
            names = list(kinds) if number % 2 == 0 else list(reversed(kinds))
            for name in names:
                results[name].append(kinds[name]())
        return results

    def report(self, name, subject, ours, peer=None, peer_name=None, *, unit,
               better='higher', target=None, target_kind='ratio', note=None):
        """A line of the table. ours and peer are lists, of which the medians
        count, or numbers. Of lists from interleave() the ratio is the median of
        the pairs', since what disturbed one round disturbed both in it. The
        target is one of the ratio ours / peer, of which better says the
        direction, or "at most" or "at least" one of ours."""
        result = {
            'measure': self.measure, 'name': name, 'subject': subject, 'unit': unit,
            'better': better, 'ours': middle(ours), 'peer': middle(peer), 'peer_name': peer_name,
            'ours_all': ours, 'peer_all': peer, 'target': target, 'target_kind': target_kind,
            'note': note,
        }
        ratio = ratio_of(ours, peer) if result['peer'] else None
        result['ratio'] = ratio
        if target is None:
            result['passed'] = None
        elif target_kind == 'ratio':
            if ratio is None:
                result['passed'] = False
            else:
                result['passed'] = ratio >= target if better == 'higher' else ratio <= target
        elif target_kind == 'at most':
            result['passed'] = result['ours'] <= target
        else:
            result['passed'] = result['ours'] >= target
        self.results.append(result)

    def failed(self, what):
        """The measure that is running raised."""
        self.results.append({'measure': self.measure, 'name': self.measure, 'failed': what,
                             'passed': False})

    def clean(self):
        """Take away what a measure left."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()
            process.stdout.close()
        self.processes.clear()
        for database in list(self.databases):
            self.drop(database)
        if self.admin.run("SELECT FROM pg_file_settings WHERE sourcefile LIKE '%/postgresql.auto.conf'"):
            self.admin.run('ALTER SYSTEM RESET ALL')
            self.reload()
        self.postmark.reset()


def middle(values):
    return statistics.median(values) if isinstance(values, (list, tuple)) else values


def ratio_of(ours, peer):
    """ours / peer; by pairs, where both are lists of as many results."""
    lists = isinstance(ours, (list, tuple)) and isinstance(peer, (list, tuple))
    if lists and len(ours) == len(peer) and all(peer):
        return statistics.median(a / b for a, b in zip(ours, peer))
    return middle(ours) / middle(peer)


def busy_or_signalled(pid):
    """Whether a process runs, or has yet to take a SIGHUP."""
    try:
        with open(f'/proc/{pid}/status', encoding='ascii', errors='replace') as file:
            status = dict(line.split(':', 1) for line in file)
    except (FileNotFoundError, ProcessLookupError):
        return False
    pending = int(status['SigPnd'], 16) | int(status['ShdPnd'], 16)
    return pending & 1 == 1 or status['State'].split()[0] == 'R'
