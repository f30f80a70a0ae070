/*-------------------------------------------------------------------------
 *
 * delivery.c
 *		The worker's turns: one transaction that stores what is finished and
 *		claims what is next, then the requests for what was claimed.
 *
 * No transaction is open while a request is under way.  A turn's transaction
 * stores the results of all requests that have ended and writes the intents of
 * all that will begin, so that one flush to disk serves both; when it fails,
 * results are kept in memory and stored one by one, and nothing new is claimed
 * of their connector until they are.
 *
 * src/delivery.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "delivery.h"
#include "guc.h"
#include "queue_space.h"

/* A request's messages have about this many bytes at most. */
#define BATCH_BYTES			(1024 * 1024)

/* All request bodies together */
#define ALL_BODIES			(16 * 1024 * 1024)

/*
 * A turn's transaction takes up no more work after this time, us: what it
 * stored and claimed goes on its way, and the network is seen to, before the
 * rest.  Else the requests of a slow server stay in step, and all its time is
 * lost while all their results are stored.
 */
#define STORE_TIME			2000
#define CLAIM_TIME			4000

/*
 * Results that wait to be stored, and requests under way, are together at most
 * so many times max_in_flight.  Without a limit a server that answers faster
 * than we can store fills our memory with results, all of which a crash would
 * leave in doubt.
 */
#define ANSWERED_PER_REQUEST 2

/* When a transaction failed, try again after, ms */
#define LOCKED_DELAY		100
#define FAILED_DELAY		1000
#define FAILED_CEILING		30000

/* When somebody has a message locked, try it again after, ms */
#define ROW_LOCKED_DELAY	100

/* A message that has no template is tried again after, ms */
#define NO_TEMPLATE_DELAY	60000

static PmSlot *slot;
static TimestampTz retry_at;	/* after a transaction that failed */
static int	failures;			/* of the turn's transaction, in a row: until it
								 * succeeds, results are stored with care */
static int	next_channel;		/* who claims first */

/*
 * What a turn's transaction did that is not so before it has committed: jobs
 * it made, and lanes it read, as they were before.
 */
typedef struct LaneBefore
{
	PmLane	   *lane;
	PmLane		before;
} LaneBefore;

static PmJob **made;
static int	nmade;
static int	max_made;
static LaneBefore *read_lanes;
static int	nread_lanes;
static int	max_read_lanes;

/* Do the scans that are asked for; if that fails, again soon. */
static void
scan(TimestampTz now)
{
	if (!pm_scan(now))
		retry_at = TimestampTzPlusMilliseconds(now, LOCKED_DELAY);
}

/* Begin: the worker of this slot knows nothing yet. */
void
pm_delivery_start(PmSlot *my_slot)
{
	slot = my_slot;
	pm_scan_reload();
	pm_scan_rescan();
	pm_house_start();
	pm_space_start();
}

/* Settings have changed. */
void
pm_delivery_reload(void)
{
	pm_scan_reload();
}

/* Anything may have been queued. */
void
pm_delivery_rescan(void)
{
	pm_scan_rescan();
}

/*
 * Note what transactions committed.  Messages of a connector that is not known
 * yet wait for the settings, which came with the same wake-up or before it.
 */
void
pm_delivery_wake(const PmWakeup *wakeup)
{
	if (!pm_scan_loaded())
		scan(GetCurrentTimestamp());
	if (pm_scan_loaded())
		pm_channels_wake(wakeup);
	else
		pm_scan_rescan();
}

/*
 * What goes back if the transaction fails
 */

/* Make room for one more element in an array that lives for good. */
static void *
grown(void *array, int n, int *max, Size element)
{
	if (n < *max)
		return array;
	*max = Max(16, *max * 2);
	return array ? repalloc(array, *max * element)
		: MemoryContextAlloc(TopMemoryContext, *max * element);
}

static void
note_made(PmJob *job)
{
	made = grown(made, nmade, &max_made, sizeof(PmJob *));
	made[nmade++] = job;
}

