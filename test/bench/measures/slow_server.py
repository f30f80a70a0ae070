"""slow_server.py: a server that takes 200 ms for a request, as Postmark may."""

import json
import random
import time

from harness import measure
from measures.queue import Queue

DELAY_MS = 200
BATCH = 500
IN_FLIGHT = 8
# as many as the target is worth measuring with
WAVES = 40
SAMPLES = 25


def drain_slowly(queue, count):
    """Messages a second from the first request to the last reply."""
    queue.pause()
    queue.empty()
    queue.fill(count)
    queue.settle()
    queue.postmark.reset(delay_ms=DELAY_MS)
    queue.resume()
    queue.wait(count)
    queue.check(count)
    requests = queue.postmark.requests()
    took = (max(request['received_ns'] for request in requests)
            - min(request['begun_ns'] for request in requests)) / 1e9 + DELAY_MS / 1e3
    most = queue.postmark.stats()['max_in_flight']
    if most > IN_FLIGHT:
        raise RuntimeError(f'{most} requests at a time')
    return count / took


@measure('slow_server', '40 waves of requests that take 200 ms each', order=20)
def measure_slow_server(bench):
    count = bench.size(WAVES * IN_FLIGHT * BATCH)
    bench.setting(**{'postmark_connector.max_in_flight': IN_FLIGHT,
                     'postmark_connector.batch_size': BATCH})
    database = bench.database('slow_server')
    queue = Queue(bench, database)
    queue.warm()
    results = bench.interleave(rounds=min(bench.pairs, 3), ours=lambda: drain_slowly(queue, count))
    bench.drop(database)
    bench.report('slow_server', f'drain of {count}, {DELAY_MS} ms a request, max_in_flight {IN_FLIGHT}',
                 results['ours'], IN_FLIGHT * BATCH / (DELAY_MS / 1e3),
                 f'{IN_FLIGHT} x {BATCH} / {DELAY_MS / 1e3} s',
                 unit='messages/s', better='higher', target=0.9)


def wait_for_request(postmark, to):
    """When the request was received that begins with a message to somebody."""
    limit = time.monotonic() + 30
    while True:
        for request in reversed(postmark.requests()):
            if request['first_to'] == to:
                return request['received_ns']
        if time.monotonic() > limit:
            raise RuntimeError(f'the message to {to} was not sent')
        time.sleep(0.002)


def sign_in_latencies(queue, count):
    """Milliseconds from COMMIT to request received, of codes queued while
    invitations drain."""
    latencies = []
    queue.pause()
    queue.empty()
    queue.fill(count, 'OrganizationInvitation')
    queue.settle()
    queue.postmark.reset(delay_ms=DELAY_MS)
    queue.resume()
    queue.postmark.wait(IN_FLIGHT * BATCH)  # all connections are busy now
    # as long as the invitations left are more than those in flight
    while queue.postmark.stats()['messages'] < count - 2 * IN_FLIGHT * BATCH and len(latencies) < SAMPLES:
        to = f'sign-in-{len(latencies)}@example.com'
        time.sleep(random.uniform(0, 0.1))  # anywhere between two replies
        begun = time.monotonic_ns()
        queue.database.run("SELECT postmark_enqueue(%s, 'SignIn', '493021')", (to,))
        latencies.append((wait_for_request(queue.postmark, to) - begun) / 1e6)
    queue.wait(count + len(latencies))
    queue.check(count + len(latencies))
    return latencies


@measure('priority', 'a sign-in code queued behind 100,000 invitations, server takes 200 ms', order=21)
def measure_priority(bench):
    count = max(bench.size(100000), 40000)  # some seconds at least
    bench.setting(**{'postmark_connector.max_in_flight': IN_FLIGHT,
                     'postmark_connector.batch_size': BATCH})
    database = bench.database('priority')
    [(config,)] = database.run('SELECT postmark_config()')
    for template in config['templates']:
        if template['usageType'] == 'SignIn':
            template['priority'] = 9
    config['templates'].append({'usageType': 'OrganizationInvitation',
                                'templateAlias': 'logto-organization-invitation', 'priority': 1})
    database.run('SELECT postmark_configure(%s)', (json.dumps(config),))
    queue = Queue(bench, database)
    queue.warm()
    latencies = sign_in_latencies(queue, count)
    bench.drop(database)
    bench.report('priority', f'sign-in code behind {count} invitations, {DELAY_MS} ms a request: '
                 'COMMIT to request, median',
                 latencies, unit='ms', better='lower', target=2 * DELAY_MS, target_kind='at most',
                 note=f'{len(latencies)} codes')
    bench.report('priority_max', 'the same, the longest', max(latencies),
                 unit='ms', better='lower', target=2 * DELAY_MS, target_kind='at most')
