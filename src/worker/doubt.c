/*-------------------------------------------------------------------------
 *
 * doubt.c
 *		Batches whose outcome is unknown.
 *
 * Postmark has no idempotency key, so a batch that may have been accepted is
 * not sent again but looked up: every message carries its batch as metadata,
 * and Postmark's message search finds what it accepted.  Only what it does not
 * have goes back into the queue.  The search lags behind, so a batch rests for
 * settle_time first.
 *
 * What was sent before a connector got another message stream is in the one that
 * it had, and so each of its streams is searched.
 *
 * It may lag by more than that, so what was in doubt remembers in which batches
 * it was, and when it is in doubt once more all of them are looked up: a single
 * message by its own id, which every copy of it has.  It rests for longer each
 * time.  And since it may be the message that makes Postmark fail, it goes with
 * few others the second time and alone from then on (claim.c), at a pace that
 * is not the channel's (channel.c), and not for ever.
 *
 * src/worker/doubt.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/uuid_text.h"
#include "postmark/api.h"
#include "postmark/api_errors.h"
#include "postmark/http.h"
#include "queue/batch.h"
#include "queue/queue.h"
#include "settings/connector.h"
#include "settings/guc.h"
#include "shared/stats.h"
#include "worker/backoff.h"
#include "worker/channel.h"
#include "worker/doubt.h"
#include "worker/jobs.h"

static void page_came(void *arg, PmHttpRequest *request);

/* Searches that fail are tried again after, ms, doubling */
#define SEARCH_BASE		1000
#define SEARCH_CEILING	60000

/* What waits for another search looks again after, ms */
#define HELD_DELAY		1000

/*
 * A message that was in doubt so often, and that Postmark does not have, is not
 * tried again.
 */
#define DOUBTS_MAX		5

#define NEVER_ANSWERED \
	"The outcome of every request with the message was unknown; Postmark's message search does not have it."

/*
 * Take over the intents that an earlier worker left: each of them is in doubt.
 * Needs a transaction, see queue.h.
 */
void
pm_doubt_load(PmIntent *intents, int nintents)
{
	int			i;

	for (i = 0; i < nintents; i++)
	{
		PmIntent   *intent = &intents[i];
		PmChannel  *channel = pm_channel_by_number(PM_LANE_CONNECTOR(intent->lane));
		PmBatch    *batch;
		PmJob	   *job;

		if (channel == NULL)
			continue;
		batch = pm_batch_create(CurrentMemoryContext, intent->lane,
								intent->deferred, intent->nids);
		batch->uuid = intent->uuid;
		pm_format_uuid(&batch->uuid, batch->uuid_text);
		batch->created_at = intent->created_at;
		batch->has_intent = true;
		pm_queue_read_ids(batch, intent->ids, intent->nids);
		job = pm_job_create(channel, batch, PM_JOB_DOUBT);
		pm_job_remember(job);

		/* It may be under way still: he who sent it is gone, not Postmark */
		pm_job_doubt(job, pm_job_life_ends(batch));
	}
}

/*
 * When a message of the channel that cannot be looked up has to be decided on.
 * Where it would be captured there is nothing to decide: it may have been sent.
 */
TimestampTz
pm_decide_at(const PmChannel *channel, const PmMessage *m)
{
	if (pm_in_doubt == PM_IN_DOUBT_HOLD || pm_channel_captures(channel))
		return m->expires_at;
	return pm_expires_soon_at(m);
}

/* Send a message again, or, with the error given, finish it if it is late. */
static void
send_again(PmBatch *batch, PmMessage *m, TimestampTz now, const char *error)
{
	m->attempts++;
	pm_message_doubted(batch, m);
	if (m->expires_at <= now)
		pm_message_finish(m, "expired", error);
	else if (m->ndoubts >= DOUBTS_MAX)
		pm_message_finish(m, "failed", error ? error : NEVER_ANSWERED);
	else
	{
		m->disposal = PM_DEFER;
		m->retry_at = now;
	}
}

/*
 * The search cannot tell.  Decide, as in_doubt says, on those messages that
 * cannot wait; try again later for the others.
 */
