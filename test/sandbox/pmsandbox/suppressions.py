"""Inactive recipients by message stream, and the bounces that make them so."""
import datetime

from .errors import PostmarkError

MAX_ADDRESSES = 50
BOUNCE_TESTING = "@bounce-testing.postmarkapp.com"
BOUNCE_TYPES = {
    "hardbounce": ("HardBounce", 1, "Hard bounce"),
    "transient": ("Transient", 2, "Message delayed"),
    "unsubscribe": ("Unsubscribe", 16, "Unsubscribe request"),
    "autoresponder": ("AutoResponder", 64, "Auto responder"),
    "addresschange": ("AddressChange", 128, "Address change"),
    "dnserror": ("DnsError", 256, "DNS error"),
    "spamnotification": ("SpamNotification", 512, "Spam notification"),
    "unknown": ("Unknown", 2048, "Unknown"),
    "softbounce": ("SoftBounce", 4096, "Soft bounce"),
    "virusnotification": ("VirusNotification", 8192, "Virus notification"),
    "challengeverification": ("ChallengeVerification", 16384, "Spam challenge verification"),
    "blocked": ("Blocked", 100006, "ISP block"),
}


def timestamp(microseconds):
    """Microseconds since the epoch the way Postmark writes a time."""
    moment = datetime.datetime.fromtimestamp(microseconds // 1_000_000, datetime.timezone.utc)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{microseconds % 1_000_000:06d}0Z"


class Suppressions:
    """Who gets no mail, by stream; addresses compare without regard to case."""

    def __init__(self):
        self._streams = {}
        self.bounces = []

    def clear(self):
        self._streams.clear()
        self.bounces.clear()

    def replace(self, stream, addresses, now_us):
        """Make exactly these addresses inactive in a stream."""
        self._streams[stream] = {}
        for address in addresses:
            self.add(stream, address, now_us, "HardBounce", "Recipient")

    def add(self, stream, address, now_us, reason="ManualSuppression", origin="Customer"):
        self._streams.setdefault(stream, {})[address.lower()] = {
            "EmailAddress": address,
            "SuppressionReason": reason,
            "Origin": origin,
            "CreatedAt": timestamp(now_us),
        }

    def remove(self, stream, address):
        self._streams.get(stream, {}).pop(address.lower(), None)

    def inactive(self, stream, recipients):
        """Those of the recipients that are inactive."""
        listed = self._streams.get(stream)
        if not listed:
            return []
        return [r for r in recipients if r.lower() in listed]

    def dump(self, stream, query):
        """GET …/suppressions/dump with its filters."""
        rows = self._streams.get(stream, {}).values()
        for field in ("SuppressionReason", "Origin", "EmailAddress"):
            wanted = query.get(field, query.get(field.lower()))
            if wanted:
                rows = [r for r in rows if r[field].lower() == wanted.lower()]
        return {"Suppressions": list(rows)}

    def change(self, stream, document, now_us, delete):
        """POST …/suppressions and …/suppressions/delete."""
        entries = document.get("Suppressions") if isinstance(document, dict) else None
        if not isinstance(entries, list) or not all(
                isinstance(e, dict) and isinstance(e.get("EmailAddress"), str) for e in entries):
            raise PostmarkError(403, "'Suppressions' must be a list of objects with an EmailAddress.")
        if len(entries) > MAX_ADDRESSES:
            raise PostmarkError(300, f"At most {MAX_ADDRESSES} addresses are allowed in one call.")
        for entry in entries:
            if delete:
                self.remove(stream, entry["EmailAddress"])
            else:
                self.add(stream, entry["EmailAddress"], now_us)
        status = "Deleted" if delete else "Suppressed"
        return {"Suppressions": [
            {"EmailAddress": e["EmailAddress"], "Status": status, "Message": None}
            for e in entries]}

    def deliver(self, stream, recipient, message_id, now_us):
        """Bounce what was sent to Postmark's own test addresses."""
        address = recipient.lower()
        if not address.endswith(BOUNCE_TESTING):
            return
        kind = BOUNCE_TYPES.get(address.partition("@")[0])
        if kind is None:
            return
        name, code, title = kind
        hard = name == "HardBounce"
        self.bounces.append({
            "ID": len(self.bounces) + 1, "Type": name, "TypeCode": code, "Name": title,
            "Tag": None, "MessageID": message_id, "ServerID": 1, "MessageStream": stream,
            "Description": "A bounce of the sandbox.", "Details": "", "Email": recipient,
            "BouncedAt": timestamp(now_us), "DumpAvailable": False, "Inactive": hard,
            "CanActivate": hard, "RecordType": "Bounce",
        })
        if hard:
            self.add(stream, recipient, now_us, "HardBounce", "Recipient")

    def bounce_of(self, message_id):
        return next((b for b in self.bounces if b["MessageID"] == message_id), None)
