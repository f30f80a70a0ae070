/*-------------------------------------------------------------------------
 *
 * attempts.c
 *		Counting failed attempts where no rollback reaches them.
 *
 * An attempt that were counted in a table would be free for whoever rolls
 * back, and a row lock would make every guess wait for the one before.  So
 * attempts are counted in shared memory, and before the guess is compared: one
 * that was not counted is not answered.
 *
 * A counter in shared memory is the truth about it.  The worker stores it
 * behind (code_store.c) and only then takes it away; from then on the table
 * is.  A session that finds no counter reads the table and makes one of what
 * it found, provided that none was taken away meanwhile (the epoch), for what
 * it read might then be out of date.
 *
 * The table of counters has a fixed size.  Where there is no room, nothing can
 * be counted and therefore nothing is answered: that is the safe side.  A
 * database has a share of it, so that guesses in one deny nobody in another.
 *
 * At a clean stop the postmaster writes the counters to a file, as it does with
 * statistics: what the last second of a server brought would else be free.
 *
 * src/codes/attempts.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/stat.h>
#include <unistd.h>

#include "access/xlog.h"
#include "catalog/pg_control.h"
#include "common/controldata_utils.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "port/pg_crc32c.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "codes/attempts.h"

/* Without room, counters out of date are looked for this often at most, us. */
#define SWEEP_INTERVAL USECS_PER_SEC

/*
 * Databases that can have a full share at the same time, if not more of them
 * may have a worker
 */
#define MIN_SHARES	8

/* Databases that can have counters at all */
#define MAX_DATABASES (PM_ATTEMPTS_SHARE * MIN_SHARES / 8)

/* Where the counters are while the server is down */
#define ATTEMPTS_FILE	PGSTAT_STAT_PERMANENT_DIRECTORY "/postmark_connector.attempts"
#define ATTEMPTS_MAGIC	0x504D4101

typedef struct AttemptsKey
{
	Oid			database;
	unsigned char name[PM_COUNTER_NAME];
	unsigned char padding[3];
} AttemptsKey;

typedef struct AttemptsEntry
{
	AttemptsKey key;			/* hash key, must be first */
	int			count;
	TimestampTz since;			/* first attempt */
	TimestampTz until;			/* counts for nothing from then on */
	bool		stored;			/* the table has, or may have, this one */
} AttemptsEntry;

/* So many counters a database has. */
typedef struct ShareEntry
{
	Oid			database;		/* hash key, must be first */
	int			used;
} ShareEntry;

/* The file: this, "n" entries, and the checksum of both */
typedef struct AttemptsFile
{
	uint32		magic;
	uint32		entry_size;
	int32		n;
} AttemptsFile;

typedef struct AttemptsShared
{
	uint64		epoch;			/* so many counters were taken away */
	TimestampTz swept_at;
} AttemptsShared;

static AttemptsShared *state = NULL;
static HTAB *table = NULL;
static HTAB *shares = NULL;
static LWLock *table_lock = NULL;

static void write_file(int code, Datum arg);
static void read_file(void);

/* See PmSharedPart. */
Size
pm_attempts_size(void)
{
	return sizeof(AttemptsShared);
}

static int
table_max(void)
{
	return PM_ATTEMPTS_SHARE * Max(MIN_SHARES, max_worker_processes);
}

/* See PmSharedPart. */
Size
pm_attempts_table_size(void)
{
	return add_size(hash_estimate_size(table_max(), sizeof(AttemptsEntry)),
					hash_estimate_size(MAX_DATABASES, sizeof(ShareEntry)));
}

