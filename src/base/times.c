/*-------------------------------------------------------------------------
 *
 * times.c
 *		Arithmetic with times that cannot leave their range.
 *
 * What is stored may be any time there is, infinity included, and what is added
 * may be anybody's.  A sum outside of the range cannot be stored, and once it is
 * nobody can read the row.
 *
 * src/base/times.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/int.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "base/times.h"

/*
 * A time and so many microseconds, before or after it.  Infinity stays what it
 * is, and so does the end of the range.
 */
TimestampTz
pm_time_plus(TimestampTz time, int64 us)
{
	TimestampTz sum;

	if (TIMESTAMP_NOT_FINITE(time))
		return time;
	if (pg_add_s64_overflow(time, us, &sum) || !IS_VALID_TIMESTAMP(sum))
		return us > 0 ? END_TIMESTAMP - 1 : MIN_TIMESTAMP;
	return sum;
}

/*
 * Compare two intervals as SQL does, where a month has 30 days and a day 24
 * hours: negative, zero or positive.
 */
int
pm_interval_compare(const Interval *a, const Interval *b)
{
	return DatumGetInt32(DirectFunctionCall2(interval_cmp,
											 IntervalPGetDatum(a),
											 IntervalPGetDatum(b)));
}