static void
note_lane(PmLane *lane)
{
	read_lanes = grown(read_lanes, nread_lanes, &max_read_lanes,
					   sizeof(LaneBefore));
	read_lanes[nread_lanes].lane = lane;
	read_lanes[nread_lanes++].before = *lane;
}

/* Begin to note. */
static void
begin_notes(void)
{
	nmade = nread_lanes = 0;
}

/* The transaction committed: its jobs are real. */
static void
keep_notes(void)
{
	int			i;

	for (i = 0; i < nmade; i++)
		if (!made[i]->known)
			pm_job_remember(made[i]);
}

/* It did not: nothing of it was. */
static void
undo_notes(void)
{
	int			i;

	for (i = 0; i < nmade; i++)
	{
		if (made[i]->known)
			pm_job_drop(made[i]);
		else
			MemoryContextDelete(made[i]->context);
	}
	for (i = nread_lanes - 1; i >= 0; i--)
		*read_lanes[i].lane = read_lanes[i].before;
}

/*
 * Claiming
 */

/* Move message "i" of the batch to the other one. */
static void
set_aside(PmBatch *batch, int i, PmBatch *aside)
{
	aside->messages[aside->nmessages++] = batch->messages[i];
}

/*
 * Of the messages read from "first" on, keep those that are to be sent now:
 * not in flight, not locked by somebody, not expired, with a template.
 */
static void
sift(PmChannel *channel, PmLane *lane, PmBatch *batch, int first,
	 PmBatch *aside, TimestampTz now)
{
	int			kept = first;
	int			i;

	for (i = first; i < batch->nmessages; i++)
		if (!pm_in_flight(batch->messages[i].id))
			batch->messages[kept++] = batch->messages[i];
	batch->nmessages = kept;
	pm_queue_lock(batch, first);

	kept = first;
	for (i = first; i < batch->nmessages; i++)
	{
		PmMessage  *m = &batch->messages[i];
		const PmTemplate *template;

		if (!m->locked)
		{
			/* Somebody cancels it, perhaps; see what becomes of that */
			if (batch->deferred)
				lane->due = TimestampTzPlusMilliseconds(now, ROW_LOCKED_DELAY);
			else
				pm_ranges_add(&lane->locked, m->id, m->id);
			lane->locked_at = TimestampTzPlusMilliseconds(now, ROW_LOCKED_DELAY);
			continue;
		}
		if (m->expires_at <= now)
		{
			pm_message_finish(m, "expired", m->last_error);
			set_aside(batch, i, aside);
			continue;
		}
		if (strcmp(m->connector, channel->name) != 0)
		{
			pm_message_finish(m, "failed", "The connector was removed.");
			set_aside(batch, i, aside);
			continue;
		}
		template = pm_find_template(channel->connector, m->usage_type,
									m->locale);
		if (template == NULL)
		{
			m->disposal = PM_DEFER;
			m->retry_at = TimestampTzPlusMilliseconds(now, NO_TEMPLATE_DELAY);
			m->last_error = PM_NO_TEMPLATE_TEXT;
			set_aside(batch, i, aside);
			continue;
		}
		m->template_alias = MemoryContextStrdup(batch->context,
												template->alias);
		batch->messages[kept++] = *m;
	}
	batch->nmessages = kept;
}