/* See PmSharedPart.  The lock protects the tables, too. */
void
pm_attempts_init(void *place, LWLock *lock, bool found)
{
	HASHCTL		info;

	state = place;
	if (!found)
		memset(state, 0, sizeof(AttemptsShared));

	memset(&info, 0, sizeof(info));
	info.keysize = sizeof(AttemptsKey);
	info.entrysize = sizeof(AttemptsEntry);
	table = ShmemInitHash("postmark_connector attempts table",
						  table_max(), &info,
						  HASH_ELEM | HASH_BLOBS | HASH_FIXED_SIZE);
	info.keysize = sizeof(Oid);
	info.entrysize = sizeof(ShareEntry);
	shares = ShmemInitHash("postmark_connector attempts shares",
						   MAX_DATABASES, &info,
						   HASH_ELEM | HASH_BLOBS | HASH_FIXED_SIZE);
	table_lock = lock;

	if (!IsUnderPostmaster)
		on_shmem_exit(write_file, (Datum) 0);
	if (!found)
		read_file();
}

static void
init_key(AttemptsKey *key, Oid database, const unsigned char *name)
{
	memset(key, 0, sizeof(*key));
	key->database = database;
	memcpy(key->name, name, PM_COUNTER_NAME);
}

static AttemptsEntry *
find(const unsigned char *name)
{
	AttemptsKey key;

	init_key(&key, MyDatabaseId, name);
	return hash_search(table, &key, HASH_FIND, NULL);
}

/* How many counters a database has */
static int
share_used(Oid database)
{
	ShareEntry *share = hash_search(shares, &database, HASH_FIND, NULL);

	return share ? share->used : 0;
}

/*
 * Make a counter that is not there yet, of which the caller sets all but the
 * key; NULL if there is no room.
 */
static AttemptsEntry *
make(const AttemptsKey *key)
{
	ShareEntry *share;
	AttemptsEntry *entry;
	bool		found;

	if (share_used(key->database) >= PM_ATTEMPTS_SHARE)
		return NULL;
	share = hash_search(shares, &key->database, HASH_ENTER_NULL, &found);
	if (share == NULL)
		return NULL;
	if (!found)
		share->used = 0;
	entry = hash_search(table, key, HASH_ENTER_NULL, NULL);
	if (entry)
		share->used++;
	else if (share->used == 0)
		(void) hash_search(shares, &key->database, HASH_REMOVE, NULL);
	return entry;
}

/* Take a counter out of the table. */
static void
drop(AttemptsEntry *entry)
{
	AttemptsKey key = entry->key;
	ShareEntry *share = hash_search(shares, &key.database, HASH_FIND, NULL);

	(void) hash_search(table, &key, HASH_REMOVE, NULL);
	if (share && --share->used == 0)
		(void) hash_search(shares, &key.database, HASH_REMOVE, NULL);
}

/* Take away a counter that the table may have, with the lock held. */
static void
take_away(AttemptsEntry *entry)
{
	drop(entry);
	state->epoch++;
}

/*
 * Take away the counters, of any database, that count for nothing any more:
 * of codes long expired and windows gone by.  The worker does that as it
 * stores them; this is for where there is none.
 */
static bool
sweep(TimestampTz now)
{
	HASH_SEQ_STATUS scan;
	AttemptsEntry *entry;
	bool		any = false;

	if (now < state->swept_at + SWEEP_INTERVAL && now >= state->swept_at)
		return false;
	state->swept_at = now;
	hash_seq_init(&scan, table);
	while ((entry = hash_seq_search(&scan)) != NULL)
		if (entry->until <= now)
		{
			take_away(entry);
			any = true;
		}
	return any;
}

/*
 * Find a counter or make one of what is stored; NULL if there is no room.  A
 * window that has gone by begins anew, so that the sweep for another counter's
 * sake cannot take this one away.
 */
static AttemptsEntry *
find_or_make(const PmCounter *counter, TimestampTz now)
{
	AttemptsEntry *entry = find(counter->name);

	if (entry == NULL)
	{
		AttemptsKey key;

		init_key(&key, MyDatabaseId, counter->name);
		entry = make(&key);
		if (entry == NULL && sweep(now))
			entry = make(&key);
		if (entry == NULL)
			return NULL;
		entry->count = counter->stored;
		entry->since = counter->stored > 0 ? counter->stored_since : now;
		entry->stored = counter->stored > 0;
	}
	entry->until = counter->until;
	if (counter->window > 0)
	{
		if (now >= entry->since + counter->window)
		{
			entry->count = 0;
			entry->since = now;
		}
		entry->until = entry->since + counter->window;
	}
	return entry;
}

