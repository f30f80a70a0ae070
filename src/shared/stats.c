/*-------------------------------------------------------------------------
 *
 * stats.c
 *		What happened, counted in shared memory.
 *
 * Counting must cost next to nothing where messages are queued and sent, so
 * there are no locks: the counters are atomic, and whoever counts keeps a
 * pointer to those of its connector.  They outlive a worker, and not the
 * server.
 *
 * What a transaction does is counted when it commits, so that the counters
 * agree with the tables: it is noted in the transaction's memory, and handed
 * over by a callback that raises no error and allocates nothing.
 *
 * src/shared/stats.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "port/pg_bitutils.h"
#include "utils/float.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "shared/stats.h"

const char *const pm_metric_names[PM_METRICS] = {
	[PM_COUNT_QUEUED] = "queued",
	[PM_COUNT_SENT] = "sent",
	[PM_COUNT_FAILED] = "failed",
	[PM_COUNT_EXPIRED] = "expired",
	[PM_COUNT_CANCELLED] = "cancelled",
	[PM_COUNT_SUPPRESSED] = "suppressed",
	[PM_COUNT_DELIVERED] = "delivered",
	[PM_COUNT_BOUNCED] = "bounced",
	[PM_COUNT_COMPLAINED] = "complained",
	[PM_COUNT_RETRIED] = "retried",
	[PM_COUNT_IN_DOUBT] = "in_doubt",
	[PM_COUNT_FOUND_AGAIN] = "found_again",
	[PM_COUNT_REQUESTS] = "requests",
	[PM_COUNT_NO_ANSWER] = "requests_without_answer",
	[PM_COUNT_ANSWERS_2XX] = "answers_2xx",
	[PM_COUNT_ANSWERS_3XX] = "answers_3xx",
	[PM_COUNT_ANSWERS_4XX] = "answers_4xx",
	[PM_COUNT_ANSWERS_5XX] = "answers_5xx",
	[PM_COUNT_BYTES_SENT] = "bytes_sent",
	[PM_COUNT_BYTES_RECEIVED] = "bytes_received",
	[PM_COUNT_EVENTS] = "events",
	[PM_COUNT_EVENTS_REFUSED] = "events_refused",
	[PM_COUNT_WRONG_GUESSES] = "wrong_guesses",
};

const char *const pm_timing_names[PM_TIMINGS] = {
	[PM_COMMIT_TO_REQUEST] = "commit_to_request",
	[PM_REQUEST_TO_ANSWER] = "request_to_answer",
};

typedef struct StatsShared
{
	int			nused;			/* entries above are free; see lock */
	PmStats		entries[PM_STATS_CONNECTORS];
} StatsShared;

/* What the current transaction's commit is to count */
typedef struct Note
{
	PmStats    *stats;
	PmMetric	metric;
	int			level;			/* of the subtransaction */
	uint64		n;
} Note;

static StatsShared *shared = NULL;
static LWLock *shared_lock = NULL;

static Note *notes = NULL;		/* in TopTransactionContext */
static int	nnotes = 0;
static int	max_notes = 0;

/* See PmSharedPart. */
Size
pm_stats_size(void)
{
	return sizeof(StatsShared);
}

static void
clear(PmStats *stats)
{
	int			i;
	int			b;

	for (i = 0; i < PM_METRICS; i++)
		pg_atomic_write_u64(&stats->count[i], 0);
	for (i = 0; i < PM_TIMINGS; i++)
	{
		for (b = 0; b < PM_BUCKETS; b++)
			pg_atomic_write_u64(&stats->bucket[i][b], 0);
		pg_atomic_write_u64(&stats->total_us[i], 0);
	}
	for (i = 0; i < PM_STATS_MARKS; i++)
		pg_atomic_write_u64(&stats->mark[i].minute, 0);
	stats->since = GetCurrentTimestamp();
}

