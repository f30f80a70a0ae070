"""What the sandbox's tests share: a running sandbox, a connection to it, a message."""
import http.client
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

PROGRAM = pathlib.Path(__file__).resolve().parent.parent / "postmark_sandbox"
TOKEN = "sandbox-token"
HEADERS = {"Accept": "application/json", "Content-Type": "application/json",
           "X-Postmark-Server-Token": TOKEN}


class Running:
    """A sandbox process and a plain connection to it."""

    def __init__(self, directory, *arguments):
        self.port_file = os.path.join(directory, f"port-{time.monotonic_ns()}")
        self.process = subprocess.Popen([PROGRAM, "--port-file", self.port_file, *arguments],
                                        stdout=subprocess.PIPE, text=True)
        self.announcement = self.process.stdout.readline().strip()
        with open(self.port_file, encoding="ascii") as file:
            self.port = int(file.read())
        self._connection = None

    def connection(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)

    def raw(self, method, path, body=None, headers=HEADERS, fresh=False):
        """(status, body bytes, headers) on the kept connection or a fresh one."""
        if fresh or self._connection is None:
            self.close_connection()
            self._connection = self.connection()
        try:
            self._connection.request(method, path, body, headers)
            response = self._connection.getresponse()
            return response.status, response.read(), response.headers
        except (OSError, http.client.HTTPException):
            self.close_connection()
            raise

    def call(self, method, path, document=None, **options):
        """(status, parsed body)."""
        body = None if document is None else json.dumps(document)
        status, answer, _ = self.raw(method, path, body, **options)
        return status, json.loads(answer)

    def control(self, method, path, document=None):
        status, answer = self.call(method, "/_sandbox/" + path, document, headers={})
        if status != 200:
            raise AssertionError(answer)
        return answer

    def rule(self, action, **match):
        return self.control("POST", "rules", {"action": action, **match})["id"]

    def counts(self):
        return self.control("GET", "counts")

    def close_connection(self):
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def stop(self, number=signal.SIGTERM):
        self.close_connection()
        self.process.send_signal(number)
        status = self.process.wait(5)
        self.process.stdout.close()
        return status


def message(to="ann@example.com", number=1, **fields):
    item = {"From": "Shop <no-reply@shop.example>", "To": to, "TemplateAlias": "logto-register",
            "TemplateModel": {"code": "493021"},
            "Metadata": {"postmark_id": str(number), "postmark_batch": "b1"}}
    item.update(fields)
    return {key: value for key, value in item.items() if value is not ...}


def batch(*items):
    return {"Messages": list(items)}


class SandboxTest(unittest.TestCase):
    """One sandbox for a class, reset before each test."""

    @classmethod
    def setUpClass(cls):
        cls.directory = tempfile.mkdtemp(prefix="postmark-sandbox-")
        cls.addClassCleanup(shutil.rmtree, cls.directory)
        cls.sandbox = Running(cls.directory)
        cls.addClassCleanup(cls.sandbox.stop)

    def setUp(self):
        self.sandbox.control("POST", "reset")

    def send(self, item, **options):
        return self.sandbox.call("POST", "/email/withTemplate", item, **options)

    def send_batch(self, *items):
        return self.sandbox.call("POST", "/email/batchWithTemplates", batch(*items))

    def assert_refused(self, answer, code, status=422):
        self.assertEqual((answer[0], answer[1]["ErrorCode"]), (status, code), answer[1])

    def assert_dropped(self, item=None):
        with self.assertRaises((ConnectionError, http.client.RemoteDisconnected)):
            self.send(item or message())


class Peer(Running):
    """A second connection to a sandbox that runs already."""

    def __init__(self, sandbox):
        self.port = sandbox.port
        self._connection = None
