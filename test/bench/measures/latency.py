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


def stream(bench, database, count, pace=PACE, goes_on=lambda: True):
    """Of singles that are committed at a steady pace, whatever the worker is
    at, the times in ms: from just before COMMIT is sent until the request that
    has it was received, and all of COMMIT. Ends before count when goes_on()
    says so."""
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
            if not goes_on():
                break
            time.sleep(max(0, pace - (time.monotonic_ns() - begun) / 1e9))
    session.close()
    bench.postmark.wait(len(committed))
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
# COMMIT to request beside what else the worker does
# ----------------------------------------------------------------------

# s from one to the next: as many as there can be, and yet one by one
BESIDE_PACE = 0.01

# 1,000,000 finished messages that are too old, and as many that are not
OLD = """
    INSERT INTO postmark_history (id, connector, email, usage_type, template_alias, status, attempts, message_id,
        created_at, due_at, expires_at, finished_at)
    SELECT -i, 'default', 'user' || i || '@example.com', 'SignIn', 'logto-sign-in', 'sent', 1, gen_random_uuid(),
        x, x, x, x
    FROM generate_series(1, %s) i, LATERAL (SELECT now() - interval '60 days' + i * interval '1 ms') AS s (x)
"""


def report_beside(bench, database, name, subject, count, goes_on, done):
    """Latency of singles while the worker is at something that begins now."""
    flush = Flush(bench.data)
    took, _ = stream(bench, database, count, BESIDE_PACE, goes_on)
    flushed = [flush.time() * 1000 for _ in range(1000)]
    flush.close()
    for percent, allowed in ((50, 1), (99, 5)):
        bench.report(f'{name}_p{percent}', f'COMMIT to request received, p{percent}, {subject}',
                     percentile(took, percent), unit='ms', better='lower',
                     target=allowed + percentile(flushed, percent), target_kind='at most',
                     note=f'{len(took)} singles, {1 / BESIDE_PACE:.0f} a second; {done()}; the target is {allowed} ms'
                     f' and the p{percent} of write and fdatasync: {percentile(flushed, percent):.2f} ms')


@measure('purge', 'from COMMIT to the request while a million old messages are purged', order=34)
def measure_purge(bench):
    count = bench.size(1000000)
    database = bench.database('purge')
    bench.setting(**{'postmark_connector.history_retention': '90d'})
    database.run(OLD, (count,))
    database.run('VACUUM ANALYZE postmark_history')
    database.run('CHECKPOINT')
    watch = bench.admin.__class__(database.name, bench.socket_dir)
    begun = time.monotonic()
    state = {'at': begun, 'left': count}

    def goes_on():
        if time.monotonic() - state['at'] > 0.25:
            [(oldest,)] = watch.run('SELECT max(id) FROM postmark_history WHERE id < 0')
            state.update(at=time.monotonic(), left=0 if oldest is None else count + oldest + 1)
        return state['left'] > 0

    bench.setting(**{'postmark_connector.history_retention': '30d'})
    report_beside(bench, database, 'purge', 'while old messages are purged', 12000, goes_on,
                  lambda: f'{count - state["left"]:,} purged in {time.monotonic() - begun:.0f} s')
    watch.close()


@measure('poll', 'from COMMIT to the request while 200,000 suppressions are read from Postmark', order=35)
def measure_poll(bench):
    database = bench.database('poll')
    database.run("SELECT postmark_configure(postmark_config() || '{\"feedbackInterval\": 86400}')")
    begun = time.monotonic()
    state = {'at': begun, 'known': 0}
    watch = bench.admin.__class__(database.name, bench.socket_dir)

    def goes_on():
        if time.monotonic() - state['at'] > 1:
            [(known, done)] = watch.run(
                "SELECT (SELECT count(*) FROM postmark_suppressions), coalesce((SELECT suppressions_until"
                " > now() - interval '1 hour' FROM postmark_feedback_progress), false)")
            state.update(at=time.monotonic(), known=known, done=done)
        return not state.get('done')

    report_beside(bench, database, 'poll', 'while suppressions are read', 3000 if bench.quick else 12000, goes_on,
                  lambda: f'{state["known"]:,} read in {time.monotonic() - begun:.0f} s')
    watch.close()


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
