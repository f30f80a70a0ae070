/*-------------------------------------------------------------------------
 *
 * turn.c
 *		What a turn's transaction has done so far, and what goes back if it
 *		fails.
 *
 * A turn's transaction moves the cursors of the lanes that it reads, and makes
 * jobs for what it claims, while it is not certain to commit.  Both are noted
 * here, the lanes as they were before; if it fails, nothing of it was.
 *
 * src/worker/turn.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "base/clock.h"
#include "worker/channel.h"
#include "worker/jobs.h"
#include "worker/lane.h"
#include "worker/turn.h"

/* Make room for "more" elements in an array that lives for good. */
static void *
grown(void *array, int n, int more, int *max, Size element)
{
	int			larger = Max(16, Max(*max * 2, n + more));

	if (n + more <= *max)
		return array;
	array = array ? repalloc(array, larger * element)
		: MemoryContextAlloc(TopMemoryContext, larger * element);
	*max = larger;
	return array;
}

/*
 * A turn's transaction is about to begin: nothing is noted yet.  What the turn
 * has room for from the turns before it keeps.
 */
void
pm_turn_begin(PmTurn *turn, bool careful)
{
	turn->now = pm_moment();
	turn->careful = careful;
	turn->njobs = turn->nlanes = 0;
	turn->claiming = NULL;
}

/*
 * The transaction is about to make so many jobs: see that they can be noted,
 * while there is nothing yet that would be lost if they could not.
 */
void
pm_turn_expect_jobs(PmTurn *turn, int n)
{
	turn->jobs = grown(turn->jobs, turn->njobs, n, &turn->max_jobs,
					   sizeof(PmJob *));
}

/*
 * The transaction has made a job, which was expected.  It is remembered once
 * the transaction has committed, unless that has been done already ("known").
 */
void
pm_turn_note_job(PmTurn *turn, PmJob *job)
{
	Assert(turn->njobs < turn->max_jobs);
	turn->jobs[turn->njobs++] = job;
}

/* The transaction is about to read a lane. */
void
pm_turn_note_lane(PmTurn *turn, PmLane *lane)
{
	turn->lanes = grown(turn->lanes, turn->nlanes, 1, &turn->max_lanes,
						sizeof(PmLaneBefore));
	turn->lanes[turn->nlanes].lane = lane;
	turn->lanes[turn->nlanes++].before = *lane;
}

/* Nothing comes of what was read of the lane that was noted last. */
void
pm_turn_unread_lane(PmTurn *turn)
{
	PmLaneBefore *last;

	Assert(turn->nlanes > 0);
	last = &turn->lanes[--turn->nlanes];
	*last->lane = last->before;
}

/* The transaction has committed: its jobs are real. */
void
pm_turn_committed(PmTurn *turn)
{
	int			i;

	for (i = 0; i < turn->njobs; i++)
		if (!turn->jobs[i]->known)
			pm_job_remember(turn->jobs[i]);
}

/* The transaction has failed: its jobs go, the lanes are as they were. */
void
pm_turn_failed(PmTurn *turn)
{
	int			i;

	for (i = 0; i < turn->njobs; i++)
	{
		if (turn->jobs[i]->known)
			pm_job_drop(turn->jobs[i]);
		else
			MemoryContextDelete(turn->jobs[i]->context);
	}
	for (i = turn->nlanes - 1; i >= 0; i--)
		*turn->lanes[i].lane = turn->lanes[i].before;
}
