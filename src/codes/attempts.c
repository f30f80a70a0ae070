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
 * The table of counters has a fixed size.  Where it is full, nothing can be
 * counted and therefore nothing is answered: that is the safe side.
 *
 * src/codes/attempts.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/shmem.h"
#include "utils/hsearch.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "codes/attempts.h"

/* A full table is searched for counters out of date this often at most, us. */
#define SWEEP_INTERVAL USECS_PER_SEC

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

typedef struct AttemptsShared
{
	uint64		epoch;			/* so many counters were taken away */
	TimestampTz swept_at;
} AttemptsShared;

static AttemptsShared *state = NULL;
static HTAB *table = NULL;
static LWLock *table_lock = NULL;

/* See PmSharedPart. */
Size
pm_attempts_size(void)
{
	return sizeof(AttemptsShared);
}

/* See PmSharedPart. */
Size
pm_attempts_table_size(void)
{
	return hash_estimate_size(PM_ATTEMPTS_MAX, sizeof(AttemptsEntry));
}

/* See PmSharedPart.  The lock protects the table, too. */
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
						  PM_ATTEMPTS_MAX, &info,
						  HASH_ELEM | HASH_BLOBS | HASH_FIXED_SIZE);
	table_lock = lock;
}

static AttemptsEntry *
find(const unsigned char *name, HASHACTION action)
{
	AttemptsKey key;

	memset(&key, 0, sizeof(key));
	key.database = MyDatabaseId;
	memcpy(key.name, name, PM_COUNTER_NAME);
	return hash_search(table, &key, action, NULL);
}

/* Take away a counter, with the lock held. */
static void
take_away(AttemptsEntry *entry)
{
	AttemptsKey key = entry->key;

	hash_search(table, &key, HASH_REMOVE, NULL);
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
	AttemptsEntry *entry = find(counter->name, HASH_FIND);

	if (entry == NULL)
	{
		entry = find(counter->name, HASH_ENTER_NULL);
		if (entry == NULL && sweep(now))
			entry = find(counter->name, HASH_ENTER_NULL);
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
drop_unused(const AttemptsEntry *entry)
{
	if (entry->count == 0 && !entry->stored)
		(void) find(entry->key.name, HASH_REMOVE);
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
		entry = find(c->name, HASH_FIND);
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
		entry = find(counters[i].name, HASH_FIND);
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
			entry = find(counters[i].name, HASH_FIND);
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
		if (entry->key.database != MyDatabaseId)
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
		AttemptsEntry *entry = find(attempts[i].name, HASH_FIND);

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