/* Read a lane of the hot table until the batch is full or nothing is left. */
static void
read_lane(PmChannel *channel, PmLane *lane, PmBatch *batch, PmBatch *aside,
		  TimestampTz now)
{
	if (lane->locked.n > 0 && lane->locked_at <= now)
	{
		int			i;

		for (i = 0; i < lane->locked.n; i++)
			pm_ranges_add(&lane->late, lane->locked.range[i].low,
						  lane->locked.range[i].high);
		lane->locked.n = 0;
	}
	while (batch->nmessages < pm_batch_size && aside->nmessages < pm_batch_size &&
		   (lane->late.n > 0 || lane->dirty))
	{
		bool		late = lane->late.n > 0;
		PmIdRange  *range = late ? &lane->late.range[0] : NULL;
		int			first = batch->nmessages;
		bool		exhausted;
		Size		size = 0;
		int64		last;
		int			i;

		for (i = 0; i < first; i++)
			size += batch->messages[i].size;
		if (size >= BATCH_BYTES)
			break;
		exhausted = pm_queue_read(batch, late ? range->low - 1 : lane->cursor,
								  late ? range->high : PG_INT64_MAX,
								  pm_batch_size - first, BATCH_BYTES - size);
		last = batch->nmessages > first
			? batch->messages[batch->nmessages - 1].id : 0;
		if (!late)
		{
			lane->cursor = Max(lane->cursor, last);
			lane->dirty = !exhausted;
		}
		else if (!exhausted)
			range->low = last + 1;
		else
			lane->late.range[0] = lane->late.range[--lane->late.n];
		sift(channel, lane, batch, first, aside, now);
	}
}

/* Read what is due of a lane's deferred messages. */
static void
read_deferred(PmChannel *channel, PmLane *lane, PmBatch *batch,
			  PmBatch *aside, TimestampTz now)
{
	bool		exhausted;

	/* Those in flight stand first, and are read in vain */
	exhausted = pm_deferred_read(batch, now,
								 pm_batch_size + lane->deferred_in_flight,
								 BATCH_BYTES);
	if (exhausted && !pm_deferred_due(lane->lane, now, &lane->due))
		lane->due = DT_NOEND;
	else if (!exhausted)
		lane->due = now;
	sift(channel, lane, batch, 0, aside, now);
	if (batch->nmessages > pm_batch_size)
	{
		batch->nmessages = pm_batch_size;
		lane->due = now;
	}
}

/* Claim a batch from one lane and write its intent; false: there was none. */
static bool
claim(PmChannel *channel, PmLane *lane, bool deferred, TimestampTz now)
{
	int			capacity = pm_batch_size +
		(deferred ? lane->deferred_in_flight : 0);
	PmBatch    *batch = pm_batch_create(CurrentMemoryContext, lane->lane,
										deferred, capacity);
	PmBatch    *aside = pm_batch_create(CurrentMemoryContext, lane->lane,
										deferred, capacity * 2);
	PmJob	   *job;

	note_lane(lane);
	if (deferred)
		read_deferred(channel, lane, batch, aside, now);
	else
		read_lane(channel, lane, batch, aside, now);
	if (aside->nmessages > 0)
		pm_batch_store(aside, now, failures > 0);
	if (batch->nmessages == 0)
	{
		MemoryContextDelete(batch->context);
		return false;
	}

	pm_batch_dispose(batch, PM_KEEP);
	pm_batch_new_uuid(batch);
	batch->created_at = now;
	batch->has_intent = true;
	pm_intent_insert(batch);

	job = pm_job_create(channel, batch, PM_JOB_READY);
	note_made(job);

	/* At once: what this turn reads next must not find them again */
	job->known = true;
	pm_job_remember(job);
	return true;
}

/*
 * Claim as much of a channel as may be sent at once, urgent lanes first, but
 * nothing more after "until".
 */
static void
claim_channel(PmChannel *channel, TimestampTz now, TimestampTz until)
{
	char	   *token;
	int			room;
	int			p;

	if (!pm_channel_ready(channel, now) || !pm_channel_has_work(channel, now))
		return;
	token = pm_channel_token(channel);
	if (token == NULL)
	{
		pm_channel_no_token(channel);
		return;
	}
	pfree(token);
	room = (channel->trial ? 1 : pm_max_in_flight) - channel->in_flight;
	room = Min(room, ANSWERED_PER_REQUEST * pm_max_in_flight -
			   channel->in_flight - channel->answered);
	if (channel->connector->max_requests_per_second > 0)
		room = Min(room, 1);
	for (p = 0; p < PM_PRIORITIES; p++)
	{
		PmLane	   *lane = channel->lanes[p];

		if (lane == NULL)
			continue;
		while (room > 0 && lane->due <= now &&
			   claim(channel, lane, true, now))
			if (--room > 0 && GetCurrentTimestamp() >= until)
				return;
		while (room > 0 &&
			   (lane->dirty || lane->late.n > 0 ||
				(lane->locked.n > 0 && lane->locked_at <= now)) &&
			   claim(channel, lane, false, now))
			if (--room > 0 && GetCurrentTimestamp() >= until)
				return;
	}
}

