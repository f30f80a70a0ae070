/*-------------------------------------------------------------------------
 *
 * outdated.c
 *		Forgetting what counts for nothing any more.
 *
 * src/base/outdated.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/spi.h"
#include "utils/timestamp.h"

#include "base/outdated.h"

/*
 * Forget what of a table is out of date by "now", in the worker's transaction.
 *
 * forget: deletes such rows, or empties them; takes a time, up to which they
 *		   are, and how many rows at most
 * first:  the time of the first one that remains, its only column
 * grace:  seconds for which they are kept nevertheless
 * limit:  so many rows at most
 * next:   becomes no later than when the next one will be
 *
 * Returns whether there may be more at once.  Errors as pm_execute.
 */
bool
pm_forget_outdated(PmStatement *forget, PmStatement *first, int grace,
				   TimestampTz now, int limit, TimestampTz *next)
{
	Datum		values[2];
	bool		more;
	bool		isnull;

	values[0] = TimestampTzGetDatum(now - grace * USECS_PER_SEC);
	values[1] = Int64GetDatum(limit);
	pm_execute(forget, values, NULL, 0);
	more = SPI_processed >= limit;
	pm_execute(first, NULL, NULL, 1);
	if (SPI_processed > 0)
		*next = Min(*next,
					DatumGetTimestampTz(SPI_getbinval(SPI_tuptable->vals[0],
													  SPI_tuptable->tupdesc, 1,
													  &isnull)) +
					grace * USECS_PER_SEC);
	return more;
}
