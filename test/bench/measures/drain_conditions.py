"""drain_conditions.py: what a drain must not suffer from.

Each is the same drain twice, with and without something that has nothing to
do with its messages.
"""

import contextlib
import random
import time

from harness import measure
from measures.queue import Queue

# Up to how late a mail may be that was queued first and committed last
LATE_MS = 100


@contextlib.contextmanager
def queue_of(bench, name):
    database = bench.database(name)
    try:
        queue = Queue(bench, database)
        queue.warm()
        yield queue
    finally:
        bench.drop(database)


@contextlib.contextmanager
def snapshot_held(database):
    """A session that sees what was there before, and so keeps every deleted
    row from being removed."""
    session = database.connect(autocommit=False)
    try:
        session.set_session(isolation_level='REPEATABLE READ')
        with session.cursor() as cursor:
            cursor.execute('SELECT 1')
            yield
        [(held,)] = database.run('SELECT backend_xmin IS NOT NULL FROM pg_stat_activity WHERE pid = %s',
                                 (session.info.backend_pid,))
        if not held:
            raise RuntimeError('the snapshot was not held')
    finally:
        session.close()


def drain_beside_snapshot(queue, count):
    queue.pause()
    queue.empty()
    with snapshot_held(queue.database):
        queue.fill(count)
        queue.settle()
        return queue.drain(count)


@measure('drain_snapshot', "a drain while another session's snapshot is held", order=11)
def measure_snapshot(bench):
    count = bench.size(100000)
    with queue_of(bench, 'drain_snapshot') as queue:
        results = bench.interleave(
            held=lambda: drain_beside_snapshot(queue, count),
            plain=lambda: queue.round(count))
    bench.report('drain_snapshot', f"drain of {count}, another session's snapshot held",
                 results['held'], results['plain'], 'no snapshot held',
                 unit='messages/s', better='higher', target=0.8)


@measure('drain_unanalyzed', 'a drain on tables never analysed, autovacuum off', order=12)
def measure_unanalyzed(bench):
    count = bench.size(100000)
    with queue_of(bench, 'drain_analyzed') as normal:
        database = bench.database('drain_unanalyzed')
        for table in ('queue', 'deferred', 'intents', 'history'):
            database.run(f'ALTER TABLE postmark_{table} SET (autovacuum_enabled = false)')
        never = Queue(bench, database)
        never.round(10000, analyze=False)
        results = bench.interleave(
            never=lambda: never.round(count, analyze=False),
            normal=lambda: normal.round(count))
        analyzed = database.run(
            "SELECT relname FROM pg_stat_user_tables WHERE relname LIKE 'postmark%'"
            ' AND analyze_count + autoanalyze_count + autovacuum_count > 0'
            " AND relname IN ('postmark_queue', 'postmark_deferred', 'postmark_intents', 'postmark_history')")
        if analyzed:
            raise RuntimeError(f'analysed after all: {analyzed}')
        bench.drop(database)
    bench.report('drain_unanalyzed', f'drain of {count}, tables never analysed, autovacuum off',
                 results['never'], results['normal'], 'analysed, autovacuum on',
                 unit='messages/s', better='higher', target=0.9)


def drain_behind_paused(paused, queue, backlog, count):
    """A drain of one connector whose messages come after those of another
    one, in the table and in its index."""
    queue.pause()
    queue.empty()
    paused.fill(backlog)
    queue.fill(count)
    queue.settle()
    rate = queue.drain(count)
    [(left,)] = queue.database.run(
        'SELECT count(*) FROM postmark_queue WHERE connector = %s', (paused.connector,))
    if left != backlog:
        raise RuntimeError(f'{backlog} messages were paused, {left} are left')
    return rate


@measure('drain_paused', 'a drain with 100,000 messages of a paused connector first in the queue', order=13)
def measure_paused(bench):
    count = bench.size(100000)
    with queue_of(bench, 'drain_paused') as paused:
        database = paused.database
        database.run("SELECT postmark_configure(config || '{\"serverToken\": \"token\"}', 'other')"
                     ' FROM postmark_config() config')
        queue = Queue(bench, database, 'other')
        queue.warm()
        paused.pause()
        if paused.lanes > queue.lanes:
            raise RuntimeError('the paused connector is not the first in the index')
        results = bench.interleave(
            behind=lambda: drain_behind_paused(paused, queue, count, count),
            alone=lambda: queue.round(count))
    bench.report('drain_paused', f'drain of {count} with {count} of a paused connector first in the queue',
                 results['behind'], results['alone'], 'nothing else queued',
                 unit='messages/s', better='higher', target=0.9)


def drain_around_open(queue, count, latencies):
    """A drain past a message with the lowest id, whose transaction is open
    all the while. Appends the time, in ms, that its mail then took."""
    queue.pause()
    queue.empty()
    session = queue.database.connect(autocommit=False)
    try:
        with session.cursor() as cursor:
            cursor.execute("SELECT postmark_enqueue('late@example.com', 'SignIn', '000001')")
            [(first,)] = cursor.fetchall()
            queue.fill(count)
            queue.settle()
            [(above,)] = queue.database.run('SELECT min(id) FROM postmark_queue')
            if first >= above:
                raise RuntimeError(f'id {first} is not below {above}')
            rate = queue.drain(count)
        # the worker is done and asleep; when, matters to nothing
        time.sleep(random.uniform(0.01, 0.1))
        committed = time.monotonic_ns()
        session.commit()
    finally:
        session.close()
    queue.wait(count + 1)
    queue.check(count + 1)
    last = queue.postmark.requests()[-1]
    if last['first_to'] != 'late@example.com':
        raise RuntimeError(f'the last request was not that of the late message: {last}')
    latencies.append((last['received_ns'] - committed) / 1e6)
    return rate


@measure('drain_late', 'a message with the lowest id committed after a million above it were sent', order=14)
def measure_late(bench):
    count = bench.size(1000000)
    latencies = []
    with queue_of(bench, 'drain_late') as queue:
        results = bench.interleave(
            rounds=min(bench.pairs, 3),  # half a minute each
            open=lambda: drain_around_open(queue, count, latencies),
            plain=lambda: queue.round(count))
    bench.report('drain_late', f'drain of {count} while the transaction of the lowest id is open',
                 results['open'], results['plain'], 'no transaction open',
                 unit='messages/s', better='higher', target=0.8)
    bench.report('late_commit', f'COMMIT of the lowest id after {count} above it, to its request',
                 latencies, unit='ms', better='lower', target=LATE_MS, target_kind='at most',
                 note=f'the longest took {max(latencies):.1f} ms')
