"""The accepted messages, and Postmark's search over them.

A million messages have to fit: a message is a row in a few parallel columns
and an index into the request it came in, whose body is kept compressed and
read again only when somebody looks.  The MessageID is computed from the
position, not stored.
"""
import array
import json
import secrets
import zlib

from .addresses import parse_list
from .errors import PostmarkError
from .suppressions import Period, timestamp

MAX_PAGE = 500
MAX_WINDOW = 10000
COMPRESS_FROM = 1024
POSTMARK_ID = "postmark_id"
STATUSES = ("queued", "sent", "processed")
BATCH_PATHS = ("/email/batch", "/email/batchWithTemplates")


def items_of(path, document):
    """The messages in the parsed body of a sending request, or None if it has no such shape."""
    if path == "/email/batch":
        return document if isinstance(document, list) else None
    if path == "/email/batchWithTemplates":
        items = document.get("Messages") if isinstance(document, dict) else None
        return items if isinstance(items, list) else None
    return [document] if isinstance(document, dict) else None


class Submission:
    """One accepted request: where, when and what; shared by all its messages."""

    __slots__ = ("received_us", "path", "token", "body", "compressed")

    def __init__(self, received_us, path, token, body, compressed):
        self.received_us = received_us
        self.path = path
        self.token = token
        self.body = body
        self.compressed = compressed

    @classmethod
    def of_body(cls, received_us, path, token, body):
        if len(body) < COMPRESS_FROM:
            return cls(received_us, path, token, body, False)
        return cls(received_us, path, token, zlib.compress(body, 1), True)

    def raw_body(self):
        return zlib.decompress(self.body) if self.compressed else self.body

    def items(self):
        return items_of(self.path, json.loads(self.raw_body()))


