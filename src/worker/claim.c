/*-------------------------------------------------------------------------
 *
 * claim.c
 *		Claiming messages: from the queue into jobs, each of which is one
 *		request.
 *
 * A message is claimed when the intent that names it is committed; until then
 * it is in the queue, and nobody has sent it.  So all of this is done in a
 * turn's transaction, and what it changes in memory goes back with it (turn.c).
 *
 * Channels claim in turns and urgent lanes first.  What is read but not to be
 * sent, as it has expired or has no template, is set aside and stored at once;
 * and so is all that a connector captures, for which there is no request.
 *
 * src/worker/claim.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/catalog.h"
#include "base/clock.h"
#include "feedback/suppression.h"
#include "queue/batch.h"
#include "queue/message_id.h"
#include "queue/queue.h"
#include "settings/connector.h"
#include "settings/guc.h"
#include "shared/slots.h"
#include "shared/transaction.h"
#include "shared/wakeup.h"
#include "worker/channel.h"
#include "worker/claim.h"
#include "worker/failover.h"
#include "worker/housekeeping.h"
#include "worker/jobs.h"
#include "worker/lane.h"
#include "worker/queue_space.h"
#include "worker/share.h"
#include "worker/turn.h"

/* A request's messages have about this many bytes at most. */
#define BATCH_BYTES			(1024 * 1024)

/*
 * Results that wait to be stored, and requests under way, are together at most
 * so many times max_in_flight.  Without a limit a server that answers faster
 * than we can store fills our memory with results, all of which a crash would
 * leave in doubt.
 */
#define ANSWERED_PER_REQUEST 2

/*
 * Messages that were in doubt once share a request with so many at most: one
 * of them may be the culprit, and then all of them rest again.  Whoever was in
 * doubt twice goes alone.
 */
#define DOUBTFUL_BATCH		50

/*
 * When somebody has messages locked, try them again after, ms, and so much
 * longer for each of them, us: several times as long as it takes to see that.
 */
#define ROW_LOCKED_DELAY	100
#define EACH_LOCKED_DELAY	50

/* When somebody has a table locked, try it again after, ms */
#define TABLE_LOCKED_DELAY	100

/* Where messages are claimed from */
typedef enum Source
{
	FROM_QUEUE,
	FROM_DEFERRED,
	FROM_DOUBTFUL				/* deferred ones that were in doubt */
} Source;

/* Messages that were read in vain, as they are locked or on their way */
typedef struct Vain
{
	int			n;
	Size		size;			/* bytes */
} Vain;

static int	next_channel;		/* who claims first */

/* Move message "i" of the batch to the other one. */
static void
set_aside(PmBatch *batch, int i, PmBatch *aside)
{
	aside->messages[aside->nmessages++] = batch->messages[i];
}

/* When to try messages again of which somebody had so many locked. */
static PmMoment
unlocked_at(PmMoment now, int nlocked)
{
	return pm_later(now, ROW_LOCKED_DELAY) +
		(int64) nlocked * EACH_LOCKED_DELAY;
}

/*
 * Of the messages read from "first" on, keep those that are to be sent now:
 * not in flight, not locked by somebody, not expired, with a template, to an
 * address that is not suppressed, of a channel that does not capture them.
 * Those that neither stay nor are set aside are added to "vain".
 */
static void
sift(PmChannel *channel, PmLane *lane, PmBatch *batch, int first,
	 PmBatch *aside, Vain *vain, PmMoment now)
{
	TimestampTz time = GetCurrentTimestamp();
	int			kept = first;
	int			i;

	for (i = first; i < batch->nmessages; i++)
	{
		if (!pm_in_flight(batch->messages[i].id))
			batch->messages[kept++] = batch->messages[i];
		else
		{
			vain->n++;
			vain->size += batch->messages[i].size;
		}
	}
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
			vain->n++;
			vain->size += m->size;
			if (!batch->deferred)
			{
				pm_ranges_add(&lane->locked, m->id, m->id);
				lane->locked_at = unlocked_at(now, ++lane->nlocked);
			}
			continue;
		}
		if (m->expires_at <= time)
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
		if (m->size > PM_MESSAGE_MAX)
		{
			pm_message_finish(m, "failed", "The message is larger than Postmark takes.");
			set_aside(batch, i, aside);
			continue;
		}
		template = pm_find_template(channel->connector, m->usage_type,
									m->locale);
		if (template == NULL)
		{
			m->disposal = PM_DEFER;
			m->retry_at = TimestampTzPlusMilliseconds(time, PM_NO_TEMPLATE_DELAY);
			m->last_error = PM_NO_TEMPLATE_TEXT;
			set_aside(batch, i, aside);
			continue;
		}
		m->template_alias = MemoryContextStrdup(batch->context,
												template->alias);
		batch->messages[kept++] = *m;
	}
	batch->nmessages = kept;

	if (pm_suppressed_messages(channel->connector, batch, first) == 0 &&
		!pm_channel_captures(channel))
		return;
	kept = first;
	for (i = first; i < batch->nmessages; i++)
	{
		if (batch->messages[i].disposal != PM_FINISH &&
			pm_channel_captures(channel))
			pm_message_capture(batch, &batch->messages[i]);
		if (batch->messages[i].disposal == PM_FINISH)
			set_aside(batch, i, aside);
		else
			batch->messages[kept++] = batch->messages[i];
	}
	batch->nmessages = kept;
}

