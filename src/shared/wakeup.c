/*-------------------------------------------------------------------------
 *
 * wakeup.c
 *		What a worker is told: which ids were committed, and what else there is
 *		to do.
 *
 * src/shared/wakeup.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "shared/wakeup.h"

/*
 * Add a range of ids.  Ranges that nearly touch become one, and when there is
 * no room the last one grows: too wide a range costs the worker a look at ids
 * that are not there, nothing else.  Raises no error and allocates nothing.
 */
void
pm_ranges_add(PmRanges *ranges, int64 low, int64 high)
{
	PmIdRange  *range;
	int			grown;
	int			i;

	for (i = ranges->n - 1; i >= 0; i--)
	{
		range = &ranges->range[i];
		if (low <= range->high + 1000 && high >= range->low - 1000)
			break;
	}
	if (i < 0 && ranges->n < PM_MAX_RANGES)
	{
		range = &ranges->range[ranges->n++];
		range->low = low;
		range->high = high;
		return;
	}

	/* Grow one; what it overlaps then becomes one with it */
	grown = i < 0 ? ranges->n - 1 : i;
	range = &ranges->range[grown];
	range->low = Min(range->low, low);
	range->high = Max(range->high, high);
	for (i = ranges->n - 1; i >= 0; i--)
	{
		PmIdRange  *other = &ranges->range[i];

		if (i == grown || other->low > range->high || other->high < range->low)
			continue;
		range->low = Min(range->low, other->low);
		range->high = Max(range->high, other->high);
		*other = ranges->range[--ranges->n];
		if (grown == ranges->n)
		{
			grown = i;
			range = other;
		}
		i = ranges->n;			/* it may overlap more now */
	}
}

/* Add a connector, or PM_RESUMED_SEVERAL, to PmWakeup.resumed. */
void
pm_resumed_add(int *resumed, int number)
{
	if (*resumed != 0 && *resumed != number)
		number = PM_RESUMED_SEVERAL;
	*resumed = number;
}
