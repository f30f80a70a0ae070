"""What becomes of accepted messages: deliveries, bounces, complaints, opens, clicks.

Nothing is kept of a plain delivery: a message of which nothing else is known
was delivered a moment after it was accepted. What the webhooks are told is
written when it is posted, not when it happens, so that acceptance stays fast.
"""
import functools
import time

from .addresses import parse_mailbox
from .errors import ControlError, PostmarkError
from .fates import BLACK_HOLE, BOUNCE_TYPES, bounce_type, fate_of
from .suppressions import Period, timestamp

DELIVERY, OPEN, CLICK = "Delivery", "Open", "Click"
SUBSCRIPTION_CHANGE = "SubscriptionChange"
MAX_PAGE = 500
MAX_WINDOW = 10000
_READER = {
    "Client": {"Name": "Postmark sandbox", "Company": "", "Family": "Sandbox"},
    "OS": {"Name": "Linux", "Company": "", "Family": "Linux"},
    "Platform": "Desktop", "UserAgent": "postmark_sandbox",
    "Geo": {"IP": "127.0.0.1"},
}


class Bounce:
    """One bounce, or a complaint."""

    __slots__ = ("number", "kind", "position", "recipient", "stream", "at_us", "inactive")

    def __init__(self, number, kind, position, recipient, stream, at_us):
        self.number, self.kind, self.position = number, kind, position
        self.recipient, self.stream, self.at_us = recipient, stream, at_us
        self.inactive = kind.inactive


