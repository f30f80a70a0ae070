/*-------------------------------------------------------------------------
 *
 * undo.c
 *		What goes back if a turn's transaction fails.
 *
 * A turn's transaction moves the cursors of the lanes that it reads, and makes
 * jobs for what it claims, while it is not certain to commit.  Both are noted
 * here, the lanes as they were before; if it fails, nothing of it was.
 *
 * src/worker/undo.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "worker/channel.h"
#include "worker/jobs.h"
#include "worker/undo.h"

typedef struct LaneBefore
{
	PmLane	   *lane;
	PmLane		before;
} LaneBefore;

static PmJob **jobs;
static int	njobs;
static int	max_jobs;
static LaneBefore *lanes;
static int	nlanes;
static int	max_lanes;

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

/* A turn's transaction is about to begin: nothing is noted yet. */
void
pm_undo_begin(void)
{
	njobs = nlanes = 0;
}

/*
 * The transaction is about to make so many jobs: see that they can be noted,
 * while there is nothing yet that would be lost if they could not.
 */
void
pm_undo_expect_jobs(int n)
{
	jobs = grown(jobs, njobs, n, &max_jobs, sizeof(PmJob *));
}

/*
 * The transaction has made a job, which was expected.  It is remembered once
 * the transaction has committed, unless that has been done already ("known").
 */
void
pm_undo_note_job(PmJob *job)
{
	Assert(njobs < max_jobs);
	jobs[njobs++] = job;
}

/* The transaction is about to read a lane. */
void
pm_undo_note_lane(PmLane *lane)
{
	lanes = grown(lanes, nlanes, 1, &max_lanes, sizeof(LaneBefore));
	lanes[nlanes].lane = lane;
	lanes[nlanes++].before = *lane;
}

/* How many jobs the transaction has made. */
int
pm_undo_njobs(void)
{
	return njobs;
}

/* How many times it has read a lane. */
int
pm_undo_nlanes(void)
{
	return nlanes;
}

/* The transaction has committed: its jobs are real. */
void
pm_undo_committed(void)
{
	int			i;

	for (i = 0; i < njobs; i++)
		if (!jobs[i]->known)
			pm_job_remember(jobs[i]);
}

/* The transaction has failed: its jobs go, the lanes are as they were. */
void
pm_undo_failed(void)
{
	int			i;

	for (i = 0; i < njobs; i++)
	{
		if (jobs[i]->known)
			pm_job_drop(jobs[i]);
		else
			MemoryContextDelete(jobs[i]->context);
	}
	for (i = nlanes - 1; i >= 0; i--)
		*lanes[i].lane = lanes[i].before;
}
