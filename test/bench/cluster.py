"""cluster.py: databases, and clusters of our own to have them in."""

import json
import os
import shutil
import signal
import subprocess
import time

import psycopg2

CONNECTOR = json.dumps({
    'serverToken': 'bench-token',
    'fromEmail': 'Shop <no-reply@shop.example>',
    'templates': [
        {'usageType': 'Register', 'templateAlias': 'logto-register'},
        {'usageType': 'SignIn', 'templateAlias': 'logto-sign-in'},
        {'usageType': 'ForgotPassword', 'templateAlias': 'logto-forgot-password'},
        {'usageType': 'Generic', 'templateAlias': 'logto-generic'},
    ],
})


def until(condition, timeout=60, pause=0.01, what='a condition'):
    """Wait until condition() is true and return what it returned."""
    end = time.monotonic() + timeout
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > end:
            raise RuntimeError(f'{what}: not within {timeout} s')
        time.sleep(pause)


class Database:
    """A database, by name."""

    def __init__(self, name, socket_dir):
        self.name = name
        # in a form that libpq and node's pg both read
        self.dsn = f'postgresql:///{name}?host={socket_dir}&port=5432&user=postgres'
        self.connection = None

    def connect(self, autocommit=True):
        connection = psycopg2.connect(self.dsn)
        connection.autocommit = autocommit
        return connection

    def run(self, sql, args=None):
        """Run one statement by itself; returns its rows."""
        if self.connection is None:
            self.connection = self.connect()
        with self.connection.cursor() as cursor:
            cursor.execute(sql, args)
            return cursor.fetchall() if cursor.description else []

    def close(self):
        if self.connection:
            self.connection.close()
        self.connection = None

    def configure(self):
        """Install the extension and configure it; wait for its worker."""
        self.run('CREATE EXTENSION postmark_connector')
        self.run('SELECT postmark_configure(%s)', (CONNECTOR,))
        self.worker_pid()

    def worker_pid(self, timeout=60):
        """The pid of the extension's worker here, once it runs."""
        return until(lambda: self.run("SELECT worker_pid FROM postmark_state('default')"
                                      " WHERE state = 'running'"),
                     timeout, what=f'worker of database {self.name}')[0][0]


class Cluster:
    """A cluster below a directory of ours: initdb, start, stop."""

    def __init__(self, bindir, directory):
        self.bindir = bindir
        self.directory = directory
        self.data = os.path.join(directory, 'data')
        self.postmaster = None

    @classmethod
    def create(cls, bindir, directory, url, settings):
        """Make one with the settings given; it is not started."""
        cluster = cls(bindir, directory)
        os.mkdir(directory)
        cluster.call('initdb', '-D', cluster.data, '-U', 'postgres', '-A', 'trust',
                     '--no-locale', '--encoding=UTF8')
        with open(os.path.join(cluster.data, 'postgresql.conf'), 'a', encoding='utf-8') as conf:
            for name, value in {
                    'listen_addresses': '',
                    'unix_socket_directories': directory,
                    'port': 5432,
                    'postmark_connector.api_url': url,
                    **settings}.items():
                conf.write(f"{name} = '{value}'\n")
        return cluster

    @classmethod
    def standby(cls, primary, directory):
        """Make one that streams from another, which runs; it is not started."""
        cluster = cls(primary.bindir, directory)
        os.mkdir(directory)
        cluster.call('pg_basebackup', '-D', cluster.data, '-c', 'fast', '-R',
                     '-d', primary.database('postgres').dsn)
        with open(os.path.join(cluster.data, 'postgresql.conf'), 'a', encoding='utf-8') as conf:
            conf.write(f"unix_socket_directories = '{directory}'\n")
        return cluster

    def call(self, program, *args):
        done = subprocess.run([os.path.join(self.bindir, program), *args], check=False,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, cwd=self.directory, timeout=180)
        if done.returncode:
            raise RuntimeError(f'{program} failed:\n{done.stdout}')

    def start(self, **settings):
        """Start it, with settings for this time. Returns once it accepts
        connections, with the time (monotonic) when it was started."""
        options = [word for name, value in settings.items() for word in ('-c', f'{name}={value}')]
        with open(os.path.join(self.directory, 'log'), 'a', encoding='utf-8') as log:
            begun = time.monotonic()
            self.postmaster = subprocess.Popen(
                [os.path.join(self.bindir, 'postgres'), '-D', self.data, *options],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.directory)

        def accepts():
            if self.postmaster.poll() is not None:
                raise RuntimeError('the server did not start:\n' + self.log_end())
            try:
                self.database('postgres').connect().close()
            except psycopg2.OperationalError:
                return False
            return True

        until(accepts, pause=0.002, what='a server that accepts connections')
        return begun

    def log_end(self):
        with open(os.path.join(self.directory, 'log'), encoding='utf-8', errors='replace') as file:
            return ''.join(file.readlines()[-20:])

    def stop(self, how=signal.SIGINT):
        """Stop it: SIGINT is a fast shutdown, SIGQUIT an immediate one."""
        self.postmaster.send_signal(how)
        self.postmaster.wait(120)

    def database(self, name):
        return Database(name, self.directory)

    def remove(self):
        if self.postmaster and self.postmaster.poll() is None:
            self.stop(signal.SIGQUIT)
        shutil.rmtree(self.directory)
