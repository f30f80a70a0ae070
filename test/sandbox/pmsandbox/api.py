"""Postmark's endpoints: from a call to a status and a JSON document."""
import re
import time
import uuid

from .errors import PostmarkError
from .settings import TEST_TOKEN
from .store import BATCH_PATHS, Search
from .suppressions import timestamp
from .validation import MAX_BATCH, MAX_MESSAGE_BYTES, check_size, check_types

SEND_PATHS = ("/email", "/email/withTemplate", *BATCH_PATHS)

_ROUTES = [(method, re.compile(re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", pattern)), pattern, name)
           for method, pattern, name in (
    ("GET", "/server", "server"),
    ("GET", "/templates", "list_templates"),
    ("POST", "/templates", "create_template"),
    ("GET", "/templates/{key}", "get_template"),
    ("PUT", "/templates/{key}", "edit_template"),
    ("DELETE", "/templates/{key}", "delete_template"),
    ("GET", "/message-streams", "list_streams"),
    ("GET", "/message-streams/{stream}", "get_stream"),
    ("GET", "/message-streams/{stream}/suppressions/dump", "dump_suppressions"),
    ("POST", "/message-streams/{stream}/suppressions", "create_suppressions"),
    ("POST", "/message-streams/{stream}/suppressions/delete", "delete_suppressions"),
    ("GET", "/messages/outbound", "search_messages"),
    ("GET", "/messages/outbound/{message_id}/details", "message_details"),
    ("GET", "/bounces", "list_bounces"),
)]


def route_of(path):
    """The name under which requests to a path are counted."""
    if path in SEND_PATHS:
        return path
    return next((pattern for _, regex, pattern, _ in _ROUTES if regex.fullmatch(path)), "other")


def _expect_json_headers(call):
    if "application/json" not in call.headers.get("Accept", "").lower():
        raise PostmarkError(409, "The 'Accept' header must be 'application/json'.", 415)
    if call.method in ("POST", "PUT") and \
            not call.headers.get("Content-Type", "").lower().startswith("application/json"):
        raise PostmarkError(409, "The 'Content-Type' header must be 'application/json'.", 415)


class PostmarkApi:
    """Postmark's side of every call; knows nothing of HTTP but methods and headers."""

    def __init__(self, world):
        self._world = world

    def answer(self, call, plan):
        """Return (status, document); a refusal is a document too."""
        try:
            _expect_json_headers(call)
            self._expect_token(call)
            if call.path in SEND_PATHS and call.method == "POST":
                return 200, self._send(call, plan)
            return 200, self._dispatch(call)
        except PostmarkError as error:
            return error.status, error.body()

    def _expect_token(self, call):
        if not call.token:
            raise PostmarkError(10, "No Account or Server API tokens were supplied in the HTTP headers. "
                                    "Please add a header for either X-Postmark-Server-Token or "
                                    "X-Postmark-Account-Token to your HTTP request.", 401)
        if call.token.lower() not in self._world.settings.accepted_tokens:
            raise PostmarkError(10, "The Server Token you provided in the X-Postmark-Server-Token "
                                    "request header was invalid. Please verify that you are using a "
                                    "valid token.", 401)

    def _dispatch(self, call):
        allowed = False
        for method, regex, _, name in _ROUTES:
            match = regex.fullmatch(call.path)
            if match and method == call.method:
                return getattr(self, "_" + name)(call, **match.groupdict())
            allowed = allowed or match
        if allowed or call.path in SEND_PATHS:
            raise PostmarkError(405, "The requested resource does not support this method.", 405)
        raise PostmarkError(404, "The requested resource does not exist.", 404)

    # Sending

    def _send(self, call, plan):
        items = self._items(call)
        templated = call.path.endswith(("withTemplate", "WithTemplates"))
        accepted, results = [], []
        for index, item in enumerate(items):
            refusal = plan.refusal(index)
            if refusal is None:
                try:
                    verdict = self._check(call, item, templated)
                except PostmarkError as error:
                    refusal = error.body()
                else:
                    accepted.append((index, item, verdict))
            results.append(refusal)
        self._accept(call, accepted, results)
        results = plan.edit(results)
        if call.path in BATCH_PATHS:
            return results
        result = results[0]
        if "MessageID" in result:
            return result
        raise _SingleRefusal(result)

    def _items(self, call):
        if call.malformed or call.items is None:
            raise PostmarkError(402, "The request body is not valid JSON for this call.")
        if not call.items:
            raise PostmarkError(300, "The batch has no messages.")
        if len(call.items) > MAX_BATCH:
            raise PostmarkError(410, f"A batch may have at most {MAX_BATCH} messages.")
        for item in call.items:
            check_types(item)
        return call.items

    def _check(self, call, item, templated):
        if len(call.body) > MAX_MESSAGE_BYTES:
            check_size(item)
        return self._world.checker.check(item, templated)

    def _accept(self, call, accepted, results):
        """Keep the accepted messages and fill their results in."""
        if call.token.lower() == TEST_TOKEN.lower():
            ids = [str(uuid.uuid4()) for _ in accepted]
            self._world.tested += len(accepted)
            default = "Test job accepted"
        else:
            ids = self._world.accept(call.entry.submission, accepted) if accepted else []
            default = "OK"
        submitted_at = timestamp(time.time_ns() // 1000)
        for (index, item, verdict), message_id in zip(accepted, ids):
            results[index] = {"To": item["To"], "SubmittedAt": submitted_at, "MessageID": message_id,
                              "ErrorCode": 0, "Message": verdict.note or default}
        self._world.refused += len(results) - len(accepted)

    # Server, templates, streams

    def _server(self, call):
        return {"ID": 1, "Name": "postmark_sandbox", "ApiTokens": [call.token], "Color": "yellow",
                "ServerLink": "http://localhost/_sandbox/", "SmtpApiActivated": True,
                "RawEmailEnabled": False, "DeliveryType": "Sandbox", "InboundAddress": None,
                "TrackOpens": False, "TrackLinks": "None", "InboundSpamThreshold": 0}

    def _list_templates(self, call):
        query = {key.lower(): value for key, value in call.query.items()}
        count, offset = query.get("count", ""), query.get("offset", "")
        if not count.isdecimal() or not offset.isdecimal() or int(count) > 500:
            raise PostmarkError(1100, "'Count' (at most 500) and 'Offset' are required.")
        return self._world.templates.listing(int(offset), int(count), query.get("templatetype", "All"))

    def _create_template(self, call):
        return self._world.templates.create(_document(call)).summary()

    def _get_template(self, call, key):
        return self._world.templates.get(key).details()

    def _edit_template(self, call, key):
        return self._world.templates.edit(key, _document(call)).summary()

    def _delete_template(self, call, key):
        self._world.templates.delete(key)
        return {"ErrorCode": 0, "Message": f"Template {key} removed."}

    def _list_streams(self, call):
        query = {key.lower(): value.lower() for key, value in call.query.items()}
        kind = query.get("messagestreamtype", "all")
        archived = query.get("includearchivedstreams") == "true"
        chosen = [s for s in self._world.settings.streams.values()
                  if kind in ("all", s["MessageStreamType"].lower())
                  and (archived or not s["ArchivedAt"])]
        return {"MessageStreams": chosen, "TotalCount": len(chosen)}

    def _get_stream(self, call, stream):
        found = self._world.settings.streams.get(stream)
        if found is None:
            raise PostmarkError(1226, "The message stream was not found.")
        return found

    # Suppressions and bounces

    def _dump_suppressions(self, call, stream):
        self._get_stream(call, stream)
        return self._world.suppressions.dump(stream, call.query)

    def _create_suppressions(self, call, stream):
        return self._change_suppressions(call, stream, delete=False)

    def _delete_suppressions(self, call, stream):
        return self._change_suppressions(call, stream, delete=True)

    def _change_suppressions(self, call, stream, delete):
        self._get_stream(call, stream)
        return self._world.suppressions.change(stream, _document(call), call.entry.received_us, delete)

    def _list_bounces(self, call):
        page = Search(call.query)
        bounces = self._world.suppressions.bounces[::-1]
        return {"TotalCount": len(bounces), "Bounces": bounces[page.offset:page.offset + page.count]}

    # Messages

    def _status(self, position):
        bounced = self._world.suppressions.bounce_of(self._world.store.message_id(position))
        return "Bounced" if bounced else "Sent"

    def _visible_until_us(self):
        return time.time_ns() // 1000 - int(self._world.settings.search_lag * 1_000_000)

    def _search_messages(self, call):
        search = Search(call.query)
        found = self._world.store.search(search, self._visible_until_us())
        if search.status not in (None, "sent", "processed"):
            found = [p for p in found if self._status(p).lower() == search.status]
        page = found[search.offset:search.offset + search.count]
        return {"TotalCount": len(found),
                "Messages": [self._world.store.summary(p, self._status(p)) for p in page]}

    def _message_details(self, call, message_id):
        store = self._world.store
        position = store.position_of(message_id)
        if position is None or store.submission(position).received_us > self._visible_until_us():
            raise PostmarkError(701, "This message was not found.")
        status = self._status(position)
        rendered = store.rendered(position)
        received_at = timestamp(store.submission(position).received_us)
        return {**store.summary(position, status), "TextBody": rendered["TextBody"],
                "HtmlBody": rendered["HtmlBody"], "Body": "",
                "MessageEvents": [_event(r, status, received_at) for r in store.recipients(position)]}


class _SingleRefusal(PostmarkError):
    """The refusal of a call that carries one message: the result is the body."""

    def __init__(self, result):
        super().__init__(result["ErrorCode"], result["Message"])
        self._result = result

    def body(self):
        return self._result


def _document(call):
    if call.malformed:
        raise PostmarkError(402, "The request body is not valid JSON.")
    return call.document


def _event(recipient, status, received_at):
    kind = "Bounced" if status == "Bounced" else "Delivered"
    return {"Recipient": recipient, "Type": kind, "ReceivedAt": received_at,
            "Details": {"DeliveryMessage": "smtp;250 kept by the sandbox",
                        "DestinationServer": "localhost", "DestinationIP": "127.0.0.1"}}
