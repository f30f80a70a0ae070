"""What the command line and the control API can change.

Settings holds values only; what they mean is decided where they are used.
`configure` takes the JSON of POST /_sandbox/config and applies all of it or
nothing.
"""
import dataclasses
import fnmatch
import re

from .errors import ControlError

TEST_TOKEN = "POSTMARK_API_TEST"
DEFAULT_TOKENS = ("sandbox-token",)
DEFAULT_SENDERS = ("*.example", "*.test", "example.com")
# After how many seconds Postmark posts an event again, time after time
DEFAULT_RETRIES = (60, 300, 600, 600, 600, 900)
DEFAULT_STREAMS = (
    {"ID": "outbound", "MessageStreamType": "Transactional"},
    {"ID": "broadcast", "MessageStreamType": "Broadcasts"},
    {"ID": "inbound", "MessageStreamType": "Inbound"},
)


def sender_pattern(patterns):
    """One regular expression for a list of addresses and domain globs.

    A pattern with an @ is compared with the address, one without with its
    domain.
    """
    globs = [p if "@" in p else "*@" + p for p in patterns]
    return re.compile("|".join(fnmatch.translate(g.lower()) for g in globs) or r"(?!)")


STREAM_TYPES = ("Transactional", "Broadcasts", "Inbound")
DEFAULT_STREAM_IDS = ("outbound", "inbound")


def _stream(description):
    if not isinstance(description, dict) or not isinstance(description.get("ID"), str):
        raise ControlError("a stream is an object with an ID")
    return new_stream(description)


def new_stream(description):
    """A stream as Postmark shows it."""
    return {
        "ID": description["ID"],
        "ServerID": 1,
        "Name": description.get("Name", description["ID"]),
        "Description": description.get("Description"),
        "MessageStreamType": description.get("MessageStreamType", "Transactional"),
        "CreatedAt": "2024-01-01T00:00:00Z",
        "UpdatedAt": None,
        "ArchivedAt": description.get("ArchivedAt"),
        "ExpectedPurgeDate": None,
        "SubscriptionManagementConfiguration":
            description.get("SubscriptionManagementConfiguration") or {"UnsubscribeHandlingType": "None"},
    }


def _strings(key, value):
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise ControlError(f"{key} is a list of strings")
    return list(value)


def _seconds(key, value):
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
        raise ControlError(f"{key} is a number of seconds")
    return float(value)


def _all_seconds(key, value):
    if not isinstance(value, list):
        raise ControlError(f"{key} is a list of seconds")
    return [_seconds(key, entry) for entry in value]


def _count(key, value):
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ControlError(f"{key} is a whole number from 0 on")
    return value


def _streams(key, value):
    if not isinstance(value, list):
        raise ControlError(f"{key} is a list of streams")
    return {stream["ID"]: stream for stream in map(_stream, value)}


_READERS = {
    "tokens": _strings,
    "senders": _strings,
    "unconfirmed_senders": _strings,
    "streams": _streams,
    "search_lag": _seconds,
    "event_delay": _seconds,
    "webhook_retries": _all_seconds,
    "latency": _seconds,
    "request_log_limit": _count,
}


@dataclasses.dataclass
class Settings:
    """The present values; `tokens` are compared without regard to case."""

    tokens: list = dataclasses.field(default_factory=lambda: list(DEFAULT_TOKENS))
    senders: list = dataclasses.field(default_factory=lambda: list(DEFAULT_SENDERS))
    unconfirmed_senders: list = dataclasses.field(default_factory=list)
    streams: dict = dataclasses.field(
        default_factory=lambda: _streams("streams", list(DEFAULT_STREAMS)))
    search_lag: float = 0.0
    event_delay: float = 0.1
    webhook_retries: list = dataclasses.field(default_factory=lambda: list(DEFAULT_RETRIES))
    latency: float = 0.0
    request_log_limit: int = 10000

    def __post_init__(self):
        self._derive()

    def _derive(self):
        """Precompute what every message needs."""
        self.accepted_tokens = {t.lower() for t in self.tokens} | {TEST_TOKEN.lower()}
        self.confirmed = sender_pattern(self.senders)
        self.unconfirmed = sender_pattern(self.unconfirmed_senders)

    @staticmethod
    def read(changes):
        """Check a config document and return it as a dict of field values."""
        return {key: _READERS[key](key, value) for key, value in changes.items()}

    @staticmethod
    def knows(key):
        return key in _READERS

    def apply(self, values):
        for key, value in values.items():
            setattr(self, key, value)
        self._derive()

    def as_json(self):
        """The settings as GET /_sandbox/config shows them: no token in clear."""
        shown = dataclasses.asdict(self)
        shown["tokens"] = [mask_token(token) for token in self.tokens]
        shown["streams"] = list(self.streams.values())
        return shown


def mask_token(token):
    """Enough of a token to tell two apart in a log, too little to use it."""
    if not token:
        return None
    return f"{token[:4]}***" if len(token) >= 8 else "***"
