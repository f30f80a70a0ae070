"""Postmark's endpoints: from a call to a status and a JSON document."""
import datetime
import functools
import re
import time
import uuid

from .errors import PostmarkError
from .settings import DEFAULT_STREAM_IDS, STREAM_TYPES, TEST_TOKEN, new_stream
from .source import source_of
from .store import BATCH_PATHS, Search
from .suppressions import timestamp
from .validation import MAX_BATCH, MAX_MESSAGE_BYTES, check_size, check_types

SEND_PATHS = ("/email", "/email/withTemplate", *BATCH_PATHS)

_ROUTES = [(method, re.compile(re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", pattern), re.IGNORECASE), pattern, name)
           for method, pattern, name in (
    ("GET", "/server", "server"),
    ("GET", "/templates", "list_templates"),
    ("POST", "/templates", "create_template"),
    ("POST", "/templates/validate", "validate_template"),
    ("GET", "/templates/{key}", "get_template"),
    ("PUT", "/templates/{key}", "edit_template"),
    ("DELETE", "/templates/{key}", "delete_template"),
    ("GET", "/message-streams", "list_streams"),
    ("POST", "/message-streams", "create_stream"),
    ("GET", "/message-streams/{stream}", "get_stream"),
    ("PATCH", "/message-streams/{stream}", "edit_stream"),
    ("POST", "/message-streams/{stream}/archive", "archive_stream"),
    ("POST", "/message-streams/{stream}/unarchive", "unarchive_stream"),
    ("GET", "/message-streams/{stream}/suppressions/dump", "dump_suppressions"),
    ("POST", "/message-streams/{stream}/suppressions", "create_suppressions"),
    ("POST", "/message-streams/{stream}/suppressions/delete", "delete_suppressions"),
    ("GET", "/messages/outbound", "search_messages"),
    ("GET", "/messages/outbound/{message_id}/details", "message_details"),
    ("GET", "/messages/outbound/{message_id}/dump", "message_dump"),
    ("GET", "/bounces", "list_bounces"),
    ("GET", "/bounces/tags", "bounce_tags"),
    ("GET", "/bounces/{bounce}", "get_bounce"),
    ("GET", "/bounces/{bounce}/dump", "bounce_dump"),
    ("PUT", "/bounces/{bounce}/activate", "activate_bounce"),
    ("GET", "/deliverystats", "delivery_stats"),
    ("GET", "/webhooks", "list_webhooks"),
    ("POST", "/webhooks", "create_webhook"),
    ("GET", "/webhooks/{webhook}", "get_webhook"),
    ("PUT", "/webhooks/{webhook}", "edit_webhook"),
    ("DELETE", "/webhooks/{webhook}", "delete_webhook"),
)]

# What Postmark has and the sandbox has not: (method, paths, what it is)
_NOT_IMITATED = [(method, re.compile(pattern, re.IGNORECASE), what) for method, pattern, what in (
    ("PUT", r"/server", "changing the server"),
    (".*", r"/stats(/.*)?", "statistics"),
    (".*", r"/messages/outbound/(opens|clicks)(/.*)?", "searching opens and clicks"),
    (".*", r"/messages/inbound(/.*)?|/triggers(/.*)?", "inbound mail"),
    (".*", r"/email/bulk(/.*)?", "the bulk API"),
    (".*", r"/templates/push", "pushing templates to another server"),
    ("POST", r"/webhooks/[^/]+/verify", "verifying webhooks"),
    (".*", r"/(servers|domains|senders|data-removals|smtp-tokens)(/.*)?", "the account API"),
)]
_SEND_PATHS = {path.lower(): path for path in SEND_PATHS}


@functools.lru_cache(maxsize=1024)
def canonical(path):
    """A path as it is documented: Postmark looks at neither its letter case nor a slash at its end."""
    path = path.rstrip("/") or "/"
    sending = _SEND_PATHS.get(path.lower())
    if sending:
        return sending
    for _, regex, pattern, _ in _ROUTES:
        match = regex.fullmatch(path)
        if match:
            return re.sub(r"{(\w+)}", lambda name: match[name[1]], pattern)
    return path


@functools.lru_cache(maxsize=1024)
def route_of(path):
    """The name under which requests to a path are counted."""
    if path in SEND_PATHS:
        return path
    return next((pattern for _, regex, pattern, _ in _ROUTES if regex.fullmatch(path)), "other")


class Query(dict):
    """The parameters of a query; their names have no letter case, but for what follows metadata_."""

    def __init__(self, pairs):
        super().__init__()
        for name, value in pairs.items():
            head, low = name[:len("metadata_")].lower(), name.lower()
            self.setdefault(head + name[len(head):] if head == "metadata_" else low, value)


def _expect_json_headers(call):
    if "application/json" not in call.headers.get("Accept", "").lower():
        raise PostmarkError(409, "The 'Accept' header must be 'application/json'.", 415)
    if call.method in ("POST", "PUT", "PATCH") and call.body and \
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
            if call.path in SEND_PATHS and not isinstance(error, _SingleRefusal):
                self._world.refuse_all(call, error.error_code, error.message)
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
        for method, regex, what in _NOT_IMITATED:
            if re.fullmatch(method, call.method) and regex.fullmatch(call.path):
                raise PostmarkError(501, f"The sandbox does not imitate {what}.", 501)
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
                if refusal is None:
                    accepted.append((index, item, verdict))
            if refusal is not None:
                self._world.refuse(call.entry, item, refusal["ErrorCode"], _words(refusal))
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
                "RawEmailEnabled": False, "DeliveryType": "Sandbox", "InboundAddress": "sandbox@inbound.invalid",
                "TrackOpens": False, "TrackLinks": "None", "InboundSpamThreshold": 0}

    def _list_templates(self, call):
        query = call.query
        count, offset = query.get("count", ""), query.get("offset", "")
        if not count.isdecimal() or not offset.isdecimal() or int(count) > 500:
            raise PostmarkError(1100, "'Count' (at most 500) and 'Offset' are required.")
        return self._world.templates.listing(int(offset), int(count), query.get("templatetype", "All"),
                                             query.get("layouttemplate"))

    def _validate_template(self, call):
        return self._world.templates.validate(_document(call))

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
        kind = call.query.get("messagestreamtype", "all").lower()
        archived = call.query.get("includearchivedstreams", "").lower() == "true"
        if kind not in ("all", *map(str.lower, STREAM_TYPES)):
            raise PostmarkError(1221, "The 'MessageStreamType' associated with this request was invalid.")
        chosen = [s for s in self._world.settings.streams.values()
                  if kind in ("all", s["MessageStreamType"].lower())
                  and (archived or not s["ArchivedAt"])]
        return {"MessageStreams": chosen, "TotalCount": len(chosen)}

    def _get_stream(self, call, stream):
        found = self._world.settings.streams.get(stream)
        if found is None:
            raise PostmarkError(1226, "The message stream for the provided 'ID' was not found.")
        return found

    def _create_stream(self, call):
        document, streams = _object(call), self._world.settings.streams
        if document.get("MessageStreamType") not in STREAM_TYPES:
            raise PostmarkError(1221, "The 'MessageStreamType' associated with this request was invalid.")
        stream = document.get("ID")
        if not isinstance(stream, str) or not stream:
            raise PostmarkError(1222, "A valid 'ID' must be provided.")
        _check_stream(document, True)
        if not re.fullmatch(r"[a-z][a-z0-9_-]{0,29}", stream, re.IGNORECASE):
            raise PostmarkError(1227, "The 'ID' must be a non-empty string starting with a letter, up to 30 "
                                      "characters.")
        if stream.lower().startswith("pm-"):
            raise PostmarkError(1233, "The 'ID' must not start with the 'pm-' prefix.")
        if stream.lower() == "all":
            raise PostmarkError(1237, "The 'ID' is reserved.")
        if stream.lower() in map(str.lower, streams):
            raise PostmarkError(1230, "The 'ID' provided already exists for this server.")
        if document["MessageStreamType"] == "Inbound" and any(
                s["MessageStreamType"] == "Inbound" for s in streams.values()):
            raise PostmarkError(1228, "A server can only have one inbound stream.")
        streams[stream] = new_stream(document)
        streams[stream]["CreatedAt"] = timestamp(call.entry.received_us)
        return streams[stream]

    def _edit_stream(self, call, stream):
        found, document = self._get_stream(call, stream), _object(call)
        _check_stream(document, False)
        for field in ("Name", "Description", "SubscriptionManagementConfiguration"):
            if document.get(field) is not None:
                found[field] = document[field]
        found["UpdatedAt"] = timestamp(call.entry.received_us)
        return found

    def _archive_stream(self, call, stream):
        found = self._get_stream(call, stream)
        if found["ID"] in DEFAULT_STREAM_IDS or found["MessageStreamType"] == "Inbound":
            raise PostmarkError(1229, "You cannot archive the default transactional and inbound streams.")
        if not found["ArchivedAt"]:
            now = datetime.datetime.now(datetime.timezone.utc)
            found["ArchivedAt"] = timestamp(int(now.timestamp() * 1_000_000))
            found["ExpectedPurgeDate"] = timestamp(
                int((now + datetime.timedelta(days=45)).timestamp() * 1_000_000))
        return {"ID": found["ID"], "ServerID": 1, "ExpectedPurgeDate": found["ExpectedPurgeDate"]}

    def _unarchive_stream(self, call, stream):
        found = self._get_stream(call, stream)
        found["ArchivedAt"] = found["ExpectedPurgeDate"] = None
        return found

    # Webhooks

    def _list_webhooks(self, call):
        stream = call.query.get("messagestream")
        if stream is not None:
            self._get_stream(call, stream)
        return self._world.webhooks.listing(stream)

    def _create_webhook(self, call):
        return self._world.webhooks.create(_document(call), self._world.settings.streams)

    def _get_webhook(self, call, webhook):
        return self._world.webhooks.get(webhook).as_json()

    def _edit_webhook(self, call, webhook):
        return self._world.webhooks.edit(webhook, _document(call))

    def _delete_webhook(self, call, webhook):
        return self._world.webhooks.delete(webhook)

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
        return self._world.feedback.listing(call.query)

    def _bounce_tags(self, call):
        feedback = self._world.feedback
        return sorted({feedback.bounce_json(b)["Tag"] for b in feedback.bounces} - {None})

    def _get_bounce(self, call, bounce):
        feedback = self._world.feedback
        found = feedback.bounce(bounce)
        return {**feedback.bounce_json(found), "Content": feedback.dump(found)}

    def _bounce_dump(self, call, bounce):
        feedback = self._world.feedback
        return {"Body": feedback.dump(feedback.bounce(bounce))}

    def _activate_bounce(self, call, bounce):
        feedback = self._world.feedback
        feedback.activate(feedback.bounce(bounce))
        return {"Message": "OK", "Bounce": self._get_bounce(call, bounce)}

    def _delivery_stats(self, call):
        return self._world.feedback.statistics()

    # Messages

    def _visible_until_us(self):
        return time.time_ns() // 1000 - int(self._world.settings.search_lag * 1_000_000)

    def _search_messages(self, call):
        search = Search(call.query)
        found = self._world.store.search(search, self._visible_until_us())
        if search.status == "queued":
            found = []                  # nothing waits in the sandbox
        page = found[search.offset:search.offset + search.count]
        return {"TotalCount": len(found), "Messages": [self._world.store.summary(p) for p in page]}

    def _message_details(self, call, message_id):
        store, position = self._world.store, self._indexed(message_id)
        rendered = store.rendered(position)
        return {**store.summary(position), "TextBody": rendered["TextBody"],
                "HtmlBody": rendered["HtmlBody"], "Body": source_of(store, position),
                "MessageEvents": [_event(*event) for event in self._world.feedback.life(position)]}

    def _message_dump(self, call, message_id):
        return {"Body": source_of(self._world.store, self._indexed(message_id))}

    def _indexed(self, message_id):
        """The position of a message that the search can find."""
        store = self._world.store
        position = store.position_of(message_id)
        if position is None or store.submission(position).received_us > self._visible_until_us():
            raise PostmarkError(701, "This message was not found.")
        return position


class _SingleRefusal(PostmarkError):
    """The refusal of a call that carries one message: the result is the body."""

    def __init__(self, result):
        super().__init__(result["ErrorCode"], result["Message"])
        self._result = result

    def body(self):
        return self._result


def _words(refusal):
    """A refusal's message, and those of the errors in it."""
    errors = refusal.get("Errors")
    return " ".join(str(error.get("Message")) for error in errors) if errors else refusal["Message"]


def _document(call):
    if call.malformed:
        raise PostmarkError(402, "The request body is not valid JSON.")
    return call.document


def _object(call):
    document = _document(call)
    if not isinstance(document, dict):
        raise PostmarkError(402, "The request body is not valid JSON for this call.")
    return document


def _check_stream(document, new):
    name, description = document.get("Name"), document.get("Description") or ""
    if (new or name is not None) and (not isinstance(name, str) or not name):
        raise PostmarkError(1223, "A valid 'Name' must be provided.")
    if name is not None and len(name) > 100:
        raise PostmarkError(1224, "The 'Name' is too long.")
    if not isinstance(description, str):
        raise PostmarkError(403, "The field 'Description' must be a string.")
    if len(description) > 1000:
        raise PostmarkError(1231, "The 'Description' is too long.")
    if re.search(r"<\w", description):
        raise PostmarkError(1234, "The 'Description' must not contain HTML tags.")


def _event(kind, recipient, at_us, words):
    details = {"Summary": words}
    if kind == "Delivered":
        details = {"DeliveryMessage": words, "DestinationServer": "localhost", "DestinationIP": "127.0.0.1"}
    return {"Recipient": recipient, "Type": kind, "ReceivedAt": timestamp(at_us), "Details": details}
