"""machine.py: what the figures were measured on, in a few lines."""

import datetime
import glob
import json
import os
import platform
import re
import shlex
import subprocess
import time

import harness

# Ours and those that decide about durability; the rest of the settings is
# PostgreSQL's default unless named as changed.
SETTINGS = ('fsync', 'synchronous_commit', 'full_page_writes', 'wal_sync_method', 'autovacuum',
            'postmark_connector.batch_size', 'postmark_connector.max_in_flight')


def first_line(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.partition('\n')[0].strip()


def read(path, pattern):
    with open(path, encoding='utf-8', errors='replace') as file:
        found = re.search(pattern, file.read(), re.M)
    return found[1] if found else 'unknown'


def file_system(path):
    done = subprocess.run(['df', '--output=fstype', path], capture_output=True, text=True, check=False)
    return done.stdout.split()[-1]


class Flush:
    """How long this disk takes to make a page durable: written and flushed as
    PostgreSQL does it with the WAL, into a file that is there already, beside
    the cluster's."""

    PAGE = 8192
    PAGES = 2048

    def __init__(self, directory):
        self.path = os.path.join(directory, 'flush')
        self.file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        os.write(self.file, bytes(self.PAGE * self.PAGES))
        os.fsync(self.file)
        self.number = 0

    def time(self):
        """Seconds of one write and fdatasync."""
        offset = self.number % self.PAGES * self.PAGE
        self.number += 1
        begun = time.perf_counter()
        os.pwrite(self.file, b'x' * self.PAGE, offset)
        os.fdatasync(self.file)
        return time.perf_counter() - begun

    def close(self):
        os.close(self.file)
        os.unlink(self.path)


def peers(bench):
    """The versions that npm installed of what peers/package.json asks for."""
    try:
        with open(os.path.join(bench.peers_dir, 'package.json'), encoding='utf-8') as file:
            wanted = json.load(file).get('dependencies', {})
    except FileNotFoundError:
        return 'none'
    versions = []
    for name in wanted:
        for path in glob.glob(os.path.join(bench.peers_dir, 'node_modules', name, 'package.json')):
            with open(path, encoding='utf-8') as file:
                versions.append(f"{name} {json.load(file)['version']}")
    return ', '.join(versions)


def describe(bench, args):
    """What stands below the table, by name."""
    flush = Flush(bench.scratch)
    took = [flush.time() * 1000 for _ in range(200)]
    flush.close()
    memory = int(read('/proc/meminfo', r'^MemTotal: +(\d+)')) / 1024 / 1024
    changed = bench.admin.run(
        "SELECT name, current_setting(name) FROM pg_settings"
        " WHERE source = 'configuration file'"
        " AND name !~* '^(lc_|log_|listen|unix|port|default_text|datestyle|timezone|dynamic)'"
        " AND name <> 'postmark_connector.api_url'"
        " ORDER BY name")
    settings = dict(changed)
    for name in SETTINGS:
        settings.setdefault(name, bench.admin.run('SELECT current_setting(%s)', (name,))[0][0])
    extensions = bench.admin.run(
        "SELECT name || ' ' || default_version FROM pg_available_extensions"
        " WHERE name IN ('pg_net', 'postmark_connector') ORDER BY name")
    command = ['test/bench/run', *(['--quick'] if args.quick else []),
               *([f'--pairs={args.pairs}']), *args.measure]
    return {
        'command': shlex.join(command),
        'date': datetime.datetime.now(datetime.timezone.utc).strftime('%Y-%m-%d %H:%M UTC'),
        'commit': args.commit or 'unknown',
        'machine': f"{os.cpu_count()} cores, {read('/proc/cpuinfo', '^model name.*: (.*)')}, "
                   f"{memory:.0f} GB, Linux {platform.release()}, {os.uname().machine}",
        'disk': f"{file_system(bench.data)}, write and fdatasync of 8 kB: "
                f"p50 {harness.percentile(took, 50):.2f} ms, p99 {harness.percentile(took, 99):.2f} ms",
        'PostgreSQL': bench.admin.run('SHOW server_version')[0][0],
        'extensions': ', '.join(name for name, in extensions),
        'libraries': f"{first_line('curl-config', '--version')}, {first_line('gcc', '--version')}",
        'node': first_line('node', '--version'),
        'peers': peers(bench),
        'settings': ', '.join(f'{name} = {value}' for name, value in settings.items()),
        'pairs': f'{args.pairs}, {"sizes a tenth of the real ones" if args.quick else "full sizes"}',
    }
