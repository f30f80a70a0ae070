"""files.py: what the queue's files do under load and after it.

The queue's rows come and go, so its files hold mostly what is no more. They
must stay bounded while the load lasts, and shrink when it is over, and the
shrinking, which takes a lock that nobody else may have, must not be felt by
those who queue.
"""

import collections
import contextlib
import gc
import multiprocessing
import os
import re
import time

import psycopg2

from harness import measure
from measures.queue import Queue

MB = 1024 * 1024

# How long the load lasts, s: each half is longer than autovacuum_naptime, so
# that autovacuum has been there at least once in each.
SUSTAINED = 150
CHUNK = 10000

# Between two enqueues of the writer's, ms: less than the pause that would be
# too long, so that none falls between two of them.
PACE = 5

# How long a transaction stays open that has queued something, s
HOLD = 0.2

# The files are given back if so much of them is left.
GIVEN_BACK = 0.05

# How long to wait for the files to be given back, s
GIVE_BACK_LIMIT = 150


def size(database):
    """Bytes of the queue with its index and TOAST."""
    [(size,)] = database.run("SELECT pg_total_relation_size('postmark_queue')")
    return size


# ----------------------------------------------------------------------
# Sustained load
# ----------------------------------------------------------------------

@measure('files', 'size of the queue under sustained load', order=60)
def measure_files(bench):
    database = bench.database('files')
    queue = Queue(bench, database)
    seconds = bench.size(SUSTAINED)
    queued = 0
    samples = []
    bench.postmark.reset()
    begun = time.monotonic()
    while time.monotonic() < begun + seconds:
        # As much as the worker can send, and a little: it never gets to the
        # end of the queue, which never grows either.
        if queued - bench.postmark.stats()['messages'] < CHUNK:
            queue.fill(CHUNK)
            queued += CHUNK
        samples.append((time.monotonic() - begun, size(database)))
        time.sleep(0.02)
    rate = queued / (queue.wait(queued) - begun)
    queue.check(queued)
    bench.drop(database)
    first = max(size for at, size in samples if at < seconds / 2) / MB
    second = max(size for at, size in samples if at >= seconds / 2) / MB
    bench.report('files', f'largest size of postmark_queue, {seconds} s of load, second half',
                 second, first, 'first half', unit='MB', better='lower', target=1.5,
                 note=f'{rate:.0f} messages/s, {queued} in all; with index and TOAST')


# ----------------------------------------------------------------------
# After a backlog
# ----------------------------------------------------------------------

Enqueue = collections.namedtuple('Enqueue', 'begun took')     # s


def write(dsn, stop, results):
    """Enqueue one message every PACE ms, each in its own commit, and send
    back when each began and how long it took.

    A process of its own, so that nothing of the benchmark's holds it up; and
    no commit waits for the disk, so that nothing but locks does.
    """
    gc.disable()
    connection = psycopg2.connect(dsn, options='-c synchronous_commit=off')
    connection.autocommit = True
    enqueues = []
    with connection.cursor() as cursor:
        cursor.execute("PREPARE enqueue (bigint) AS SELECT postmark_enqueue("
                       "'writer' || $1 || '@example.com', 'Register', '493021')")
        due = time.monotonic()
        while not stop.is_set():
            begun = time.monotonic()
            cursor.execute('EXECUTE enqueue (%s)', (len(enqueues),))
            enqueues.append(Enqueue(begun, time.monotonic() - begun))
            due = max(due + PACE / 1000, time.monotonic())
            time.sleep(due - time.monotonic() if due > time.monotonic() else 0)
    connection.close()
    results.send(enqueues)


@contextlib.contextmanager
def writer(dsn):
    """The process above, while the block runs. Gives a function that ends it
    and returns what it found."""
    stop = multiprocessing.Event()
    ours, its = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.Process(target=write, args=(dsn, stop, its))
    process.start()
    its.close()

    def end():
        stop.set()
        if not ours.poll(30):
            raise RuntimeError('the writer does not end')
        return ours.recv()

    try:
        yield end
    finally:
        stop.set()
        process.join(10)
        if process.exitcode is None:
            process.kill()
            process.join()


class Holder:
    """A session whose transactions queue a message and then stay open for a
    while, half of the time. Whoever waits for the lock that it stands in the
    way of makes all that come later wait as well."""

    def __init__(self, database):
        self.connection = database.connect(autocommit=False)
        self.queued = 0
        self.open = False
        self.due = time.monotonic()

    def turn(self):
        """To be called often."""
        if time.monotonic() < self.due:
            return
        if self.open:
            self.connection.commit()
        else:
            with self.connection.cursor() as cursor:
                cursor.execute("SELECT postmark_enqueue('holder@example.com', 'Register', '493021')")
            self.queued += 1
        self.open = not self.open
        self.due = time.monotonic() + HOLD

    def end(self):
        self.connection.commit()
        self.connection.close()


