/*-------------------------------------------------------------------------
 *
 * clock.h
 *		A clock that nobody sets, for what is waited for in memory.
 *
 * src/base/clock.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_CLOCK_H
#define PM_CLOCK_H

#include "datatype/timestamp.h"

/* A moment by this process's own clock, us */
typedef int64 PmMoment;

/* The moments of a wait that is over, and of one that does not end by itself */
#define PM_AT_ONCE	PG_INT64_MIN
#define PM_NEVER	PG_INT64_MAX

extern int64 pm_common_us(void);
extern PmMoment pm_moment(void);
extern PmMoment pm_moment_of(TimestampTz time);
extern long pm_ms_until(PmMoment moment);

/* So many milliseconds after a moment; PM_NEVER stays what it is. */
static inline PmMoment
pm_later(PmMoment moment, int64 ms)
{
	return moment == PM_NEVER ? moment : moment + ms * 1000;
}

#endif							/* PM_CLOCK_H */