/* Bytes that the batch's messages have together, roughly */
static Size
batch_bytes(const PmBatch *batch)
{
	Size		size = 0;
	int			i;

	for (i = 0; i < batch->nmessages; i++)
		size += batch->messages[i].size;
	return size;
}

/*
 * Whether there is room for more, having read a batch, what was set aside, and
 * some in vain.  So much of that is enough for a turn: somebody may have a
 * whole backlog locked, and other lanes have messages, too.
 *
 * left: becomes the bytes that may still be read
 */
static bool
may_read(const PmBatch *batch, int limit, const PmBatch *aside,
		 const Vain *vain, Size *left)
{
	Size		size = batch_bytes(batch) + batch_bytes(aside) + vain->size;

	*left = BATCH_BYTES - Min(size, BATCH_BYTES);
	return *left > 0 && batch->nmessages < limit &&
		aside->nmessages < pm_batch_size && vain->n < pm_batch_size;
}

/*
 * Read a lane of the hot table until the batch is full or nothing is left,
 * above what others may have sent.
 */
static void
read_lane(PmChannel *channel, PmLane *lane, PmBatch *batch, PmBatch *aside,
		  PmMoment now)
{
	int			limit = pm_channel_batch_size(channel);
	int64		floor = pm_failover_floor(channel);
	Vain		vain = {0, 0};
	Size		left;

	if (lane->locked.n > 0 && lane->locked_at <= now)
	{
		int			i;

		for (i = 0; i < lane->locked.n; i++)
			pm_ranges_add(&lane->late, lane->locked.range[i].low,
						  lane->locked.range[i].high);
		lane->locked.n = 0;
		lane->nlocked = 0;
	}
	while ((lane->late.n > 0 || lane->dirty) &&
		   may_read(batch, limit, aside, &vain, &left))
	{
		bool		late = lane->late.n > 0;
		PmIdRange  *range = late ? &lane->late.range[0] : NULL;
		int			first = batch->nmessages;
		bool		exhausted;
		int64		last;

		if (late && range->high <= floor)
		{
			/* All of it is looked at again when that is known */
			pm_ranges_drop_first(&lane->late);
			continue;
		}
		exhausted = pm_queue_read(batch,
								  Max(late ? range->low - 1 : lane->cursor,
									  floor),
								  late ? range->high : PG_INT64_MAX,
								  limit - first, left);
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
			pm_ranges_drop_first(&lane->late);
		sift(channel, lane, batch, first, aside, &vain, now);
	}
}

/*
 * Whether a deferred message of a channel is not to be claimed: it is in flight
 * already, but still in the table, or others may have sent it.
 */
static bool
passed_over(int64 id, void *arg)
{
	return pm_in_flight(id) || pm_failover_withheld(arg, id);
}

/*
 * Of messages that were in doubt, keep those from the first on that may share a
 * request.  Returns whether there were others.
 */
static bool
keep_company(PmBatch *batch)
{
	int			n = batch->nmessages;
	int			i;

	for (i = 0; i < n; i++)
		if (batch->messages[i].ndoubts > 1)
			break;
	batch->nmessages = Min(Max(i, 1), n);
	return batch->nmessages < n;
}

/*
 * Read what is due of a lane's deferred messages, of those that were in doubt
 * or of the others, until the batch is full or nothing is left.  Where all that
 * may be read at once was locked, the next turn goes on behind it.
 */
