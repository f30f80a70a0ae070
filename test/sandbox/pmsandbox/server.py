"""One HTTP request from its arrival to its answer, or to the lack of one.

aiohttp's low-level server is enough: there is one handler, which writes the
log, asks the rules what is to go wrong, has the API answer, and delivers the
answer in the way the rules want it.
"""
import asyncio
import json
import socket
import struct
import time
import weakref

from aiohttp import web

from .api import SEND_PATHS, PostmarkApi, Query, canonical, route_of
from .control import CONTROL_PREFIX, Control
from .faults import phrase
from .requestlog import LogEntry
from .store import BATCH_PATHS, items_of
from .validation import MAX_BATCH_BYTES, MAX_MESSAGE_BYTES

TOKEN_HEADER = "X-Postmark-Server-Token"
JSON_TYPE = "application/json; charset=utf-8"
# seconds from which on a client will have given up
LONG_WAIT = 30
ENDLESS_CHUNK = b" " * 65536
_LINGER_RESET = struct.pack("ii", 1, 0)


class Call:
    """A request to Postmark as the rules and the API see it."""

    def __init__(self, request, entry):
        self.method = request.method
        self.path = entry.path
        self.query = Query(request.query)
        self.headers = request.headers
        self.token = request.headers.get(TOKEN_HEADER)
        self.entry = entry
        self.reused = entry.on_connection > 1
        self.body = b""
        self.document = None
        self.items = None
        self.malformed = False

    def take_body(self, body):
        """Parse the body, once; everybody after this works on the result."""
        self.body = body
        self.entry.keep_body(body)
        if self.method not in ("POST", "PUT", "PATCH"):
            return
        try:
            self.document = json.loads(body)
        except (ValueError, RecursionError):
            self.malformed = True
            return
        if self.path in SEND_PATHS:
            self.items = items_of(self.path, self.document)


class Sandbox:
    """The handler of all requests."""

    def __init__(self, world, allow_remote=False, control_hosts=None):
        self._world = world
        self._api = PostmarkApi(world)
        self._control = Control(world, allow_remote, control_hosts)
        self._connections = weakref.WeakKeyDictionary()
        self._connection_count = 0

    def http_server(self):
        """A protocol factory for loop.create_server."""
        loop = asyncio.get_running_loop()

        def make_request(message, payload, protocol, writer, task):
            return web.BaseRequest(message, payload, protocol, writer, task, loop,
                                   client_max_size=MAX_BATCH_BYTES + 1)

        return web.Server(self.handle, request_factory=make_request, access_log=None)

    async def handle(self, request):
        received_us = time.time_ns() // 1000
        if request.path.startswith(CONTROL_PREFIX):
            return await self._control.handle(request)
        if request.path == "/" and request.method == "GET":
            return web.Response(status=302, headers={"Location": CONTROL_PREFIX + "/"})
        if request.path == "/favicon.ico":
            return web.Response(status=204)     # a browser's own idea
        entry = LogEntry(request, canonical(request.path), request.headers.get(TOKEN_HEADER), received_us,
                         *self._on_connection(request))
        self._world.log.begin()
        try:
            return await self._answer(request, Call(request, entry))
        except ConnectionError:
            return web.Response()       # nobody is left to read it
        finally:
            entry.answered_us = time.time_ns() // 1000
            self._world.log.end()

    def _on_connection(self, request):
        """(number of the connection, number of the request on it), both from 1 on."""
        transport = request.transport
        if transport is None:           # gone before its request was looked at
            return 0, 1
        known = self._connections.get(transport)
        if known is None:
            self._connection_count += 1
            known = self._connections[transport] = [self._connection_count, 0]
        known[1] += 1
        return tuple(known)

    async def _answer(self, request, call):
        plan = self._world.rules.before_body(call)
        if plan is not None:
            self._arrived(call)
            self._world.refuse_all(call, None, "A rule lost the connection.")
            return _drop(request, call.entry, plan)
        try:
            call.take_body(await _read_body(request, call.path))
        except web.HTTPRequestEntityTooLarge:
            self._arrived(call)
            call.entry.outcome = 413
            self._world.refuse_all(call, None, "The request was too large: 413.")
            return web.Response(status=413, text=phrase(413))
        except ConnectionError:
            call.entry.outcome = "client gone"
            self._arrived(call)
            raise
        self._arrived(call)
        return await self._carry_out(request, call, self._world.rules.plan(call))

    def _arrived(self, call):
        self._world.log.arrived(call.entry, route_of(call.path))

    async def _carry_out(self, request, call, plan):
        if call.path in SEND_PATHS:
            self._note_trouble(call, plan)
        await _pause(plan.latency + self._world.settings.latency)
        if plan.drop == "before_accept":
            return _drop(request, call.entry, plan)
        if plan.accept:
            status, document = self._api.answer(call, plan)
        if plan.answer is not None:
            status, body, headers = plan.answer
        else:
            body, headers = _encode(document), {}
        await _pause(plan.latency_after)
        if plan.drop == "after_accept":
            return _drop(request, call.entry, plan)
        call.entry.outcome = plan.garble or status
        return await _deliver(request, plan, status, body, {"Content-Type": JSON_TYPE, **headers})


    def _note_trouble(self, call, plan):
        """Whoever misses a mail must find what a rule did to it."""
        if plan.latency >= LONG_WAIT:
            self._world.refuse_all(call, None, f"A rule leaves it without an answer for {plan.latency:.0f} s.")
        elif plan.drop == "before_accept":
            self._world.refuse_all(call, None, "A rule lost the connection.")
        elif plan.answer is not None and not plan.accept:
            self._world.refuse_all(call, None, f"A rule answered {plan.answer[0]}.")


