/*-------------------------------------------------------------------------
 *
 * clock.c
 *		A clock that nobody sets, for what is waited for in memory.
 *
 * The wall clock may be set back by any amount, when a machine that booted
 * with a wrong one hears of the right time; a wait that ends at a time of it
 * would then last as much longer.  So what is waited for in memory goes by the
 * monotonic clock.  Times that are stored, or that somebody gave us, are the
 * wall clock's; to wait for one it is taken over into the other clock, and
 * looked at again once the wait is over.
 *
 * The two begin alike, so that a moment reads as a time in a debugger.
 *
 * src/base/clock.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "portability/instr_time.h"
#include "utils/timestamp.h"

#include "base/clock.h"

/*
 * The clock itself, us since some moment that is the same for all processes of
 * the machine: for what one of them notes and another one reads.
 */
int64
pm_common_us(void)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	return (int64) INSTR_TIME_GET_MICROSEC(now);
}

/* This moment. */
PmMoment
pm_moment(void)
{
	static int64 begun = 0;
	static TimestampTz begun_at;

	if (begun == 0)
	{
		begun_at = GetCurrentTimestamp();
		begun = pm_common_us();
	}
	return begun_at + (pm_common_us() - begun);
}

/*
 * The moment at which it will be so late by the wall clock, if nobody sets
 * that; one that is over already for a time that has passed.  Infinite times
 * become PM_AT_ONCE and PM_NEVER.
 */
PmMoment
pm_moment_of(TimestampTz time)
{
	if (TIMESTAMP_IS_NOBEGIN(time))
		return PM_AT_ONCE;
	if (TIMESTAMP_IS_NOEND(time))
		return PM_NEVER;
	return pm_moment() + (time - GetCurrentTimestamp());
}

/* How long to sleep until a moment, ms, rounded up; 0 if it has come. */
long
pm_ms_until(PmMoment moment)
{
	PmMoment	now = pm_moment();

	if (moment <= now)
		return 0;
	return (long) Min((moment - now - 1) / 1000 + 1, (int64) INT_MAX);
}