static void
search_failed(PmJob *job)
{
	TimestampTz now = GetCurrentTimestamp();
	bool		decided = false;
	int			i;

	job->failures++;
	job->search_offset = 0;
	job->state = PM_JOB_DOUBT;
	job->act_at =
		pm_later(pm_moment(),
				 SEARCH_BASE / 2 +
				 pm_jitter(Min(SEARCH_BASE << Min(job->failures, 8),
							   SEARCH_CEILING)));
	for (i = 0; i < job->batch->nmessages; i++)
	{
		PmMessage  *m = &job->batch->messages[i];

		if (m->disposal != PM_KEEP)
			decided = true;
		else if (pm_decide_at(job->channel, m) > now)
			job->act_at = Min(job->act_at,
							  pm_moment_of(pm_decide_at(job->channel, m)));
		else
		{
			decided = true;
			m->last_error = PM_MAY_HAVE_BEEN_SENT;
			send_again(job->batch, m, now, PM_MAY_HAVE_BEEN_SENT);
		}
	}
	if (decided)
	{
		job->state = PM_JOB_STORE;
		job->act_at = PM_AT_ONCE;
	}
}

/* Of a job that is asked for by the id of its only message. */
static bool
by_message(const PmJob *job)
{
	return job->batch->nmessages == 1 && job->batch->messages[0].ndoubts > 0;
}

/* Find out which batches have to be asked for: the messages' own and earlier. */
static void
collect_batches(PmJob *job)
{
	PmBatch    *batch = job->batch;
	int			max = 1;
	int			i;

	for (i = 0; i < batch->nmessages; i++)
		max += batch->messages[i].ndoubts;
	job->batches = MemoryContextAlloc(job->context, sizeof(pg_uuid_t) * max);
	job->batches[0] = batch->uuid;
	job->nbatches = 1;
	for (i = 0; i < batch->nmessages; i++)
	{
		PmMessage  *m = &batch->messages[i];
		int			d;

		for (d = 0; d < m->ndoubts; d++)
		{
			int			b;

			for (b = 0; b < job->nbatches; b++)
				if (memcmp(&job->batches[b], &m->doubts[d],
						   sizeof(pg_uuid_t)) == 0)
					break;
			if (b == job->nbatches)
				job->batches[job->nbatches++] = m->doubts[d];
		}
	}
}

/*
 * Whether a job waits for all that Postmark can tell of what others sent: its
 * messages may have been sent in batches that it does not know.
 */
static bool
is_held(const PmJob *job)
{
	return job->inherited && job->channel->recent_wanted;
}

/* Look a batch up that has rested long enough. */
void
pm_doubt_look(PmJob *job, PmMoment now)
{
	MemoryContext old;
	char		value[Max(PM_METADATA_ID, PM_UUID_TEXT)];
	char	   *token;

	if (job->act_at > now)
		return;
	if (job->batch->nmessages == 0)
	{
		job->state = PM_JOB_STORE;
		return;
	}
	if (is_held(job))
	{
		if (job->channel->recent_failures > 0)
			search_failed(job);
		else
			job->act_at = pm_later(now, HELD_DELAY);
		return;
	}
	token = pm_channel_token(job->channel);
	if (token == NULL)
	{
		search_failed(job);
		return;
	}
	job->state = PM_JOB_SEARCHING;
	if (job->batches == NULL)
		collect_batches(job);
	if (by_message(job))
		pm_metadata_id(&job->batch->messages[0], value);
	else
		pm_format_uuid(&job->batches[job->searched], value);
	old = MemoryContextSwitchTo(job->context);
	job->asker = (PmAsker) {page_came, job};
	job->request = pm_api_start_search(job->channel->connector, token,
									   job->channel->streams[job->search_stream],
									   by_message(job), value,
									   job->search_offset, &job->asker);
	MemoryContextSwitchTo(old);
	pfree(token);
}

