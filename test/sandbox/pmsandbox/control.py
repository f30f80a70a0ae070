"""The control API below /_sandbox/: what tests and the inbox page use.

It asks for no token, so it answers only to a Host of this machine and never
to a script of a foreign web page.
"""
import inspect
import ipaddress
import json
import urllib.parse

from aiohttp import web

from . import inbox
from .errors import ControlError

CONTROL_PREFIX = "/_sandbox"
MAX_WAIT = 600.0


def _is_local(host):
    name = urllib.parse.urlsplit("//" + host).hostname or ""
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _number(query, name, default, kind=int):
    try:
        return kind(query.get(name, default))
    except ValueError:
        raise ControlError(f"{name} is a number") from None


def _is_set(query, name, default):
    return query.get(name, default) not in ("0", "false", "no", "")


class Control:
    """Dispatches the control calls; each takes (query, document) and returns JSON or a response."""

    def __init__(self, world, allow_remote):
        self._world = world
        self._allow_remote = allow_remote
        self._calls = {
            ("GET", ""): self._inbox,
            ("GET", "view"): self._view,
            ("GET", "rules"): self._list_rules,
            ("POST", "rules"): self._add_rule,
            ("DELETE", "rules"): self._clear_rules,
            ("GET", "messages"): self._messages,
            ("GET", "requests"): self._requests,
            ("GET", "counts"): self._counts,
            ("GET", "ids"): self._ids,
            ("GET", "config"): self._config,
            ("POST", "config"): self._configure,
            ("POST", "reset"): self._reset,
            ("GET", "wait"): self._wait,
        }

    async def handle(self, request):
        try:
            self._check_origin(request)
            call = self._calls.get((request.method, request.path[len(CONTROL_PREFIX):].strip("/")))
            if call is None:
                return _json({"error": "no such control call"}, 404)
            answer = call(request.query, await self._document(request))
            if inspect.isawaitable(answer):
                answer = await answer
        except ControlError as error:
            return _json({"error": str(error)}, 400)
        return answer if isinstance(answer, web.Response) else _json(answer)

    def _check_origin(self, request):
        host = request.headers.get("Host", "")
        if not self._allow_remote and not _is_local(host):
            raise ControlError("the control API answers to loopback hosts only")
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
        entries = self._world.log.select(query.get("path"), _number(query, "since", 0))
        return {"requests": [entry.as_json() for entry in entries]}

    def _counts(self, query, document):
        return self._world.counts()

    def _ids(self, query, document):
        return {"ids": self._world.store.deliveries(_is_set(query, "duplicates", "0"))}

    async def _wait(self, query, document):
        """Answer as soon as all the numbers asked for are reached, or at the time-out."""
        world, path = self._world, query.get("path")
        measures = {"messages": lambda: len(world.store), "distinct": world.store.distinct,
                    "requests": lambda: world.log.count(path), "in_flight": lambda: world.log.in_flight}
        wanted = [(measures[name], _number(query, name, 0)) for name in measures if name in query]
        idle = _is_set(query, "idle", "0")
        if not wanted and not idle:
            raise ControlError(f"wait for one of {', '.join(measures)}, idle")
        timeout = min(_number(query, "timeout", 30, float), MAX_WAIT)
        reached = await world.changes.wait_for(
            lambda: all(measure() >= number for measure, number in wanted)
            and not (idle and world.log.in_flight), timeout)
        return {"reached": reached, "counts": world.counts()}

    # Pages

    def _inbox(self, query, document):
        return _page(inbox.list_page(self._world.store, query.get("recipient")))

    def _view(self, query, document):
        position = self._world.store.position_of(query.get("id", ""))
        if position is None:
            raise ControlError("no such message")
        return _page(inbox.message_page(self._world.store, position))


def _json(document, status=200):
    return web.Response(status=status, content_type="application/json",
                        body=json.dumps(document, separators=(",", ":")).encode())


def _page(text):
    return web.Response(content_type="text/html", charset="utf-8",
                        body=text.encode(errors="replace"))