/*
 * Take away a counter that is as if it had never been, with the lock held.
 * That needs no new epoch: the table has none, and who read that read the
 * truth.
 */
static void
drop_unused(AttemptsEntry *entry)
{
	if (entry->count == 0 && !entry->stored)
		drop(entry);
}

/* How many attempts a counter has that still count. */
static int
current_count(int count, TimestampTz since, const PmCounter *counter,
			  TimestampTz now)
{
	if (counter->window > 0 && now >= since + counter->window)
		return 0;
	return count;
}

/* For pm_attempts_reserve: what it was when the stored counters were read */
uint64
pm_attempts_epoch(void)
{
	uint64		epoch;

	LWLockAcquire(table_lock, LW_SHARED);
	epoch = state->epoch;
	LWLockRelease(table_lock);
	return epoch;
}

/*
 * Count an attempt with each of the counters, or with none of them.
 *
 * epoch: pm_attempts_epoch() of before "stored" and "stored_since" were read
 *
 * PM_NOT_LOADED: they have to be read again; *epoch is set for that.
 */
PmReservation
pm_attempts_reserve(PmCounter *counters, int n, uint64 *epoch)
{
	TimestampTz now = GetCurrentTimestamp();
	PmReservation result = PM_RESERVED;
	int			i;

	LWLockAcquire(table_lock, LW_EXCLUSIVE);
	for (i = 0; i < n && result == PM_RESERVED; i++)
	{
		PmCounter  *c = &counters[i];
		AttemptsEntry *entry;
		int			count;

		if (c->limit == 0)
			continue;
		entry = find(c->name);
		if (entry == NULL && state->epoch != *epoch)
			result = PM_NOT_LOADED;
		else
		{
			count = entry ? current_count(entry->count, entry->since, c, now)
				: current_count(c->stored, c->stored_since, c, now);
			if (count >= c->limit)
				result = PM_LIMIT_REACHED;
		}
	}
	*epoch = state->epoch;

	for (i = 0; i < n && result == PM_RESERVED; i++)
		if (counters[i].limit > 0 && find_or_make(&counters[i], now) == NULL)
			result = PM_LIMIT_REACHED;

	/* Count with all of them, or let go of those that were made in vain. */
	for (i = 0; i < n; i++)
	{
		AttemptsEntry *entry;

		if (counters[i].limit == 0)
			continue;
		entry = find(counters[i].name);
		if (entry && result == PM_RESERVED)
			entry->count++;
		else if (entry)
			drop_unused(entry);
		else if (result == PM_RESERVED)
			result = PM_LIMIT_REACHED;	/* what is not counted has no answer */
	}
	LWLockRelease(table_lock);
	return result;
}

/*
 * The attempt did not fail after all.  Returns whether the worker has to store
 * that.
 */
bool
pm_attempts_give_back(PmCounter *counters, int n)
{
	bool		to_store = false;
	int			i;

	LWLockAcquire(table_lock, LW_EXCLUSIVE);
	for (i = 0; i < n; i++)
	{
		AttemptsEntry *entry = NULL;

		if (counters[i].limit > 0)
			entry = find(counters[i].name);
		if (entry == NULL || entry->count == 0)
			continue;
		entry->count--;

		if (entry->stored)
			to_store = true;
		drop_unused(entry);
	}
	LWLockRelease(table_lock);
	return to_store;
}

/* Whether this database's counters should be stored without delay. */
bool
pm_attempts_pressing(void)
{
	bool		pressing;

	LWLockAcquire(table_lock, LW_SHARED);
	pressing = share_used(MyDatabaseId) > PM_ATTEMPTS_SHARE / 2;
	LWLockRelease(table_lock);
	return pressing;
}

