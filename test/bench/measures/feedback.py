"""feedback.py: what becomes of mail, and what it costs the mail that leaves.

Postmark's events come in while a queue drains; addresses are suppressed that
no message of the drain is for; somebody is notified.
"""

import contextlib
import json
import threading

from harness import measure
from measures.drain_conditions import queue_of
from measures.pgbench import pgbench

SECRET = 'the-webhooks-own-secret'
SUPPRESSED = 200000
EVENTS = 20000

# Of messages that were sent: what Postmark posts of each, but for the number
EVENT = f"""
    CREATE TABLE events AS
    SELECT row_number() OVER () AS i, jsonb_build_object(
        'RecordType', 'Delivery', 'ServerID', 23, 'MessageStream', 'outbound',
        'MessageID', message_id, 'Recipient', email, 'Tag', NULL,
        'DeliveredAt', '2026-03-01T12:00:00.1234567Z', 'Details', 'smtp;250 2.0.0 OK',
        'Metadata', jsonb_build_object('postmark_batch', gen_random_uuid(), 'postmark_id', id || '-'
            || (extract(epoch FROM created_at) * 1000000)::bigint - 946684800000000)) AS event
    FROM postmark_history LIMIT {EVENTS};
    CREATE UNIQUE INDEX ON events (i);
    ANALYZE events;
    CREATE SEQUENCE event;
"""
# Each event once, and then all of them once more
POST = f"""
    SELECT postmark_webhook(event, '{SECRET}') FROM events WHERE i = (SELECT nextval('event') % {EVENTS} + 1);
"""


def accept_events(database):
    database.run("SELECT postmark_configure(postmark_config() || %s)", (json.dumps({'webhookSecret': SECRET}),))


def suppress(database, count):
    database.run(
        'INSERT INTO postmark_suppressed (connector, message_stream, address, email, reason, since, lifted)'
        " SELECT 'default', 'outbound', e, e, 'HardBounce', now(), false"
        " FROM (SELECT 'gone-' || i || '@example.com' AS e FROM generate_series(1, %s) i) s", (count,))
    database.run('VACUUM ANALYZE postmark_suppressed')


@measure('drain_suppressions', 'a drain with 200,000 addresses suppressed', order=15)
def measure_suppressions(bench):
    count = bench.size(100000)
    with queue_of(bench, 'drain_suppressions') as some, queue_of(bench, 'drain_no_suppressions') as none:
        suppress(some.database, SUPPRESSED)
        results = bench.interleave(
            some=lambda: some.round(count), none=lambda: none.round(count))
    bench.report('drain_suppressions', f'drain of {count}, {SUPPRESSED:,} addresses suppressed',
                 results['some'], results['none'], 'none suppressed',
                 unit='messages/s', better='higher', target=0.9)


@measure('drain_notify', 'a drain whose every message is notified', order=16)
def measure_notify(bench):
    count = bench.size(100000)
    with queue_of(bench, 'drain_notify') as told, queue_of(bench, 'drain_no_notify') as quiet:
        told.database.run("SELECT postmark_configure(postmark_config() || '{\"notifyChannel\": \"mail\"}')")
        results = bench.interleave(
            told=lambda: told.round(count), quiet=lambda: quiet.round(count))
    bench.report('drain_notify', f'drain of {count} with notifyChannel, nobody listening',
                 results['told'], results['quiet'], 'without',
                 unit='messages/s', better='higher')


@contextlib.contextmanager
def events_beside(bench, database):
    """Events at a steady rate, from one connection, until the end."""
    stop = threading.Event()
    session = database.connect()
    posted = 0

    def post():
        nonlocal posted
        with session.cursor() as cursor:
            while not stop.wait(0.01):
                cursor.execute(
                    f"SELECT count(postmark_webhook(event, '{SECRET}')) FROM events"
                    ' WHERE i BETWEEN %s AND %s', (posted % (EVENTS - 10), posted % (EVENTS - 10) + 9))
                posted += 10

    thread = threading.Thread(target=post)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        session.close()
    if posted == 0:
        raise RuntimeError('no event was posted')


def drain_beside_events(bench, queue, count):
    queue.pause()
    queue.empty()
    queue.fill(count)
    queue.settle()
    with events_beside(bench, queue.database):
        return queue.drain(count)


@measure('drain_events', 'a drain while a thousand events a second come in', order=17)
def measure_events(bench):
    count = bench.size(100000)
    with queue_of(bench, 'drain_events') as queue:
        accept_events(queue.database)
        queue.database.run(EVENT)
        results = bench.interleave(
            beside=lambda: drain_beside_events(bench, queue, count), alone=lambda: queue.round(count))
    bench.report('drain_events', f'drain of {count} beside a thousand events a second',
                 results['beside'], results['alone'], 'no events',
                 unit='messages/s', better='higher', target=0.9)


# What a transaction costs that changes one row
BARE = f"""
    UPDATE bare SET at = clock_timestamp() WHERE i = (SELECT nextval('bare_event') % {EVENTS} + 1);
"""


@measure('webhook', 'postmark_webhook on one connection, prepared', order=40)
def measure_webhook(bench):
    with queue_of(bench, 'webhook') as queue:
        database = queue.database
        accept_events(database)
        queue.round(EVENTS)
        database.run(EVENT)
        database.run('CREATE TABLE bare AS SELECT i, now() AS at FROM events;'
                     ' CREATE UNIQUE INDEX ON bare (i); ANALYZE bare; CREATE SEQUENCE bare_event')

        def rate(script, **how):
            return pgbench(bench, database, script, transactions=EVENTS, **how).tps

        results = bench.interleave(
            events=lambda: rate(POST), bare=lambda: rate(BARE),
            relaxed=lambda: rate(POST, synchronous_commit=False))
        [(known,)] = database.run('SELECT count(*) FROM postmark_feedback')
        if known != EVENTS:
            raise RuntimeError(f'{EVENTS} events were posted, {known} are known')
    bench.report('webhook', 'postmark_webhook, one connection, a transaction each',
                 results['events'], results['bare'], 'an UPDATE of one row, a transaction each',
                 unit='events/s', better='higher')
    bench.report('webhook_relaxed', 'the same by a role whose synchronous_commit is off',
                 results['relaxed'], unit='events/s', better='higher', target=5000, target_kind='at least')