/*
 * Storing
 */

/* Replace a refused batch by its halves, each with an intent of its own. */
static void
split(PmJob *job, TimestampTz now, bool careful)
{
	PmBatch    *batch = job->batch;
	int			middle = batch->nmessages / 2;
	int			half;
	int			i;

	pm_batch_dispose(batch, PM_RELEASE);
	if (!pm_batch_store(batch, now, careful))
		return;
	for (half = 0; half < 2; half++)
	{
		int			from = half == 0 ? 0 : middle;
		int			upto = half == 0 ? middle : batch->nmessages;
		PmBatch    *child = pm_batch_create(CurrentMemoryContext, batch->lane,
											batch->deferred, upto - from);

		for (i = from; i < upto; i++)
		{
			pm_batch_copy_message(child, &batch->messages[i]);
			child->messages[i - from].disposal = PM_KEEP;
		}
		pm_batch_new_uuid(child);
		child->created_at = now;
		child->has_intent = true;
		pm_intent_insert(child);
		note_made(pm_job_create(job->channel, child, PM_JOB_READY));
	}
}

/* Store what became of a job; careful: as for pm_batch_store. */
static void
store(PmJob *job, TimestampTz now, bool careful)
{
	if (job->state == PM_JOB_SPLIT)
		split(job, now, careful);
	else if (!pm_batch_store(job->batch, now, careful))
	{
		/* Somebody else settled it */
		pm_batch_dispose(job->batch, PM_STORED);
	}
}

static bool
to_be_stored(const PmJob *job, TimestampTz now)
{
	return (job->state == PM_JOB_STORE || job->state == PM_JOB_SPLIT) &&
		job->act_at <= now;
}

/* A job's outcome is committed. */
static void
stored(PmJob *job)
{
	Size		size = 0;
	int			i;

	if (job->store_failures > 0)
		job->channel->unstored--;
	job->store_failures = 0;
	job->by_row = false;
	for (i = 0; i < job->batch->nmessages; i++)
	{
		PmMessage  *m = &job->batch->messages[i];

		size += m->size;
		if (m->disposal == PM_FINISH)
			pm_house_finished(m);
	}
	pm_space_used(size);
	if (job->state == PM_JOB_SPLIT)
		pm_job_drop(job);
	else
		pm_job_settle(job);
}

static void
store_troubles(void)
{
	int			i;

	for (i = 0; i < pm_channel_count(); i++)
	{
		PmChannel  *channel = pm_channel(i);

		if (!channel->trouble_dirty)
			continue;
		pm_trouble_store(channel->name,
						 channel->trouble == NULL ? NULL :
						 channel->state == PM_BLOCKED ? "blocked" : "backing_off",
						 channel->trouble, channel->trouble_hint);
	}
}

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
		channel->trouble_shown = (channel->trouble != NULL);
	}
}

/*
 * The turn's transaction
 */

/* Count what this turn leaves to be stored. */
static void
count_answered(void)
{
	dlist_iter	iter;
	int			i;

	for (i = 0; i < pm_channel_count(); i++)
		pm_channel(i)->answered = 0;
	dlist_foreach(iter, pm_jobs())
	{
		PmJob	   *job = dlist_container(PmJob, node, iter.cur);

		if ((job->state == PM_JOB_STORE || job->state == PM_JOB_SPLIT) &&
			!job->storing)
			job->channel->answered++;
	}
}

