"""peers.py: the programs of test/bench/peers, run as test/bench/peers/common.mjs
describes."""

import contextlib
import re
import select
import signal
import time

import psycopg2.extensions

# Whether a peer has something left to do, asked like our queue.
LEFT = {
    'graphile_worker.mjs':
        'SELECT EXISTS (SELECT FROM (SELECT FROM graphile_worker._private_jobs ORDER BY id DESC LIMIT 1) last)',
    'pg_boss.mjs':
        "SELECT EXISTS (SELECT FROM pgboss.job WHERE state < 'completed')",
}


def environment(database):
    """A database for node's pg, in libpq's way."""
    names = {'host': 'PGHOST', 'port': 'PGPORT', 'user': 'PGUSER', 'dbname': 'PGDATABASE'}
    parts = psycopg2.extensions.parse_dsn(database.dsn)
    return {names[key]: value for key, value in parts.items() if key in names}


def line_of(process, seconds):
    """The next line that a peer prints."""
    if not select.select([process.stdout], [], [], seconds)[0]:
        raise RuntimeError(f'{process.args} said nothing for {seconds} s')
    line = process.stdout.readline().strip()
    if not line:
        raise RuntimeError(f'{process.args} ended: {process.wait()}')
    return line


@contextlib.contextmanager
def running(bench, script, *arguments, database=None):
    """A peer that has said "ready"; ended afterwards if it is still there."""
    process = bench.peer(script, *arguments, **(environment(database) if database else {}))
    try:
        line = line_of(process, 120)
        if line != 'ready':
            raise RuntimeError(f'{script} is not ready: {line}')
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait()


def drain_peer(bench, script, count, *mode, records=None):
    """Messages a second, from the signal to the peer's tables being done.

    records is a table in which it must have a row of each message then.
    """
    left = LEFT.get(script)
    name = re.sub(r'\W', '_', script.removesuffix('.mjs'))
    database = bench.database(name, extension=False) if left else None
    try:
        with running(bench, script, *mode, count, database=database) as process:
            if database:
                database.run('VACUUM (ANALYZE)')
                database.run('CHECKPOINT')
            bench.postmark.reset()
            begun = time.monotonic()
            process.send_signal(signal.SIGUSR2)
            bench.postmark.wait(count)
            while left and database.run(left) != [(False,)]:
                if time.monotonic() > begun + 300:
                    raise RuntimeError(f'{script} has sent everything, but not stored that')
                time.sleep(0.002)
            took = time.monotonic() - begun
            line_of(process, 60)  # it, too, has seen the end
        if records:
            [(stored,)] = database.run(f'SELECT count(DISTINCT message_id) FROM {records}'
                                       " WHERE email LIKE 'mail-%'")
            if stored != count:
                raise RuntimeError(f'{script}: {count} messages, but {stored} in {records}')
        stats = bench.postmark.stats()
        if stats['messages'] != count or stats['duplicates']:
            raise RuntimeError(f'{script}: {count} messages, but the server saw {stats}')
    finally:
        if database:
            bench.drop(database)
    return count / took
