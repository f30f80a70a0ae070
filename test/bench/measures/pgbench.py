"""pgbench.py: Debian's pgbench for the measures.

Every session is one of pgbench's with prepared statements, so that what is
compared is the server's work, not a client's.
"""

import collections
import os
import re
import subprocess
import tempfile

Run = collections.namedtuple('Run', 'tps transactions latencies_us')


def pgbench(bench, database, script, *, clients=1, seconds=None,
            transactions=None, synchronous_commit=True, log=False):
    """Run a script for so many seconds, or so many transactions a client.

    Returns transactions a second (connecting left out), how many there were
    and, with log (for one client), how long each took in microseconds.
    Raises if one failed: a result is no result then.
    """
    with tempfile.TemporaryDirectory(prefix='pgbench.') as directory:
        path = os.path.join(directory, 'script.sql')
        with open(path, 'w', encoding='ascii') as file:
            file.write(script)
        command = [os.path.join(bench.bindir, 'pgbench'), '--no-vacuum',
                   '--protocol=prepared', f'--client={clients}',
                   f'--jobs={min(clients, os.cpu_count())}', f'--file={path}']
        if seconds is not None:
            command.append(f'--time={seconds}')
            limit = seconds + 60
        else:
            command.append(f'--transactions={transactions}')
            limit = 600
        if log:
            command += ['--log', f'--log-prefix={directory}/log']
        commit = 'on' if synchronous_commit else 'off'
        done = subprocess.run(
            command + [database.dsn], capture_output=True, text=True,
            timeout=limit, check=False,
            env={**os.environ, 'PGOPTIONS': f'-c synchronous_commit={commit}'})
        if done.returncode != 0 or not re.search(
                r'^number of failed transactions: 0 ', done.stdout, re.M):
            raise RuntimeError(f'pgbench failed:\n{done.stdout}{done.stderr}')
        latencies = []
        for name in os.listdir(directory) if log else ():
            if name.startswith('log.'):
                with open(os.path.join(directory, name), encoding='ascii') as file:
                    latencies += [int(line.split()[2]) for line in file]
    processed = re.search(r'^number of transactions actually processed: (\d+)',
                          done.stdout, re.M)
    tps = re.search(r'^tps = ([\d.]+)', done.stdout, re.M)
    return Run(float(tps[1]), int(processed[1]), latencies)
