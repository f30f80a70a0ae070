"""worker.py: what the worker costs: memory, idleness, the server's start.

Memory is what the worker has for itself, "beyond shared buffers": of its
private mappings all that is not backed by a file (RssAnon in
/proc/PID/status) and the pages of files that no other process has mapped. Its
shared mappings are the server's shared memory, buffers above all, and don't
count.
"""

import re
import threading
import time

from harness import context_switches, measure, until

MB = 1024 * 1024

BULK = """
    INSERT INTO postmark_queue (email, usage_type, code)
    SELECT 'user' || n || '@example.com', 'Register', '493021' FROM generate_series(%s, %s) n
"""

# ----------------------------------------------------------------------
# Memory
# ----------------------------------------------------------------------


def private_memory(pid):
    """Bytes that a process has for itself."""
    total = 0
    with open(f'/proc/{pid}/smaps', encoding='ascii', errors='replace') as file:
        for line in file:
            mapping = re.match(r'[0-9a-f]+-[0-9a-f]+ (....) \S+ \S+ (\d+)', line)
            if mapping:
                private = mapping[1][3] == 'p'
                of_file = mapping[2] != '0'
            elif private and (line.startswith('Anonymous:')
                              or of_file and line.startswith('Private_Clean:')):
                total += int(line.split()[1]) * 1024
    return total


class Sampler(threading.Thread):
    """Keeps the largest private memory of a process since it was last asked."""

    PAUSE = 0.02

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid = pid
        self.largest = 0
        self.samples = 0
        self.lock = threading.Lock()
        self.ended = threading.Event()

    def run(self):
        while not self.ended.wait(self.PAUSE):
            self.sample()

    def sample(self):
        now = private_memory(self.pid)
        with self.lock:
            self.largest = max(self.largest, now)
            self.samples += 1

    def take(self):
        self.sample()
        with self.lock:
            largest, self.largest = self.largest, 0
        return largest

    def end(self):
        self.ended.set()
        self.join()


@measure('memory', 'memory of the worker over a million messages', order=70)
def measure_memory(bench):
    count = bench.size(1000000)
    step = count // 10
    database = bench.database('memory')
    worker = database.worker_pid()
    at_first = private_memory(worker)
    sampler = Sampler(worker)
    largest = []
    bench.postmark.reset()
    sampler.start()
    try:
        # The next lot is queued while one is under way: there is always more.
        database.run(BULK, (1, step))
        for sent in range(step, count + 1, step):
            if sent < count:
                database.run(BULK, (sent + 1, sent + step))
            bench.postmark.wait(sent)
            largest.append(sampler.take() / MB)
    finally:
        sampler.end()
    if database.run("SELECT postmark_flush('60 s')") != [(True,)] or database.worker_pid() != worker:
        raise RuntimeError('the queue did not run empty, or the worker is another one')
    stats = bench.postmark.stats()
    [(stored,)] = database.run("SELECT count(*) FROM postmark_history WHERE status = 'sent'")
    if stats['messages'] != count or stats['duplicates'] or stored != count:
        raise RuntimeError(f'{count} messages, {stored} stored as sent, but the server saw {stats}')
    bench.report('memory', f'largest memory of the worker over {count} messages', max(largest),
                 unit='MB', better='lower', target=64, target_kind='at most',
                 note='beyond shared buffers: RssAnon and file pages that only it has mapped;'
                 f' {sampler.samples} samples; {at_first / MB:.1f} MB before the first message')
    bench.report('memory_growth', f'growth from the first {step} to the last {step}',
                 largest[-1] - largest[0], unit='MB', better='lower', target=2, target_kind='at most',
                 note=f'largest of each {step}, MB: ' + ', '.join(f'{size:.1f}' for size in largest))


# ----------------------------------------------------------------------
# Idleness
# ----------------------------------------------------------------------

# The worker looks through the queue once more after work, this long after the
# last time (RESCAN_DELAY in src/worker/scan.c): that is still work. And
# PostgreSQL's bgwriter logs what is running, 15 s after the last WAL.
SETTLE = 61
QUIET = 5
WATCHED = 20

# WAL that PostgreSQL itself writes after other WAL, of nobody's doing
OF_THE_SERVER = ('RUNNING_XACTS', 'CHECKPOINT_ONLINE', 'CHECKPOINT_REDO')


def processes(bench):
    """The pids of the launcher and of all workers of the extension."""
    return [pid for pid, in bench.admin.run(
        "SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'postmark_connector %'")]


class Idleness:
    """Counters that must stand still. All is asked of another database."""

    def __init__(self, bench, name):
        self.bench = bench
        self.name = name
        self.pids = processes(bench)
        self.observer = bench.database('observer', extension=False)
        self.observer.run('CREATE EXTENSION pg_walinspect')

    def read(self):
        [(transactions, at)] = self.observer.run(
            'SELECT xact_commit + xact_rollback, pg_current_wal_insert_lsn()'
            ' FROM pg_stat_database WHERE datname = %s', (self.name,))
        return {'switches': sum(map(context_switches, self.pids)), 'transactions': transactions, 'wal': at}

    def wal(self, begin, end):
        """Records and bytes between two positions, those of the server's own
        left out, and the kinds of all."""
        if begin == end:
            return 0, 'none'
        rows = self.observer.run(
            'SELECT resource_manager, record_type, count(*)::int, sum(record_length)::int'
            ' FROM pg_get_wal_records_info_till_end_of_wal(%s) WHERE start_lsn < %s'
            ' GROUP BY 1, 2', (begin, end))
        ours = sum(length for _, kind, _, length in rows if kind not in OF_THE_SERVER)
        return ours, ', '.join(f'{manager} {kind}: {n}' for manager, kind, n, _ in rows)


