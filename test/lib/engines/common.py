"""What the tests of test/engines share: a count of what holds, the local
Postmark, servers of PostgreSQL, and somebody who signs up all the time.

A program of test/engines runs in a process group that test/engines ends, as
the user that runs servers, in the folder that ENGINE_DIR names; BINDIR has
PostgreSQL's programs. It prints a line for each thing that holds, "ok: ", or
does not, "not ok: "; "skipped: " where an engine is not there; what was
measured is indented.
"""

import collections
import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import psycopg

BINDIR = os.environ["BINDIR"]
DIR = os.environ["ENGINE_DIR"]
SANDBOX = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "sandbox", "postmark_sandbox")
WAIT = int(os.environ.get("PG_TEST_TIMEOUT_DEFAULT", "90"))

# A proxy of the environment is not meant for 127.0.0.1.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

CONNECTOR = json.dumps({
    "serverToken": "sandbox-token",
    "fromEmail": "Shop <no-reply@shop.example>",
    "templates": [{"usageType": usage, "templateAlias": alias} for usage, alias in (
        ("Register", "logto-register"), ("SignIn", "logto-sign-in"),
        ("ForgotPassword", "logto-forgot-password"), ("Generic", "logto-generic"))]})

SIGNUP = """
CREATE TABLE signup (email text PRIMARY KEY, code text);
CREATE TRIGGER signup_mail AFTER INSERT ON signup
    FOR EACH ROW EXECUTE FUNCTION postmark_enqueue_trigger('email', 'Register', 'code');
"""

UNFINISHED = "SELECT count(*) FROM postmark_messages WHERE status IN ('queued', 'deferred', 'sending')"

_failed = False


# ----------------------------------------------------------------------
# What holds
# ----------------------------------------------------------------------

def ok(good, name, *details):
    """One test; the details are shown if it failed."""
    global _failed
    print(("ok: " if good else "not ok: ") + name, flush=True)
    if not good:
        _failed = True
        for detail in details:
            print("    " + str(detail).strip().replace("\n", "\n    "), flush=True)
    return bool(good)


def equal(found, wanted, name):
    return ok(found == wanted, name, f"{found!r}, and not {wanted!r}")


def none(found, name):
    """A test that there are no such things; shows some of them."""
    found = list(found)
    return ok(not found, name, f"{len(found)}: {', '.join(map(str, found[:5]))}")


def note(text):
    print("    " + text, flush=True)


def heading(text):
    print(f"\n{text}", flush=True)


def skipped(text):
    print("skipped: " + text, flush=True)


def finish():
    sys.exit(1 if _failed else 0)


class Trouble(Exception):
    """Something did not become true in time."""


@contextlib.contextmanager
def attempted(name):
    """Trouble in what is done here is a test that failed."""
    try:
        yield
    except (Trouble, psycopg.Error) as trouble:
        ok(False, name, f"{type(trouble).__name__}: {trouble}")


def until(condition, what, timeout=WAIT):
    """What the condition gives once that is true; asked every 20 ms."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise Trouble(f"after {timeout} s: {what() if callable(what) else what}")
        time.sleep(0.02)


# ----------------------------------------------------------------------
# Processes and ports
# ----------------------------------------------------------------------

def free_ports(number):
    """Ports of 127.0.0.1 that nobody listens at."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for listener in sockets:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in sockets]


def start(name, command, **environment):
    """A program in the background, of our process group; its output goes to
    NAME.log."""
    with open(os.path.join(DIR, name + ".log"), "ab") as log:
        return subprocess.Popen(command, cwd=DIR, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                env=dict(os.environ, **environment))


def run(command, **environment):
    done = subprocess.run(command, cwd=DIR, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, env=dict(os.environ, **environment))
    if done.returncode != 0:
        raise Trouble(f"{' '.join(command)}: {done.stdout}")
    return done.stdout


