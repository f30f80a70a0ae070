"""drain.py: a queue of 100,000 drained, beside what else can drain one.

All of them in turn, each round with tables of its own that start empty. The
peers that are no queues, Logto's connector and pg_net, send fewer messages:
theirs is a steady rate.
"""

import contextlib
import statistics
import time

from harness import measure
from measures.peers import drain_peer
from measures.queue import Queue

# What the worker writes of a message, here by SQL alone.
MOVE = """
    WITH gone AS (
        DELETE FROM postmark_queue {} RETURNING *
    )
    INSERT INTO postmark_history (id, connector, email, usage_type, locale, template_alias, status,
        attempts, message_id, error_code, last_error, created_at, due_at, expires_at, finished_at)
    SELECT id, connector, email, usage_type, locale, 'logto-sign-in', 'sent',
        1, gen_random_uuid(), NULL, NULL, created_at, created_at, expires_at, now()
    FROM gone
"""

# The range of a batch is computed, since ids have no gaps here: SQL could not
# find its rows in a cheaper way.
MOVE_IN_BATCHES = f"""
    DO $$
    DECLARE
        of_lane integer;
        first bigint;
        last bigint;
    BEGIN
        SELECT min(lane), min(id), max(id) INTO of_lane, first, last FROM postmark_queue;
        WHILE first <= last LOOP
            {MOVE.format('WHERE lane = of_lane AND id BETWEEN first AND first + 499')};
            COMMIT;
            first := first + 500;
        END LOOP;
    END $$
"""


def move(queue, statement, count):
    """Messages a second that SQL alone moves from the queue to the history."""
    queue.empty()
    queue.fill(count)
    queue.settle()
    begun = time.monotonic()
    queue.database.run(statement)
    took = time.monotonic() - begun
    [(moved, left)] = queue.database.run(
        'SELECT (SELECT count(*) FROM postmark_history), (SELECT count(*) FROM postmark_queue)')
    if (moved, left) != (count, 0):
        raise RuntimeError(f'{moved} of {count} messages moved, {left} left')
    return count / took


class PgNet:
    """pg_net as installed: in the database postgres, with its own settings."""

    # Less would fit into one of its turns, between which it rests a second.
    COUNT = 2000

    def __init__(self, bench):
        self.postmark = bench.postmark
        self.run = bench.admin.run
        self.available = bool(self.run(
            "SELECT 1 FROM pg_available_extensions WHERE name = 'pg_net'"
            " AND current_setting('shared_preload_libraries') LIKE '%pg_net%'"))
        if self.available:
            self.run('CREATE EXTENSION pg_net')
            [(self.version,)] = self.run("SELECT extversion FROM pg_extension WHERE extname = 'pg_net'")

    def drain(self):
        """Requests a second, from COMMIT to the last response."""
        self.postmark.reset()
        self.run('TRUNCATE net._http_response')
        self.run('CHECKPOINT')
        self.run('BEGIN')
        self.run("""
            SELECT net.http_post(%s || '/email/withTemplate',
                jsonb_build_object('From', 'bench@example.com', 'To', 'mail-' || i || '@example.com',
                    'TemplateAlias', 'logto-sign-in', 'MessageStream', 'outbound', 'TrackOpens', false,
                    'TrackLinks', 'None',
                    'TemplateModel', jsonb_build_object('code', lpad(i::text, 6, '0'))),
                headers => '{"X-Postmark-Server-Token": "token", "Content-Type": "application/json",
                    "Accept": "application/json"}')
            FROM generate_series(1, %s) i""", (self.postmark.url, self.COUNT))
        self.run('COMMIT')
        begun = time.monotonic()
        self.postmark.wait(self.COUNT)
        while self.run('SELECT count(*) FROM net._http_response') != [(self.COUNT,)]:
            if time.monotonic() > begun + 300:
                raise RuntimeError('pg_net has not stored all responses')
            time.sleep(0.01)
        took = time.monotonic() - begun
        failed = self.run('SELECT count(*) FROM net._http_response WHERE status_code IS DISTINCT FROM 200')
        stats = self.postmark.stats()
        if failed != [(0,)] or stats['messages'] != self.COUNT or stats['duplicates']:
            raise RuntimeError(f'pg_net: {failed} requests failed, the server saw {stats}')
        return self.COUNT / took

    def close(self):
        if self.available:
            self.run('DROP EXTENSION pg_net')


@measure('drain', 'a queue of 100,000 drained, beside SQL alone, graphile-worker, pg-boss, Logto, pg_net',
         order=10)
def measure_drain(bench):
    count = bench.size(100000)
    ours = Queue(bench, bench.database('drain'))
    # its connector stays paused: here the worker has nothing to do
    by_sql = Queue(bench, bench.database('drain_sql'))
    by_sql.pause()
    ours.warm()
    with contextlib.closing(PgNet(bench)) as pg_net:
        kinds = {
            'ours': lambda: ours.round(count),
            'sql': lambda: move(by_sql, MOVE.format(''), count),
            'sql_batches': lambda: move(by_sql, MOVE_IN_BATCHES, count),
            'graphile_jobs': lambda: drain_peer(bench, 'graphile_worker.mjs', count, 'jobs'),
            'graphile_batches': lambda: drain_peer(bench, 'graphile_worker.mjs', count, 'batches'),
            'graphile_records': lambda: drain_peer(bench, 'graphile_worker.mjs', count, 'records',
                                                   records='mails_sent'),
            'pg_boss': lambda: drain_peer(bench, 'pg_boss.mjs', count, 'drain'),
            'logto': lambda: drain_peer(bench, 'logto.mjs', bench.size(3000)),
        }
        if pg_net.available:
            kinds['pg_net'] = pg_net.drain
        results = bench.interleave(**kinds)
    bench.drop(ours.database)
    bench.drop(by_sql.database)

    def report(kind, peer_name, target=None, note=None):
        bench.report(f'drain_{kind}', f'drain of {count}', results['ours'], results[kind], peer_name,
                     unit='messages/s', better='higher', target=target, note=note)

    # the target is the faster one's
    slower, faster = sorted(('sql', 'sql_batches'), key=lambda kind: statistics.median(results[kind]))
    names = {'sql': 'SQL alone, one statement', 'sql_batches': 'SQL alone, a COMMIT every 500'}
    report(faster, names[faster], target=0.5)
    report(slower, names[slower])
    report('graphile_jobs', 'graphile-worker, a job a message', target=1.5,
           note='what a transaction that queues one message gives')
    report('graphile_records', 'graphile-worker, 500 messages a job, a row of each', target=1.5,
           note='only where one transaction queues 500; stores each MessageID in a table with a primary key')
    report('graphile_batches', 'graphile-worker, 500 messages a job', target=1.5,
           note='only where one transaction queues 500; stores nothing of a message')
    report('pg_boss', 'pg-boss, batches of 500')
    report('logto', "Logto's connector, 16 in flight", target=20)
    if pg_net.available:
        report('pg_net', f'pg_net {pg_net.version}', target=100)
    else:
        print('pg_net: not installed, left out')