/* See PmSharedPart. */
void
pm_stats_init(void *place, LWLock *lock, bool found)
{
	int			e;
	int			i;
	int			b;

	shared = place;
	shared_lock = lock;
	if (found)
		return;
	shared->nused = 0;
	for (e = 0; e < PM_STATS_CONNECTORS; e++)
	{
		PmStats    *stats = &shared->entries[e];

		stats->database = InvalidOid;
		for (i = 0; i < PM_METRICS; i++)
			pg_atomic_init_u64(&stats->count[i], 0);
		for (i = 0; i < PM_TIMINGS; i++)
		{
			for (b = 0; b < PM_BUCKETS; b++)
				pg_atomic_init_u64(&stats->bucket[i][b], 0);
			pg_atomic_init_u64(&stats->total_us[i], 0);
		}
		for (i = 0; i < PM_STATS_MARKS; i++)
		{
			pg_atomic_init_u64(&stats->mark[i].minute, 0);
			for (b = 0; b < PM_BUCKETS; b++)
				pg_atomic_init_u64(&stats->mark[i].bucket[b], 0);
		}
		pg_atomic_init_u64(&stats->next_attempt, 0);
	}
}

/* The counters of a connector of this database; the caller has the lock. */
static PmStats *
find(int number)
{
	int			i;

	for (i = 0; i < shared->nused; i++)
		if (shared->entries[i].database == MyDatabaseId &&
			shared->entries[i].number == number)
			return &shared->entries[i];
	return NULL;
}

/* Take a free entry, or NULL; the caller has the lock alone. */
static PmStats *
take(int number)
{
	PmStats    *stats;
	int			i;

	for (i = 0; i < shared->nused; i++)
		if (!OidIsValid(shared->entries[i].database))
			break;
	if (i == PM_STATS_CONNECTORS)
		return NULL;
	shared->nused = Max(shared->nused, i + 1);
	stats = &shared->entries[i];
	stats->database = MyDatabaseId;
	stats->number = number;
	stats->name[0] = '\0';
	return stats;
}

/*
 * pm_stats_of
 *		The counters of a connector of this database, by its number and name.
 *
 * They begin at zero where the number was another connector's.  NULL if the
 * library was not preloaded, or if there is no room: then nothing is counted.
 * What is returned stays where it is as long as the database is there.
 */
PmStats *
pm_stats_of(int number, const char *name)
{
	static PmStats *last = NULL;
	PmStats    *stats;

	if (shared == NULL)
		return NULL;
	if (last && last->number == number && last->database == MyDatabaseId &&
		strcmp(last->name, name) == 0)
		return last;

	LWLockAcquire(shared_lock, LW_SHARED);
	stats = find(number);
	if (stats && strcmp(stats->name, name) != 0)
		stats = NULL;
	LWLockRelease(shared_lock);
	if (stats == NULL)
	{
		LWLockAcquire(shared_lock, LW_EXCLUSIVE);
		stats = find(number);
		if (stats == NULL)
			stats = take(number);
		if (stats && strcmp(stats->name, name) != 0)
		{
			clear(stats);
			stats->state[0] = '\0';
			pg_atomic_write_u64(&stats->next_attempt, 0);
			strlcpy(stats->name, name, NAMEDATALEN);
		}
		LWLockRelease(shared_lock);
	}
	last = stats;
	return stats;
}

/* Count something now, whatever becomes of a transaction.  stats may be NULL. */
void
pm_stats_add(PmStats *stats, PmMetric metric, uint64 n)
{
	if (stats)
		pg_atomic_fetch_add_u64(&stats->count[metric], n);
}

/*
 * Add how long something took to what is to be counted by pm_stats_times: an
 * atomic addition for each of many would cost more than all else here.
 */
void
pm_times_add(PmTimes *times, int64 us)
{
	uint64		took = us > 0 ? (uint64) us : 0;
	int			b = took == 0 ? 0 : pg_leftmost_one_pos64(took) + 1;

	times->bucket[Min(b, PM_BUCKETS - 1)]++;
	times->total_us += took;
}

/* Count how long things took.  stats may be NULL. */
void
pm_stats_times(PmStats *stats, PmTiming timing, const PmTimes *times)
{
	int			b;

	if (stats == NULL)
		return;
	for (b = 0; b < PM_BUCKETS; b++)
		if (times->bucket[b] > 0)
			pg_atomic_fetch_add_u64(&stats->bucket[timing][b],
									times->bucket[b]);
	pg_atomic_fetch_add_u64(&stats->total_us[timing], times->total_us);
}

