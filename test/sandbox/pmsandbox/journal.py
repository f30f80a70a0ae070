"""The state file: an append-only record of accepted messages.

One JSON object a line.  The first names the MessageID prefix, every other one
is a Submission with the indexes of its accepted messages.  A line is on its
way to the kernel before the client gets its answer, so a kill -9 loses
nothing that was acknowledged; a line cut short by one is dropped on reading.
"""
import base64
import json
import os

from .store import Submission


class Journal:
    """Appends to, empties and reads one state file."""

    def __init__(self, path):
        self._path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)

    def restore(self):
        """Return (MessageID prefix, [(Submission, indexes), …]) of an earlier run."""
        prefix, entries, end = None, [], 0
        with open(self._path, "rb") as lines:
            for line in lines:
                if not line.endswith(b"\n"):
                    break
                end += len(line)
                record = json.loads(line)
                if "prefix" in record:
                    prefix, entries = record["prefix"], []
                else:
                    entries.append((self._submission(record), record["indexes"]))
        os.ftruncate(self._file, end)
        return prefix, entries

    @staticmethod
    def _submission(record):
        return Submission(record["received_us"], record["path"], record["token"],
                          base64.b64decode(record["body"]), record["compressed"])

    def begin(self, prefix):
        """Forget everything and start over under a new MessageID prefix."""
        os.ftruncate(self._file, 0)
        self._write({"prefix": prefix})

    def append(self, submission, indexes):
        self._write({
            "received_us": submission.received_us, "path": submission.path,
            "token": submission.token, "compressed": submission.compressed,
            "body": base64.b64encode(submission.body).decode(), "indexes": indexes})

    def _write(self, record):
        line = memoryview(json.dumps(record, separators=(",", ":")).encode() + b"\n")
        while line:
            line = line[os.write(self._file, line):]
