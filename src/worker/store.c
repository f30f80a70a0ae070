/*-------------------------------------------------------------------------
 *
 * store.c
 *		Storing what became of messages, and of connectors.
 *
 * A job's outcome stays in memory until it is committed.  It is stored in a
 * turn's transaction, among others; if that fails, by itself, so that a bad
 * result does not hold up the others, and message by message if that fails as
 * well.  Nothing more of its connector is claimed while it waits.
 *
 * src/worker/store.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "feedback/suppression.h"
#include "queue/batch.h"
#include "queue/queue.h"
#include "shared/transaction.h"
#include "worker/channel.h"
#include "worker/housekeeping.h"
#include "worker/jobs.h"
#include "worker/queue_space.h"
#include "worker/store.h"
#include "worker/turn.h"

/*
 * When somebody has a row or a table locked that an outcome needs, try it again
 * after, ms.  Each try may take lock_timeout.
 */
#define LOCKED_DELAY		500

#define DAMAGE_HINT "See the server's log. What does not need it goes on, and the rest once it can be used again."

/* Replace a refused batch by its halves, each with an intent of its own. */
static void
split(PmTurn *turn, PmJob *job, TimestampTz now)
{
	PmBatch    *batch = job->batch;
	int			middle = batch->nmessages / 2;
	int			half;
	int			i;

	pm_batch_dispose(batch, PM_RELEASE);
	if (!pm_batch_store(batch, now, turn->careful))
		return;
	pm_turn_expect_jobs(turn, 2);
	for (half = 0; half < 2; half++)
	{
		int			from = half == 0 ? 0 : middle;
		int			upto = half == 0 ? middle : batch->nmessages;
		PmBatch    *child = pm_batch_create(CurrentMemoryContext, batch->lane,
											batch->deferred, upto - from);
		PmJob	   *half_job;

		for (i = from; i < upto; i++)
		{
			pm_batch_copy_message(child, &batch->messages[i]);
			child->messages[i - from].disposal = PM_KEEP;
		}
		pm_batch_new_uuid(child);
		child->created_at = now;
		child->has_intent = true;
		pm_intent_insert(child);
		half_job = pm_job_create(job->channel, child, PM_JOB_READY);
		half_job->inherited = job->inherited;
		pm_turn_note_job(turn, half_job);
	}
}

/*
 * Store what became of a job, in a turn's transaction or, turn NULL, in one of
 * its own, with care.
 */
static void
store(PmTurn *turn, PmJob *job, TimestampTz now)
{
	bool		careful = turn == NULL || turn->careful;

	/* Nothing is split but in a turn */
	if (job->state == PM_JOB_SPLIT)
		split(turn, job, now);
	else if (job->state == PM_JOB_LATE)
	{
		job->batch->created_at = now;
		if (!pm_intent_renew(job->batch))
		{
			/* Somebody else settled it */
			pm_batch_dispose(job->batch, PM_STORED);
			job->state = PM_JOB_STORE;
		}
	}
	else if (!pm_batch_store(job->batch, now, careful))
	{
		/* Somebody else settled it */
		pm_batch_dispose(job->batch, PM_STORED);
	}
	else if (!careful && job->channel->connector)
	{
		/* No more than a help: without it Postmark refuses the next one, too */
		if (pm_suppressions_learn(job->channel->connector, job->batch))
			job->channel->inquiry.at = PM_AT_ONCE;
	}
}

/* Whether a job's outcome is to be stored now, by itself or among others. */
static bool
is_due(const PmJob *job, PmMoment now)
{
	return (job->state == PM_JOB_STORE || job->state == PM_JOB_SPLIT ||
			job->state == PM_JOB_LATE) && job->act_at <= now;
}

/* A job's outcome is committed. */
static void
stored(PmJob *job)
{
	PmChannel  *channel = job->channel;
	Size		size = 0;
	bool		put_off = false;
	int			i;

	if (job->store_failures > 0)
		job->channel->unstored--;
	job->store_failures = 0;
	job->by_row = false;
	if (job->state == PM_JOB_LATE)
	{
		job->renewed = true;
		job->state = PM_JOB_READY;
		return;
	}
	for (i = 0; i < job->batch->nmessages; i++)
	{
		PmMessage  *m = &job->batch->messages[i];

		size += m->size;
		if (m->disposal == PM_DEFER || m->error_code == 412)
			put_off = true;
		if (m->disposal == PM_FINISH)
			pm_house_finished(m);
	}
	if (channel->reported[0] != '\0' &&
		(strcmp(channel->reported, "running") != 0 || put_off))
		channel->report = true;
	pm_space_used(size);
	if (job->state == PM_JOB_SPLIT)
		pm_job_drop(job);
	else
		pm_job_settle(job);
}

static void
store_one_body(void *arg)
{
	store(NULL, (PmJob *) arg, GetCurrentTimestamp());
}

/*
 * Store a result by itself, message by message if need be, after a transaction
 * that stored it among others failed.
 */
