#!/usr/bin/python3
"""Holds META.json, debian/changelog and CHANGELOG.md against the extension.

    test/lib/versions.py [TREE]

Prints a line for each rule, "ok" or "not ok" and what breaks it; the exit
status is 0 only if all of them hold.
"""

import json
import os
import re
import sys

NAME = "postmark_connector"
# what PGXN asks for (Meta Spec 1.0.0)
REQUIRED = ["name", "version", "abstract", "maintainer", "license", "provides", "meta-spec"]
SEMVER = re.compile(r"^\d+\.\d+\.\d+$")


class Tree:
    def __init__(self, top):
        self.top = top
        self.meta = json.loads(self.read("META.json"))
        self.version = re.search(r"^default_version = '(.*)'", self.read(f"{NAME}.control"), re.M)[1]

    def read(self, path):
        with open(os.path.join(self.top, path), encoding="utf-8") as file:
            return file.read()

    def has(self, path):
        return os.path.isfile(os.path.join(self.top, path))


def meta_complete(tree):
    for key in REQUIRED:
        if not tree.meta.get(key):
            yield f"{key} is missing"
    if tree.meta.get("meta-spec", {}).get("version") != "1.0.0":
        yield "meta-spec is not 1.0.0"
    for name, provided in tree.meta.get("provides", {}).items():
        for key in ("file", "docfile"):
            if not tree.has(provided.get(key, "")):
                yield f"{key} of {name}: there is no {provided.get(key)}"


def meta_version(tree):
    for where in [tree.meta, *tree.meta["provides"].values()]:
        version = where.get("version", "")
        if not SEMVER.match(version) or not version.startswith(tree.version + "."):
            yield f"{version}, while the extension is {tree.version}"


def changelogs(tree):
    for path, pattern in (("CHANGELOG.md", r"^## (\d[\d.]*)"), ("debian/changelog", r"^\S+ \((\d[\d.]*)\)")):
        found = re.search(pattern, tree.read(path), re.M)
        if not found or found[1] != tree.version:
            yield f"{path} begins with {found and found[1]}, while the extension is {tree.version}"


def scripts(tree):
    """One way from 1.0 to the version of the control file"""
    version = "1.0"
    if not tree.has(f"{NAME}--{version}.sql"):
        yield f"there is no script of {version}"
    steps = dict(re.match(rf"{NAME}--(.+)--(.+)\.sql$", name).groups()
                 for name in os.listdir(tree.top) if re.match(rf"{NAME}--.+--.+\.sql$", name))
    while version in steps:
        version = steps.pop(version)
    if version != tree.version:
        yield f"the scripts lead to {version}, the control file wants {tree.version}"


RULES = [
    ("META.json has what PGXN asks for", meta_complete),
    ("its versions are the extension's", meta_version),
    ("the changelogs begin with it", changelogs),
    ("the scripts lead to it", scripts),
]


def main():
    tree = Tree(sys.argv[1] if len(sys.argv) > 1 else os.path.join(
        os.path.dirname(os.path.abspath(__file__)), "..", ".."))
    failed = False
    for name, rule in RULES:
        found = list(rule(tree))
        print(("not ok: " if found else "ok: ") + name)
        for line in found:
            print("    " + line)
        failed = failed or bool(found)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
