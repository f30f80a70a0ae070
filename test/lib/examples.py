#!/usr/bin/python3
"""Follows the pages as a reader does, and says where that fails.

    test/lib/examples.py [--verbose] [TREE [PAGE...]]

Needs psql with PGHOST, PGPORT, PGUSER of a server that has the extension
preloaded and sends to the sandbox of SANDBOX_URL. Every page that has blocks
of SQL gets a database of its own, named as the pages name it, in which they
are executed from top to bottom, each statement by itself. One that says
"Starts where [installation](install.md#roles) ends" begins with that page's
blocks, up to the end of that section. A block below a line with nothing but
its name, as `app.py`:, is a file; blocks marked sh are executed in a folder
where the page's files are. Nothing else is prepared: what an example needs is
on the page.

A statement may say in the comment behind it what it answers:

    SELECT 1 + 1;       -- → 2
    SELECT 1 / 0;       -- → ERROR 22012

where … stands for anything. An error or a warning that is not announced in
this way fails the page, and so does another answer (of several rows the last
one's). Of what is checked by postmark_verify_code, 493021 stands for the code
that was mailed last, of postmark_verify_token "the token from the link" for
what it says.

The reference has to have every object, too: its anchor, and what it takes
and gives.

Prints a line for each page, "ok" or "not ok"; the exit status is 0 only if
all of them could be followed.
"""

import functools
import json
import os
import re
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

import pages

DATABASE = "shop"
WAIT = 30
# what a page can leave outside of its database, in the order to drop it
MADE = {"DATABASE": "SELECT datname FROM pg_database", "ROLE": "SELECT rolname FROM pg_roles"}
START = re.compile(r"Starts\s+where\s+\[[^]]*\]\(([^)]+)\)\s+ends")
CODE = "'493021'"
TOKEN = "'the token from the link'"
WORDS = [(re.compile(r"your (?:new )?Postmark server token"), "sandbox-token"),
         (re.compile(r"http://127\.0\.0\.1:8025"), os.environ.get("SANDBOX_URL", ""))]
# where a page's applications listen; on the machine of the test it is elsewhere
PORT = re.compile(r"\b300[1-9]\b")

# the tokens of SQL that may hold a semicolon, and the semicolon
LEXEME = re.compile(r"""
      --[^\n]* | /\*.*?\*/ | '(?:[^']|'')*' | "[^"]*"
    | \$(?P<tag>\w*)\$.*?\$(?P=tag)\$ | \\g\w*[^\n]* | ; """, re.X | re.S)

# a browser's proxy is not meant for 127.0.0.1
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Trouble(Exception):
    pass


def split(text):
    """The statements of a block, with what the comment says that they answer
    and the line they end at."""
    place, start = 0, 0
    while True:
        meta = re.compile(r"\s*(\\\w[^\n]*)").match(text, start)
        if meta:
            yield meta[1], None, text.count("\n", 0, meta.end())
            start = place = meta.end()
            continue
        lexeme = LEXEME.search(text, place)
        if lexeme is None:
            if re.sub(r"--[^\n]*", "", text[start:]).strip():
                raise Trouble("a statement without an end: " + text[start:].strip())
            return
        place = lexeme.end()
        if lexeme[0] == ";" or lexeme[0].startswith("\\g"):
            answer = re.compile(r"[ \t]*-- → ([^\n]*)").match(text, place)
            yield text[start:place].strip(), answer and answer[1].strip(), text.count("\n", 0, place)
            start = place = answer.end() if answer else place


