/*-------------------------------------------------------------------------
 *
 * lane.c
 *		What of a lane, connector and priority, is still to be read.
 *
 * A lane that cannot be read, as a page of its table is damaged, holds up no
 * other one; and what is queued in it from then on goes its way, too.  So what
 * met the error is set aside, to be tried again later and later, while reading
 * goes on behind it.  Where somebody has locked a table, that table's part of
 * all lanes waits.
 *
 * src/worker/lane.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "worker/lane.h"

/* Not to be read before, in any lane: the hot table, the deferred one */
static PmMoment hold_hot;
static PmMoment hold_deferred;

/* A walk over deferred messages is to begin with the first. */
void
pm_walk_begin(PmWalk *walk)
{
	walk->position.due_at = DT_NOBEGIN;
	walk->position.id = 0;
	walk->locked = 0;
}

/*
 * Nothing is known of the lane but that it is to be looked for deferred messages
 * at "due".
 */
void
pm_lane_forget(PmLane *lane, PmMoment due)
{
	lane->cursor = 0;
	lane->dirty = false;
	lane->late.n = 0;
	lane->locked.n = 0;
	lane->nlocked = 0;
	lane->due = lane->doubtful_due = due;
	pm_walk_begin(&lane->walk);
	pm_walk_begin(&lane->doubtful_walk);
}

/* Whether messages that somebody had locked are to be tried again. */
static bool
locked_due(const PmLane *lane, PmMoment now)
{
	return lane->locked.n > 0 && lane->locked_at <= now;
}

/* Whether there may be messages in the hot table to send now. */
bool
pm_lane_hot_work(const PmLane *lane, PmMoment now)
{
	return Max(hold_hot, lane->hold_hot) <= now &&
		(lane->dirty || lane->late.n > 0 || locked_due(lane, now));
}

/*
 * Whether there may be deferred messages to send now: such as were in doubt, or
 * others.
 */
bool
pm_lane_deferred_work(const PmLane *lane, bool doubtful, PmMoment now)
{
	return Max(hold_deferred, lane->hold_deferred) <= now &&
		(doubtful ? lane->doubtful_due : lane->due) <= now;
}

/* Look for deferred messages, of either kind, at "at". */
void
pm_lane_look(PmLane *lane, PmMoment at)
{
	lane->due = Min(lane->due, at);
	lane->doubtful_due = Min(lane->doubtful_due, at);
}

/* When there may be messages that were in doubt; as pm_lane_next. */
PmMoment
pm_lane_next_doubtful(const PmLane *lane)
{
	return Max(lane->doubtful_due, Max(hold_deferred, lane->hold_deferred));
}

/*
 * When there may be messages to send that were never in doubt; PM_NEVER: as far
 * as is known, never.
 */
PmMoment
pm_lane_next(const PmLane *lane, PmMoment now)
{
	PmMoment	hot = PM_NEVER;

	if (lane->dirty || lane->late.n > 0)
		hot = now;
	else if (lane->locked.n > 0)
		hot = lane->locked_at;
	return Min(Max(hot, Max(hold_hot, lane->hold_hot)),
			   Max(lane->due, Max(hold_deferred, lane->hold_deferred)));
}

/*
 * Reading the lane, which is as it was before, met an error.
 *
 * deferred: in postmark_deferred, whose messages stand in the order of time, so
 *			 that there is nothing to go on with
 * last_id:	 in the hot table, the last id that was given out
 * until:	 when to try again
 */
void
pm_lane_failed(PmLane *lane, bool deferred, int64 last_id, PmMoment now,
			   PmMoment until)
{
	int			i;

	lane->failures++;
	if (deferred)
	{
		lane->hold_deferred = until;
		return;
	}
	if (lane->late.n == 0 && !locked_due(lane, now))
	{
		if (last_id <= lane->cursor)
		{
			lane->hold_hot = until;
			return;
		}
		pm_ranges_add(&lane->locked, lane->cursor + 1, last_id);
		lane->cursor = last_id;
	}
	for (i = 0; i < lane->late.n; i++)
		pm_ranges_add(&lane->locked, lane->late.range[i].low,
					  lane->late.range[i].high);
	lane->late.n = 0;
	lane->locked_at = until;
}

/* Nothing of the lane is to be read before. */
void
pm_lane_hold(PmLane *lane, PmMoment until)
{
	lane->failures++;
	lane->hold_hot = lane->hold_deferred = until;
}

/* The hot table, or the deferred one, is to be read for no lane before. */
void
pm_lanes_hold(bool deferred, PmMoment until)
{
	if (deferred)
		hold_deferred = until;
	else
		hold_hot = until;
}
