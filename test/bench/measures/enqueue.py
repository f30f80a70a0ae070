"""enqueue.py: what queueing costs, beside what one would write by hand.

Two of everything stand in one database: postmark_queue, and tables without
any code of ours. Nobody reads those; so that the queue is like them, its
connector is paused, unless a measure says that the worker drains.

Each run starts with empty tables and just after a checkpoint, so that neither
a checkpoint nor the size that the run before left behind falls on one of a
pair; for the same reason autovacuum is off. What each run says it has done is
counted in the table afterwards.
"""

import io
import statistics
import time

from harness import measure
from measures.pgbench import pgbench
from measures.queue import Queue

# A ratio near one takes more pairs than one of two or twenty.
LEAST_PAIRS = 9

ADDRESS = "'user' || :n || '@example.com'"
NUMBERED = "\\set n random(1, 1000000000)\n"

# A table that is as wide, and as indexed, as postmark_queue. What our trigger
# fills in are defaults here, so that the same statement makes the same row.
PLAIN_QUEUE = """
    CREATE TABLE plain (LIKE postmark_queue INCLUDING DEFAULTS INCLUDING INDEXES);
    CREATE SEQUENCE plain_id;
    ALTER TABLE plain
        ALTER lane SET DEFAULT 14,
        ALTER id SET DEFAULT nextval('plain_id'),
        ALTER created_at SET DEFAULT now(),
        ALTER expires_at SET DEFAULT now() + interval '10 minutes',
        ALTER connector SET DEFAULT 'default';
"""

# A sign-up table three times: with our trigger, with the one that everybody
# writes, with none.
SIGNUP = """
    CREATE TABLE users_ours (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        email text NOT NULL,
        code text,
        created_at timestamptz NOT NULL DEFAULT now()
    );
    CREATE TABLE users_outbox (LIKE users_ours INCLUDING ALL);
    CREATE TABLE users_alone (LIKE users_ours INCLUDING ALL);

    CREATE TRIGGER signup_mail AFTER INSERT ON users_ours
        FOR EACH ROW EXECUTE FUNCTION postmark_enqueue_trigger('email', 'Register', 'code');

    CREATE TABLE outbox (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        email text NOT NULL,
        usage_type text NOT NULL,
        code text,
        created_at timestamptz NOT NULL DEFAULT now()
    );
    CREATE FUNCTION queue_mail() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO outbox (email, usage_type, code) VALUES (NEW.email, 'Register', NEW.code);
        RETURN NULL;
    END $$;
    CREATE TRIGGER signup_mail AFTER INSERT ON users_outbox
        FOR EACH ROW EXECUTE FUNCTION queue_mail();
"""


def tables(bench, name, ddl):
    """A database with the extension and the tables given, its connector
    paused, autovacuum off."""
    bench.setting(autovacuum='off')
    database = bench.database(name)
    database.run('SELECT postmark_pause()')
    database.run(ddl)
    return database


def pairs(bench):
    return bench.pairs if bench.quick else max(bench.pairs, LEAST_PAIRS)


def seconds(bench):
    """How long a run of pgbench's takes."""
    return max(1, bench.size(3))


def fresh(database, *names):
    """Empty the tables that a run is about to fill."""
    database.run('TRUNCATE ' + ', '.join(names))
    database.run('CHECKPOINT')


def expect(database, table, count):
    """Nothing is a result unless it did what it was timed for."""
    [(found,)] = database.run(f'SELECT count(*) FROM {table}')
    if found != count:
        raise RuntimeError(f'{found} rows in {table} instead of {count}')


def run_pgbench(bench, database, script, into, empty=(), **how):
    """One run of pgbench's that makes a row of the table "into" each time."""
    fresh(database, into, *empty)
    run = pgbench(bench, database, script, **how)
    expect(database, into, run.transactions)
    return run


# ----------------------------------------------------------------------
# Sign-up
# ----------------------------------------------------------------------

def signup(bench, database, table, into, clients):
    """Sign-ups a second, with the connector paused."""
    script = NUMBERED + f"INSERT INTO {table} (email, code) VALUES ({ADDRESS}, '493021');\n"
    return run_pgbench(bench, database, script, into, [table] if into != table else [],
                       clients=clients, seconds=seconds(bench)).tps


def signup_drained(bench, database, clients):
    """The same while the worker sends what was queued."""
    queue = Queue(bench, database)
    bench.postmark.reset()
    queue.empty()
    fresh(database, 'users_ours')
    queue.resume()
    script = NUMBERED + f"INSERT INTO users_ours (email, code) VALUES ({ADDRESS}, '493021');\n"
    run = pgbench(bench, database, script, clients=clients, seconds=seconds(bench))
    queue.wait(run.transactions)
    queue.check(run.transactions)
    queue.pause()
    return run.tps


