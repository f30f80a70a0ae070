#!/usr/bin/python3
"""A server that answers as Postmark does, over connections that misbehave.

    test/lib/odd_postmark.py DIRECTORY [CERTIFICATE KEY]

The sandbox knows HTTP; this knows what goes over a connection, byte by byte:
answers that nobody waits for, or that come before the request, and peers that
are gone without a word. For the tests alone, by way of OddPostmark.pm.

Listens on a free port of 127.0.0.1, which it writes to DIRECTORY/port. With a
certificate it speaks TLS. DIRECTORY/mode says how each request is served:

    well        as Postmark would
    twice       the same answer once more, right after it
    late408     an answer of 408 after it, as to an idle connection
    closes      the connection is closed after it, which it did not announce
    early       the answer before the body is read
    stranger    results that are about somebody else
    other_id    as well; but its search finds ids that were made another time
    announce    the header of an answer of 10 GB, and nothing of it
    endless     an answer without a length that has no end
    numbers     an array of a million numbers
    last        as well, says that the connection ends with that, and ends it a
                moment later
    deaf        nothing, for the connections there are at that time

DIRECTORY/log has a line of JSON for each request: the number of its
connection and its own on it, path, recipients, and whether it was accepted.
"""

import json
import os
import socket
import ssl
import sys
import threading
import time
import urllib.parse
import uuid

DIRECTORY = sys.argv[1]
LOCK = threading.Lock()
ACCEPTED = []
LIMIT_S = 120

# Connections up to this number are deaf.
DEAF_UP_TO = 0
CONNECTIONS = 0


def mode():
    with open(os.path.join(DIRECTORY, "mode"), encoding="utf-8") as file:
        return file.read().strip()


def log(**entry):
    with LOCK, open(os.path.join(DIRECTORY, "log"), "a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")


def http(document, status="200 OK", fields=""):
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return (f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{fields}"
            f"Content-Length: {len(body)}\r\n\r\n").encode() + body


def accept(messages, to=None):
    """Accept messages; the answer's results."""
    results = []
    for message in messages:
        result = {"To": to or message["To"], "SubmittedAt": "2026-01-01T00:00:00Z",
                  "MessageID": str(uuid.uuid4()), "ErrorCode": 0, "Message": "OK"}
        with LOCK:
            ACCEPTED.append({"MessageID": result["MessageID"], "To": [{"Email": message["To"]}],
                             "Metadata": message.get("Metadata", {})})
        results.append(result)
    return results


def search(query, how):
    """A page of what was accepted; with another time in its ids if so asked."""
    wanted = urllib.parse.parse_qs(query).get("metadata_postmark_batch")
    with LOCK:
        found = [dict(m) for m in ACCEPTED
                 if not wanted or m["Metadata"].get("postmark_batch") == wanted[0]]
    if how == "other_id":
        for message in found:
            number = message["Metadata"]["postmark_id"].split("-")[0]
            message["Metadata"] = dict(message["Metadata"], postmark_id=f"{number}-1")
    return {"TotalCount": len(found), "Messages": found}


class Connection:
    def __init__(self, sock, number):
        self.sock = sock
        self.number = number
        self.buffer = b""

    def read(self, n):
        """At least n bytes, unless the connection ends."""
        while len(self.buffer) < n:
            data = self.sock.recv(65536)
            if not data:
                raise EOFError
            self.buffer += data

    def head(self):
        while b"\r\n\r\n" not in self.buffer:
            self.read(len(self.buffer) + 1)
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        return head.decode()

    def body(self, length):
        self.read(length)
        body, self.buffer = self.buffer[:length], self.buffer[length:]
        return body

    def serve(self):
        count = 0
        while True:
            head = self.head()
            count += 1
            method, target = head.split(" ", 2)[:2]
            path, _, query = target.partition("?")
            length = 0
            for line in head.split("\r\n")[1:]:
                name, _, value = line.partition(":")
                if name.lower() == "content-length":
                    length = int(value)
            how = mode()
            if self.number <= DEAF_UP_TO:
                log(connection=self.number, on_connection=count, path=path, to=[], outcome="deaf")
                while True:
                    self.read(len(self.buffer) + 1)
            self.request(method, path, query, length, how, count)
            if how == "closes":
                return

    def request(self, method, path, query, length, how, count):
        if path == "/server":
            answer = http({"ID": 1, "Name": "odd"})
            how = "well"
        elif path == "/messages/outbound":
            answer = http(search(query, how))
            how = "well"
        elif how == "early":
            # Who the message is to is in the body, which is not there yet.
            result = {"To": "m1@t.example", "MessageID": str(uuid.uuid4()),
                      "ErrorCode": 0, "Message": "OK"}
            self.sock.sendall(http([result] if "batch" in path else result))
            log(connection=self.number, on_connection=count, path=path, to=[], outcome=how)
            time.sleep(0.3)
            self.body(length)
            return
        else:
            document = json.loads(self.body(length))
            messages = document.get("Messages", [document])
            to = [message["To"] for message in messages]
            if how in ("announce", "endless", "numbers"):
                log(connection=self.number, on_connection=count, path=path, to=to, outcome=how)
                self.misanswer(how)
                return
            results = accept(messages, "stranger@t.example" if how in ("stranger", "other_id") else None)
            answer = http(results if "Messages" in document else results[0],
                          fields="Connection: close\r\n" if how == "last" else "")
            log(connection=self.number, on_connection=count, path=path, to=to, outcome=how)
        self.sock.sendall(answer)
        if path in ("/server", "/messages/outbound"):
            log(connection=self.number, on_connection=count, path=path, to=[], outcome="asked")
        if how == "twice":
            time.sleep(0.02)
            self.sock.sendall(answer)
        elif how == "late408":
            time.sleep(0.02)
            self.sock.sendall(http(b"", "408 Request Timeout"))
        elif how == "last":
            time.sleep(0.3)
            raise EOFError

    def misanswer(self, how):
        if how == "numbers":
            self.sock.sendall(http(b"[" + b"1," * 1_500_000 + b"1]"))
            return
        if how == "announce":
            self.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                              b"Content-Length: 10000000000\r\n\r\n")
            time.sleep(LIMIT_S)
            return
        self.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n[")
        end = time.monotonic() + LIMIT_S
        while time.monotonic() < end:
            self.sock.sendall(b" " * 65536)


def run(sock, number, context):
    try:
        sock.settimeout(LIMIT_S)
        if context:
            sock = context.wrap_socket(sock, server_side=True)
        with sock:
            Connection(sock, number).serve()
    except (OSError, EOFError):
        pass


def watch_mode():
    """Make the connections deaf that there are when the mode becomes that."""
    global DEAF_UP_TO
    before = ""
    while True:
        now = mode()
        if now == "deaf" and before != "deaf":
            DEAF_UP_TO = CONNECTIONS
            log(deaf_up_to=DEAF_UP_TO)
        before = now
        time.sleep(0.01)


def main():
    global CONNECTIONS
    context = None
    if len(sys.argv) > 2:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(sys.argv[2], sys.argv[3])
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    # What is not read yet is to stay with the client.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    threading.Thread(target=watch_mode, daemon=True).start()
    port_file = os.path.join(DIRECTORY, "port")
    with open(port_file + ".new", "w", encoding="utf-8") as file:
        file.write(f"{listener.getsockname()[1]}\n")
    os.rename(port_file + ".new", port_file)
    while True:
        sock, _ = listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        CONNECTIONS += 1
        threading.Thread(target=run, args=(sock, CONNECTIONS, context), daemon=True).start()


main()
