"""latency.py: how soon a message is on its way: queued, from COMMIT to the
request; and by postmark_send, beside libcurl alone.
"""

import gc
import subprocess
import time

from harness import context_switches, measure, percentile, until
from machine import Flush
from measures.pgbench import pgbench

# ----------------------------------------------------------------------
# COMMIT to request
# ----------------------------------------------------------------------

# Those before the first that counts, while connections and plans are made
WARM_UP = 20


def fall_asleep(pid):
    """Wait until a process has not been woken for some milliseconds."""
    before = None

    def quiet():
        nonlocal before
        was, before = before, context_switches(pid)
        return was == before

    until(quiet, pause=0.004, what='an idle worker')


def commit_to_request(bench, count):
    """Of singles that are queued one after another while the worker sleeps,
    and of flushes to disk between them, the times in ms: from just before
    COMMIT is sent until the request was received, all of COMMIT as the client
    sees it, and a flush."""
    database = bench.database('latency')
    worker = database.worker_pid()
    session = database.connect()
    flush = Flush(bench.data)
    committed, done, flushed = {}, [], []
    bench.postmark.reset()
    gc.disable()
    try:
        with session.cursor() as cursor:
            cursor.execute("PREPARE enqueue (text) AS SELECT postmark_enqueue($1, 'SignIn', '493021')")
            for number in range(WARM_UP + count):
                to = f'user{number}@example.com'
                until(lambda: database.run('SELECT NOT EXISTS (SELECT FROM postmark_queue)'
                                           ' AND NOT EXISTS (SELECT FROM postmark_intents)') == [(True,)],
                      pause=0.001, what='an empty queue')
                fall_asleep(worker)
                flushed.append(flush.time() * 1000)
                cursor.execute('BEGIN')
                cursor.execute('EXECUTE enqueue (%s)', (to,))
                begun = time.monotonic_ns()
                cursor.execute('COMMIT')
                done.append((time.monotonic_ns() - begun) / 1e6)
                committed[to] = begun
                bench.postmark.wait(number + 1)
    finally:
        gc.enable()
        flush.close()
        session.close()
    requests = bench.postmark.requests()
    if len(requests) != WARM_UP + count or {r['first_to'] for r in requests} != set(committed):
        raise RuntimeError(f'{WARM_UP + count} messages were queued, but there were {len(requests)} requests')
    took = [(r['received_ns'] - committed[r['first_to']]) / 1e6 for r in requests]
    return took[WARM_UP:], done[WARM_UP:], flushed[WARM_UP:]


@measure('latency', 'from COMMIT to the request, worker idle', order=30)
def measure_latency(bench):
    count = bench.size(2000)
    took, done, flushed = commit_to_request(bench, count)
    for percent, allowed in ((50, 1), (99, 5)):
        flush = percentile(flushed, percent)
        bench.report(f'latency_p{percent}', f'COMMIT to request received, p{percent}',
                     percentile(took, percent), unit='ms', better='lower',
                     target=allowed + flush, target_kind='at most',
                     note=f'{count} singles; the target is {allowed} ms and the p{percent} of write and'
                     f' fdatasync of 8 kB, timed in between: {flush:.2f} ms')
    bench.report('latency_commit', 'of that, COMMIT itself as the client sees it, p50',
                 percentile(done, 50), unit='ms', better='lower')


# ----------------------------------------------------------------------
# COMMIT to request with a synchronous standby
# ----------------------------------------------------------------------

PACE = 0.05         # s from one commit to the next


