/*-------------------------------------------------------------------------
 *
 * turn.h
 *		What a turn's transaction has done so far, and what goes back if it
 *		fails.
 *
 * src/worker/turn.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_TURN_H
#define PM_TURN_H

#include "base/clock.h"
#include "worker/channel.h"
#include "worker/jobs.h"
#include "worker/lane.h"

/* A lane as it was before it was read */
typedef struct PmLaneBefore
{
	PmLane	   *lane;
	PmLane		before;
} PmLaneBefore;

/* All that a turn's transaction may touch beside the tables */
typedef struct PmTurn
{
	PmMoment	now;			/* when its transaction began */
	bool		careful;		/* the one before failed, see pm_batch_store */

	int			njobs;			/* made by it */
	int			max_jobs;
	PmJob	  **jobs;
	int			nlanes;			/* read by it, one more than once perhaps */
	int			max_lanes;
	PmLaneBefore *lanes;

	/* What is being claimed; NULL: nothing */
	PmChannel  *claiming;
	PmLane	   *claiming_lane;
	bool		claiming_deferred;
} PmTurn;

extern void pm_turn_begin(PmTurn *turn, bool careful);
extern void pm_turn_expect_jobs(PmTurn *turn, int n);
extern void pm_turn_note_job(PmTurn *turn, PmJob *job);
extern void pm_turn_note_lane(PmTurn *turn, PmLane *lane);
extern void pm_turn_unread_lane(PmTurn *turn);
extern void pm_turn_committed(PmTurn *turn);
extern void pm_turn_failed(PmTurn *turn);

#endif							/* PM_TURN_H */
