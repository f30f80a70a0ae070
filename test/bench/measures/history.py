"""history.py: ten million finished messages: how fast one of them is found,
and what an index to find it by costs the drain.

The extension keeps two indexes of the history that are of use here: by id, and
by connector and time. What Postmark calls a message is random, and so is an
address beside the one before: an index of either is met all over.
"""

import statistics
import time

from harness import measure
from measures.queue import Queue

ROWS = 10000000
LOOKUPS = 100

# In the order in which they were finished, half a million a day
FILL = """
    INSERT INTO postmark_history (id, connector, email, usage_type, template_alias, status, attempts, message_id,
        created_at, due_at, expires_at, finished_at)
    SELECT i, 'old', 'user' || hashint8(i) || '@example.com', 'SignIn', 'logto-sign-in', 'sent', 1, gen_random_uuid(),
        x, x, x, x
    FROM generate_series(1, %s) i, LATERAL (SELECT now() - interval '20 days' + i * interval '0.17 s') AS s (x)
"""
INDEXES = {
    'no index': None,
    'message_id': 'CREATE INDEX extra ON postmark_history (message_id)',
    'email': 'CREATE INDEX extra ON postmark_history (email)',
}


def fill(database, count):
    database.run("SELECT setval('postmark_message_id_seq', %s)", (count,))
    database.run(FILL, (count,))
    database.run('VACUUM ANALYZE postmark_history')


def with_index(database, name):
    database.run('DROP INDEX IF EXISTS extra')
    if INDEXES[name]:
        database.run(INDEXES[name])


def drain(bench, queue, name, count):
    """Messages a second into a history that is as long as it is."""
    with_index(queue.database, name)
    queue.pause()
    queue.fill(count)
    queue.settle()
    bench.postmark.reset()
    begun = queue.resume()
    return count / (queue.wait(count) - begun)


def lookups(database, where, rows):
    """Median, ms, of finding one of the messages."""
    took = []
    for row in rows:
        begun = time.monotonic()
        found = database.run(f'SELECT status FROM postmark_messages WHERE {where}', row)
        took.append((time.monotonic() - begun) * 1000)
        if ('sent',) not in found:
            raise RuntimeError(f'not found: {row}')
    return statistics.median(took)


@measure('history', 'ten million finished messages: how one is found, and what an index costs', order=36)
def measure_history(bench):
    rows, count = bench.size(ROWS), bench.size(100000)
    bench.setting(**{'postmark_connector.history_retention': '90d'})
    database = bench.database('history')
    queue = Queue(bench, database)
    queue.warm()
    queue.empty()
    fill(database, rows)
    some = database.run(
        'SELECT id, message_id, email, finished_at FROM postmark_history WHERE id IN'
        ' (SELECT (random() * %s)::bigint + 1 FROM generate_series(1, %s))', (rows - 1, LOOKUPS))
    found = {
        'id': lookups(database, 'id = %s', [(r[0],) for r in some]),
        'address_hour': lookups(
            database, "connector = 'old' AND finished_at BETWEEN %s - interval '30 min' AND %s + interval '30 min'"
            ' AND email = %s', [(r[3], r[3], r[2]) for r in some]),
    }
    for name, column in (('message_id', 1), ('email', 2)):
        with_index(database, name)
        found[name] = lookups(database, f'{name} = %s', [(r[column],) for r in some])
    results = bench.interleave(
        rounds=2 if bench.quick else 3,
        **{name: lambda name=name: drain(bench, queue, name, count) for name in INDEXES})
    for name, what in (('id', 'by its id'), ('address_hour', 'by its address and the hour it was finished in'),
                       ('message_id', 'by its MessageID, with an index of that'),
                       ('email', 'by its address, with an index of that')):
        bench.report(f'history_{name}', f'one of {rows:,} finished messages found {what}', found[name],
                     unit='ms', better='lower', target=10, target_kind='at most')
    for name in ('message_id', 'email'):
        bench.report(f'history_drain_{name}', f'drain of {count} beside them with an index of {name}',
                     results[name], results['no index'], 'without', unit='messages/s', better='higher')