class MessageStore:
    """Everything accepted since the last reset, oldest first."""

    def __init__(self):
        self.clear()

    def clear(self, prefix=None):
        """Start over; MessageIDs of before never come back.

        `duplicates` counts the messages that repeat an earlier postmark_id.
        """
        self.prefix = prefix or secrets.token_hex(8)
        self._submissions = []
        self._submission_of = array.array("L")
        self._index_of = array.array("L")
        self._recipients = []
        self._postmark_ids = []
        self._tags = []
        self._templates = []
        self._metadata = {}
        self.duplicates = 0
        self.without_postmark_id = 0
        self._opened = (None, None)

    def __len__(self):
        return len(self._recipients)

    # Accepting

    def accept(self, submission, accepted):
        """Keep messages of one request, given as (index, item, Verdict); return the MessageIDs."""
        first = len(self)
        self._submissions.append(submission)
        number = len(self._submissions) - 1
        for index, item, verdict in accepted:
            self._add(number, index, item, verdict)
        return [self.message_id(position) for position in range(first, len(self))]

    def _add(self, number, index, item, verdict):
        position = len(self._recipients)
        self._submission_of.append(number)
        self._index_of.append(index)
        recipients = verdict.recipients
        self._recipients.append(recipients[0] if len(recipients) == 1 else ",".join(recipients))
        self._templates.append(verdict.template)
        self._tags.append(item.get("Tag"))
        metadata = item.get("Metadata") or {}
        postmark_id = metadata.get(POSTMARK_ID)
        self._postmark_ids.append(postmark_id)
        self.without_postmark_id += postmark_id is None
        for name, value in metadata.items():
            self._note_metadata(name, value, position)

    def _note_metadata(self, name, value, position):
        """Index one metadata value; a list only where it occurs more than once."""
        values = self._metadata.setdefault(name, {})
        known = values.setdefault(value, position)
        if known is position:
            return
        self.duplicates += name == POSTMARK_ID
        if isinstance(known, int):
            values[value] = array.array("L", (known, position))
        else:
            known.append(position)

    # Counting and listing

    def distinct(self):
        """How many different postmark_id values were accepted."""
        return len(self._metadata.get(POSTMARK_ID, ()))

    def deliveries(self, repeated_only=False):
        """[[postmark_id, recipient, count], …] in the order of first acceptance."""
        counts = {}
        for key in zip(self._postmark_ids, self._recipients):
            counts[key] = counts.get(key, 0) + 1
        return [[*key, count] for key, count in counts.items() if count > 1 or not repeated_only]

    # Looking at one message

    def message_id(self, position):
        p = self.prefix
        return f"{p[:8]}-{p[8:12]}-4{p[12:15]}-8000-{position:012x}"

    def position_of(self, message_id):
        """The position of a MessageID, or None."""
        head, _, tail = message_id.lower().rpartition("-")
        try:
            position = int(tail, 16)
        except ValueError:
            return None
        known = position < len(self) and self.message_id(position) == f"{head}-{tail}"
        return position if known else None

    def submission(self, position):
        return self._submissions[self._submission_of[position]]

    def item(self, position):
        """The message as it was posted."""
        submission = self.submission(position)
        if self._opened[0] is not submission:
            self._opened = (submission, submission.items())
        return self._opened[1][self._index_of[position]]

    def stream(self, position):
        return self.item(position).get("MessageStream") or "outbound"

    def recipients(self, position):
        return self._recipients[position].split(",")

    def rendered(self, position):
        """Subject, text and HTML body as the recipient would see them."""
        item, template = self.item(position), self._templates[position]
        if template is None:
            return {key: item.get(key) for key in ("Subject", "TextBody", "HtmlBody")}
        model = item.get("TemplateModel") or {}
        return {"Subject": template.render_subject(model), "TextBody": template.render_text(model),
                "HtmlBody": template.render_html(model)}

    def subject(self, position):
        template = self._templates[position]
        item = self.item(position)
        return template.render_subject(item["TemplateModel"]) if template else item.get("Subject")

    def full(self, position, render=True):
        """What GET /_sandbox/messages shows of a message."""
        submission, item = self.submission(position), self.item(position)
        shown = {
            "MessageID": self.message_id(position), "ReceivedUs": submission.received_us,
            "Path": submission.path, "Token": submission.token, "Index": self._index_of[position],
            "Recipients": self.recipients(position), "Metadata": item.get("Metadata") or {},
            "Tag": item.get("Tag"), "Request": item,
        }
        return {**shown, **self.rendered(position)} if render else shown

    def summary(self, position):
        """The row of Postmark's search."""
        item = self.item(position)
        return {
            "Tag": item.get("Tag"), "MessageID": self.message_id(position),
            "To": _pairs(item, "To"), "Cc": _pairs(item, "Cc"), "Bcc": _pairs(item, "Bcc"),
            "Recipients": self.recipients(position),
            "ReceivedAt": timestamp(self.submission(position).received_us),
            "From": item.get("From"), "Subject": self.subject(position),
            "Attachments": [attachment["Name"] for attachment in item.get("Attachments") or ()],
            "Status": "Sent", "TrackOpens": bool(item.get("TrackOpens")),
            "TrackLinks": item.get("TrackLinks") or "None", "Metadata": item.get("Metadata") or {},
            "MessageStream": item.get("MessageStream") or "outbound", "Sandboxed": True,
        }

    # Finding

    def newest_first(self, recipient=None):
        """Positions, newest first, of one recipient or all."""
        if recipient is None:
            return range(len(self) - 1, -1, -1)
        wanted = recipient.lower()
        found = [position for position, listed in enumerate(self._recipients)
                 if wanted in listed.lower() and wanted in listed.lower().split(",")]
        return found[::-1]

    def search(self, search, visible_until_us):
        """Positions that match, newest first; what is younger than the limit is not indexed yet."""
        if search.metadata is not None:
            name, value = search.metadata
            at = self._metadata.get(name, {}).get(value, ())
            candidates = (at,) if isinstance(at, int) else at[::-1]
            if search.recipient is not None:
                of_recipient = set(self.newest_first(search.recipient))
                candidates = [position for position in candidates if position in of_recipient]
        else:
            candidates = self.newest_first(search.recipient)
        return [position for position in candidates
                if self.submission(position).received_us <= visible_until_us
                and self._matches(search, position)]

    def _matches(self, search, position):
        if search.tag is not None and self._tags[position] != search.tag:
            return False
        if not search.period.holds(self.submission(position).received_us):
            return False
        if self.stream(position) != search.stream:
            return False
        if search.sender is not None and \
                parse_list(self.item(position)["From"])[0][1].lower() != search.sender:
            return False
        return search.subject is None or search.subject in (self.subject(position) or "").lower()


def _pairs(item, field):
    value = item.get(field)
    return [{"Email": address, "Name": name} for name, address in parse_list(value)] if value else []


class Search:
    """The parameters of GET /messages/outbound, checked."""

    def __init__(self, query):
        self.count = _number(query, "count")
        self.offset = _number(query, "offset")
        if self.count > MAX_PAGE:
            raise PostmarkError(700, f"'count' may be at most {MAX_PAGE}.")
        if self.count + self.offset > MAX_WINDOW:
            raise PostmarkError(700, f"'count' plus 'offset' may be at most {MAX_WINDOW}.")
        self.recipient = query.get("recipient")
        self.sender = query.get("fromemail", "").lower() or None
        self.subject = query.get("subject", "").lower() or None
        self.tag = query.get("tag")
        self.status = query.get("status", "").lower() or None
        if self.status not in (None, *STATUSES):
            raise PostmarkError(700, f"'status' is one of {', '.join(STATUSES)}.")
        self.stream = query.get("messagestream") or "outbound"
        self.period = Period(query, 700)
        named = [(key[len("metadata_"):], value) for key, value in query.items()
                 if key.startswith("metadata_")]
        if len(named) > 1:
            raise PostmarkError(700, "Only one metadata field may be searched for.")
        self.metadata = named[0] if named else None


def _number(query, name):
    text = query.get(name, "")
    if not text.isdecimal():
        raise PostmarkError(700, f"The parameter '{name}' is required and must be a number.")
    return int(text)