class Feedback:
    """The fates of the messages in the store."""

    def __init__(self, store, suppressions, webhooks):
        self._store = store
        self._suppressions = suppressions
        self._webhooks = webhooks
        self.clear()

    def clear(self):
        self.bounces = []
        self._bounces_of = {}
        self._others_of = {}

    # What happens

    def accepted(self, position, item, verdict, now_us, restored=False):
        """Let a new message meet its fate; one of an earlier run is told to nobody."""
        tell = not restored and self._webhooks.any()
        for recipient in verdict.recipients:
            kind = fate_of(recipient, item)
            if kind is None:
                if tell:
                    self._tell_delivery(position, recipient, verdict.stream, now_us)
            elif kind:
                if tell and not kind.ends and kind.name != "Transient":
                    self._tell_delivery(position, recipient, verdict.stream, now_us)
                self._bounce(kind, position, recipient, verdict.stream, now_us, tell)
                if tell and kind.name == "Transient":
                    self._tell_delivery(position, recipient, verdict.stream, now_us)

    def happen(self, what, position, recipient):
        """An event on command, of a message that was accepted before."""
        now_us = time.time_ns() // 1000
        stream = self._store.stream(position)
        kind = bounce_type(what)
        if kind is not None:
            self._bounce(kind, position, recipient, stream, now_us, self._webhooks.any())
            return
        told = {DELIVERY.lower(): (DELIVERY, self._delivery), OPEN.lower(): (OPEN, self._open),
                CLICK.lower(): (CLICK, self._click)}.get(what.lower())
        if told is None:
            raise ControlError(f"type is Delivery, Open, Click, or one of {', '.join(BOUNCE_TYPES)}")
        record, body = told
        self._others_of.setdefault(position, []).append((record, recipient, now_us))
        self._webhooks.happened(record, stream, functools.partial(body, position, recipient, now_us),
                                position, recipient)

    def subscription_changed(self, stream, address, suppression, position=None):
        """Tell of a suppression, or of its end (None)."""
        now_us = time.time_ns() // 1000
        body = functools.partial(self._subscription, stream, address, suppression, position, now_us)
        self._webhooks.happened(SUBSCRIPTION_CHANGE, stream, body, position, address)

    def _tell_delivery(self, position, recipient, stream, now_us):
        self._webhooks.happened(DELIVERY, stream,
                                functools.partial(self._delivery, position, recipient, now_us),
                                position, recipient)

    def _bounce(self, kind, position, recipient, stream, now_us, tell):
        bounce = Bounce(len(self.bounces) + 1, kind, position, recipient, stream, now_us)
        self.bounces.append(bounce)
        self._bounces_of.setdefault(position, []).append(bounce)
        suppression = None
        if kind.inactive:
            reason = {"SpamComplaint": "SpamComplaint", "ManuallyDeactivated": "ManualSuppression"}.get(
                kind.name, "HardBounce")
            suppression = self._suppressions.add(stream, recipient, now_us, reason, "Recipient")
        if not tell:
            return
        record = "SpamComplaint" if kind.name == "SpamComplaint" else "Bounce"
        self._webhooks.happened(record, stream, functools.partial(self._bounce_event, bounce),
                                position, recipient)
        if suppression is not None:
            self.subscription_changed(stream, recipient, suppression, position)

    # What the webhooks post: each takes whether the content is included

    def _common(self, position):
        item = self._store.item(position)
        return {"MessageStream": self._store.stream(position), "ServerID": 1,
                "MessageID": self._store.message_id(position), "Tag": item.get("Tag"),
                "Metadata": item.get("Metadata") or {}}

    def _delivery(self, position, recipient, at_us, include_content=False):
        return {"RecordType": DELIVERY, **self._common(position), "Recipient": recipient,
                "DeliveredAt": timestamp(at_us), "Details": "250 2.0.0 OK, kept by the sandbox"}

    def _bounce_event(self, bounce, include_content=False):
        body = {**self.bounce_json(bounce), "Metadata": self._store.item(bounce.position).get("Metadata") or {}}
        if bounce.kind.name == "SpamComplaint":
            body["RecordType"] = "SpamComplaint"
        return {**body, "Content": self.dump(bounce)} if include_content else body

    def _subscription(self, stream, address, suppression, position, at_us, include_content=False):
        common = self._common(position) if position is not None else {
            "MessageStream": stream, "ServerID": 1, "MessageID": None, "Tag": None, "Metadata": {}}
        return {"RecordType": SUBSCRIPTION_CHANGE, **common, "Recipient": address,
                "ChangedAt": timestamp(at_us), "SuppressSending": suppression is not None,
                "Origin": suppression.origin if suppression else "Customer",
                "SuppressionReason": suppression.reason if suppression else None}

    def _open(self, position, recipient, at_us, include_content=False):
        first = [o for o in self._others_of[position] if o[0] == OPEN][0][2] == at_us
        return {"RecordType": OPEN, **self._read(position, recipient, at_us), "FirstOpen": first,
                "ReadSeconds": 5}

    def _click(self, position, recipient, at_us, include_content=False):
        return {"RecordType": CLICK, **self._read(position, recipient, at_us), "ClickLocation": "HTML",
                "OriginalLink": "https://www.example.com/"}

    def _read(self, position, recipient, at_us):
        common = self._common(position)
        del common["ServerID"]
        return {**common, **_READER, "Recipient": recipient, "ReceivedAt": timestamp(at_us)}

    # What Postmark's bounce API answers

    def bounce_json(self, bounce):
        """A row of GET /bounces."""
        store, kind = self._store, bounce.kind
        item = store.item(bounce.position)
        return {
            "RecordType": "Bounce", "ID": bounce.number, "Type": kind.name, "TypeCode": kind.code,
            "Name": kind.title, "Tag": item.get("Tag"), "MessageID": store.message_id(bounce.position),
            "ServerID": 1, "MessageStream": bounce.stream, "Description": kind.description,
            "Details": "Test bounce details", "Email": bounce.recipient,
            "From": parse_mailbox(item["From"])[1], "BouncedAt": timestamp(bounce.at_us),
            "DumpAvailable": True, "Inactive": bounce.inactive,
            "CanActivate": bounce.inactive and kind.name != "SpamComplaint",
            "Subject": store.subject(bounce.position),
        }

    def dump(self, bounce):
        """The report of a bounce, as a mail server would have sent it."""
        return (f"From: MAILER-DAEMON@sandbox.invalid\r\nTo: {parse_mailbox(self._store.item(bounce.position)['From'])[1]}\r\n"
                f"Subject: {bounce.kind.title}\r\nAuto-Submitted: auto-replied\r\n\r\n"
                f"{bounce.recipient}: {bounce.kind.description}\r\n")

    def listing(self, query):
        """GET /bounces, newest first."""
        count, offset = _page(query)
        wanted = query.get("type")
        kind = bounce_type(wanted) if wanted else None
        if wanted and kind is None:
            raise PostmarkError(1000, f"'{wanted}' is not a legal bounce type.")
        inactive = query.get("inactive", "").lower()
        if inactive not in ("", "true", "false"):
            raise PostmarkError(1000, "'inactive' is true or false.")
        period, stream = Period(query, 1000), query.get("messagestream") or "outbound"
        email, message_id = query.get("emailfilter", "").lower(), query.get("messageid", "").lower()
        tag = query.get("tag")
        found = [b for b in reversed(self.bounces)
                 if b.stream == stream and (kind is None or b.kind is kind) and period.holds(b.at_us)
                 and (not inactive or b.inactive == (inactive == "true"))
                 and (not email or email in b.recipient.lower())
                 and (not message_id or self._store.message_id(b.position) == message_id)
                 and (not tag or self._store.item(b.position).get("Tag") == tag)]
        return {"TotalCount": len(found),
                "Bounces": [self.bounce_json(b) for b in found[offset:offset + count]]}

    def bounce(self, number):
        """The bounce of an ID as the path has it."""
        if number.isdecimal() and 0 < int(number) <= len(self.bounces):
            return self.bounces[int(number) - 1]
        raise PostmarkError(1001, "This bounce was not found.")

    def activate(self, bounce):
        """PUT /bounces/{id}/activate"""
        if bounce.kind.name == "SpamComplaint" or not bounce.kind.inactive:
            raise PostmarkError(1003, "Due to the type of bounce, this address cannot be reactivated.")
        if self._suppressions.remove(bounce.stream, bounce.recipient) is not None:
            self.subscription_changed(bounce.stream, bounce.recipient, None)
        for other in self.bounces:
            if other.stream == bounce.stream and other.recipient.lower() == bounce.recipient.lower():
                other.inactive = False

    def statistics(self):
        """GET /deliverystats"""
        counts = {}
        for bounce in self.bounces:
            counts[bounce.kind] = counts.get(bounce.kind, 0) + 1
        inactive = {(b.stream, b.recipient.lower()) for b in self.bounces if b.inactive}
        return {"InactiveMails": len(inactive), "Bounces": [
            {"Name": "All", "Count": len(self.bounces)},
            *({"Name": kind.title, "Count": count, "Type": kind.name} for kind, count in counts.items())]}

    # What became of one message

    def bounced(self, position):
        """Whether a message has come back."""
        return any(b.kind.ends for b in self._bounces_of.get(position, ()))

    def state(self, position):
        """In one word: delivered, bounced, complained, or the type of what came after it."""
        bounces = self._bounces_of.get(position)
        if not bounces:
            return "delivered"
        names = {b.kind.name for b in bounces}
        if "SpamComplaint" in names:
            return "complained"
        return "bounced" if any(b.kind.ends for b in bounces) else "delivered"

    def life(self, position):
        """[(type of MessageEvents, recipient, microseconds, words)], in the order of their times."""
        accepted_us, events = self._store.submission(position).received_us, []
        bounces = self._bounces_of.get(position, [])
        for recipient in self._store.recipients(position):
            lost = any(b.recipient == recipient and b.kind.ends and b.at_us == accepted_us for b in bounces)
            if not lost and not recipient.lower().endswith("@" + BLACK_HOLE):
                events.append(("Delivered", recipient, accepted_us, "smtp;250 kept by the sandbox"))
        for bounce in bounces:
            name = "Transient" if bounce.kind.name == "Transient" else "Bounced"
            events.append((name, bounce.recipient, bounce.at_us, f"{bounce.kind.name}: {bounce.kind.description}"))
        names = {DELIVERY: "Delivered", OPEN: "Opened", CLICK: "LinkClicked"}
        for record, recipient, at_us in self._others_of.get(position, ()):
            events.append((names[record], recipient, at_us, ""))
        return sorted(events, key=lambda event: event[2])


def _page(query):
    """count and offset of GET /bounces"""
    numbers = []
    for name in ("count", "offset"):
        text = query.get(name, "")
        if not text.isdecimal():
            raise PostmarkError(1000, f"The parameter '{name}' is required and must be a number from 0 on.")
        numbers.append(int(text))
    if numbers[0] > MAX_PAGE:
        raise PostmarkError(1000, f"You may only request up to {MAX_PAGE} bounces per call.")
    if sum(numbers) > MAX_WINDOW:
        raise PostmarkError(1000, f"'count' plus 'offset' may be at most {MAX_WINDOW}.")
    return numbers
