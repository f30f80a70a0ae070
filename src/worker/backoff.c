/*-------------------------------------------------------------------------
 *
 * backoff.c
 *		How long to wait before something is tried again.
 *
 * A wait doubles with each failure in a row, up to a ceiling, and is random
 * below that: workers and servers that failed together must not come back
 * together.
 *
 * Nothing here but numbers, so that it can be tested without a server; all
 * times are in milliseconds.
 *
 * src/worker/backoff.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/pg_prng.h"

#include "worker/backoff.h"

/* A connector whose requests fail */
#define BACKOFF_BASE		500
#define BACKOFF_CEILING		60000
#define BACKOFF_FLOOR		50

/* One whose messages are refused, one after another: some may be good */
#define BRAKE_CEILING		15000

/* One whose configuration is refused: between two probes */
#define BLOCK_BASE			5000
#define BLOCK_CEILING		300000

/* A message that Postmark could not take just now */
#define MESSAGE_BASE		1000
#define MESSAGE_CEILING		60000
#define MESSAGE_FLOOR		100

/* base doubled "times" times, but no more than the ceiling */
static long
doubled(long base, int times, long ceiling)
{
	while (times-- > 0 && base < ceiling)
		base *= 2;
	return Min(base, ceiling);
}

/* The time itself, but no less than the floor: Max() would ask for it twice. */
static long
at_least(long floor, long delay)
{
	return Max(delay, floor);
}

/* A random time up to "ceiling_ms". */
long
pm_jitter(long ceiling_ms)
{
	return (long) pg_prng_uint64_range(&pg_global_prng_state, 0,
									   Max(ceiling_ms, 0));
}

/* For how long to close a connector after so many failures in a row. */
long
pm_backoff_delay(int failures)
{
	return at_least(BACKOFF_FLOOR,
					pm_jitter(doubled(BACKOFF_BASE, failures, BACKOFF_CEILING)));
}

/* The same where message after message is refused. */
long
pm_brake_delay(int failures)
{
	return at_least(BACKOFF_FLOOR,
					pm_jitter(doubled(BACKOFF_BASE, failures, BRAKE_CEILING)));
}

/*
 * The same where the server said for how long.  A little longer, since all
 * whom it told so would come at once.  Not longer than PM_RETRY_AFTER_MAX: a
 * mistaken date would close the connector until somebody notices.
 */
long
pm_retry_after_delay(long retry_after_ms)
{
	return Min(retry_after_ms, PM_RETRY_AFTER_MAX) + pm_jitter(BACKOFF_BASE);
}

/*
 * How long to wait before a refused configuration is probed.  Half of it is
 * certain: a probe is a request that somebody has to answer.
 */
long
pm_block_delay(int failures)
{
	long		delay = doubled(BLOCK_BASE, failures, BLOCK_CEILING);

	return delay / 2 + pm_jitter(delay / 2);
}

/* When to try a message again that was put off so many times. */
long
pm_message_delay(int attempts)
{
	return at_least(MESSAGE_FLOOR,
					pm_jitter(doubled(MESSAGE_BASE, attempts, MESSAGE_CEILING)));
}