def stream(bench, database, count):
    """Of singles that are committed at a steady pace, whatever the worker is
    at, the times in ms: from just before COMMIT is sent until the request that
    has it was received, and all of COMMIT."""
    session = database.connect()
    committed, done = {}, []
    bench.postmark.reset()
    with session.cursor() as cursor:
        cursor.execute("PREPARE enqueue (text) AS SELECT postmark_enqueue($1, 'SignIn', '493021')")
        for number in range(WARM_UP + count):
            to = f'user{number}@example.com'
            cursor.execute('BEGIN')
            cursor.execute('EXECUTE enqueue (%s)', (to,))
            begun = time.monotonic_ns()
            cursor.execute('COMMIT')
            done.append((time.monotonic_ns() - begun) / 1e6)
            committed[to] = begun
            time.sleep(max(0, PACE - (time.monotonic_ns() - begun) / 1e9))
    session.close()
    bench.postmark.wait(WARM_UP + count)
    requests = {r['first_to']: r['received_ns'] for r in bench.postmark.requests()}
    # Of a message that shares a request with an earlier one the server tells
    # no more than that: it has waited for at most as long as that one.
    took, received = [], None
    for to, begun in committed.items():
        received = requests.get(to, received)
        took.append((received - begun) / 1e6)
    return took[WARM_UP:], done[WARM_UP:]


@measure('sync_standby', 'from COMMIT to the request, with a synchronous standby', order=33)
def measure_sync_standby(bench):
    count = bench.size(1000)
    with bench.second_cluster(shared_preload_libraries='postmark_connector') as primary:
        primary.start()
        database = primary.database('postgres')
        database.configure()
        with bench.standby_of(primary):
            took, done = stream(bench, database, count)
        database.close()
    for percent, allowed in ((50, 1), (99, 5)):
        commit = percentile(done, percent)
        bench.report(f'sync_standby_p{percent}', f'COMMIT to request received, p{percent}',
                     percentile(took, percent), unit='ms', better='lower',
                     target=allowed + 2 * commit, target_kind='at most',
                     note=f'{count} singles, {1 / PACE:.0f} a second; two commits wait for the standby one'
                     f' after the other, so the target is {allowed} ms and twice the p{percent} of COMMIT as'
                     f' the client sees it: {commit:.2f} ms')


# ----------------------------------------------------------------------
# postmark_send
# ----------------------------------------------------------------------

SEND = "SELECT postmark_send('user@example.com', 'SignIn', '493021');\n"
DELAY_MS = 5

# How much longer or shorter than the other's a body may be, bytes
BODY_TOLERANCE = 16


class Sends:
    """A message a request, one after another, by postmark_send and by libcurl.
    Both are timed by a client in C on a connection that is kept."""

    def __init__(self, bench, count):
        self.bench = bench
        self.count = count
        self.database = bench.database('send')
        self.body = {}

    def check(self, who, count):
        stats = self.bench.postmark.stats()
        if stats['messages'] != count or stats['requests'] != count:
            raise RuntimeError(f'{count} messages by {who}, but the server saw {stats}')
        self.body[who] = stats['bytes'] / count
        if max(self.body.values()) - min(self.body.values()) > BODY_TOLERANCE:
            raise RuntimeError(f'bodies are not of the same size: {self.body}')

    def ours(self):
        """Median, ms, of a statement by itself in a prepared session."""
        self.bench.postmark.reset(DELAY_MS)
        run = pgbench(self.bench, self.database, SEND, transactions=self.count, log=True)
        self.check('postmark_send', self.count)
        return percentile(run.latencies_us, 50) / 1000

    def libcurl(self):
        self.bench.postmark.reset(DELAY_MS)
        done = subprocess.run([self.bench.tool('curl_loop'), self.bench.postmark.url, str(self.count)],
                              capture_output=True, text=True, check=True, timeout=300)
        self.check('libcurl', self.count + 1)       # one of them not timed
        return float(done.stdout.split()[0]) * 1000


@measure('send', 'postmark_send beside libcurl alone', order=32)
def measure_send(bench):
    sends = Sends(bench, bench.size(500))
    results = bench.interleave(ours=sends.ours, libcurl=sends.libcurl)
    bench.report('send', f'postmark_send, server answers in {DELAY_MS} ms',
                 results['ours'], results['libcurl'], 'libcurl, one connection kept',
                 unit='ms', better='lower', target=1.15,
                 note=f'medians of {sends.count} statements or requests a round, as their clients see them')