def log_of(name, lines=30):
    with open(os.path.join(DIR, name + ".log"), errors="replace") as file:
        return "".join(file.readlines()[-lines:])


def ask(url, method="GET", body=None, timeout=WAIT):
    """(status, JSON) of an HTTP call; status 0: nobody answered."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    try:
        with _opener.open(request, timeout=timeout) as answer:
            status, text = answer.status, answer.read()
    except urllib.error.HTTPError as error:
        status, text = error.code, error.read()
    except (OSError, http.client.HTTPException):
        return 0, None
    try:
        return status, json.loads(text)
    except ValueError:
        return status, text.decode(errors="replace")


class Sandbox:
    """The local Postmark"""

    def __init__(self):
        port_file = os.path.join(DIR, "sandbox.port")
        with contextlib.suppress(FileNotFoundError):
            os.remove(port_file)
        self.process = start("sandbox", [sys.executable, SANDBOX, "--quiet", "--port-file", port_file])
        until(lambda: os.path.exists(port_file), "the sandbox did not start", 30)
        with open(port_file) as file:
            self.url = f"http://127.0.0.1:{int(file.read())}"

    def call(self, path, method="GET", body=None, **query):
        text = urllib.parse.urlencode(query)
        status, answer = ask(f"{self.url}/_sandbox/{path}{'?' * bool(text)}{text}", method, body)
        if status != 200:
            raise Trouble(f"the sandbox answers {status} to {path}: {answer}")
        return answer

    def rule(self, **rule):
        return self.call("rules", "POST", rule)["id"]

    def clear_rules(self):
        self.call("rules", "DELETE")

    def config(self, **settings):
        self.call("config", "POST", settings)

    def reset(self):
        self.call("reset", "POST")

    def mails(self, prefix=""):
        """{address: [when its mails came, us]}"""
        found = collections.defaultdict(list)
        for mail in self.call("messages", render=0, limit=1000000)["messages"]:
            for address in mail["Recipients"]:
                if address.startswith(prefix):
                    found[address].append(mail["ReceivedUs"])
        return found


# ----------------------------------------------------------------------
# Servers
# ----------------------------------------------------------------------

def query(conninfo, statement, *parameters):
    """The rows of a statement, in a session and a transaction of its own."""
    with psycopg.connect(conninfo, autocommit=True, connect_timeout=5) as session:
        cursor = session.execute(statement, parameters or None)
        return cursor.fetchall() if cursor.description else []


def value(conninfo, statement, *parameters):
    rows = query(conninfo, statement, *parameters)
    return rows[0][0] if rows else None


class Server:
    """A server of PostgreSQL by itself, with the library preloaded"""

    def __init__(self, name, sandbox, *conf, preload="postmark_connector"):
        self.name, self.port = name, free_ports(1)[0]
        self.data = os.path.join(DIR, name)
        run([f"{BINDIR}/initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "--no-locale", "-E", "UTF8"])
        with open(os.path.join(self.data, "postgresql.conf"), "a") as file:
            file.write("\n".join([
                f"listen_addresses = '127.0.0.1'\nport = {self.port}", f"unix_socket_directories = '{DIR}'",
                "log_line_prefix = '%m [%p] %b %q%a '", "fsync = off", "max_worker_processes = 32",
                f"shared_preload_libraries = '{preload}'",
                f"postmark_connector.api_url = '{sandbox.url}'", *conf]) + "\n")
        self.start()

    def start(self):
        run([f"{BINDIR}/pg_ctl", "-D", self.data, "-l", os.path.join(DIR, self.name + ".log"), "-w", "-s", "start"])

    def stop(self, mode="fast"):
        run([f"{BINDIR}/pg_ctl", "-D", self.data, "-m", mode, "-w", "-s", "stop"])

    def conninfo(self, database="postgres", user="postgres"):
        return f"host=127.0.0.1 port={self.port} dbname={database} user={user}"

    def sql(self, statement, *parameters, database="postgres"):
        return query(self.conninfo(database), statement, *parameters)

    def value(self, statement, *parameters, database="postgres"):
        return value(self.conninfo(database), statement, *parameters)

    def call(self, function, *arguments, literal=True):
        """SELECT function(arguments), these as literals or as parameters"""
        cursor = psycopg.ClientCursor if literal else psycopg.Cursor
        with psycopg.connect(self.conninfo(), autocommit=True, cursor_factory=cursor) as session:
            return session.execute(f"SELECT {function}({', '.join(['%s'] * len(arguments))})", arguments).fetchone()[0]

    def wait(self, condition, what=None, database="postgres"):
        """Until the statement's value is true"""
        return until(lambda: self.value(condition, database=database), what or f"{self.name}: {condition}")

    def prepare(self, database="postgres"):
        """The extension, configured, and a table to sign up in"""
        self.sql("CREATE EXTENSION postmark_connector", database=database)
        self.sql("SELECT postmark_configure(%s)", CONNECTOR, database=database)
        self.sql(SIGNUP, database=database)
        self.wait("SELECT state = 'running' FROM postmark_status", database=database)