async def _pause(seconds):
    if seconds > 0:
        await asyncio.sleep(seconds)


async def _read_body(request, path):
    """The body, unless it is larger than Postmark would take."""
    limit = MAX_BATCH_BYTES if path in BATCH_PATHS else MAX_MESSAGE_BYTES
    if (request.content_length or 0) > limit:
        raise web.HTTPRequestEntityTooLarge(limit, request.content_length)
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    body = await request.read()
    if len(body) > limit:
        raise web.HTTPRequestEntityTooLarge(limit, len(body))
    return body


def _encode(document):
    return json.dumps(document, separators=(",", ":")).encode()


def _drop(request, entry, plan):
    """End the connection without an answer, with a reset or an orderly end of the stream."""
    entry.outcome = f"dropped {plan.drop}"
    _disconnect(request, plan.reset)
    raise ConnectionResetError("dropped by a rule")


def _disconnect(request, reset):
    transport = request.transport
    if transport is None:
        return
    if not reset:
        transport.close()
        return
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
    transport.abort()


async def _deliver(request, plan, status, body, headers):
    """Send an answer, mangled as the plan says."""
    if plan.garble in ("truncated", "slow", "endless"):
        return await _deliver_raw(request, plan, status, body, headers)
    response = web.Response(status=status, body=_garble(plan.garble, body), headers=headers)
    if plan.close_after:
        await response.prepare(request)
        await response.write_eof()
        _disconnect(request, reset=False)
    return response


def _garble(kind, body):
    if kind == "cut":
        return body[:len(body) // 2]
    if kind == "not_json":
        return b"<html><body><h1>It works, but it is not JSON</h1></body></html>"
    if kind == "not_utf8":
        return body.replace(b'":"', b'":"\xff\xc3(')
    return b"" if kind == "empty" else body


async def _deliver_raw(request, plan, status, body, headers):
    """Send a body in a way that no complete response object would."""
    response = web.StreamResponse(status=status, headers=headers)
    if plan.garble == "endless":
        response.enable_chunked_encoding()
    else:
        response.content_length = len(body)
    await response.prepare(request)
    if plan.garble == "endless":
        while True:
            await response.write(ENDLESS_CHUNK)
            await asyncio.sleep(0)
    if plan.garble == "truncated":
        await response.write(body[:len(body) // 2])
        _disconnect(request, reset=False)
        raise ConnectionResetError("truncated by a rule")
    for position in range(len(body)):
        await response.write(body[position:position + 1])
        await asyncio.sleep(plan.interval)
    await response.write_eof()
    return response