/* The minute that it is, by the common clock, from 1 */
static uint64
this_minute(void)
{
	return (uint64) (pm_common_us() / USECS_PER_MINUTE) + 1;
}

/*
 * pm_stats_mark
 *		Times from COMMIT to request are about to be counted: note what they
 *		were before this minute.  The worker's alone.  stats may be NULL.
 */
void
pm_stats_mark(PmStats *stats)
{
	uint64		minute;
	PmStatsMark *mark;
	int			b;

	if (stats == NULL)
		return;
	minute = this_minute();
	mark = &stats->mark[minute % PM_STATS_MARKS];
	if (pg_atomic_read_u64(&mark->minute) == minute)
		return;
	/* Whoever reads meanwhile takes none for this minute */
	pg_atomic_write_u64(&mark->minute, 0);
	pg_write_barrier();
	for (b = 0; b < PM_BUCKETS; b++)
		pg_atomic_write_u64(&mark->bucket[b],
							pg_atomic_read_u64(&stats->bucket[PM_COMMIT_TO_REQUEST][b]));
	pg_write_barrier();
	pg_atomic_write_u64(&mark->minute, minute);
}

/* ----------
 * Counting what commits
 * ----------
 */

static void
at_transaction_end(XactEvent event, void *arg)
{
	int			i;

	switch (event)
	{
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PARALLEL_COMMIT:
			for (i = 0; i < nnotes; i++)
				pm_stats_add(notes[i].stats, notes[i].metric, notes[i].n);
			break;
		case XACT_EVENT_PREPARE:
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PARALLEL_ABORT:
			break;
		default:
			return;
	}
	/* The memory goes with the transaction */
	notes = NULL;
	nnotes = max_notes = 0;
}

static void
at_subtransaction_end(SubXactEvent event, SubTransactionId subid,
					  SubTransactionId parent, void *arg)
{
	int			level = GetCurrentTransactionNestLevel();
	int			i;

	if (event == SUBXACT_EVENT_ABORT_SUB)
		while (nnotes > 0 && notes[nnotes - 1].level >= level)
			nnotes--;
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
		for (i = nnotes; i > 0 && notes[i - 1].level >= level; i--)
			notes[i - 1].level = level - 1;
}

/*
 * pm_stats_note
 *		Count something of a connector once the current transaction commits.
 */
void
pm_stats_note(int number, const char *name, PmMetric metric, uint64 n)
{
	static bool callbacks_registered = false;
	PmStats    *stats = pm_stats_of(number, name);
	int			level = GetCurrentTransactionNestLevel();

	if (stats == NULL || n == 0)
		return;
	if (nnotes > 0 && notes[nnotes - 1].stats == stats &&
		notes[nnotes - 1].metric == metric && notes[nnotes - 1].level == level)
	{
		notes[nnotes - 1].n += n;
		return;
	}
	if (!callbacks_registered)
	{
		RegisterXactCallback(at_transaction_end, NULL);
		RegisterSubXactCallback(at_subtransaction_end, NULL);
		callbacks_registered = true;
	}
	if (notes == NULL)
	{
		max_notes = 16;
		notes = MemoryContextAlloc(TopTransactionContext,
								   sizeof(Note) * max_notes);
	}
	else if (nnotes == max_notes)
	{
		notes = repalloc_huge(notes, sizeof(Note) * max_notes * 2);
		max_notes *= 2;
	}
	notes[nnotes].stats = stats;
	notes[nnotes].metric = metric;
	notes[nnotes].level = level;
	notes[nnotes].n = n;
	nnotes++;
}

/* ----------
 * Reading
 * ----------
 */

/* See pm_stats_quantile; of the times that were counted so often. */
static double
quantile(const uint64 *bucket, double fraction)
{
	uint64		total = 0;
	uint64		seen = 0;
	int			b;

	for (b = 0; b < PM_BUCKETS; b++)
		total += bucket[b];
	if (total == 0)
		return get_float8_nan();
	for (b = 0; b < PM_BUCKETS - 1; b++)
	{
		seen += bucket[b];
		if (seen >= fraction * total)
			break;
	}
	return (double) (UINT64CONST(1) << b);
}

