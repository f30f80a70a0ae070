#!/usr/bin/python3
"""Holds the includes of src/ against the rooms.

    test/lib/includes.py [SRC]

A room is a folder of src/; what lies in src/ itself stands above all of them.
An include may visit its own room and those below, in the order of ROOMS.
Prints a line for each rule, "ok" or "not ok" and what breaks it; the exit
status is 0 only if all of them hold.
"""

import os
import re
import sys

# From the ground up.
ROOMS = ["base", "shared", "settings", "postmark", "queue", "codes", "feedback", "worker"]
TOP = len(ROOMS)

# What has nothing of its own to compile: the server's API under newer names.
NO_SOURCE = ["base/compat.h"]

OURS = re.compile(r'^#include "([^"]+)"', re.M)


def read(src):
    """The sources as {path: [paths that it includes]}, all below src."""
    files = {}
    for folder, _, names in os.walk(src):
        for name in sorted(names):
            if name.endswith((".c", ".h")):
                path = os.path.join(folder, name)
                with open(path, encoding="utf-8") as file:
                    files[os.path.relpath(path, src)] = OURS.findall(file.read())
    return files


def floor(path):
    room = os.path.dirname(path)
    return TOP if room == "" else ROOMS.index(room)


def unknown_rooms(files):
    for path in files:
        if os.path.dirname(path) not in [""] + ROOMS:
            yield f"{path}: no such room in {os.path.basename(__file__)}"


def not_from_src(files):
    """A header of ours that is named without its room."""
    names = {os.path.basename(path) for path in files}
    for path, includes in files.items():
        for include in includes:
            if include not in files and os.path.basename(include) in names:
                # the server has headers of the same name as ours
                if "/" not in include:
                    yield f'{path}: "{include}"'


def looks_up(files):
    for path, includes in files.items():
        for include in includes:
            if include in files and floor(include) > floor(path):
                yield f'{path}: "{include}"'


def headers_alone(files):
    for path in files:
        if (path.endswith(".h") and path not in NO_SOURCE
                and path[:-2] + ".c" not in files):
            yield path


def own_header_left_out(files):
    for path, includes in files.items():
        header = path[:-2] + ".h"
        if path.endswith(".c") and header in files and header not in includes:
            yield path


def circles(files):
    """Of units, a source and its header together, that need each other."""
    units = {}
    for path, includes in files.items():
        units.setdefault(path[:-2], set()).update(
            include[:-2] for include in includes
            if include in files and include[:-2] != path[:-2])

    done, way = set(), []

    def visit(unit):
        if unit in way:
            yield " -> ".join(way[way.index(unit):] + [unit])
        elif unit not in done:
            way.append(unit)
            for other in sorted(units[unit]):
                yield from visit(other)
            way.pop()
            done.add(unit)

    for unit in sorted(units):
        yield from visit(unit)


RULES = [
    ("every source lies in a room that is known", unknown_rooms),
    ("includes of ours are written from src/", not_from_src),
    ("no include looks up", looks_up),
    ("every header has its source", headers_alone),
    ("every source includes its own header", own_header_left_out),
    ("no includes run in a circle", circles),
]


def main():
    src = sys.argv[1] if len(sys.argv) > 1 else os.path.join(
        os.path.dirname(os.path.abspath(__file__)), "..", "..", "src")
    files = read(src)
    failed = not files
    for name, rule in RULES:
        found = list(rule(files))
        print(("not ok: " if found else "ok: ") + name)
        for line in found:
            print("    " + line)
        failed = failed or bool(found)
        if rule is unknown_rooms and found:
            break
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
