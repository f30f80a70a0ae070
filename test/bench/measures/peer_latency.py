"""peer_latency.py: how soon the peers send what one transaction has queued,
with the options that they come with. For comparison, without a target."""

import random
import statistics
import time

from harness import measure
from measures.peers import running
from measures.slow_server import wait_for_request

# whose code is not compiled yet, and which do not count
WARM = 3

# How each queues a message from SQL, by its documentation
ENQUEUE = {
    'graphile_worker.mjs':
        "SELECT graphile_worker.add_job('jobs', json_build_object('email', %s, 'code', '493021'))",
    'pg_boss.mjs':
        "INSERT INTO pgboss.job (name, data) VALUES ('mail', jsonb_build_object('email', %s, 'code', '493021'))",
}


def latencies(bench, script, count, pause):
    """Milliseconds from COMMIT to request received, one message at a time,
    up to "pause" seconds after another, so that none is in step."""
    took = []
    database = bench.database('peer_latency', extension=False)
    try:
        with running(bench, script, 'latency', database=database):
            bench.postmark.reset()
            for i in range(WARM + count):
                to = f'mail-{i}@example.com'
                time.sleep(random.uniform(0.005, pause))
                begun = time.monotonic_ns()
                database.run(ENQUEUE[script], (to,))
                took.append((wait_for_request(bench.postmark, to) - begun) / 1e6)
            stats = bench.postmark.stats()
            if stats['messages'] != WARM + count or stats['duplicates']:
                raise RuntimeError(f'{script}: {WARM + count} messages, but the server saw {stats}')
    finally:
        bench.drop(database)
    return took[WARM:]


@measure('peer_latency', 'COMMIT to request of graphile-worker and pg-boss as they come', order=31)
def measure_peer_latency(bench):
    for script, name, count, pause in (
            ('graphile_worker.mjs', 'graphile-worker, woken by NOTIFY', 100, 0.02),
            ('pg_boss.mjs', 'pg-boss, which looks every 2 s', 50, 2)):
        took = latencies(bench, script, bench.size(count), pause)
        bench.report(f'latency_{script.removesuffix(".mjs")}', f'COMMIT to request, {name}: median',
                     took, unit='ms', better='lower',
                     note=f'{len(took)} messages, 99th percentile '
                          f'{statistics.quantiles(took, n=100, method="inclusive")[98]:.1f} ms')
