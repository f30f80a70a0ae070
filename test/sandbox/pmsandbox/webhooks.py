"""Postmark's webhooks: which URLs are told of what, and the telling.

Each event goes to each webhook that asked for its kind, as one POST, a moment
after it happened. Anything but 200 makes it come again, 403 ends it. A test
can hold events back, and have them posted in another order, or twice.
"""
import asyncio
import base64
import collections
import heapq
import ipaddress
import itertools
import json
import random
import re
import time
import urllib.parse
import uuid

import aiohttp

from .errors import ControlError, PostmarkError

TRIGGERS = {
    "Open": {"Enabled": False, "PostFirstOpenOnly": False},
    "Click": {"Enabled": False},
    "Delivery": {"Enabled": False},
    "Bounce": {"Enabled": False, "IncludeContent": False},
    "SpamComplaint": {"Enabled": False, "IncludeContent": False},
    "SubscriptionChange": {"Enabled": False},
}
ORDERS = ("oldest_first", "newest_first", "random")
CONNECTIONS = 10
TIMEOUT = 120
MAX_ANSWER = 300
WAITING, ANSWERED, STOPPED, GIVEN_UP, NOT_POSTED = "waiting", "answered", "stopped", "given up", "not posted"
_FIELDS = {"Url", "MessageStream", "HttpAuth", "HttpHeaders", "Triggers", "Verify"}
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def is_loopback(host):
    """Whether a host's name can only mean this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


class Webhook:
    """One URL and what it is told."""

    def __init__(self, number, document):
        self.number = number
        self.document = document
        self.triggers = document["Triggers"]
        self.stream = document["MessageStream"]

    def as_json(self):
        return {"ID": self.number, **self.document}

    def target(self):
        """(URL without user and password, headers)"""
        url = urllib.parse.urlsplit(self.document["Url"])
        headers = {h["Name"]: h["Value"] for h in self.document["HttpHeaders"]}
        user, password = url.username, url.password
        if self.document["HttpAuth"]:
            user, password = self.document["HttpAuth"]["Username"], self.document["HttpAuth"]["Password"]
        elif user is not None:
            user, password = urllib.parse.unquote(user), urllib.parse.unquote(password or "")
        if user is not None:
            both = base64.b64encode(f"{user}:{password}".encode()).decode()
            headers["Authorization"] = f"Basic {both}"
        return url._replace(netloc=url.netloc.rpartition("@")[2]).geturl(), headers


class Post:
    """One event on its way to one webhook."""

    __slots__ = ("number", "webhook", "record", "position", "recipient", "make", "trace", "attempts",
                 "state", "body")

    def __init__(self, number, webhook, record, position, recipient, make):
        self.number, self.webhook, self.record = number, webhook, record
        self.position, self.recipient, self.make = position, recipient, make
        self.trace, self.attempts, self.state, self.body = None, [], WAITING, None

    def written(self):
        """What is posted, the same at every attempt."""
        if self.body is None:
            self.trace = self.trace or str(uuid.uuid4())
            self.body = self.make(self.webhook.triggers[self.record].get("IncludeContent", False))
        return self.body

    def as_json(self):
        return {"number": self.number, "webhook": self.webhook.number,
                "url": self.webhook.target()[0], "record_type": self.record,
                "recipient": self.recipient, "state": self.state, "attempts": self.attempts,
                "body": self.written()}


class Webhooks:
    """The webhooks of the server, and the events that wait to be posted."""

    def __init__(self, settings, changes, urls=(), headers=(), allow_remote=False):
        self._settings = settings
        self._changes = changes
        self._allow_remote = allow_remote
        self._given = [{"Url": url, "HttpHeaders": list(headers),
                        "Triggers": {name: {"Enabled": True} for name in TRIGGERS}} for url in urls]
        self._session = None
        self._posting = set()
        self._timer = None
        self._numbers = itertools.count(1)
        self._order = itertools.count()
        self.clear()

    def clear(self):
        """Back to the webhooks of the command line; what is on its way is forgotten."""
        self._hooks = {}
        self._next_id = 1
        self._due = []
        self._held = []
        self.holding = False
        self.log = collections.deque(maxlen=self._settings.request_log_limit)
        self.ended = collections.Counter()
        for task in self._posting:
            task.cancel()
        for document in self._given:
            self.create(document, self._settings.streams)

    # Postmark's webhooks API

    def listing(self, stream=None):
        return {"Webhooks": [hook.as_json() for hook in self._hooks.values() if stream in (None, hook.stream)]}

    def get(self, key):
        hook = self._hooks.get(int(key)) if key.isdecimal() else None
        if hook is None:
            raise PostmarkError(1352, "The webhook for the provided 'ID' was not found.")
        return hook

    def create(self, document, streams):
        _check(document)
        if "ID" in document:
            raise PostmarkError(1356, "You cannot set the 'ID' of a webhook.")
        number, self._next_id = self._next_id, self._next_id + 1
        stream = document.get("MessageStream") or "outbound"
        if stream not in streams:
            raise PostmarkError(1226, "The message stream for the provided 'ID' was not found.")
        if streams[stream]["ArchivedAt"]:
            raise PostmarkError(1350, "The message stream of a webhook cannot be archived.")
        if streams[stream]["MessageStreamType"] == "Inbound":
            raise PostmarkError(1351, "Webhooks are not for inbound streams; use the server's 'InboundHookUrl'.")
        return self._put(number, {
            "Url": document.get("Url"), "MessageStream": stream, "Status": "verified",
            "HttpAuth": document.get("HttpAuth"), "HttpHeaders": document.get("HttpHeaders") or [],
            "Triggers": _merged(TRIGGERS, document.get("Triggers"))})

    def edit(self, key, document):
        _check(document)
        hook = self.get(key)
        for field, code in (("ID", 1357), ("MessageStream", 1357)):
            if field in document and document[field] != hook.as_json()[field]:
                raise PostmarkError(code, f"The '{field}' of a webhook cannot be changed.")
        changed = {field: document[field] for field in ("Url", "HttpAuth", "HttpHeaders") if field in document}
        changed["Triggers"] = _merged(hook.triggers, document.get("Triggers"))
        return self._put(hook.number, {**hook.document, **changed})

    def _put(self, number, document):
        url = urllib.parse.urlsplit(document["Url"] if isinstance(document["Url"], str) else "")
        if url.scheme not in ("http", "https") or not url.hostname:
            raise PostmarkError(1354, "A valid 'Url' must be provided.")
        document["HttpHeaders"] = document["HttpHeaders"] or []
        self._hooks[number] = Webhook(number, document)
        return self._hooks[number].as_json()

    def delete(self, key):
        hook = self.get(key)
        del self._hooks[hook.number]
        return {"ErrorCode": 0, "Message": f"Webhook {hook.number} removed."}

    # Events

    def any(self):
        """Whether anybody is told of anything."""
        return bool(self._hooks)

    def happened(self, record, stream, make, position, recipient):
        """Tell those who asked; `make(include_content)` writes the event when it is posted."""
        for hook in self._hooks.values():
            trigger = hook.triggers[record]
            if hook.stream != stream or not trigger["Enabled"]:
                continue
            if trigger.get("PostFirstOpenOnly") and not make()["FirstOpen"]:
                continue
            self._queue(Post(next(self._numbers), hook, record, position, recipient, make))

    def _queue(self, post):
        self.log.append(post)
        if self.holding:
            self._held.append(post)
        else:
            self._post_in(self._settings.event_delay, post)

    def hold(self):
        self.holding = True

    def release(self, order, copies, again):
        """Post what was held, and with `again` what was posted before, too; returns how many."""
        if order not in ORDERS:
            raise ControlError(f"order is one of {', '.join(ORDERS)}")
        posts, self._held, self.holding = self._held, [], False
        held = set(posts)
        if again:
            posts = list(self.log)
        posts = [post if copy == 0 and post in held else self._copy(post)
                 for post in posts for copy in range(copies)]
        if order == "newest_first":
            posts.reverse()
        elif order == "random":
            random.shuffle(posts)
        for post in posts:
            self._post_in(0, post)
        return len(posts)

    def _copy(self, post):
        copy = Post(next(self._numbers), post.webhook, post.record, post.position, post.recipient, post.make)
        copy.body, copy.trace = post.written(), post.trace
        self.log.append(copy)
        return copy

    def waiting(self):
        """How many events are on their way, those held back left aside."""
        return len(self._due) + len(self._posting)

    def of(self, position):
        """The posts about one message, oldest first."""
        return [post for post in self.log if post.position == position]

    # Posting

    def _post_in(self, seconds, post):
        heapq.heappush(self._due, (asyncio.get_running_loop().time() + seconds, next(self._order), post))
        self._pump()

    def _pump(self):
        """Begin what is due, and come back for the rest."""
        loop = asyncio.get_running_loop()
        while self._due and len(self._posting) < CONNECTIONS and self._due[0][0] <= loop.time():
            task = loop.create_task(self._post(heapq.heappop(self._due)[2]))
            self._posting.add(task)
            task.add_done_callback(self._posted)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._due and len(self._posting) < CONNECTIONS:
            self._timer = loop.call_at(self._due[0][0], self._pump)

    def _posted(self, task):
        self._posting.discard(task)
        if not task.cancelled():
            self._pump()
            self._changes.notify()

    async def _post(self, post):
        url, headers = post.webhook.target()
        if not self._allow_remote and not is_loopback(urllib.parse.urlsplit(url).hostname):
            self._end(post, NOT_POSTED, "the sandbox posts to loopback addresses only, without --allow-remote")
            return
        retries = self._settings.webhook_retries
        remaining = max(0, len(retries) - len(post.attempts))
        body = json.dumps(post.written()).encode()
        answer, text = await self._attempt(url, body, {
            "Content-Type": "application/json", "User-Agent": "Postmark",
            "X-PM-Retries-Remaining": str(remaining), "X-PM-Webhook-Trace-Id": post.trace, **headers})
        if answer == 200:
            self._end(post, ANSWERED, text, answer)
        elif answer == 403:
            self._end(post, STOPPED, text, answer)
        elif remaining == 0:
            self._end(post, GIVEN_UP, text, answer)
        else:
            self._note(post, text, answer)
            self._post_in(retries[len(post.attempts) - 1], post)

    async def _attempt(self, url, body, headers):
        """(HTTP status or None, the beginning of the answer or what went wrong)"""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=CONNECTIONS), trust_env=False,
                timeout=aiohttp.ClientTimeout(total=TIMEOUT))
        try:
            async with self._session.post(url, data=body, headers=headers, allow_redirects=False) as response:
                text = await response.content.read(MAX_ANSWER)
                return response.status, text.decode(errors="replace")
        except (aiohttp.ClientError, OSError, ValueError, asyncio.TimeoutError) as error:
            return None, str(error) or type(error).__name__

    def _note(self, post, text, answer=None):
        post.attempts.append({"at_us": time.time_ns() // 1000, "status": answer, "answer": text})

    def _end(self, post, state, text, answer=None):
        self._note(post, text, answer)
        post.state = state
        self.ended[state] += 1


def _check(document):
    if not isinstance(document, dict) or not document:
        raise PostmarkError(1355, "A proper request body must be provided.")
    if "Status" in document:
        raise PostmarkError(1363, "The 'Status' of a webhook cannot be set.")
    auth, headers = document.get("HttpAuth"), document.get("HttpHeaders") or []
    if auth is not None and not (isinstance(auth, dict) and all(
            isinstance(auth.get(name), str) for name in ("Username", "Password"))):
        raise PostmarkError(1361, "The field 'HttpAuth' has a 'Username' and a 'Password'.")
    if not isinstance(headers, list) or not all(
            isinstance(h, dict) and isinstance(h.get("Value"), str) for h in headers):
        raise PostmarkError(1361, "Each of 'HttpHeaders' has a 'Name' and a 'Value'.")
    for header in headers:
        if not isinstance(header.get("Name"), str) or not _HEADER_NAME.fullmatch(header["Name"]) \
                or re.search(r"[\r\n\0]", header["Value"]):
            raise PostmarkError(1358, "The 'Name' of an HttpHeader is invalid.")
    for field in document.keys() - _FIELDS - {"ID"}:
        raise PostmarkError(1361, f"The field '{field}' is not known.")
    _merged(TRIGGERS, document.get("Triggers"))


def _merged(triggers, changes):
    """A copy of triggers with those of a request, which may leave any out."""
    if changes is not None and not isinstance(changes, dict):
        raise PostmarkError(1361, "The field 'Triggers' is an object.")
    merged = {name: dict(fields) for name, fields in triggers.items()}
    for name, fields in (changes or {}).items():
        if name not in merged or not isinstance(fields, dict) or not all(
                field in merged[name] and isinstance(value, bool) for field, value in fields.items()):
            raise PostmarkError(1361, f"The trigger '{name}' is invalid.")
        merged[name].update(fields)
    return merged