static void
turn_body(void *arg)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz until = now + CLAIM_TIME;
	int			n = pm_channel_count();
	bool		enough = false;
	dlist_iter	iter;
	int			i;

	dlist_foreach(iter, pm_jobs())
	{
		PmJob	   *job = dlist_container(PmJob, node, iter.cur);

		job->storing = !enough && to_be_stored(job, now) && !job->by_row;
		if (!job->storing)
			continue;
		store(job, now, failures > 0);
		enough = GetCurrentTimestamp() >= now + STORE_TIME;
	}
	store_troubles();
	count_answered();
	pm_queue_keep_out_cancels();
	for (i = 0; i < n; i++)
	{
		if (pm_jobs_bytes() >= ALL_BODIES ||
			(nmade > 0 && GetCurrentTimestamp() >= until))
			break;
		claim_channel(pm_channel((next_channel + i) % n), now, until);
	}
	if (n > 0)
		next_channel = (next_channel + Max(i, 1)) % n;
}

static void
store_one_body(void *arg)
{
	begin_notes();
	store((PmJob *) arg, GetCurrentTimestamp(), true);
}

/*
 * Store a result by itself, message by message if need be, after a transaction
 * that stored it among others failed.
 */
static void
store_carefully(PmJob *job)
{
	PmBatch    *batch = job->batch;
	PmDisposal *wanted;
	int			sqlstate;
	bool		complete = true;
	int			i;

	if (job->state == PM_JOB_SPLIT)
	{
		/* Give it up whole; it is refused and split anew */
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
	job->act_at =
		TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
									Min(FAILED_DELAY << Min(job->store_failures, 6),
										FAILED_CEILING));
	job->by_row = true;
	if (sqlstate == ERRCODE_LOCK_NOT_AVAILABLE)
		return;

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
		if (wanted[i] == PM_STORED || wanted[i] == PM_KEEP)
			continue;
		batch->messages[i].disposal = wanted[i];
		if (pm_run_transaction("store the result of a message", store_one_body,
							   job, &sqlstate))
			wanted[i] = PM_STORED;
		else
		{
			batch->messages[i].disposal = PM_KEEP;
			complete = false;
		}
		if (wanted[i] == PM_STORED)
			batch->messages[i].disposal = PM_STORED;
	}
	for (i = 0; i < batch->nmessages; i++)
		batch->messages[i].disposal = wanted[i];
	pfree(wanted);
	if (complete)
		stored(job);
}

/*
 * The turn's transaction failed, nothing of it happened.  If it was for a lock
 * that somebody has, it is tried again soon; else the results are stored one
 * by one, so that a bad one does not hold up the others.
 */
static void
turn_failed(int sqlstate)
{
	bool		locked = (sqlstate == ERRCODE_LOCK_NOT_AVAILABLE);
	dlist_mutable_iter iter;

	undo_notes();
	failures++;
	retry_at =
		TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
									locked ? LOCKED_DELAY
									: Min(FAILED_DELAY << Min(failures, 5),
										  FAILED_CEILING));
	dlist_foreach_modify(iter, pm_jobs())
	{
		PmJob	   *job = dlist_container(PmJob, node, iter.cur);
		bool		storing = job->storing;

		job->storing = false;
		if (storing && !locked)
			store_carefully(job);
	}
}

static void
run_turn(void)
{
	dlist_mutable_iter iter;
	bool		any_stored = false;
	int			sqlstate;

	begin_notes();
	if (!pm_run_transaction("store results and claim messages", turn_body,
							NULL, &sqlstate))
	{
		turn_failed(sqlstate);
		return;
	}
	failures = 0;
	dlist_foreach_modify(iter, pm_jobs())
	{
		PmJob	   *job = dlist_container(PmJob, node, iter.cur);

		if (!job->storing)
			continue;
		job->storing = false;
		any_stored = true;
		stored(job);
	}
	keep_notes();
	troubles_stored();
	if (any_stored || nread_lanes > 0)
		pm_scan_active();
	ConditionVariableBroadcast(&slot->finished);
}

