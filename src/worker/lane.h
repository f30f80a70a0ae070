/*-------------------------------------------------------------------------
 *
 * lane.h
 *		What of a lane, connector and priority, is still to be read.
 *
 * src/worker/lane.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_LANE_STATE_H
#define PM_LANE_STATE_H

#include "base/clock.h"
#include "queue/queue.h"
#include "shared/wakeup.h"

/* A walk over the deferred messages that are due, many of which are locked */
typedef struct PmWalk
{
	PmDeferredPosition position;	/* all up to here were locked */
	int			locked;			/* so many of them so far */
} PmWalk;

/* What is known of one lane: connector and priority */
typedef struct PmLane
{
	int32		lane;

	/* The hot table */
	int64		cursor;			/* all up to here was read */
	bool		dirty;			/* there may be messages above it */
	PmRanges	late;			/* ranges below it to be read again */
	PmRanges	locked;			/* messages that somebody had locked */
	int			nlocked;		/* so many of them so far */
	PmMoment	locked_at;		/* when to try these again */

	/* postmark_deferred */
	PmMoment	due;			/* next message; PM_AT_ONCE: look, PM_NEVER:
								 * none */
	PmMoment	doubtful_due;	/* the same of those that were in doubt */
	PmWalk		walk;
	PmWalk		doubtful_walk;

	/* After an error that their reading met: not to be read before */
	PmMoment	hold_hot;
	PmMoment	hold_deferred;
	int			failures;		/* such errors, in a row */
} PmLane;

extern void pm_walk_begin(PmWalk *walk);
extern void pm_lane_forget(PmLane *lane, PmMoment due);
extern bool pm_lane_hot_work(const PmLane *lane, PmMoment now);
extern bool pm_lane_deferred_work(const PmLane *lane, bool doubtful,
								  PmMoment now);
extern void pm_lane_look(PmLane *lane, PmMoment at);
extern PmMoment pm_lane_next(const PmLane *lane, PmMoment now);
extern PmMoment pm_lane_next_doubtful(const PmLane *lane);
extern void pm_lane_failed(PmLane *lane, bool deferred, int64 last_id,
						   PmMoment now, PmMoment until);
extern void pm_lane_hold(PmLane *lane, PmMoment until);
extern void pm_lanes_hold(bool deferred, PmMoment until);

#endif							/* PM_LANE_STATE_H */