@measure('idle', 'what the worker does while there is nothing to do', order=71)
def measure_idle(bench):
    # The autovacuum launcher's workers are transactions in every database.
    bench.setting(autovacuum='off')
    database = bench.database('idle')
    bench.postmark.reset()
    database.run(BULK, (1, 1000))
    bench.postmark.wait(1000)
    if database.run("SELECT postmark_flush('60 s')") != [(True,)]:
        raise RuntimeError('the queue did not run empty')
    database.close()
    idleness = Idleness(bench, database.name)
    if len(idleness.pids) < 2:
        raise RuntimeError('there should be a launcher and a worker')
    idleness.observer.run('CHECKPOINT')

    # Let it settle: as long as work may come after work, and then all still.
    work_ended = still_since = time.monotonic()
    last = idleness.read()

    def settled():
        nonlocal last, still_since
        now = idleness.read()
        if now != last:
            last, still_since = now, time.monotonic()
        return time.monotonic() > max(work_ended + SETTLE, still_since + QUIET)

    until(settled, timeout=180, pause=0.25, what='a server that has settled')

    before = idleness.read()
    end = time.monotonic() + WATCHED
    until(lambda: time.monotonic() > end, timeout=2 * WATCHED, pause=0.5)
    after = idleness.read()
    written, kinds = idleness.wal(before['wal'], after['wal'])
    if processes(bench) != idleness.pids:
        raise RuntimeError('the processes are others than before')
    bench.report('idle_switches', f'context switches of launcher and worker in {WATCHED} s',
                 after['switches'] - before['switches'], unit='', better='lower',
                 target=0, target_kind='at most',
                 note='autovacuum off; begun when a minute after the last message nothing had moved for'
                 f' {QUIET} s, since the worker looks through the queue once more within that minute')
    bench.report('idle_transactions', f'transactions in the database in {WATCHED} s',
                 after['transactions'] - before['transactions'], unit='', better='lower',
                 target=0, target_kind='at most')
    bench.report('idle_wal', f'WAL written in {WATCHED} s', written, unit='bytes', better='lower',
                 target=0, target_kind='at most',
                 note='of the whole server, but for its own notes of checkpoints and running'
                 f' transactions; records seen: {kinds}')


# ----------------------------------------------------------------------
# Start of a server with many databases
# ----------------------------------------------------------------------

# How long to wait for the workers, s
START_LIMIT = 60


class ManyDatabases:
    """A server with so many databases that have the extension, stopped."""

    def __init__(self, cluster, count):
        self.cluster = cluster
        self.count = count
        cluster.start()
        admin = cluster.database('postgres')
        for number in range(count):
            admin.run(f'CREATE DATABASE shop{number} TEMPLATE template0')
            database = cluster.database(f'shop{number}')
            database.configure()
            database.close()
        admin.close()
        cluster.stop()

    def start(self, **settings):
        """Seconds until it accepts connections and until every worker runs,
        and how many ran in the end."""
        begun = self.cluster.start(**settings)
        accepting = time.monotonic() - begun
        running = self.wait_for_workers(begun) if not settings else 0
        workers = time.monotonic() - begun
        if running == self.count:
            # Not in the time: that each of them says so itself.
            for number in range(self.count):
                database = self.cluster.database(f'shop{number}')
                database.worker_pid()
                database.close()
        self.cluster.stop()
        return accepting, workers, running

    def wait_for_workers(self, begun):
        admin = self.cluster.database('postgres')
        running = 0
        while running < self.count and time.monotonic() < begun + START_LIMIT:
            [(running,)] = admin.run(
                "SELECT count(DISTINCT datid) FROM pg_stat_activity"
                " WHERE backend_type = 'postmark_connector worker' AND datname LIKE 'shop%'")
            time.sleep(0.01)
        admin.close()
        return running


@measure('start', 'start of a server with 100 databases', order=72)
def measure_start(bench):
    with bench.second_cluster(shared_preload_libraries='postmark_connector', shared_buffers='512MB',
                              max_worker_processes=128, max_connections=200) as cluster:
        many = ManyDatabases(cluster, bench.size(100))
        results = bench.interleave(
            rounds=3,
            ours=many.start,
            plain=lambda: many.start(shared_preload_libraries=''))
    ours, workers, running = zip(*results['ours'])
    plain, _, _ = zip(*results['plain'])
    bench.report('start_running', f'workers after the start of a server with {many.count} databases',
                 min(running), unit='', better='higher', target=many.count, target_kind='at least',
                 note=f'of 3 starts the worst; waited for {START_LIMIT} s at most; max_worker_processes 128')
    bench.report('start_workers', 'until all of them run, from when connections are accepted',
                 [all_run - accepting for all_run, accepting in zip(workers, ours)],
                 unit='s', better='lower', target=2, target_kind='at most')
    bench.report('start', f'start until connections are accepted, {many.count} databases',
                 ours, plain, 'the same without the library', unit='s', better='lower')
