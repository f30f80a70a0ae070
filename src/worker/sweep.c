/*-------------------------------------------------------------------------
 *
 * sweep.c
 *		Expired messages of connectors that do not flow.
 *
 * What flows is looked at when it is claimed; what does not would stay queued
 * beyond its time, with its code.  No index says what expires next, since every
 * message that is queued would pay for it.  So the lanes are walked over, in
 * steps of a few milliseconds with as long a pause behind each, from one end to
 * the other; the walk finds when the next message expires, and the next walk
 * begins then, but not before ten times as long as the last one took.
 *
 * src/worker/sweep.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "queue/batch.h"
#include "queue/queue.h"
#include "settings/connector.h"
#include "shared/transaction.h"
#include "worker/channel.h"
#include "worker/housekeeping.h"
#include "worker/jobs.h"
#include "worker/sweep.h"

/* A step is to take so long, us */
#define STEP_TIME		4000

/* Messages that a step looks at */
#define STEP_ROWS_MIN	50
#define STEP_ROWS_MAX	2000

/* Shortest pause behind a step, and time between two walks, ms */
#define STEP_PAUSE		1
#define WALK_DELAY		1000

/* And that, as a multiple of the time that the last one took */
#define WALK_SHARE		10

/* The lanes of a channel, in either table */
#define PARTS			(PM_PRIORITIES * 2)

static int	rows = STEP_ROWS_MIN * 4;

/* Finish those of the batch's messages that are still there to be finished. */
static void
finish(PmBatch *batch)
{
	int			kept = 0;
	int			i;

	pm_queue_lock(batch, 0);
	for (i = 0; i < batch->nmessages; i++)
	{
		PmMessage  *m = &batch->messages[i];

		if (!m->locked || pm_in_flight(m->id))
			continue;
		pm_message_finish(m, "expired", m->last_error);
		batch->messages[kept++] = *m;
	}
	batch->nmessages = kept;
	if (kept == 0)
		return;
	pm_batch_store(batch, GetCurrentTimestamp(), true);
	for (i = 0; i < kept; i++)
		pm_house_finished(&batch->messages[i]);
}

/* Look at some more messages; what is noted counts once it is committed. */
static void
step_body(void *arg)
{
	PmSweep    *sweep = arg;
	int			left = rows;

	while (sweep->part < PARTS && left > 0)
	{
		int32		lane = sweep->number * PM_PRIORITIES + sweep->part / 2;
		PmBatch    *batch = pm_batch_create(CurrentMemoryContext, lane,
											sweep->part % 2 == 1, left);
		int			looked = pm_queue_expired(batch, &sweep->position, left,
											  &sweep->next);

		if (batch->nmessages > 0)
			finish(batch);
		MemoryContextDelete(batch->context);
		if (looked < left)
		{
			sweep->part++;
			sweep->position.due_at = DT_NOBEGIN;
			sweep->position.id = 0;
		}
		left -= looked;
	}
}

static void
begin_walk(PmSweep *sweep, int number)
{
	memset(sweep, 0, sizeof(*sweep));
	sweep->number = number;
	sweep->position.due_at = DT_NOBEGIN;
	sweep->next = DT_NOEND;
	sweep->walking = true;
}

/* Go on with the walk over a channel's lanes, or begin one. */
static void
walk_on(PmChannel *channel, PmMoment now)
{
	PmSweep		sweep = channel->sweep;
	PmMoment	end;
	int			sqlstate;

	if (!sweep.walking)
	{
		begin_walk(&sweep, channel->number);
		channel->sweep_news = false;
	}
	channel->sweep = sweep;
	if (!pm_run_transaction("finish expired messages", step_body, &sweep,
							&sqlstate))
	{
		/* Whatever is wrong with this one, the others have theirs */
		if (++channel->sweep.part >= PARTS)
			channel->sweep.walking = false;
		channel->sweep.position.due_at = DT_NOBEGIN;
		channel->sweep.position.id = 0;
		channel->sweep_at = pm_later(now, WALK_DELAY);
		return;
	}

	end = pm_moment();
	if (end - now < STEP_TIME / 2)
		rows = Min(rows * 2, STEP_ROWS_MAX);
	else if (end - now > STEP_TIME)
		rows = Max(rows / 2, STEP_ROWS_MIN);
	sweep.took += end - now;
	sweep.walking = sweep.part < PARTS;
	channel->sweep = sweep;
	if (sweep.walking)
	{
		channel->sweep_at = Max(pm_later(end, STEP_PAUSE), end + (end - now));
		return;
	}

	/* What came in behind us is looked at as soon as it would have been */
	channel->sweep_at = pm_moment_of(sweep.next);
	if (channel->sweep_news)
		channel->sweep_at = Min(channel->sweep_at, pm_later(now, PM_SWEEP_DELAY));
	channel->sweep_at = Max(channel->sweep_at,
							Max(pm_later(end, WALK_DELAY),
								end + sweep.took * WALK_SHARE));
}

/*
 * Do a step for each channel that does not flow and whose time has come.
 * Returns whether messages may have been finished.
 */
bool
pm_sweep_keep(PmMoment now)
{
	bool		any = false;
	int			i;

	for (i = 0; i < pm_channel_count(); i++)
	{
		PmChannel  *channel = pm_channel(i);

		if (channel->connector && !pm_channel_flows(channel) &&
			channel->sweep_at <= now)
		{
			walk_on(channel, pm_moment());
			any = true;
		}
	}
	return any;
}