class Psql:
    """One psql, a statement at a time."""

    MARK = "--- end of the answer ---"

    def __init__(self):
        self.process = subprocess.Popen(
            ["psql", "-X", "-A", "-t", "-q", "-F", " | ", "-v", "VERBOSITY=verbose", "-d", DATABASE],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def ask(self, statement):
        """What psql prints"""
        self.process.stdin.write(f"{statement}\n\\echo '{self.MARK}'\n".encode())
        self.process.stdin.flush()
        answer, end = b"", time.monotonic() + WAIT
        while not answer.endswith(self.MARK.encode() + b"\n"):
            if not select.select([self.process.stdout], [], [], max(0, end - time.monotonic()))[0]:
                self.process.kill()
                raise Trouble(f"no answer within {WAIT} s: {statement}")
            read = os.read(self.process.stdout.fileno(), 65536)
            if not read:
                raise Trouble(f"psql ended: {statement}\n{answer.decode()}")
            answer += read
        return answer.decode()[:-len(self.MARK) - 1].strip()

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def command(*sql, database="postgres"):
    """Statements outside of the page's session"""
    arguments = [word for statement in sql for word in ("-c", statement)]
    return subprocess.run(["psql", "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-d", database, *arguments],
                          check=True, capture_output=True, text=True).stdout.split("\n")[:-1]


@functools.lru_cache(maxsize=None)
def free_port(written):
    """A port that nobody listens at, the same for the same number."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def as_sandbox(text):
    for pattern, replacement in WORDS:
        text = pattern.sub(replacement, text)
    return PORT.sub(lambda port: free_port(port[0]), text)


def ask_sandbox(call, **query):
    url = f"{os.environ['SANDBOX_URL']}/_sandbox/{call}?{urllib.parse.urlencode(query)}"
    with _opener.open(url, timeout=WAIT) as answer:
        return json.load(answer)


def newest(email, find):
    """What find(variables of the mail) gives of the newest mail to the address
    that has it; waits for one, and for what is under way."""
    command("SELECT postmark_flush()", database=DATABASE)
    end = time.monotonic() + WAIT
    while time.monotonic() < end:
        query = {"recipient": email} if email else {}
        for mail in reversed(ask_sandbox("messages", **query)["messages"]):
            value = find(mail["Request"]["TemplateModel"])
            if value:
                return value
        time.sleep(0.05)
    raise Trouble(f"there is no such mail to {email or 'anybody'}")


def as_mailed(statement):
    """The statement with the code or the token that its reader was mailed."""
    call = re.search(r"postmark_verify_code\('([^']+)'", statement)
    if call and CODE in statement:
        code = newest(call[1], lambda model: model.get("code"))
        return statement.replace(CODE, f"'{code}'")
    if TOKEN in statement:
        link = newest(None, lambda model: model.get("link"))
        return statement.replace(TOKEN, f"'{link.partition('=')[2]}'")
    return statement


def matches(expected, answer):
    """… stands for anything"""
    pattern = ".*".join(re.escape(part) for part in expected.split("…"))
    return re.fullmatch(pattern, answer, re.S) is not None


def rest():
    """A reader is slow enough for a worker to have started when he goes on."""
    end = time.monotonic() + WAIT
    while command("SELECT 1 FROM postmark_status WHERE state = 'no_worker'", database=DATABASE):
        if time.monotonic() > end:
            raise Trouble("no worker starts")
        time.sleep(0.05)


def run_sql(psql, block, verbose):
    for statement, expected, line in split(block.text):
        answer = psql.ask(as_sandbox(as_mailed(statement)))
        if verbose:
            print(f"{statement}\n{answer}")
        if "postmark_configure" in statement:
            rest()
        errors = re.findall(r"^(ERROR|FATAL|WARNING):  (\w{5}): ", answer, re.M)
        if expected is not None and re.match("ERROR|WARNING", expected):
            good = expected.split()[:2] in [list(error) for error in errors]
        else:
            good = not errors and (expected is None or matches(expected, answer.split("\n")[-1]))
        if not good:
            said = "" if expected is None else f"\nand not {expected}"
            raise Trouble(f"line {block.line + line + 1}: {statement}\nanswers {answer}{said}")


def write_file(folder, block):
    path = os.path.join(folder, block.file)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(as_sandbox(block.text))


def run_shell(folder, block, verbose):
    environment = dict(os.environ, PGDATABASE=DATABASE, no_proxy="127.0.0.1")
    # an answer of 400 is a failure, too
    text = 'curl() { command curl -fsS "$@"; }\n' + as_sandbox(block.text)
    done = subprocess.run(["sh", "-eu", "-c", text], cwd=folder, env=environment, timeout=WAIT,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if verbose:
        print(f"{block.text}{done.stdout}")
    if done.returncode != 0:
        differences = os.path.join(folder, "regression.diffs")
        if os.path.exists(differences):
            with open(differences, encoding="utf-8") as file:
                done.stdout += file.read()
        raise Trouble(f"line {block.line}: {block.text}fails: {done.stdout}")


def blocks_of(found, page):
    """The page's blocks in a reader's order, with those of the page that it
    starts from."""
    before = []
    start = START.search("\n".join(page.lines))
    if start:
        path, section = pages.target(page, start[1])
        before = blocks_of(found, found[path])
        within = [number for number, block in enumerate(before) if section in block.sections]
        before = before[:within[-1] + 1] if section else before
    return before + [block for block in page.blocks if block.file or block.language in ("sql", "sh")]


def mails_twice(psql):
    """A table with two triggers of ours for a new row mails twice."""
    return psql.ask("""RESET ROLE;
        SELECT string_agg(tgrelid::regclass::text, ', ') FROM (
            SELECT tgrelid FROM pg_trigger JOIN pg_proc ON pg_proc.oid = tgfoid
            WHERE proname IN ('postmark_enqueue_trigger', 'postmark_issue_code_trigger') AND tgtype & 4 > 0
            GROUP BY tgrelid HAVING count(*) > 1) AS twice;""")


# what the catalog writes, and the reference
WRITTEN = {"timestamp with time zone": "timestamptz", "'00:00:30'": "'30 s'"}

# What the reference has to have: an anchor of each object and setting, each
# function's arguments and result, each view's columns. The types of defaults
# are left out.
IN_REFERENCE = """RESET ROLE;
    WITH members AS (
        SELECT d.classid, d.objid FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
        WHERE e.extname = 'postmark_connector' AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
    ), functions AS (
        SELECT p.* FROM members JOIN pg_proc p ON p.oid = objid AND classid = 'pg_proc'::regclass
    ), relations AS (
        SELECT c.* FROM members JOIN pg_class c ON c.oid = objid AND classid = 'pg_class'::regclass
    )
    SELECT '#' || proname FROM functions
    UNION ALL SELECT '#' || relname FROM relations
    UNION ALL SELECT '#' || split_part(name, '.', 2) FROM pg_settings WHERE name LIKE 'postmark_connector.%'
    UNION ALL
    SELECT format('`%s(%s)%s`', proname,
        regexp_replace(pg_get_function_arguments(oid), '::[a-z ]+', '', 'g'),
        CASE WHEN 'o' = ANY (proargmodes) THEN '' ELSE ' → ' || pg_get_function_result(oid) END)
    FROM functions WHERE prorettype <> 'trigger'::regtype
    UNION ALL
    SELECT format('`%s`', string_agg(attname, ', ' ORDER BY attnum))
    FROM relations r JOIN pg_attribute ON attrelid = r.oid AND attnum > 0
    WHERE relkind = 'v' GROUP BY r.oid;"""


def missing(psql, page):
    """What the reference lacks"""
    text = "\n".join(page.lines)
    for wanted in psql.ask(IN_REFERENCE).split("\n"):
        for catalog, written in WRITTEN.items():
            wanted = wanted.replace(catalog, written)
        there = wanted[1:] in page.anchors if wanted.startswith("#") else wanted in text
        if not there:
            yield wanted


def follow(found, page, verbose):
    """Raises Trouble where the page cannot be followed."""
    before = {kind: command(names) for kind, names in MADE.items()}
    command(f"CREATE DATABASE {DATABASE}")
    psql = Psql()
    folder = tempfile.mkdtemp()
    try:
        for block in blocks_of(found, page):
            if block.file:
                write_file(folder, block)
            elif block.language == "sql":
                run_sql(psql, block, verbose)
            else:
                run_shell(folder, block, verbose)
        twice = mails_twice(psql)
        if twice:
            raise Trouble(f"two triggers mail for a new row of {twice}")
        if page.path == pages.REFERENCE:
            lacks = list(missing(psql, page))
            if lacks:
                raise Trouble("the page lacks " + "\nand ".join(lacks))
    finally:
        psql.close()
        shutil.rmtree(folder)
        command("ALTER SYSTEM RESET ALL", "SELECT pg_reload_conf()",
                *(f'DROP {kind} "{name}"{" WITH (FORCE)" * (kind == "DATABASE")}'
                  for kind, names in MADE.items() for name in command(names) if name not in before[kind]))
        _opener.open(urllib.request.Request(f"{os.environ['SANDBOX_URL']}/_sandbox/reset", method="POST")).close()


def main():
    arguments = sys.argv[1:]
    verbose = "--verbose" in arguments
    arguments = [word for word in arguments if word != "--verbose"]
    tree = arguments[0] if arguments else os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
    found = pages.read(tree)
    failed = False
    for path in arguments[1:] or found:
        if not any(block.language == "sql" for block in found[path].blocks):
            continue
        started = time.monotonic()
        try:
            follow(found, found[path], verbose)
            print(f"ok: {path} can be followed ({time.monotonic() - started:.1f} s)", flush=True)
        except Trouble as trouble:
            failed = True
            print(f"not ok: {path} can be followed", flush=True)
            print("    " + str(trouble).replace("\n", "\n    "), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
