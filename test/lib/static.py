#!/usr/bin/python3
"""Has cppcheck and clang-tidy look at src/.

    test/lib/static.py TREE INCLUDE

TREE is one in which the library was built, so that what is generated is there;
INCLUDE the folder of the server's headers. test/lib/static.txt has what the
tools say that is not so. Prints a line for each of both, "ok" or "not ok" and
what was found; the exit status is 0 only if nothing was.
"""

import concurrent.futures
import glob
import os
import re
import subprocess
import sys

# What is looked for is mistakes. Left out is what only has an opinion: on
# names and the order of arguments, on braces in macros, on PostgreSQL's own
# idioms (constants as 1024 * 1024, strcpy into what was measured before, cases
# that do the same for different reasons), on the bytes between two members.
TIDY = ",".join([
    "-*", "bugprone-*", "clang-analyzer-*",
    "-bugprone-assignment-in-if-condition",
    "-bugprone-branch-clone",
    "-bugprone-easily-swappable-parameters",
    "-bugprone-implicit-widening-of-multiplication-result",
    "-bugprone-macro-parentheses",
    "-bugprone-narrowing-conversions",
    "-bugprone-reserved-identifier",
    "-clang-analyzer-optin.performance.Padding",
    "-clang-analyzer-security.insecureAPI.DeprecatedOrUnsafeBufferHandling",
    "-clang-analyzer-security.insecureAPI.strcpy",
])
FOUND = re.compile(r"^(?P<file>\S+?):(?P<line>\d+):\d+: (?:warning|error): (?P<text>.*) \[(?P<check>[\w.,-]+)\]$", re.M)


def run(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return done.stdout


def cppcheck(_include, sources):
    # Of a source whose generated part it does not read it can't make sense
    return run(["cppcheck", "--std=c99", "--language=c", "--enable=warning,performance,portability",
                "--quiet", "-Isrc", "--suppress=missingInclude", "--suppress=internalAstError",
                "--template={file}:{line}:{column}: warning: {message} [{id}]", *sources])


def clang_tidy(include, sources):
    flags = ["-I.", "-Isrc", f"-I{include}", f"-I{include}/../../internal", "-D_GNU_SOURCE", '-DPM_VERSION=""']
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return "".join(pool.map(
            lambda source: run(["clang-tidy", "--quiet", f"--checks={TIDY}", source, "--", *flags]), sources))


def known(path):
    with open(path, encoding="utf-8") as file:
        for line in file:
            if line.strip() and not line.startswith("#"):
                yield tuple(line.split()[:2])


def main(tree, include):
    untrue = set(known(os.path.join(os.path.dirname(os.path.abspath(__file__)), "static.txt")))
    os.chdir(tree)
    sources = sorted(glob.glob("src/*.c") + glob.glob("src/*/*.c"))
    met = set()
    bad = False
    for tool in (cppcheck, clang_tidy):
        problems = set()
        for match in FOUND.finditer(tool(include, sources)):
            file = os.path.relpath(match["file"])
            if (file, match["check"]) in untrue:
                met.add((file, match["check"]))
            else:
                problems.add(f"{file}:{match['line']}: {match['text']} [{match['check']}]")
        print("not ok:" if problems else "ok:", f"{tool.__name__} of {len(sources)} sources")
        for problem in sorted(problems):
            print("    " + problem)
        bad = bad or bool(problems)
    idle = sorted(untrue - met)
    print("not ok:" if idle else "ok:", "static.txt has only what the tools say")
    for file, check in idle:
        print(f"    {file} {check}")
    return bad or bool(idle)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