/* Mark the message that a search found as sent. */
static void
mark_found(PmJob *job, const PmFound *found)
{
	PmBatch    *batch = job->batch;
	int64		id = strtoll(found->metadata_id, NULL, 10);
	int			i;

	for (i = 0; i < batch->nmessages; i++)
	{
		PmMessage  *m = &batch->messages[i];
		char		metadata[PM_METADATA_ID];

		if (m->id != id)
			continue;
		pm_metadata_id(m, metadata);
		if (m->disposal == PM_KEEP &&
			strcmp(metadata, found->metadata_id) == 0)
		{
			pg_uuid_t  *message_id;

			m->attempts++;
			message_id = MemoryContextAlloc(batch->context,
											sizeof(pg_uuid_t));
			*message_id = found->message_id;
			m->message_id = message_id;
			m->error_code = -1;
			pm_message_finish(m, "sent", NULL);
			pm_stats_add(job->channel->stats, PM_COUNT_FOUND_AGAIN, 1);
			m->last_error = NULL;
		}
		return;
	}
}

/*
 * Whether a search failed since Postmark does not know a stream that is the
 * connector's no more: nothing can have been sent in it.
 */
static bool
is_gone(const PmJob *job, const PmVerdict *verdict)
{
	const PmConnector *connector = job->channel->connector;

	return connector && !connector->invalid &&
		strcmp(job->channel->streams[job->search_stream],
			   connector->message_stream) != 0 &&
		pm_api_blames_stream(verdict);
}

/* A search has ended: take in its page, and ask for the next or settle. */
static void
page_came(void *arg, PmHttpRequest *request)
{
	PmJob	   *job = arg;
	PmBatch    *batch = job->batch;
	MemoryContext scratch = AllocSetContextCreate(job->context, "search",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(scratch);
	TimestampTz now = GetCurrentTimestamp();
	PmHttpResult result;
	PmVerdict	verdict;
	PmFoundPage page;
	bool		readable;
	int			i;

	pm_http_result(job->request, &result);
	readable = pm_api_read_search(&result, &verdict, &page);
	if (readable)
		for (i = 0; i < page.nfound; i++)
			mark_found(job, &page.found[i]);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(scratch);
	pm_http_release(job->request);
	job->request = NULL;

	if (!readable)
	{
		if (!is_gone(job, &verdict))
		{
			search_failed(job);
			return;
		}
		page.nread = 0;
	}
	job->search_offset += page.nread;
	if (page.nread == 0 || job->search_offset >= page.total)
	{
		job->search_offset = 0;
		job->search_stream++;
	}
	if (job->search_stream >= job->channel->nstreams)
	{
		job->search_stream = 0;
		job->searched = by_message(job) ? job->nbatches : job->searched + 1;
	}
	if (is_held(job))
		job->searched = 0;
	for (i = 0; i < batch->nmessages; i++)
		if (batch->messages[i].disposal == PM_KEEP)
			break;
	if (job->searched < job->nbatches && i < batch->nmessages)
	{
		job->state = PM_JOB_DOUBT;
		job->act_at = PM_AT_ONCE;
		return;
	}

	/* What Postmark does not have was not sent. */
	for (i = 0; i < batch->nmessages; i++)
	{
		PmMessage  *m = &batch->messages[i];

		if (m->disposal == PM_KEEP)
			send_again(batch, m, now, NULL);
	}
	job->state = PM_JOB_STORE;
}

/*
 * Mark what Postmark says that it has as sent, in all of a channel's jobs that
 * others may have sent, too.
 */
void
pm_doubt_match(PmChannel *channel, const PmFound *found, int nfound)
{
	dlist_iter	iter;

	dlist_foreach(iter, pm_jobs())
	{
		PmJob	   *job = dlist_container(PmJob, node, iter.cur);
		int			i;

		if (job->channel != channel || !is_held(job))
			continue;
		for (i = 0; i < nfound; i++)
			mark_found(job, &found[i]);
	}
}

/* All that Postmark can tell was taken in: look up what waited for it. */
void
pm_doubt_resume(PmChannel *channel)
{
	dlist_iter	iter;

	dlist_foreach(iter, pm_jobs())
	{
		PmJob	   *job = dlist_container(PmJob, node, iter.cur);

		if (job->channel == channel && job->inherited &&
			job->state == PM_JOB_DOUBT)
		{
			job->failures = 0;
			job->act_at = job->rests_until;
		}
	}
}
