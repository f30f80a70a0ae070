"""What arrived when, counters, and waiting for them to reach a number.

A test waits for a condition instead of sleeping: whoever changes a counter
calls `Changes.notify`, and a waiter looks again.
"""
import asyncio
import collections
import fnmatch
import json

from .settings import mask_token
from .store import Submission

_SHOWN_HEADERS = ("Accept", "Content-Type", "Content-Length", "Content-Encoding", "User-Agent",
                  "Host", "Connection", "Expect")


class Changes:
    """Wakes everybody who waits for a condition over the counters."""

    def __init__(self):
        self._waiting = set()

    def notify(self):
        waiting, self._waiting = self._waiting, set()
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def wait_for(self, condition, timeout):
        """True as soon as condition() is, False at the time-out."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while not condition():
            remaining = deadline - loop.time()
            if remaining <= 0:
                return False
            future = loop.create_future()
            self._waiting.add(future)
            await asyncio.wait((future,), timeout=remaining)
            self._waiting.discard(future)
        return True


class LogEntry:
    """One request; filled in as it proceeds."""

    __slots__ = ("number", "received_us", "answered_us", "method", "path", "query", "token",
                 "headers", "connection", "on_connection", "submission", "outcome")

    def __init__(self, request, path, token, received_us, connection, on_connection):
        self.number = None
        self.received_us = received_us
        self.answered_us = None
        self.method = request.method
        self.path = path
        self.query = request.query_string
        self.token = mask_token(token)
        self.headers = {name: request.headers[name] for name in _SHOWN_HEADERS
                        if name in request.headers}
        self.connection = connection
        self.on_connection = on_connection
        self.submission = None
        self.outcome = None

    def keep_body(self, body):
        """Hold the body compressed; the message store shares what is held here."""
        self.submission = Submission.of_body(self.received_us, self.path, self.token, body)

    def as_json(self):
        return {
            "number": self.number, "received_us": self.received_us, "answered_us": self.answered_us,
            "method": self.method, "path": self.path, "query": self.query, "token": self.token,
            "headers": self.headers, "connection": self.connection,
            "on_connection": self.on_connection, "body": self._body(), "outcome": self.outcome,
        }

    def _body(self):
        if self.submission is None:
            return None
        raw = self.submission.raw_body()
        try:
            return json.loads(raw) if raw else None
        except (ValueError, RecursionError):
            return raw.decode(errors="replace")


class RequestLog:
    """The last requests, and how many there were of each route."""

    def __init__(self, limit, changes):
        self._changes = changes
        self._number = 0
        self.entries = collections.deque(maxlen=limit)
        self.clear()

    def clear(self):
        """Forget what was; requests under way go on counting as in flight."""
        self.entries.clear()
        self.by_route = collections.Counter()
        self.in_flight = getattr(self, "in_flight", 0)
        self.max_in_flight = self.in_flight

    def resize(self, limit):
        self.entries = collections.deque(self.entries, maxlen=limit)

    def begin(self):
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        self._changes.notify()

    def arrived(self, entry, route):
        """The request is read as far as it ever will be."""
        self._number += 1
        entry.number = self._number
        self.entries.append(entry)
        self.by_route[route] += 1
        self._changes.notify()

    def end(self):
        self.in_flight -= 1
        self._changes.notify()

    def count(self, path):
        """How many requests there were of the routes that match a glob."""
        if path is None:
            return sum(self.by_route.values())
        return sum(n for route, n in self.by_route.items() if fnmatch.fnmatchcase(route, path))

    def select(self, path, since):
        """Entries, oldest first, of a path glob, with a number above `since`."""
        return [e for e in self.entries if e.number > since
                and (path is None or fnmatch.fnmatchcase(e.path, path))]
