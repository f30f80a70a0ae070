"""scale.py: many connectors in a database, many databases, shards.

Of what lies beyond one machine this shows what one machine can: that
connectors share a worker without getting in each other's way, that databases
share nothing, and that shards keep together to a rate that is divided among
them. Failover is proven by a test, test/t/081_failover.pl.
"""

import bisect
import json
import time

from harness import measure
from measures.queue import Queue

BATCH = 500       # messages a request at most


def check_server(postmark, count):
    """Every message came once. What the server knows a message by is its id
    with the time at which it was queued, which differs between databases that
    are filled one after another."""
    stats = postmark.stats()
    if stats['messages'] != count or stats['duplicates']:
        raise RuntimeError(f'{count} messages were to be sent, but the server saw {stats}')


def check_none_deferred(database):
    [(deferred,)] = database.run('SELECT count(*) FROM postmark_deferred')
    if deferred:
        raise RuntimeError(f'{deferred} messages are deferred in {database.name}')


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

    # All of them in one statement. postmark_pause and postmark_resume read the
    # settings of all connectors anew at each call, which is 10 ms with 1,000
    # of them: 20 s a round that nobody measures.

    def pause(self):
        self.database.run('UPDATE postmark_settings SET paused_at = now()')

    def resume(self):
        begun = time.monotonic()
        self.database.run('UPDATE postmark_settings SET paused_at = NULL')
        return begun

    def fill(self, count, usage_type='SignIn'):
        """In turns, as sign-ups of many shops would come in."""
        self.database.run(
            'INSERT INTO postmark_queue (email, usage_type, code, connector)'
            " SELECT 'mail-' || i || '@example.com', %s, lpad((i %% 1000000)::text, 6, '0'),"
            " 'shop-' || 1 + i %% %s"
            ' FROM generate_series(1, %s) i', (usage_type, self.count, count))

    def check(self, count):
        check_server(self.postmark, count)
        done = self.database.run(
            "SELECT connector, count(*) FILTER (WHERE status = 'sent' AND attempts = 1), count(*)"
            ' FROM postmark_history GROUP BY 1')
        each = count // self.count
        if len(done) != self.count or any(row[1:] != (each, each) for row in done):
            raise RuntimeError(f'{each} messages of each of {self.count} connectors, but sent were {done}')
        check_none_deferred(self.database)


@measure('connectors', 'a drain of messages of many connectors, beside one connector', order=25)
def measure_connectors(bench):
    count = bench.size(100000)
    bench.setting(**{'postmark_connector.batch_size': BATCH})
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
    # Of 100 connectors each has enough for full requests, so there are as many
    # of them as of one connector. Of 1,000 there are five times as many, each
    # with an intent and a reply of its own: that is told, and has no target.
    for name, connectors, target in (('hundred', 100, 0.5), ('thousand', 1000, None)):
        bench.report(f'connectors_{connectors}', f'drain of {count}, of {connectors} connectors in turns',
                     results[name], results['one'], 'one connector',
                     unit='messages/s', better='higher', target=target,
                     note=f'{count // connectors} messages a connector,'
                          f' requests of {min(BATCH, count // connectors)}')


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
    check_server(postmark, count)
    for queue in queues:
        [(sent, finished)] = queue.database.run(
            "SELECT count(*) FILTER (WHERE status = 'sent' AND attempts = 1), count(*) FROM postmark_history")
        if (sent, finished) != (count // len(queues),) * 2:
            raise RuntimeError(f'{sent} of {finished} messages are sent in {queue.database.name}')
        check_none_deferred(queue.database)
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
                 results['several'], results['one'], 'one database', unit='messages/s', better='higher',
                 note='what the cores allow, which the local Postmark needs too')


# ----------------------------------------------------------------------
# Shards that share the rate of one Postmark server
# ----------------------------------------------------------------------

RATE = 5          # requests/s of a shard
REQUESTS = 30     # of a shard: six seconds, also with --quick


@measure('shards', 'databases as shards that share the request rate of one Postmark server', order=27)
def measure_shards(bench):
    bench.setting(**{'postmark_connector.batch_size': BATCH})
    queues = []
    for number in range(DATABASES):
        database = bench.database(f'shard{number}')
        config = database.run('SELECT postmark_config()')[0][0] | {'maxRequestsPerSecond': RATE}
        database.run('SELECT postmark_configure(%s)', (json.dumps(config),))
        queues.append(Queue(bench, database))
    count = DATABASES * REQUESTS * BATCH
    drain_together(queues, count)
    requests = queues[0].postmark.requests()
    for queue in queues:
        bench.drop(queue.database)
    if any(request['messages'] != BATCH for request in requests):
        raise RuntimeError(f'{len(requests)} requests for {count} messages: not all were full')
    received = sorted(request['received_ns'] / 1e9 for request in requests)
    # The first request of each shard waits for nothing: none of the time
    # from the first to the last is its.
    rate = (len(received) - DATABASES) / (received[-1] - received[0])
    most = max(bisect.bisect_left(received, begin + 1) - i for i, begin in enumerate(received))
    allowed = DATABASES * RATE
    bench.report('shards', f'{DATABASES} shards of {RATE} requests/s each: requests/s of all',
                 rate, allowed, 'what they may', unit='requests/s', better='higher', target=0.9,
                 note=f'{len(received)} requests of {BATCH} messages')
    bench.report('shards_excess', 'the same, no more than they may', rate, unit='requests/s',
                 better='lower', target=allowed * 1.05, target_kind='at most')
    bench.report('shards_most', 'most requests in any second', most, unit='', better='lower',
                 target=allowed + DATABASES, target_kind='at most',
                 note='a shard that was idle may begin one at once')