/*
 * Copy at most "max" of this database's counters, to be stored.  Those that
 * count for nothing any more are taken away instead.
 */
int
pm_attempts_collect(PmAttempts *attempts, int max)
{
	TimestampTz now = GetCurrentTimestamp();
	HASH_SEQ_STATUS scan;
	AttemptsEntry *entry;
	int			n = 0;

	LWLockAcquire(table_lock, LW_EXCLUSIVE);
	hash_seq_init(&scan, table);
	while ((entry = hash_seq_search(&scan)) != NULL)
	{
		if (entry->key.database != MyDatabaseId ||
			entry->key.name[0] == PM_COUNTER_NONE)
			continue;
		if (entry->until <= now)
		{
			take_away(entry);
			continue;
		}
		if (n == max)
		{
			hash_seq_term(&scan);
			break;
		}

		/* Of a clock that was set back since: it counts as now */
		entry->since = Min(entry->since, now);
		memcpy(attempts[n].name, entry->key.name, PM_COUNTER_NAME);
		attempts[n].count = entry->count;
		attempts[n].since = entry->since;
		attempts[n].until = entry->until;
		entry->stored = true;
		n++;
	}
	LWLockRelease(table_lock);
	return n;
}

/*
 * The counters are stored, and committed: take those away that have not moved
 * since.  Returns whether all are gone.
 */
bool
pm_attempts_stored(const PmAttempts *attempts, int n)
{
	bool		all = true;
	int			i;

	LWLockAcquire(table_lock, LW_EXCLUSIVE);
	for (i = 0; i < n; i++)
	{
		AttemptsEntry *entry = find(attempts[i].name);

		if (entry == NULL)
			continue;
		if (entry->count == attempts[i].count &&
			entry->since == attempts[i].since)
			take_away(entry);
		else
			all = false;
	}
	LWLockRelease(table_lock);
	return all;
}

/*
 * Take away a counter of this database, at once, whatever becomes of the
 * transaction.  The caller holds a lock on postmark_attempts that keeps the
 * worker from storing it meanwhile.
 *
 * name: PM_COUNTER_NAME bytes
 *
 * Returns whether there was one.
 */
bool
pm_attempts_remove(const unsigned char *name)
{
	AttemptsEntry *entry;

	if (table == NULL)
		return false;
	LWLockAcquire(table_lock, LW_EXCLUSIVE);
	entry = find(name);
	if (entry)
		take_away(entry);
	LWLockRelease(table_lock);
	return entry != NULL;
}

/*
 * A database is no more, or its extension with all codes: neither has use for
 * its counters.  Nothing to do without preload.
 */
void
pm_attempts_forget(Oid database)
{
	HASH_SEQ_STATUS scan;
	AttemptsEntry *entry;

	if (table == NULL)
		return;
	LWLockAcquire(table_lock, LW_EXCLUSIVE);
	if (share_used(database) > 0)
	{
		hash_seq_init(&scan, table);
		while ((entry = hash_seq_search(&scan)) != NULL)
			if (entry->key.database == database)
				take_away(entry);
	}
	LWLockRelease(table_lock);
}

/* ----------
 * The file
 * ----------
 */

static void
file_failed(const char *what)
{
	ereport(LOG,
			(errcode_for_file_access(),
			 errmsg("postmark_connector could not %s file \"%s\": %m",
					what, ATTEMPTS_FILE)));
}

/*
 * Whether the server has stopped as it should.  Processes that were broken off
 * may have left anything in shared memory.
 */
static bool
stopped_cleanly(void)
{
	bool		valid;
	ControlFileData *control = get_controlfile(DataDir, &valid);

	return valid && (control->state == DB_SHUTDOWNED ||
					 control->state == DB_SHUTDOWNED_IN_RECOVERY);
}