@measure('signup', 'sign-ups a second with our trigger, beside a PL/pgSQL trigger into an outbox table', order=50)
def measure_signup(bench):
    database = tables(bench, 'signup', SIGNUP)
    for clients in (1, 16):
        results = bench.interleave(
            rounds=pairs(bench),
            ours=lambda n=clients: signup(bench, database, 'users_ours', 'postmark_queue', n),
            outbox=lambda n=clients: signup(bench, database, 'users_outbox', 'outbox', n),
            alone=lambda n=clients: signup(bench, database, 'users_alone', 'users_alone', n),
            drained=lambda n=clients: signup_drained(bench, database, n))
        who = '1 client' if clients == 1 else f'{clients} clients'
        bench.report(f'signup_{clients}', f'signup INSERT with trigger, {who}',
                     results['ours'], results['outbox'], 'PL/pgSQL trigger, outbox table',
                     unit='tps', better='higher', target=1.0,
                     note='connector paused, since nobody drains the outbox either')
        bench.report(f'signup_{clients}_drained', f'the same while the worker drains, {who}',
                     results['drained'], results['outbox'], 'PL/pgSQL trigger, outbox table',
                     unit='tps', better='higher',
                     note='the outbox is not drained by anybody')
        bench.report(f'signup_{clients}_alone', f'the same against no trigger, {who}',
                     results['ours'], results['alone'], 'no trigger',
                     unit='tps', better='higher')


# ----------------------------------------------------------------------
# postmark_enqueue
# ----------------------------------------------------------------------

CALL = NUMBERED + f"SELECT postmark_enqueue({ADDRESS}, 'Register', '493021');\n"
BARE = NUMBERED + f"INSERT INTO plain (email, usage_type, code) VALUES ({ADDRESS}, 'Register', '493021');\n"

# Statements that one transaction runs, without a client between them
CALLS = """
    DO $$ BEGIN
        FOR n IN 1..%d LOOP
            PERFORM postmark_enqueue('user' || n || '@example.com', 'Register', '493021');
        END LOOP;
    END $$
"""
INSERTS = """
    DO $$ BEGIN
        FOR n IN 1..%d LOOP
            INSERT INTO plain (email, usage_type, code) VALUES ('user' || n || '@example.com', 'Register', '493021');
        END LOOP;
    END $$
"""


def timed(database, statement, into, count):
    """Seconds that one statement takes, COMMIT included, on empty tables."""
    fresh(database, into)
    begun = time.perf_counter()
    database.run(statement)
    took = time.perf_counter() - begun
    expect(database, into, count)
    return took


@measure('enqueue', 'calls of postmark_enqueue a second, beside bare INSERTs', order=51)
def measure_enqueue(bench):
    database = tables(bench, 'enqueue', PLAIN_QUEUE)
    for durable in (True, False):
        def own_commits(script, into, durable=durable):
            return run_pgbench(bench, database, script, into, seconds=seconds(bench),
                               synchronous_commit=durable).tps

        results = bench.interleave(
            rounds=pairs(bench),
            ours=lambda: own_commits(CALL, 'postmark_queue'),
            bare=lambda: own_commits(BARE, 'plain'))
        how = 'own commit each' if durable else 'the same, synchronous_commit off'
        bench.report('enqueue' if durable else 'enqueue_async',
                     f'postmark_enqueue, 1 client, {how}',
                     results['ours'], results['bare'], 'bare INSERT',
                     unit='tps', better='higher', target=0.9 if durable else None,
                     note='connector paused' if durable else
                     'what waiting for the disk hides')

    count = bench.size(10000)
    results = bench.interleave(
        rounds=pairs(bench),
        ours=lambda: timed(database, CALLS % count, 'postmark_queue', count) / count * 1e6,
        bare=lambda: timed(database, INSERTS % count, 'plain', count) / count * 1e6)
    bench.report('enqueue_call', f'postmark_enqueue, {count} calls in one transaction',
                 results['ours'], results['bare'], 'bare INSERT',
                 unit='us a call', better='lower')


# ----------------------------------------------------------------------
# Bulk
# ----------------------------------------------------------------------

BULK = """
    INSERT INTO {} (email, usage_type, code)
    SELECT 'user' || n || '@example.com', 'Register', '493021' FROM generate_series(1, {}) n
"""