static void
read_buckets(PmStats *stats, PmTiming timing, uint64 *bucket)
{
	int			b;

	for (b = 0; b < PM_BUCKETS; b++)
		bucket[b] = pg_atomic_read_u64(&stats->bucket[timing][b]);
}

/*
 * The time, us, that so large a fraction of the times does not exceed, as well
 * as buckets can tell: the upper end of one, or NaN if there were none.
 */
double
pm_stats_quantile(PmStats *stats, PmTiming timing, double fraction)
{
	uint64		bucket[PM_BUCKETS];

	read_buckets(stats, timing, bucket);
	return quantile(bucket, fraction);
}

/*
 * The same of the times from COMMIT to request of the last PM_LATELY_MINUTES
 * minutes and of the one that has begun.  stats may be NULL.
 */
double
pm_stats_lately(PmStats *stats, double fraction)
{
	uint64		bucket[PM_BUCKETS];
	uint64		minute;
	uint64		last = this_minute();
	int			b;

	if (stats == NULL)
		return get_float8_nan();

	/* A minute without a mark is one in which nothing was counted */
	for (minute = last - Min(last - 1, PM_LATELY_MINUTES); minute <= last; minute++)
	{
		PmStatsMark *mark = &stats->mark[minute % PM_STATS_MARKS];
		uint64		before[PM_BUCKETS];

		if (pg_atomic_read_u64(&mark->minute) != minute)
			continue;
		pg_read_barrier();
		for (b = 0; b < PM_BUCKETS; b++)
			before[b] = pg_atomic_read_u64(&mark->bucket[b]);
		pg_read_barrier();
		if (pg_atomic_read_u64(&mark->minute) != minute)
			continue;
		read_buckets(stats, PM_COMMIT_TO_REQUEST, bucket);
		for (b = 0; b < PM_BUCKETS; b++)
			bucket[b] -= Min(before[b], bucket[b]);
		return quantile(bucket, fraction);
	}
	return get_float8_nan();
}

/*
 * pm_stats_state
 *		Since when a connector has been in a state that was found out just
 *		now, as far as this server has seen.
 *
 * The worker looks when something happened to it, and so does whoever reads
 * its state; what the first of them saw is remembered.
 *
 * note: whether to remember it; else what was seen last stays.
 * stats may be NULL, for a server that remembers nothing.
 */
TimestampTz
pm_stats_state(PmStats *stats, const char *state, bool note)
{
	TimestampTz since = GetCurrentTimestamp();
	bool		known;

	if (stats == NULL)
		return PgStartTime;
	LWLockAcquire(shared_lock, LW_SHARED);
	known = strcmp(stats->state, state) == 0;
	if (known)
		since = stats->state_since;
	LWLockRelease(shared_lock);
	if (known || !note)
		return since;

	LWLockAcquire(shared_lock, LW_EXCLUSIVE);
	strlcpy(stats->state, state, sizeof(stats->state));
	stats->state_since = since;
	LWLockRelease(shared_lock);
	return since;
}

/*
 * When a connector that does not flow is tried next, by the common clock; 0: it
 * flows, or is not tried.  The worker's alone to set.  stats may be NULL.
 */
void
pm_stats_show_attempt(PmStats *stats, int64 at)
{
	if (stats)
		pg_atomic_write_u64(&stats->next_attempt, (uint64) at);
}

/* See pm_stats_show_attempt. */
int64
pm_stats_next_attempt(PmStats *stats)
{
	return (int64) pg_atomic_read_u64(&stats->next_attempt);
}

/* Begin anew with the counters of this database. */
void
pm_stats_reset(void)
{
	int			i;

	if (shared == NULL)
		return;
	LWLockAcquire(shared_lock, LW_EXCLUSIVE);
	for (i = 0; i < shared->nused; i++)
		if (shared->entries[i].database == MyDatabaseId)
			clear(&shared->entries[i]);
	LWLockRelease(shared_lock);
}

/* A database is gone.  Nothing to do without preload. */
void
pm_stats_forget(Oid database)
{
	int			i;

	if (shared == NULL)
		return;
	LWLockAcquire(shared_lock, LW_EXCLUSIVE);
	for (i = 0; i < shared->nused; i++)
		if (shared->entries[i].database == database)
			shared->entries[i].database = InvalidOid;
	LWLockRelease(shared_lock);
}