static void
read_deferred(PmChannel *channel, PmLane *lane, bool doubtful, PmBatch *batch,
			  PmBatch *aside, PmMoment now)
{
	PmWalk	   *walk = doubtful ? &lane->doubtful_walk : &lane->walk;
	PmDeferredPosition position = walk->position;
	TimestampTz time = GetCurrentTimestamp();
	Vain		vain = {0, 0};
	Size		left;
	PmMoment   *due = doubtful ? &lane->doubtful_due : &lane->due;
	int			limit = doubtful ? Min(pm_batch_size, DOUBTFUL_BATCH)
		: pm_channel_batch_size(channel);
	bool		exhausted = false;

	*due = PM_NEVER;
	while (!exhausted && may_read(batch, limit, aside, &vain, &left))
	{
		int			first = batch->nmessages;

		exhausted = pm_deferred_read(batch, doubtful, time, &position,
									 passed_over, channel, limit - first, left);
		sift(channel, lane, batch, first, aside, &vain, now);
	}
	if (doubtful && keep_company(batch))
		exhausted = false;
	if (!exhausted)
	{
		*due = now;
		if (batch->nmessages == 0 && aside->nmessages == 0)
		{
			walk->position = position;
			walk->locked += vain.n;
		}
	}
	else
	{
		int			nlocked = walk->locked + vain.n;
		TimestampTz next;

		pm_walk_begin(walk);
		if (nlocked > 0)
			*due = unlocked_at(now, nlocked);
		if (pm_deferred_due(lane->lane, doubtful, time, &next))
			*due = Min(*due, pm_moment_of(next));
	}
}

/* Store what is not to be sent, and note when to look at it again. */
static void
store_aside(PmBatch *aside, PmLane *lane, bool careful)
{
	int			i;

	pm_batch_store(aside, GetCurrentTimestamp(), careful);
	pm_space_used(batch_bytes(aside));
	for (i = 0; i < aside->nmessages; i++)
	{
		const PmMessage *m = &aside->messages[i];

		if (m->disposal == PM_DEFER)
			pm_lane_look(lane, pm_moment_of(m->retry_at));
		else
			pm_house_finished(m);
	}
}

/*
 * Claim a batch from one lane and write its intent; false: there was none.
 *
 * Settings may have changed since the worker read them, and what was queued
 * after that is not to go by the old ones: not out of a connector that is
 * paused by now, or captures.  What was read is looked at again with the new.
 */
static bool
claim(PmTurn *turn, PmChannel *channel, PmLane *lane, Source source)
{
	PmMoment	now = turn->now;
	bool		deferred = source != FROM_QUEUE;
	PmBatch    *batch;
	PmBatch    *aside;
	PmJob	   *job;

	if (pm_settings_pending())
		return false;
	batch = pm_batch_create(CurrentMemoryContext, lane->lane, deferred,
							pm_batch_size);
	aside = pm_batch_create(CurrentMemoryContext, lane->lane, deferred,
							pm_batch_size * 2);
	turn->claiming = channel;
	turn->claiming_lane = lane;
	turn->claiming_deferred = deferred;
	pm_turn_note_lane(turn, lane);
	if (deferred)
		read_deferred(channel, lane, source == FROM_DOUBTFUL, batch, aside,
					  now);
	else
		read_lane(channel, lane, batch, aside, now);
	if (pm_settings_pending())
	{
		pm_turn_unread_lane(turn);
		MemoryContextDelete(batch->context);
		return false;
	}
	if (aside->nmessages > 0)
		store_aside(aside, lane, turn->careful);
	if (deferred || (lane->late.n == 0 && lane->locked.n == 0))
		lane->failures = 0;
	if (batch->nmessages == 0)
	{
		MemoryContextDelete(batch->context);
		return false;
	}

	pm_batch_dispose(batch, PM_KEEP);
	pm_batch_new_uuid(batch);
	batch->created_at = GetCurrentTimestamp();
	batch->has_intent = true;
	pm_intent_insert(batch);

	pm_turn_expect_jobs(turn, 1);
	job = pm_job_create(channel, batch, PM_JOB_READY);
	pm_turn_note_job(turn, job);

	/* At once: what this turn reads next must not find them again */
	pm_job_remember(job);
	pm_share_claimed(channel, job->size);
	return true;
}

/* Whether there may be something of the channel to claim, and room for it. */
static bool
may_claim(PmChannel *channel, PmMoment now)
{
	return pm_channel_can_claim(channel, now) &&
		pm_share_requests(channel) > 0 && pm_share_may_claim(channel);
}

/* Whether a lane has something to be claimed from that source. */
static bool
has_work(const PmLane *lane, Source source, PmMoment now)
{
	return source == FROM_QUEUE ? pm_lane_hot_work(lane, now)
		: pm_lane_deferred_work(lane, source == FROM_DOUBTFUL, now);
}

