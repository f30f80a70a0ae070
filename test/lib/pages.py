#!/usr/bin/python3
"""Holds the pages, README.md and what else is Markdown here, to their form.

    test/lib/pages.py [TREE]

Links lead somewhere, anchors included; an anchor is there once; a page of
doc/ says at its top whom it is for and is reached from the README, which
stays short; the reference names every key of the connector JSON; a picture
shows what its script draws today. Prints a line for each rule, "ok" or "not
ok" and what breaks it; the exit status is 0 only if all of them hold.
"""

import glob
import os
import re
import subprocess
import sys
import tempfile

README = "README.md"
README_LINES = 250
REFERENCE = os.path.join("doc", "reference.md")
# script, picture, what it is drawn of
DRAWN = [("test/bench/plot.py", "doc/performance.svg", ["test/bench/results/results.json"])]

FENCE = re.compile(r"^ {0,3}```(\w*)$")
FILE = re.compile(r"^`([\w./-]+)`:$")
HEADING = re.compile(r"^(#{1,6}) (.*)$")
ID = re.compile(r'<a id="([^"]+)">')
LINK = re.compile(r"!?\[(?:[^][]|\[[^]]*\])*\]\(([^)\s]+)\)")
SOURCE = re.compile(r'\b(?:src|srcset|href)="([^"]+)"')
CODE = re.compile(r"`[^`]*`")


class Block:
    """A fenced block: its language, its text, the line it begins at, the
    anchors of the headings it stands below, and the name of the file that it
    is, or None."""

    def __init__(self, language, line, sections, file):
        self.language, self.line, self.sections, self.file = language, line, sections, file
        self.text = ""


class Page:
    def __init__(self, tree, path):
        self.path = path
        self.anchors, self.links, self.blocks = [], [], []
        with open(os.path.join(tree, path), encoding="utf-8") as file:
            self.lines = file.read().split("\n")
        self._read()

    def _read(self):
        block, sections, file = None, [], None
        for number, line in enumerate(self.lines, 1):
            fence = FENCE.match(line)
            if block is not None:
                if fence:
                    block = None
                else:
                    block.text += line + "\n"
                continue
            if fence:
                block = Block(fence[1], number, [anchor for _, anchor in sections], file and file[1])
                file = None
                self.blocks.append(block)
                continue
            if line:
                file = FILE.match(line)
            if line.startswith("    "):
                continue            # an indented block, or a list's text
            heading = HEADING.match(line)
            if heading:
                depth = len(heading[1])
                anchor = self._new_anchor(heading[2])
                sections = [(d, a) for d, a in sections if d < depth] + [(depth, anchor)]
            self.anchors += ID.findall(line)
            self.links += LINK.findall(CODE.sub("`", line)) + SOURCE.findall(line)

    def _new_anchor(self, heading):
        """As GitHub makes it, a number appended to the second of a name."""
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        base = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        anchor, number = base, 0
        while anchor in self.anchors:
            number += 1
            anchor = f"{base}-{number}"
        self.anchors.append(anchor)
        return anchor


def read(tree):
    """All pages, {path: Page}, README first."""
    found = []
    for folder, names, files in os.walk(tree):
        names[:] = sorted(name for name in names if name != "node_modules" and not name.startswith("."))
        found += [os.path.relpath(os.path.join(folder, name), tree)
                  for name in sorted(files) if name.endswith(".md")]
    found.sort(key=lambda path: (path != README, path))
    return {path: Page(tree, path) for path in found}


def target(page, link):
    """Path and anchor that a link of the page leads to."""
    path, _, anchor = link.partition("#")
    path = os.path.normpath(os.path.join(os.path.dirname(page.path), path)) if path else page.path
    return path, anchor


def dead_links(tree, pages):
    for page in pages.values():
        for link in page.links:
            if re.match(r"[a-z]+:", link):
                continue
            path, anchor = target(page, link)
            if not os.path.exists(os.path.join(tree, path)):
                yield f"{page.path}: {link}"
            elif anchor and path in pages and anchor not in pages[path].anchors:
                yield f"{page.path}: {link}"


def anchors_twice(tree, pages):
    for page in pages.values():
        for anchor in sorted(set(page.anchors)):
            if page.anchors.count(anchor) > 1:
                yield f"{page.path}: #{anchor}"


def in_doc(pages):
    return [page for page in pages.values() if page.path.startswith("doc" + os.sep)]


def for_nobody(tree, pages):
    for page in in_doc(pages):
        if not (page.lines[0].startswith("# ") and page.lines[2].startswith("*For who")):
            yield page.path


def out_of_reach(tree, pages):
    reached = {target(pages[README], link)[0] for link in pages[README].links}
    for page in in_doc(pages):
        if page.path not in reached:
            yield page.path


def too_long(tree, pages):
    lines = len(pages[README].lines) - 1
    if lines > README_LINES:
        yield f"{README}: {lines} lines"


def old_pictures(tree, pages):
    """Pictures that a script draws are those that it draws today."""
    for script, picture, data in DRAWN:
        with tempfile.NamedTemporaryFile(suffix=".svg") as drawn:
            arguments = [os.path.join(tree, name) for name in data]
            subprocess.run([sys.executable, "-B", os.path.join(tree, script), *arguments, drawn.name], check=True)
            with open(os.path.join(tree, picture), "rb") as kept:
                if kept.read() != drawn.read():
                    yield f"{picture}: run {script}"


def without_schema(tree, pages):
    for page in pages.values():
        if page.path == "CHANGELOG.md":
            continue
        for number, line in enumerate(page.lines, 1):
            if re.search(r"CREATE EXTENSION postmark_connector(?! SCHEMA postmark;)", line):
                yield f"{page.path}: line {number}"


def keys_left_out(tree, pages):
    """The connector JSON's keys stand in lists named …_keys in the sources."""
    found = []
    for path in sorted(glob.glob(os.path.join(tree, "src", "settings", "*.c"))):
        with open(path, encoding="utf-8") as file:
            for keys in re.findall(r"_keys\[\] = \{(.*?)\n\};", file.read(), re.S):
                found += re.findall(r'"(\w+)"', keys)
    reference = pages[REFERENCE].lines
    for key in sorted(set(found)) or ["(no list was found)"]:
        if not any(f"`{key}`" in line for line in reference):
            yield key


RULES = [
    ("every link leads somewhere", dead_links),
    ("every anchor is there once", anchors_twice),
    ("every page of doc/ says at its top whom it is for", for_nobody),
    ("every page of doc/ is reached from the README", out_of_reach),
    (f"the README has at most {README_LINES} lines", too_long),
    ("the reference has every key of the connector JSON", keys_left_out),
    ("pictures are those that their scripts draw", old_pictures),
    ("the extension is created in a schema of its own", without_schema),
]


def main():
    tree = sys.argv[1] if len(sys.argv) > 1 else os.path.join(
        os.path.dirname(os.path.abspath(__file__)), "..", "..")
    pages = read(tree)
    failed = README not in pages
    for name, rule in RULES:
        found = list(rule(tree, pages))
        print(("not ok: " if found else "ok: ") + name)
        for line in found:
            print("    " + line)
        failed = failed or bool(found)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
