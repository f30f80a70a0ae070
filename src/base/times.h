/*-------------------------------------------------------------------------
 *
 * times.h
 *		Arithmetic with times that cannot leave their range.
 *
 * src/base/times.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_TIMES_H
#define PM_TIMES_H

#include "datatype/timestamp.h"

extern TimestampTz pm_time_plus(TimestampTz time, int64 us);
extern int	pm_interval_compare(const Interval *a, const Interval *b);

#endif							/* PM_TIMES_H */
