/*-------------------------------------------------------------------------
 *
 * stats.h
 *		What happened, counted in shared memory.
 *
 * src/shared/stats.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_STATS_H
#define PM_STATS_H

#include "datatype/timestamp.h"
#include "port/atomics.h"
#include "storage/lwlock.h"

/* Connectors, of all databases, that there is room for */
#define PM_STATS_CONNECTORS 1024

/* What is counted; pm_metric_names has the names. */
typedef enum PmMetric
{
	/* Messages, at the COMMIT that made it so */
	PM_COUNT_QUEUED,
	PM_COUNT_SENT,
	PM_COUNT_FAILED,
	PM_COUNT_EXPIRED,
	PM_COUNT_CANCELLED,
	PM_COUNT_SUPPRESSED,
	PM_COUNT_DELIVERED,
	PM_COUNT_BOUNCED,
	PM_COUNT_COMPLAINED,
	PM_COUNT_RETRIED,
	PM_COUNT_IN_DOUBT,
	PM_COUNT_FOUND_AGAIN,

	/* Requests of the worker, as they end */
	PM_COUNT_REQUESTS,
	PM_COUNT_NO_ANSWER,
	PM_COUNT_ANSWERS_2XX,
	PM_COUNT_ANSWERS_3XX,
	PM_COUNT_ANSWERS_4XX,
	PM_COUNT_ANSWERS_5XX,
	PM_COUNT_BYTES_SENT,
	PM_COUNT_BYTES_RECEIVED,

	/* Others */
	PM_COUNT_EVENTS,
	PM_COUNT_EVENTS_REFUSED,
	PM_COUNT_WRONG_GUESSES,
	PM_METRICS
} PmMetric;

/* Times that are counted by how long they were */
typedef enum PmTiming
{
	PM_COMMIT_TO_REQUEST,
	PM_REQUEST_TO_ANSWER,
	PM_TIMINGS
} PmTiming;

/* Bucket i counts times of less than 2^i microseconds, the last one the rest. */
#define PM_BUCKETS 28

/* Times that are to be counted together; all zero at first */
typedef struct PmTimes
{
	uint32		bucket[PM_BUCKETS];
	uint64		total_us;
} PmTimes;

/*
 * Of the last minutes, at least so many of them, the times from COMMIT to
 * request are known by themselves.
 */
#define PM_LATELY_MINUTES 5
#define PM_STATS_MARKS (PM_LATELY_MINUTES + 2)

/* The buckets as they were before a minute's first time was counted */
typedef struct PmStatsMark
{
	pg_atomic_uint64 minute;	/* of the common clock, from 1; 0: none */
	pg_atomic_uint64 bucket[PM_BUCKETS];
} PmStatsMark;

/*
 * The counters of a connector.  Whoever has a pointer to them may add; the
 * state, and "name" and what stands above it, change under the part's lock.
 */
typedef struct PmStats
{
	Oid			database;		/* InvalidOid: free */
	int			number;			/* of the connector */
	char		name[NAMEDATALEN];
	TimestampTz since;
	pg_atomic_uint64 count[PM_METRICS];
	pg_atomic_uint64 bucket[PM_TIMINGS][PM_BUCKETS];
	pg_atomic_uint64 total_us[PM_TIMINGS];
	PmStatsMark mark[PM_STATS_MARKS];	/* made by the worker, in turns */

	/* What its state is, see pm_stats_state */
	char		state[16];		/* "": not seen yet */
	TimestampTz state_since;
	pg_atomic_uint64 next_attempt;	/* of the worker with it while it does not
									 * flow, by the common clock; 0: none */
} PmStats;

extern const char *const pm_metric_names[PM_METRICS];
extern const char *const pm_timing_names[PM_TIMINGS];

extern Size pm_stats_size(void);
extern void pm_stats_init(void *place, LWLock *lock, bool found);
extern PmStats *pm_stats_of(int number, const char *name);
extern void pm_stats_add(PmStats *stats, PmMetric metric, uint64 n);
extern void pm_times_add(PmTimes *times, int64 us);
extern void pm_stats_times(PmStats *stats, PmTiming timing,
						   const PmTimes *times);
extern void pm_stats_mark(PmStats *stats);
extern void pm_stats_note(int number, const char *name, PmMetric metric,
						  uint64 n);
extern double pm_stats_quantile(PmStats *stats, PmTiming timing,
								double fraction);
extern double pm_stats_lately(PmStats *stats, double fraction);
extern TimestampTz pm_stats_state(PmStats *stats, const char *state,
								  bool note);
extern void pm_stats_show_attempt(PmStats *stats, int64 at);
extern int64 pm_stats_next_attempt(PmStats *stats);
extern void pm_stats_reset(void);
extern void pm_stats_forget(Oid database);

#endif							/* PM_STATS_H */