def longest(enqueues, begin, end):
    """Longest enqueue that any part of [begin, end] saw, ms."""
    return 1000 * max((e.took for e in enqueues if e.begun + e.took >= begin and e.begun <= end),
                      default=0)


class LockWaits:
    """How long whoever reads or writes the queue has waited for its lock. What
    an enqueue takes is that, and how busy the machine is; here it is apart."""

    WAITED = re.compile(r'acquired (?:RowExclusive|AccessShare)Lock on relation .* after ([0-9.]+) ms')

    def __init__(self, bench):
        # Waits are logged that last longer than deadlock_timeout.
        bench.setting(log_lock_waits='on', deadlock_timeout='1ms')
        with open(os.path.join(bench.data, 'postmaster.pid'), encoding='ascii') as file:
            postmaster = int(file.readline())
        self.log = open(f'/proc/{postmaster}/fd/2', encoding='utf-8', errors='replace')
        self.log.seek(0, os.SEEK_END)

    def longest(self):
        """The longest since the last call, ms; 0 for none longer than 1 ms."""
        return max((float(found[1]) for found in map(self.WAITED.search, self.log) if found), default=0)


GiveBack = collections.namedtuple('GiveBack', 'largest left seconds pause afterwards waited')


def give_back(bench, database, lock_waits, backlog):
    """Drain a backlog while others write. Returns sizes in MB, seconds from
    the end of the backlog until the files were given back (None: they were
    not), and in ms the longest enqueue in the second around that moment and
    in a second after it, and the longest wait for a lock."""
    queue = Queue(bench, database)
    bench.postmark.reset()
    queue.pause()
    queue.fill(backlog)
    largest = size(database)
    given = None
    holder = Holder(database)
    lock_waits.longest()
    with writer(database.dsn) as end_writer:
        queue.resume()
        while bench.postmark.stats()['messages'] < backlog:
            holder.turn()
            time.sleep(0.02)
        drained = time.monotonic()
        while given is None and time.monotonic() < drained + GIVE_BACK_LIMIT:
            holder.turn()
            time.sleep(0.02)
            left = size(database)
            if left <= largest * GIVEN_BACK:
                given = time.monotonic()
        moment = time.monotonic()
        while time.monotonic() < moment + 2:
            holder.turn()
            time.sleep(0.02)
        holder.end()
        enqueues = end_writer()
    waited = lock_waits.longest()
    queued = backlog + len(enqueues) + holder.queued
    queue.wait(queued)
    queue.check(queued)
    return GiveBack(largest / MB, left / MB, given and given - drained,
                    longest(enqueues, moment - 0.5, moment + 0.5),
                    longest(enqueues, moment + 1, moment + 2), waited)


@measure('give_back', 'the queue\'s files are given back when it runs empty, and no writer feels it', order=61)
def measure_give_back(bench):
    # not less with --quick: small files need not be given back
    backlog = 300000
    lock_waits = LockWaits(bench)
    rounds = []
    for _ in range(bench.pairs):
        database = bench.database('give_back')
        rounds.append(give_back(bench, database, lock_waits, backlog))
        bench.drop(database)

    missed = sum(result.seconds is None for result in rounds)
    bench.report('give_back_size', f'size of postmark_queue after a backlog of {backlog}',
                 max(result.left for result in rounds),
                 max(result.largest for result in rounds), 'with the backlog',
                 unit='MB', better='lower', target=GIVEN_BACK,
                 note='the largest of the rounds'
                 + (f'; not given back in {missed} of {len(rounds)}' if missed else ''))
    bench.report('give_back_time', 'from the end of the backlog until the files are given back',
                 max(result.seconds or GIVE_BACK_LIMIT for result in rounds), unit='s', better='lower',
                 note=f'the longest of the rounds; at most {GIVE_BACK_LIMIT} s are waited. Half of the time '
                 'there is an open transaction that has queued something')
    if missed:
        return
    bench.report('give_back_lock', 'longest wait for the queue\'s lock meanwhile',
                 max(result.waited for result in rounds), unit='ms', better='lower',
                 target=10, target_kind='at most',
                 note='of all sessions, by the server\'s log, which has those from 1 ms')
    bench.report('give_back_pause', 'longest enqueue in the second around it',
                 [result.pause for result in rounds], [result.afterwards for result in rounds],
                 'in a second soon after', unit='ms', better='lower',
                 note=f'an enqueue every {PACE} ms; longest of all rounds: '
                 f'{max(result.pause for result in rounds):.1f} ms around it, '
                 f'{max(result.afterwards for result in rounds):.1f} ms after')
