"""queue.py: our queue, filled while its connector is paused, then drained.

What a drain has done is always checked: the server received every message
once, the queue is empty, and the history has them all as sent.
"""

import time

USAGE_TYPE = 'SignIn'


class Queue:
    """The queue of a database as one connector sees it."""

    def __init__(self, bench, database, connector='default'):
        self.postmark = bench.postmark
        self.database = database
        self.connector = connector
        [(number,)] = database.run(
            'SELECT number FROM postmark_settings WHERE connector = %s', (connector,))
        # whose lanes are all of one connector's and no other's
        self.lanes = (number * 10, number * 10 + 9)

    def pause(self):
        self.database.run('SELECT postmark_pause(%s)', (self.connector,))

    def empty(self):
        """Like new: whatever went before, a round finds the same tables."""
        self.database.run('TRUNCATE postmark_queue, postmark_deferred, postmark_intents, postmark_history')

    def fill(self, count, usage_type=USAGE_TYPE):
        self.database.run(
            'INSERT INTO postmark_queue (email, usage_type, code, connector)'
            " SELECT 'mail-' || i || '@example.com', %s, lpad((i %% 1000000)::text, 6, '0'), %s"
            ' FROM generate_series(1, %s) i', (usage_type, self.connector, count))

    def settle(self, analyze=True):
        """What is left to do of the fill is done before the clock starts, not
        during the drain."""
        if analyze:
            self.database.run('VACUUM (ANALYZE) postmark_queue')
        self.database.run('CHECKPOINT')

    def is_empty(self):
        # From the end, as the worker drains from the beginning: the last
        # message is found at once, without a pass over what is deleted.
        [(empty,)] = self.database.run(
            'SELECT NOT EXISTS (SELECT FROM postmark_intents)'
            ' AND NOT EXISTS (SELECT FROM (SELECT FROM postmark_queue WHERE lane BETWEEN %s AND %s'
            ' ORDER BY lane DESC, id DESC LIMIT 1) last)', self.lanes)
        return empty

    def resume(self):
        """Let it flow. Returns when that was."""
        begun = time.monotonic()
        self.database.run('SELECT postmark_resume(%s)', (self.connector,))
        return begun

    def wait(self, count):
        """Until all is sent and stored. Returns when that was."""
        self.postmark.wait(count)
        limit = time.monotonic() + 60
        while not self.is_empty():
            if time.monotonic() > limit:
                raise RuntimeError('everything was sent, but the queue did not run empty')
            time.sleep(0.002)
        return time.monotonic()

    def check(self, count):
        """Nothing is a result unless it did what it was timed for."""
        stats = self.postmark.stats()
        if stats['messages'] != count or stats['duplicates']:
            raise RuntimeError(f'{count} messages were to be sent, but the server saw {stats}')
        [(sent, all_of_them, deferred)] = self.database.run(
            "SELECT count(*) FILTER (WHERE status = 'sent' AND attempts = 1), count(*),"
            ' (SELECT count(*) FROM postmark_deferred)'
            ' FROM postmark_history WHERE connector = %s', (self.connector,))
        if (sent, all_of_them, deferred) != (count, count, 0):
            raise RuntimeError(f'{count} messages, but {sent} of {all_of_them} in the history are sent'
                               f' and {deferred} deferred')

    def drain(self, count):
        """Messages a second from the COMMIT of postmark_resume to the last
        message stored."""
        self.postmark.reset()
        begun = self.resume()
        ended = self.wait(count)
        self.check(count)
        return count / (ended - begun)

    def round(self, count, analyze=True):
        """One drain of a queue that was filled for it."""
        self.pause()
        self.empty()
        self.fill(count)
        self.settle(analyze)
        return self.drain(count)

    def warm(self):
        """The first drain of a new database, whose worker has its plans and
        connections to make, is none that counts."""
        self.round(10000)