/*
 * Claim as much of a channel as may be sent at once, urgent lanes first, but
 * nothing more after "until".
 */
static void
claim_channel(PmTurn *turn, PmChannel *channel, PmMoment until)
{
	/* What waits for longest goes first; it has not all of the room */
	static const Source sources[] = {FROM_DOUBTFUL, FROM_DEFERRED, FROM_QUEUE};
	char	   *token;
	int			room;
	int			doubtful_room;
	PmMoment	now = turn->now;
	int			total;
	int			p;

	if (!may_claim(channel, now))
		return;
	token = pm_channel_token(channel);
	if (token)
		pfree(token);
	else if (!pm_channel_captures(channel))
	{
		pm_channel_no_token(channel);
		return;
	}
	doubtful_room = pm_channel_room(channel, true, now);
	room = pm_channel_room(channel, false, now);
	total = Min(pm_max_in_flight - channel->in_flight,
				pm_share_requests(channel));
	total = Min(total, ANSWERED_PER_REQUEST * pm_max_in_flight -
				channel->in_flight - channel->answered);
	if (channel->connector->max_requests_per_second > 0)
		total = Min(total, 1);
	for (p = 0; p < PM_PRIORITIES; p++)
	{
		PmLane	   *lane = channel->lanes[p];
		int			s;

		for (s = 0; lane != NULL && s < lengthof(sources); s++)
		{
			int		   *left = sources[s] == FROM_DOUBTFUL ? &doubtful_room
				: &room;

			while (*left > 0 && total > 0 && has_work(lane, sources[s], now) &&
				   pm_share_may_claim(channel) &&
				   claim(turn, channel, lane, sources[s]))
			{
				(*left)--;
				if (--total > 0 && pm_moment() >= until)
					return;
			}
		}
	}
}

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

/* Whether any channel may have something to claim. */
bool
pm_claim_wanted(PmMoment now)
{
	int			i;

	for (i = 0; i < pm_channel_count(); i++)
		if (may_claim(pm_channel(i), now))
			return true;
	return false;
}

/*
 * Claim what may be sent, of all channels, and write the intents.  To be called
 * in a turn's transaction, after its results were stored.
 *
 * until: no more is claimed after this time, but at least one batch
 *
 * Raises what the queue's SQL does.
 */
void
pm_claim(PmTurn *turn, PmMoment until)
{
	int			n = pm_channel_count();
	int			i;

	count_answered();
	pm_queue_keep_out_cancels();
	for (i = 0; i < n; i++)
	{
		if (turn->njobs > 0 && pm_moment() >= until)
			break;
		claim_channel(turn, pm_channel((next_channel + i) % n), until);
	}
	if (n > 0)
		next_channel = (next_channel + Max(i, 1)) % n;
	turn->claiming = NULL;
}

static void
last_id_body(void *arg)
{
	*(int64 *) arg = pm_last_message_id();
}

/*
 * The turn's transaction failed, and the lanes are as they were before it.  If
 * it was for what was being claimed, that is set aside for a while, so that the
 * next turn goes on with the rest.  Returns whether that was so.
 */
bool
pm_claim_failed(PmTurn *turn, int sqlstate)
{
	PmChannel  *channel = turn->claiming;
	PmLane	   *lane = turn->claiming_lane;
	bool		deferred = turn->claiming_deferred;
	PmObject	table = pm_queue_table();
	PmMoment	now = pm_moment();
	PmMoment	until;
	int64		last_id = 0;
	int			error;

	turn->claiming = NULL;
	if (channel == NULL || table == PM_INTENTS)
		return false;

	/* Rows that somebody has locked are passed over: this is a table */
	if (sqlstate == ERRCODE_LOCK_NOT_AVAILABLE)
	{
		until = pm_later(now, TABLE_LOCKED_DELAY);
		if (table == PM_QUEUE || table == PM_DEFERRED)
			pm_lanes_hold(table == PM_DEFERRED, until);
		if (table != (deferred ? PM_DEFERRED : PM_QUEUE))
			lane->hold_hot = lane->hold_deferred = until;
		return true;
	}

	pm_channel_damaged(channel, pm_queue_failure());
	until = pm_later(now, pm_failure_delay(lane->failures + 1));
	if (table != (deferred ? PM_DEFERRED : PM_QUEUE))
		pm_lane_hold(lane, until);
	else if (deferred ||
			 pm_run_transaction(NULL, last_id_body, &last_id, &error))
		pm_lane_failed(lane, deferred, last_id, now, until);
	else
		pm_lane_hold(lane, until);
	return true;
}