# ----------------------------------------------------------------------
# Somebody who signs up all the time
# ----------------------------------------------------------------------

class Writer:
    """Signs up again and again, each time with an address of its own, at one
    of several servers that takes it; a sign-up that failed, or was not
    answered within a second, is not tried again.

    tried       {address: when its statement was sent, us}
    committed   {address: when its commit was known, us}
    """

    PATIENCE = 1.0
    PAUSE = 0.005

    def __init__(self, prefix, ports, before=None):
        """before: a writer that has ended, and in whose place this one is"""
        self.prefix, self.ports = prefix, list(ports)
        self.tried, self.committed = (before.tried, before.committed) if before else ({}, {})
        self._session, self._since, self._error = None, None, None
        self._end = threading.Event()
        self._threads = [threading.Thread(target=target, daemon=True) for target in (self._write, self._watch)]
        for thread in self._threads:
            thread.start()

    def stop(self):
        self._end.set()
        for thread in self._threads:
            thread.join(WAIT)

    def avoid(self, port):
        """As a load balancer that finds a server not answering"""
        self.ports = [other for other in self.ports if other != port]

    def wait(self, number, what="nobody can sign up"):
        """Until so many more have signed up"""
        wanted = len(self.committed) + number
        until(lambda: len(self.committed) >= wanted, lambda: f"{what}: {self._error}")

    def _connect(self):
        for port in list(self.ports):
            try:
                return psycopg.connect(
                    f"host=127.0.0.1 port={port} dbname=postgres user=postgres connect_timeout=2"
                    " target_session_attrs=read-write", autocommit=True)
            except psycopg.Error as error:
                self._error = error
        return None

    def _write(self):
        while not self._end.is_set():
            self._session = self._session or self._connect()
            if self._session is None:
                time.sleep(0.01)
                continue
            address = f"{self.prefix}{len(self.tried) + 1}@t.example"
            self.tried[address] = time.time_ns() // 1000
            try:
                self._since = time.monotonic()
                self._session.execute("INSERT INTO signup VALUES (%s, '000000')", (address,))
                self.committed[address] = time.time_ns() // 1000
            except psycopg.Error as error:
                self._error = error
                with contextlib.suppress(psycopg.Error):
                    self._session.close()
                self._session = None
            self._since = None
            time.sleep(self.PAUSE)
        if self._session:
            self._session.close()

    def _watch(self):
        while not self._end.wait(0.05):
            since, session = self._since, self._session
            if since is not None and session is not None and time.monotonic() > since + self.PATIENCE:
                with contextlib.suppress(psycopg.Error, OSError):
                    with socket.socket(fileno=os.dup(session.fileno())) as connection:
                        connection.shutdown(socket.SHUT_RDWR)
