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

/* Ranges that are no further apart than this become one. */
#define NEARLY 1000

/*
 * Whether "range" lies wholly below an id, and not nearly at it; taking care
 * that nothing overflows.
 */
static bool
is_below(const PmIdRange *range, int64 id)
{
	return range->high < id && id - range->high > NEARLY;
}

/*
 * Add a range of ids.  They are kept in order, and apart from each other: so
 * this takes few steps, for it runs under a spinlock.  When there is no room
 * the nearest one grows: too wide a range costs the worker a look at ids that
 * are not there, nothing else.  Raises no error and allocates nothing.
 */
void
pm_ranges_add(PmRanges *ranges, int64 low, int64 high)
{
	PmIdRange  *range;
	int			first = 0;
	int			upto = ranges->n;
	int			last;

	/* The first range that does not lie below ours */
	while (first < upto)
	{
		int			mid = (first + upto) / 2;

		if (is_below(&ranges->range[mid], low))
			first = mid + 1;
		else
			upto = mid;
	}
	range = &ranges->range[first];

	if (first == ranges->n ||
		(range->low > high && range->low - high > NEARLY))
	{
		if (ranges->n < PM_MAX_RANGES)
		{
			memmove(range + 1, range,
					sizeof(PmIdRange) * (ranges->n - first));
			ranges->n++;
			range->low = low;
			range->high = high;
			return;
		}
		if (first == ranges->n ||
			(first > 0 && low - range[-1].high < range->low - high))
			range--;
	}

	/* It grows; what it has come near to then becomes one with it */
	range->low = Min(range->low, low);
	range->high = Max(range->high, high);
	first = range - ranges->range;
	for (last = first + 1; last < ranges->n; last++)
	{
		if (is_below(range, ranges->range[last].low))
			break;
		range->high = Max(range->high, ranges->range[last].high);
	}
	memmove(range + 1, &ranges->range[last],
			sizeof(PmIdRange) * (ranges->n - last));
	ranges->n -= last - first - 1;
}

/* Take away the first range, which has the lowest ids. */
void
pm_ranges_drop_first(PmRanges *ranges)
{
	ranges->n--;
	memmove(ranges->range, ranges->range + 1, sizeof(PmIdRange) * ranges->n);
}

/* Add a connector, or PM_RESUMED_SEVERAL, to PmWakeup.resumed. */
void
pm_resumed_add(int *resumed, int number)
{
	if (*resumed != 0 && *resumed != number)
		number = PM_RESUMED_SEVERAL;
	*resumed = number;
}
