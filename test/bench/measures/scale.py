"""scale.py: many connectors in a database, many databases, shards.

Of what lies beyond one machine this shows what one machine can: that
connectors share a worker without getting in each other's way, that databases
share nothing, and that shards keep together to a rate that is divided among
them. Failover is proven by a test, test/t/081_failover.pl.
"""

import json
import time

from harness import measure
from measures.queue import Queue

# ----------------------------------------------------------------------
# Connectors
# ----------------------------------------------------------------------


class Connectors(Queue):
    """The queue of a database with so many connectors, as all see it."""

    def __init__(self, bench, database, count):
        super().__init__(bench, database)
        self.count = count
        config = json.dumps(database.run('SELECT postmark_config()')[0][0] | {'serverToken': 'token'})
        database.run("SELECT postmark_configure(%s, 'shop-' || i) FROM generate_series(1, %s) i",
                     (config, count))
        database.run("SELECT postmark_remove('default')")
        self.lanes = (0, 2147483647)

    def pause(self):
        self.database.run('SELECT postmark_pause(connector) FROM postmark_settings')

    def resume(self):
        # the settings of 1,000 connectors take a while; then all go on at once
        self.database.run('BEGIN')
        self.database.run('SELECT postmark_resume(connector) FROM postmark_settings')
        begun = time.monotonic()
        self.database.run('COMMIT')
        return begun

    def fill(self, count, usage_type='SignIn'):
        """In turns, as sign-ups of many shops would come in."""
        self.database.run(
            'INSERT INTO postmark_queue (email, usage_type, code, connector)'
            " SELECT 'mail-' || i || '@example.com', %s, lpad((i %% 1000000)::text, 6, '0'),"
            " 'shop-' || 1 + i %% %s"
            ' FROM generate_series(1, %s) i', (usage_type, self.count, count))

    def check(self, count):
        stats = self.postmark.stats()
        [(sent,)] = self.database.run(
            "SELECT count(*) FROM postmark_history WHERE status = 'sent' AND attempts = 1")
        if stats['messages'] != count or stats['duplicates'] or sent != count:
            raise RuntimeError(f'{count} messages, {sent} stored as sent, but the server saw {stats}')


@measure('connectors', 'a drain of messages of many connectors, beside one connector', order=25)
def measure_connectors(bench):
    count = bench.size(100000)
    one = Queue(bench, bench.database('one_connector'))
    hundred = Connectors(bench, bench.database('hundred_connectors'), 100)
    thousand = Connectors(bench, bench.database('thousand_connectors'), 1000)
    for queue in (one, hundred, thousand):
        queue.warm()
    results = bench.interleave(one=lambda: one.round(count),
                               hundred=lambda: hundred.round(count),
                               thousand=lambda: thousand.round(count))
    for queue in (one, hundred, thousand):
        bench.drop(queue.database)
    for name, connectors in (('hundred', 100), ('thousand', 1000)):
        bench.report(f'connectors_{connectors}', f'drain of {count}, of {connectors} connectors in turns',
                     results[name], results['one'], 'one connector',
                     unit='messages/s', better='higher',
                     note=f'requests of at most {min(500, count // connectors)} messages')


# ----------------------------------------------------------------------
# Databases
# ----------------------------------------------------------------------

DATABASES = 4


def drain_together(queues, count):
    """Messages a second of all of them, begun as one."""
    for queue in queues:
        queue.pause()
        queue.empty()
        queue.fill(count // len(queues))
        queue.settle()
    postmark = queues[0].postmark
    postmark.reset()
    begun = min([queue.resume() for queue in queues])
    postmark.wait(count)
    ended = max(queue.wait(count) for queue in queues)
    # ids, and so the server's idea of a duplicate, are of a database each
    sent = sum(queue.database.run("SELECT count(*) FROM postmark_history WHERE status = 'sent'")[0][0]
               for queue in queues)
    if postmark.stats()['messages'] != count or sent != count:
        raise RuntimeError(f'{count} messages, {sent} stored as sent, server: {postmark.stats()}')
    return count / (ended - begun)


@measure('databases', 'a drain of messages in several databases, beside one', order=26)
def measure_databases(bench):
    count = bench.size(100000)
    queues = [Queue(bench, bench.database(f'shop{i}')) for i in range(DATABASES)]
    for queue in queues:
        queue.warm()
    results = bench.interleave(several=lambda: drain_together(queues, count),
                               one=lambda: queues[0].round(count))
    for queue in queues:
        bench.drop(queue.database)
    bench.report('databases', f'drain of {count} in {DATABASES} databases, a worker each',
                 results['several'], results['one'], 'one database', unit='messages/s', better='higher')


# ----------------------------------------------------------------------
# Shards that share the rate of one Postmark server
# ----------------------------------------------------------------------

RATE = 5
REQUESTS = 30


@measure('shards', 'databases as shards that share the request rate of one Postmark server', order=27)
def measure_shards(bench):
    batch = 500
    bench.setting(**{'postmark_connector.batch_size': batch})
    queues = []
    for number in range(DATABASES):
        database = bench.database(f'shard{number}')
        config = database.run('SELECT postmark_config()')[0][0] | {'maxRequestsPerSecond': RATE}
        database.run('SELECT postmark_configure(%s)', (json.dumps(config),))
        queues.append(Queue(bench, database))
    count = DATABASES * REQUESTS * batch
    drain_together(queues, count)
    received = sorted(request['received_ns'] / 1e9 for request in queues[0].postmark.requests())
    for queue in queues:
        bench.drop(queue.database)
    most = max(sum(1 for at in received if begin <= at < begin + 1) for begin in received)
    allowed = DATABASES * RATE
    bench.report('shards', f'{DATABASES} shards of {RATE} requests/s each: requests/s of all',
                 (len(received) - DATABASES) / (received[-1] - received[0]), allowed, 'what they may',
                 unit='requests/s', better='higher', target=0.9,
                 note=f'{len(received)} requests with {count} messages')
    bench.report('shards_most', 'most requests in any second', most, unit='', better='lower',
                 target=allowed + DATABASES, target_kind='at most',
                 note='a request of each shard may fall on either side of it')