/* Write all counters, at the end of the server. */
static void
write_file(int code, Datum arg)
{
	AttemptsFile header = {ATTEMPTS_MAGIC, sizeof(AttemptsEntry), 0};
	HASH_SEQ_STATUS scan;
	AttemptsEntry *entry;
	pg_crc32c	crc;
	FILE	   *file;
	bool		ok;

	if (code != 0 || !stopped_cleanly())
		return;
	header.n = hash_get_num_entries(table);
	if (header.n == 0)
		return;

	file = AllocateFile(ATTEMPTS_FILE ".tmp", PG_BINARY_W);
	if (file == NULL)
	{
		file_failed("create");
		return;
	}
	INIT_CRC32C(crc);
	COMP_CRC32C(crc, &header, sizeof(header));
	ok = fwrite(&header, sizeof(header), 1, file) == 1;
	hash_seq_init(&scan, table);
	while ((entry = hash_seq_search(&scan)) != NULL)
	{
		COMP_CRC32C(crc, entry, sizeof(*entry));
		ok = ok && fwrite(entry, sizeof(*entry), 1, file) == 1;
	}
	FIN_CRC32C(crc);
	ok = ok && fwrite(&crc, sizeof(crc), 1, file) == 1;
	if (!ok)
		file_failed("write");
	if (FreeFile(file) != 0 && ok)
	{
		ok = false;
		file_failed("write");
	}
	if (ok)
		(void) durable_rename(ATTEMPTS_FILE ".tmp", ATTEMPTS_FILE, LOG);
	else
		unlink(ATTEMPTS_FILE ".tmp");
}

/* Whether the server begins with recovery: as a standby, or of a backup. */
static bool
begins_with_recovery(void)
{
	struct stat st;

	return stat(STANDBY_SIGNAL_FILE, &st) == 0 ||
		stat(RECOVERY_SIGNAL_FILE, &st) == 0;
}

/*
 * Read the counters from an open file.  False if they are not as they were
 * written.
 */
static bool
read_entries(FILE *file, AttemptsFile *header, AttemptsEntry **entries)
{
	pg_crc32c	crc;
	pg_crc32c	written;

	if (fread(header, sizeof(*header), 1, file) != 1 ||
		header->magic != ATTEMPTS_MAGIC ||
		header->entry_size != sizeof(AttemptsEntry) ||
		header->n <= 0 || header->n > MaxAllocSize / sizeof(AttemptsEntry))
		return false;
	*entries = palloc_extended(sizeof(AttemptsEntry) * header->n,
							   MCXT_ALLOC_NO_OOM);
	if (*entries == NULL ||
		fread(*entries, sizeof(AttemptsEntry), header->n, file) != header->n ||
		fread(&written, sizeof(written), 1, file) != 1)
		return false;
	INIT_CRC32C(crc);
	COMP_CRC32C(crc, header, sizeof(*header));
	COMP_CRC32C(crc, *entries, sizeof(AttemptsEntry) * header->n);
	FIN_CRC32C(crc);
	return EQ_CRC32C(crc, written);
}

/*
 * Take over the counters of before the server's stop.  The file goes first, so
 * that it is never read twice: after a crash the tables are newer.  So they may
 * be on a server that has been a standby in between.
 */
static void
read_file(void)
{
	AttemptsFile header;
	AttemptsEntry *entries = NULL;
	FILE	   *file = AllocateFile(ATTEMPTS_FILE, PG_BINARY_R);
	bool		ok;
	int			i;

	if (file == NULL)
	{
		if (errno != ENOENT)
			file_failed("read");
		return;
	}
	ok = read_entries(file, &header, &entries);
	FreeFile(file);
	if (!ok)
		ereport(LOG,
				(errmsg("postmark_connector ignores file \"%s\", which is damaged or of another version",
						ATTEMPTS_FILE)));
	if (durable_unlink(ATTEMPTS_FILE, LOG) == 0 && ok &&
		!begins_with_recovery())
		for (i = 0; i < header.n; i++)
		{
			AttemptsEntry *entry = make(&entries[i].key);

			if (entry)
				*entry = entries[i];
		}
	if (entries)
		pfree(entries);
}
