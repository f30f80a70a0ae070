"""Inactive recipients by message stream."""
import datetime
import zoneinfo

from .addresses import is_address
from .errors import PostmarkError

MAX_ADDRESSES = 50
REASONS = ("HardBounce", "SpamComplaint", "ManualSuppression")
ORIGINS = ("Recipient", "Customer", "Admin")
NO_AUTHORITY = "You do not have the required authority to change this suppression."
BAD_ADDRESS = "An invalid email address was provided."
# of the times in Postmark's queries that name no zone
POSTMARK_ZONE = zoneinfo.ZoneInfo("America/New_York")


def timestamp(microseconds):
    """Microseconds since the epoch the way Postmark writes a time."""
    moment = datetime.datetime.fromtimestamp(microseconds // 1_000_000, datetime.timezone.utc)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{microseconds % 1_000_000:06d}0Z"


class Period:
    """From `fromdate` to `todate` of a query, both included; a date alone means its whole day.

    Raises PostmarkError with the given code for what is no time.
    """

    def __init__(self, query, error_code):
        self._from_us = _moment(query.get("fromdate"), error_code, 0)
        self._to_us = _moment(query.get("todate"), error_code, 1 << 62, to_the_end=True)

    def holds(self, microseconds):
        return self._from_us <= microseconds < self._to_us


def _moment(text, error_code, default, to_the_end=False):
    if not text:
        return default
    try:
        moment = datetime.datetime.fromisoformat(text.replace(" ", "+"))
    except ValueError:
        raise PostmarkError(error_code, f"'{text}' is not a date.") from None
    if to_the_end:
        # of a day, a second or a microsecond
        moment += datetime.timedelta(days=1) if len(text) == len("2026-01-31") else \
            datetime.timedelta(microseconds=1) if moment.microsecond else datetime.timedelta(seconds=1)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=POSTMARK_ZONE)
    return int(moment.timestamp() * 1_000_000)


class Suppression:
    """One address that gets no mail of a stream."""

    __slots__ = ("address", "reason", "origin", "since_us")

    def __init__(self, address, reason, origin, since_us):
        self.address, self.reason, self.origin, self.since_us = address, reason, origin, since_us

    def as_json(self):
        return {"EmailAddress": self.address, "SuppressionReason": self.reason, "Origin": self.origin,
                "CreatedAt": timestamp(self.since_us)}


class Suppressions:
    """Who gets no mail, by stream; addresses compare without regard to case.

    `changed(stream, address, suppression or None)` is called for what a
    customer of Postmark's changes, not for what mail does.
    """

    def __init__(self, changed):
        self._changed = changed
        self._streams = {}
        self.changes = 0

    def clear(self):
        self._streams.clear()
        self.changes += 1

    def replace(self, stream, addresses, now_us):
        """Make exactly these addresses inactive in a stream."""
        self._streams[stream] = {}
        for address in addresses:
            self.add(stream, address, now_us, "HardBounce", "Recipient")

    def add(self, stream, address, now_us, reason, origin):
        """Make an address inactive; one that complained stays one that complained."""
        listed = self._streams.setdefault(stream, {})
        known = listed.get(address.lower())
        if known is not None and known.reason == "SpamComplaint":
            return known
        self.changes += 1
        made = listed[address.lower()] = Suppression(address, reason, origin, now_us)
        return made

    def remove(self, stream, address):
        self.changes += 1
        return self._streams.get(stream, {}).pop(address.lower(), None)

    def of(self, stream, address):
        return self._streams.get(stream, {}).get(address.lower())

    def inactive(self, stream, recipients):
        """Those of the recipients that are inactive."""
        listed = self._streams.get(stream)
        if not listed:
            return []
        return [r for r in recipients if r.lower() in listed]

    def listing(self):
        """All of them, for people: [(stream, Suppression), …]."""
        return [(stream, row) for stream, rows in self._streams.items() for row in rows.values()]

    def dump(self, stream, query):
        """GET …/suppressions/dump with its filters."""
        period = Period(query, 1407)
        rows = self._streams.get(stream, {})
        address = query.get("emailaddress")
        if address:
            found = rows.get(address.lower())
            rows = [found] if found else []
        else:
            rows = rows.values()
        for name, words, code in (("reason", REASONS, 1404), ("origin", ORIGINS, 1405)):
            parameter = "SuppressionReason" if name == "reason" else "Origin"
            wanted = query.get(parameter.lower())
            if not wanted:
                continue
            if wanted.lower() not in map(str.lower, words):
                raise PostmarkError(code, f"Parameter '{parameter}' is invalid.")
            rows = [row for row in rows if getattr(row, name).lower() == wanted.lower()]
        return {"Suppressions": [row.as_json() for row in rows if period.holds(row.since_us)]}

    def change(self, stream, document, now_us, delete):
        """POST …/suppressions and …/suppressions/delete."""
        entries = document.get("Suppressions") if isinstance(document, dict) else None
        if not isinstance(entries, list) or not entries or not all(
                isinstance(e, dict) and isinstance(e.get("EmailAddress"), str) for e in entries):
            raise PostmarkError(1409, "A proper request body must be provided.")
        if len(entries) > MAX_ADDRESSES:
            raise PostmarkError(1410, "You cannot provide more than the maximum number of suppressions "
                                      "for this request.")
        change = self._lift if delete else self._impose
        return {"Suppressions": [
            {"EmailAddress": address, **dict(zip(("Status", "Message"), change(stream, address, now_us)))}
            for address in (entry["EmailAddress"] for entry in entries)]}

    def _impose(self, stream, address, now_us):
        known = self.of(stream, address)
        if not is_address(address):
            return "Failed", BAD_ADDRESS
        if known is not None and known.reason == "SpamComplaint":
            return "Failed", NO_AUTHORITY
        if known is None:
            self._changed(stream, address, self.add(stream, address, now_us, "ManualSuppression", "Customer"))
        return "Suppressed", None

    def _lift(self, stream, address, now_us):
        known = self.of(stream, address)
        if not is_address(address):
            return "Failed", BAD_ADDRESS
        if known is not None and known.reason == "SpamComplaint":
            return "Failed", NO_AUTHORITY
        if known is not None:
            self.remove(stream, address)
            self._changed(stream, address, None)
        return "Deleted", None