def copied(database, into, data, count):
    """Rows a second by COPY from a client."""
    fresh(database, into)
    connection = database.connect()
    try:
        with connection.cursor() as cursor:
            begun = time.perf_counter()
            cursor.copy_expert(f'COPY {into} (email, usage_type, code) FROM STDIN', io.StringIO(data))
            took = time.perf_counter() - begun
    finally:
        connection.close()
    expect(database, into, count)
    return count / took


@measure('bulk', 'INSERT ... SELECT and COPY into postmark_queue, beside a plain table', order=52)
def measure_bulk(bench):
    count = bench.size(100000)
    data = ''.join(f'user{n}@example.com\tRegister\t493021\n' for n in range(1, count + 1))
    database = tables(bench, 'bulk', PLAIN_QUEUE)
    results = bench.interleave(
        rounds=pairs(bench),
        ours=lambda: count / timed(database, BULK.format('postmark_queue', count), 'postmark_queue', count),
        bare=lambda: count / timed(database, BULK.format('plain', count), 'plain', count),
        our_copy=lambda: copied(database, 'postmark_queue', data, count),
        bare_copy=lambda: copied(database, 'plain', data, count))
    bench.report('bulk', f'INSERT ... SELECT of {count} into postmark_queue',
                 results['ours'], results['bare'], 'plain table, same columns and key',
                 unit='rows/s', better='higher', target=0.7)
    bench.report('bulk_copy', f'COPY of {count} into postmark_queue',
                 results['our_copy'], results['bare_copy'], 'plain table, same columns and key',
                 unit='rows/s', better='higher')


# ----------------------------------------------------------------------
# A long session
# ----------------------------------------------------------------------

# The session's first transactions fill its caches.
WARM_UP = 200
STRETCH = 1000

# The loop runs in the server. A client between the transactions takes longer
# than they do, and twice as long at one time as at another, as the kernel has
# it on this core or on that one.
TRANSACTIONS = """
    DO $$
    DECLARE
        at timestamptz[];
    BEGIN
        FOR n IN 0..{count} LOOP
            at[n] := clock_timestamp();
            {statement};
            COMMIT;
        END LOOP;
        INSERT INTO took SELECT n, extract(epoch FROM at[n] - at[n - 1]) * 1e6
            FROM generate_series(1, {count}) n;
    END $$
"""
SESSION_CALL = "PERFORM postmark_enqueue('user' || n || '@example.com', 'Register', '493021')"
SESSION_BARE = """INSERT INTO plain (email, usage_type, code)
    VALUES ('user' || n || '@example.com', 'Register', '493021')"""


def usual(times):
    """The mean of all but the slowest tenth: those that somebody else, a
    checkpoint or the machine, has held up."""
    return statistics.mean(sorted(times)[:len(times) * 9 // 10])


def stretches(bench, database, statement, into, count):
    """What a transaction takes, in us, after the warm-up and at the end of a
    session."""
    fresh(database, into, 'took')
    database.close()                    # a session of its own
    database.run(TRANSACTIONS.format(count=count, statement=statement))
    expect(database, into, count + 1)
    times = [float(us) for us, in database.run('SELECT us FROM took ORDER BY n')]
    return usual(times[WARM_UP:WARM_UP + STRETCH]), usual(times[-STRETCH:])


@measure('session', 'enqueueing transactions in one long session: the last as fast as the first', order=53)
def measure_session(bench):
    count = bench.size(60000)
    database = tables(bench, 'session', PLAIN_QUEUE + 'CREATE TABLE took (n integer, us float8);')
    # The disk would be most of what is measured; and with commits that do not
    # wait for it, waking the WAL writer would be.
    bench.setting(fsync='off')
    runs = {'postmark_queue': [], 'plain': []}
    for into, statement in (('postmark_queue', SESSION_CALL), ('plain', SESSION_BARE)) * pairs(bench):
        runs[into].append(stretches(bench, database, statement, into, count))
    ours, plain = (list(zip(*runs[into])) for into in ('postmark_queue', 'plain'))
    bench.report('session', f'{count} enqueueing transactions, the last {STRETCH}',
                 ours[1], ours[0], f'transactions {WARM_UP} to {WARM_UP + STRETCH}',
                 unit='us', better='lower', target=1.1,
                 note='in a loop in the server, fsync off; means without the slowest tenth. 1.1 is what the '
                 'index, which grows by a level or two, and the machine leave uncertain')
    bench.report('session_bare', 'the same of bare INSERTs into a plain table',
                 plain[1], plain[0], f'transactions {WARM_UP} to {WARM_UP + STRETCH}',
                 unit='us', better='lower')