/* Take in what requests have brought. */
static void
collect_requests(void)
{
	PmHttpRequest *request;

	while ((request = pm_http_next_done()) != NULL)
	{
		void	   *owner = pm_http_owner(request);
		int			i;

		for (i = 0; i < pm_channel_count(); i++)
			if (pm_channel(i) == owner)
				break;
		if (i < pm_channel_count() && pm_channel(i)->recent_asked)
			pm_failover_found(owner, request);
		else if (i < pm_channel_count())
			pm_probe_found(owner, request);
		else if (((PmJob *) owner)->state == PM_JOB_SENDING)
			pm_job_sent(owner);
		else
			pm_doubt_found(owner);
	}
}

/* Whether the turn's transaction has anything to do. */
static bool
turn_has_work(TimestampTz now)
{
	dlist_iter	iter;
	int			i;

	dlist_foreach(iter, pm_jobs())
	{
		PmJob	   *job = dlist_container(PmJob, node, iter.cur);

		if (to_be_stored(job, now) && !job->by_row)
			return true;
	}
	for (i = 0; i < pm_channel_count(); i++)
	{
		PmChannel  *channel = pm_channel(i);

		if (channel->trouble_dirty ||
			(pm_channel_ready(channel, now) && pm_channel_has_work(channel, now)))
			return true;
	}
	return false;
}

/* Move every job on that can be moved on without a transaction. */
static void
advance_jobs(TimestampTz now)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, pm_jobs())
	{
		PmJob	   *job = dlist_container(PmJob, node, iter.cur);

		if (job->state == PM_JOB_READY)
			pm_job_start(job);
		else if (job->state == PM_JOB_DOUBT)
			pm_doubt_look(job, now);
		else if (job->by_row && to_be_stored(job, now))
			store_carefully(job);
	}
}

/* When there is something to do without anything happening. */
static TimestampTz
next_turn(TimestampTz now)
{
	TimestampTz next = Min(pm_house_next(),
						   pm_space_next(!dlist_is_empty(pm_jobs())));
	dlist_iter	iter;
	int			i;

	dlist_foreach(iter, pm_jobs())
	{
		PmJob	   *job = dlist_container(PmJob, node, iter.cur);

		if (job->state == PM_JOB_STORE || job->state == PM_JOB_SPLIT ||
			job->state == PM_JOB_DOUBT)
			next = Min(next, job->act_at);
		else if (job->state == PM_JOB_READY && job->channel->in_flight == 0)
			next = Min(next, TimestampTzPlusMilliseconds(now, LOCKED_DELAY));
	}
	for (i = 0; i < pm_channel_count(); i++)
	{
		next = Min(next, pm_channel_next(pm_channel(i), now));
		if (pm_channel(i)->trouble_dirty)
			next = now;
	}
	if (dlist_is_empty(pm_jobs()))
		next = Min(next, pm_scan_next());
	return next == DT_NOEND ? next : Max(next, retry_at);
}

/*
 * Do all there is to do at the moment.  Returns when there will be more to do
 * if nothing happens meanwhile, DT_NOEND for never.
 */
TimestampTz
pm_delivery_turn(void)
{
	TimestampTz now = GetCurrentTimestamp();
	int			i;

	if (retry_at <= now)
		scan(now);
	if (!pm_scan_loaded())
		return retry_at;
	if (pm_scan_copied())
		return DT_NOEND;

	collect_requests();
	for (i = 0; i < pm_channel_count(); i++)
	{
		PmChannel  *channel = pm_channel(i);

		pm_channel_tick(channel, now);
		if (!pm_probe_ask(channel, now) && channel->connector &&
			!channel->probing)
			pm_failover_ask(channel, now);
	}
	pm_failover_end();
	if (retry_at <= now && turn_has_work(now))
		run_turn();
	advance_jobs(now);

	if (pm_house_keep(now))
		ConditionVariableBroadcast(&slot->finished);
	pm_space_keep(now, !dlist_is_empty(pm_jobs()));

	/* Before a long sleep: what came in without a wake-up, perhaps */
	if (dlist_is_empty(pm_jobs()) && pm_scan_next() <= now)
	{
		pm_scan_rescan();
		return now;
	}
	return next_turn(now);
}