static void
store_alone(PmJob *job)
{
	PmBatch    *batch = job->batch;
	PmDisposal *wanted;
	int			sqlstate;
	bool		locked;
	long		delay;
	bool		complete = true;
	int			i;

	if (job->state == PM_JOB_SPLIT || job->state == PM_JOB_LATE)
	{
		/* Give it up whole; it is claimed, refused and split anew */
		pm_batch_dispose(batch, PM_RELEASE);
		job->state = PM_JOB_STORE;
	}
	if (pm_run_transaction("store the result of a request", store_one_body,
						   job, &sqlstate))
	{
		stored(job);
		return;
	}
	if (job->store_failures++ == 0)
		job->channel->unstored++;
	locked = (sqlstate == ERRCODE_LOCK_NOT_AVAILABLE);
	delay = locked ? LOCKED_DELAY : pm_failure_delay(job->store_failures);
	job->act_at = pm_later(pm_moment(), delay);
	job->by_row = true;
	if (locked)
		return;
	pm_channel_damaged(job->channel, pm_queue_failure());

	wanted = MemoryContextAlloc(job->context,
								sizeof(PmDisposal) * batch->nmessages);
	for (i = 0; i < batch->nmessages; i++)
	{
		wanted[i] = batch->messages[i].disposal;
		if (wanted[i] != PM_STORED)
			batch->messages[i].disposal = PM_KEEP;
	}
	for (i = 0; i < batch->nmessages; i++)
	{
		PmMessage  *m = &batch->messages[i];

		if (wanted[i] == PM_STORED || wanted[i] == PM_KEEP)
			continue;
		m->disposal = wanted[i];
		if (!pm_run_transaction("store the result of a message", store_one_body,
								job, &sqlstate))
		{
			m->disposal = PM_KEEP;
			complete = false;
			continue;
		}
		if (m->disposal == PM_FINISH)
			pm_house_finished(m);
		pm_job_returned(job, m);
		m->disposal = wanted[i] = PM_STORED;
	}
	for (i = 0; i < batch->nmessages; i++)
		batch->messages[i].disposal = wanted[i];
	pfree(wanted);
	if (complete)
		stored(job);
}

/* Write down what trouble the channels are in, where that is not done yet. */
static void
store_troubles(void)
{
	int			i;

	for (i = 0; i < pm_channel_count(); i++)
	{
		PmChannel  *channel = pm_channel(i);

		if (!channel->trouble_dirty)
			continue;
		if (channel->trouble || (channel->damage == NULL &&
								 channel->recent_trouble == NULL))
			pm_trouble_store(channel->name,
							 channel->trouble == NULL ? NULL :
							 channel->state == PM_BLOCKED ? "blocked" : "backing_off",
							 channel->trouble, channel->trouble_hint);
		else if (channel->damage)
			pm_trouble_store(channel->name, "backing_off", channel->damage,
							 DAMAGE_HINT);
		else
			pm_trouble_store(channel->name, "running", channel->recent_trouble,
							 "They are sent, or not, as postmark_connector.in_doubt says, before they expire.");
	}
}

static void
troubles_body(void *arg)
{
	store_troubles();
}

/* That is committed. */
static void
troubles_stored(void)
{
	int			i;

	for (i = 0; i < pm_channel_count(); i++)
	{
		PmChannel  *channel = pm_channel(i);

		if (!channel->trouble_dirty)
			continue;
		channel->trouble_dirty = false;
		channel->report = true;
		channel->trouble_shown = channel->trouble || channel->damage;
	}
}

/* Whether a turn's transaction would have anything to store. */
bool
pm_store_wanted(PmMoment now)
{
	dlist_iter	iter;
	int			i;

	dlist_foreach(iter, pm_jobs())
	{
		PmJob	   *job = dlist_container(PmJob, node, iter.cur);

		if (is_due(job, now) && !job->by_row)
			return true;
	}
	for (i = 0; i < pm_channel_count(); i++)
		if (pm_channel(i)->trouble_dirty)
			return true;
	return false;
}

/*
 * Store the outcomes of jobs, which become "storing", and the connectors'
 * troubles.  To be called in a turn's transaction.
 *
 * until: no more jobs are taken up after this time, but at least one
 *
 * Raises what the queue's SQL does.
 */
void
pm_store(PmTurn *turn, PmMoment until)
{
	TimestampTz time = GetCurrentTimestamp();
	bool		enough = false;
	dlist_iter	iter;

	dlist_foreach(iter, pm_jobs())
	{
		PmJob	   *job = dlist_container(PmJob, node, iter.cur);

		job->storing = !enough && is_due(job, turn->now) && !job->by_row;
		if (!job->storing)
			continue;
		store(turn, job, time);
		enough = pm_moment() >= until;
	}
	store_troubles();
}

/*
 * That transaction has committed.  Returns whether there was a job's outcome in
 * it.
 */
bool
pm_store_committed(void)
{
	dlist_mutable_iter iter;
	bool		any = false;

	dlist_foreach_modify(iter, pm_jobs())
	{
		PmJob	   *job = dlist_container(PmJob, node, iter.cur);

		if (!job->storing)
			continue;
		job->storing = false;
		any = true;
		stored(job);
	}
	troubles_stored();
	return any;
}

/*
 * That transaction has failed, of which nothing is left.  Its outcomes are
 * stored one by one, unless "together": then the next one may do.
 */
void
pm_store_failed(bool together)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, pm_jobs())
	{
		PmJob	   *job = dlist_container(PmJob, node, iter.cur);
		bool		storing = job->storing;

		job->storing = false;
		if (storing && !together)
			store_alone(job);
	}
}

/*
 * Try again to store what could not be stored among others, where it is time
 * to.  The job may be gone afterwards.
 */
void
pm_store_again(PmJob *job, PmMoment now)
{
	if (job->by_row && is_due(job, now))
		store_alone(job);
}

/*
 * Write the channels' troubles down in a transaction of their own, before there
 * is a turn to do it.
 */
void
pm_store_troubles(void)
{
	int			sqlstate;

	if (pm_run_transaction("say what its trouble is", troubles_body, NULL,
						   &sqlstate))
		troubles_stored();
}

/* Whether no result is left that could not be stored. */
bool
pm_store_done(void)
{
	int			i;

	for (i = 0; i < pm_channel_count(); i++)
		if (pm_channel(i)->unstored > 0)
			return false;
	return true;
}
