"""counting.py: what it costs a drain that everything is counted.

Two servers side by side, of which one has a library that counts nothing: the
same sources, but that whoever asks for a connector's counters gets none.
"""

import contextlib
import os
import shutil
import subprocess

from harness import measure
from measures.queue import Queue

STATS = 'src/shared/stats.c'
COUNTERS_OF = 'pm_stats_of(int number, const char *name)\n{\n'
LIBRARY = 'postmark_connector.so'


def build_without(bench, source, directory):
    """Build the library that counts nothing. Returns its path."""
    shutil.copytree(source, directory, ignore=shutil.ignore_patterns('.git', 'build', '*.o', '*.so'))
    path = os.path.join(directory, STATS)
    with open(path, encoding='utf-8') as file:
        text = file.read()
    if text.count(COUNTERS_OF) != 1:
        raise RuntimeError(f'{STATS} is not what it was')
    with open(path, 'w', encoding='utf-8') as file:
        file.write(text.replace(COUNTERS_OF, COUNTERS_OF + '\treturn NULL;\n'))
    done = subprocess.run(
        ['make', '-C', directory, f'PG_CONFIG={bench.bindir}/pg_config', LIBRARY],
        check=False, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, timeout=300)
    if done.returncode:
        raise RuntimeError(f'the library that counts nothing was not built:\n{done.stdout[-2000:]}')
    return os.path.join(directory, LIBRARY)


def install_without(bench, directory):
    """An installation like the one that is measured, with that library.
    Returns its folder of programs."""
    source = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    library = build_without(bench, source, os.path.join(directory, 'tree'))

    def ask(what):
        return subprocess.run([f'{bench.bindir}/pg_config', what], check=True, text=True,
                              stdout=subprocess.PIPE).stdout.strip()

    of_programs, of_libraries, of_all = ask('--bindir'), ask('--pkglibdir'), ask('--sharedir')
    root = os.path.commonpath((of_programs, of_libraries, of_all))
    copy = os.path.join(directory, 'installation')
    shutil.copytree(root, copy, symlinks=True)
    shutil.copy(library, os.path.join(copy, os.path.relpath(of_libraries, root), LIBRARY))
    return os.path.join(copy, os.path.relpath(of_programs, root))


@contextlib.contextmanager
def queue_of(bench, bindir):
    with bench.second_cluster(bindir, shared_preload_libraries='postmark_connector',
                              shared_buffers='512MB', max_wal_size='4GB') as cluster:
        cluster.start()
        database = cluster.database('postgres')
        database.configure()
        try:
            queue = Queue(bench, database)
            queue.warm()
            yield queue
        finally:
            database.close()


def counted(queue):
    return queue.database.run("SELECT value::int FROM postmark_stats() WHERE metric = 'sent'")


@measure('drain_counting', 'a drain with statistics and without', order=15)
def measure_counting(bench):
    count = bench.size(100000)
    directory = os.path.join(bench.scratch, 'without')
    try:
        with queue_of(bench, bench.bindir) as counting, \
                queue_of(bench, install_without(bench, directory)) as plain:
            results = bench.interleave(
                counting=lambda: counting.round(count),
                plain=lambda: plain.round(count))
            if counted(counting)[0][0] < bench.pairs * count or counted(plain):
                raise RuntimeError('the wrong one of the two has counted')
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    bench.report('drain_counting', f'drain of {count}, everything counted',
                 results['counting'], results['plain'], 'nothing counted',
                 unit='messages/s', better='higher', target=0.97)
