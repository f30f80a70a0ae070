"""The control API below /_sandbox/: what tests and the mailbox use.

It asks for no token, so it answers only to a Host of this machine, or one that
the command line names, and never to a script of a foreign web page.
"""
import inspect
import json
import time
import urllib.parse

from aiohttp import web

from .errors import ControlError
from .mailbox import FILES, FOLDER, MAIL_POLICY, PAGE_POLICY, Mailbox
from .webhooks import is_loopback

CONTROL_PREFIX = "/_sandbox"
MAX_WAIT = 600.0
MEASURES = ("messages", "distinct", "requests", "in_flight", "events")


def _number(query, name, default, kind=int):
    try:
        return kind(query.get(name, default))
    except ValueError:
        raise ControlError(f"{name} is a number") from None


def _is_set(query, name, default):
    return query.get(name, default) not in ("0", "false", "no", "")


class Control:
    """Dispatches the control calls; each takes (query, document) and returns JSON or a response."""

    def __init__(self, world, allow_remote, hosts=None):
        self._world = world
        self._mailbox = Mailbox(world)
        # any host, unless some are named
        self._any_host = allow_remote and not hosts
        self._hosts = {host.lower() for host in hosts or ()}
        # (what carries it out, the parameters it knows)
        self._calls = {
            ("GET", "view"): (self._view, {"id"}),
            ("GET", "mailbox"): (self._list, {"view", "search", "offset", "count"}),
            ("GET", "mail"): (self._mail, {"id"}),
            ("GET", "html"): (self._html, {"id"}),
            ("GET", "news"): (self._news, {"since", "timeout"}),
            ("GET", "rules"): (self._list_rules, set()),
            ("POST", "rules"): (self._add_rule, set()),
            ("DELETE", "rules"): (self._clear_rules, {"id"}),
            ("GET", "messages"): (self._messages, {"recipient", "limit", "render"}),
            ("GET", "requests"): (self._requests, {"path", "since", "limit"}),
            ("GET", "counts"): (self._counts, set()),
            ("GET", "ids"): (self._ids, {"duplicates", "lines"}),
            ("GET", "config"): (self._config, set()),
            ("POST", "config"): (self._configure, set()),
            ("POST", "reset"): (self._reset, set()),
            ("GET", "wait"): (self._wait, {*MEASURES, "path", "idle", "settled", "timeout"}),
            ("GET", "events"): (self._events, {"recipient", "since"}),
            ("POST", "events"): (self._make_event, set()),
            ("POST", "suppressions"): (self._suppress, set()),
            ("POST", "events/hold"): (self._hold, set()),
            ("POST", "events/release"): (self._release, set()),
        }

    async def handle(self, request):
        try:
            self._check_origin(request)
            name = request.path[len(CONTROL_PREFIX):].strip("/")
            if request.method == "GET" and name in FILES:
                return _file(request, name)
            call = self._calls.get((request.method, name))
            if call is None:
                return _json({"error": "no such control call"}, 404)
            carry_out, parameters = call
            unknown = sorted(set(request.query) - parameters)
            if unknown:
                raise ControlError(f"unknown parameter: {', '.join(unknown)}")
            answer = carry_out(request.query, await self._document(request))
            if inspect.isawaitable(answer):
                answer = await answer
        except ControlError as error:
            return _json({"error": str(error)}, 400)
        return answer if isinstance(answer, web.Response) else _json(answer)

    def _check_origin(self, request):
        host = request.headers.get("Host", "")
        name = urllib.parse.urlsplit("//" + host).hostname
        if not self._any_host and not is_loopback(name) and name not in self._hosts:
            raise ControlError("the control API answers to loopback hosts only, and to those of --control-host")
        origin = request.headers.get("Origin")
        if origin is not None and urllib.parse.urlsplit(origin).netloc != host:
            raise ControlError("the control API answers no foreign page")

    @staticmethod
    async def _document(request):
        if request.method != "POST":
            return None
        try:
            return json.loads(await request.read() or b"{}")
        except ValueError:
            raise ControlError("the body is not JSON") from None

    # Rules and settings

    def _list_rules(self, query, document):
        return {"rules": self._world.rules.as_json()}

    def _add_rule(self, query, document):
        return {"id": self._world.rules.add(document).number}

    def _clear_rules(self, query, document):
        self._world.rules.clear(_number(query, "id", 0) or None)
        return {"ok": True}

    def _config(self, query, document):
        return self._world.settings.as_json()

    def _configure(self, query, document):
        self._world.configure(document)
        return self._config(query, document)

    def _reset(self, query, document):
        self._world.reset()
        return {"ok": True}

    # Messages, requests, counters

    def _messages(self, query, document):
        """Accepted messages, oldest first; `limit` keeps the newest of them."""
        store = self._world.store
        positions = store.newest_first(query.get("recipient"))
        limit = _number(query, "limit", 1000)
        render = _is_set(query, "render", "1")
        return {"total": len(positions),
                "messages": [store.full(p, render) for p in positions[:limit]][::-1]}

    def _requests(self, query, document):
        """What was received, oldest first; `limit` keeps the newest of them."""
        entries = self._world.log.select(query.get("path"), _number(query, "since", 0))
        limit = _number(query, "limit", len(entries))
        return {"requests": [entry.as_json() for entry in entries[max(len(entries) - limit, 0):]]}

    def _counts(self, query, document):
        return self._world.counts()

    def _ids(self, query, document):
        ids = self._world.store.deliveries(_is_set(query, "duplicates", "0"))
        if _is_set(query, "lines", "0"):
            return web.Response(text="".join(f"{number or ''}\t{recipient}\t{count}\n"
                                             for number, recipient, count in ids))
        return {"ids": ids}

    async def _wait(self, query, document):
        """Answer as soon as all the numbers asked for are reached, or at the time-out."""
        world, path = self._world, query.get("path")
        measures = dict(zip(MEASURES, (
            lambda: len(world.store), world.store.distinct, lambda: world.log.count(path),
            lambda: world.log.in_flight, world.webhooks.ended.total)))
        wanted = [(measures[name], _number(query, name, 0)) for name in measures if name in query]
        idle, settled = _is_set(query, "idle", "0"), _is_set(query, "settled", "0")
        if not wanted and not idle and not settled:
            raise ControlError(f"wait for one of {', '.join(measures)}, idle, settled")
        timeout = min(_number(query, "timeout", 30, float), MAX_WAIT)
        reached = await world.changes.wait_for(
            lambda: all(measure() >= number for measure, number in wanted)
            and not (idle and world.log.in_flight)
            and not (settled and world.webhooks.waiting()), timeout)
        return {"reached": reached, "counts": world.counts()}

    # Events

    def _events(self, query, document):
        """What was posted to webhooks, or is to be, oldest first."""
        wanted, since = query.get("recipient", "").lower(), _number(query, "since", 0)
        return {"events": [post.as_json() for post in list(self._world.webhooks.log)
                           if post.number > since and wanted in ("", post.recipient.lower())]}

    def _make_event(self, query, document):
        """An event of the newest message to a recipient, or of a MessageID."""
        known = _known(document, {"type": str, "recipient": str, "MessageID": str})
        store = self._world.store
        if "MessageID" in known:
            position = store.position_of(known["MessageID"])
        else:
            position = next(iter(store.newest_first(known.get("recipient", ""))), None)
        if position is None:
            raise ControlError("no such message")
        recipients = store.recipients(position)
        wanted = known.get("recipient", recipients[0]).lower()
        recipient = next((r for r in recipients if r.lower() == wanted), None)
        if recipient is None:
            raise ControlError("the message is not to that recipient")
        self._world.feedback.happen(known.get("type", ""), position, recipient)
        self._world.changes.notify()
        return {"ok": True, "MessageID": store.message_id(position), "recipient": recipient}

    def _suppress(self, query, document):
        """Many suppressions, evenly spread over so many seconds that end now."""
        known = _known(document, {"stream": str, "count": int, "seconds": int})
        count, seconds = known.get("count", 1), known.get("seconds", 0)
        if not 1 <= count <= 1_000_000 or seconds < 0:
            raise ControlError("count is a number from 1 to 1000000, seconds one from 0 on")
        end_us = time.time_ns() // 1000
        for i in range(1, count + 1):
            self._world.suppressions.add(known.get("stream", "outbound"), f"listed-{i}@example.com",
                                         end_us - seconds * 1_000_000 * (count - i) // count,
                                         "HardBounce", "Recipient")
        return {"ok": True}

    def _hold(self, query, document):
        self._world.webhooks.hold()
        return {"ok": True}

    def _release(self, query, document):
        known = _known(document, {"order": str, "copies": int, "again": bool})
        copies = known.get("copies", 1)
        if not 1 <= copies <= 10:
            raise ControlError("copies is a number from 1 to 10")
        posted = self._world.webhooks.release(known.get("order", "oldest_first"), copies,
                                              known.get("again", False))
        return {"posted": posted}

    # The mailbox

    def _position(self, query):
        position = self._world.store.position_of(query.get("id", ""))
        if position is None:
            raise ControlError("no such message")
        return position

    async def _list(self, query, document):
        view, offset, count = query.get("view", "mail"), _number(query, "offset", 0), _number(query, "count", 50)
        if view not in self._mailbox.views():
            raise ControlError(f"view is one of {', '.join(self._mailbox.views())}")
        if offset < 0 or count < 0:
            raise ControlError("offset and count are numbers from 0 on")
        return await self._mailbox.listing(view, query.get("search", ""), offset, count)

    def _mail(self, query, document):
        return self._mailbox.mail(self._position(query))

    def _view(self, query, document):
        message_id = self._world.store.message_id(self._position(query))
        return web.Response(status=302, headers={"Location": f"{CONTROL_PREFIX}/#mail/{message_id}"})

    def _html(self, query, document):
        return web.Response(content_type="text/html", charset="utf-8", headers={
            "Content-Security-Policy": MAIL_POLICY, "Referrer-Policy": "no-referrer"},
            body=self._mailbox.html(self._position(query)).encode(errors="replace"))

    async def _news(self, query, document):
        """Answers when there is anything else to be seen than at `since`, a word of an earlier answer."""
        since, timeout = query.get("since"), min(_number(query, "timeout", 30, float), MAX_WAIT)
        await self._world.changes.wait_for(lambda: self._world.news() != since, timeout)
        return {"news": self._world.news()}


def _file(request, name):
    """One of the mailbox's own files."""
    if name == "" and not request.path.endswith("/"):
        return web.Response(status=302, headers={"Location": CONTROL_PREFIX + "/"})
    file, kind = FILES[name]
    return web.Response(content_type=kind, charset="utf-8", body=(FOLDER / file).read_bytes(), headers={
        "Content-Security-Policy": PAGE_POLICY, "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer", "Cache-Control": "no-store"})


def _known(document, types):
    """A document with nothing in it but these keys, of these types."""
    if not isinstance(document, dict):
        raise ControlError("the body is a JSON object")
    for key, value in document.items():
        if key not in types:
            raise ControlError(f"unknown key: {key}")
        if type(value) is not types[key]:
            raise ControlError(f"{key} has the wrong type")
    return document


def _json(document, status=200):
    return web.Response(status=status, content_type="application/json",
                        body=json.dumps(document, separators=(",", ":")).encode())

