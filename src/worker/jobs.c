/*-------------------------------------------------------------------------
 *
 * jobs.c
 *		Batches on their way: sending one, and what its answer means for each
 *		of its messages.
 *
 * A job owns a batch from the moment its intent is committed until nothing of
 * it is left in the intent.  Nothing here needs a transaction.
 *
 * src/worker/jobs.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/errors.h"
#include "postmark/api.h"
#include "postmark/api_errors.h"
#include "postmark/http.h"
#include "queue/batch.h"
#include "settings/guc.h"
#include "shared/stats.h"
#include "shared/transaction.h"
#include "shared/wakeup.h"
#include "worker/backoff.h"
#include "worker/channel.h"
#include "worker/jobs.h"
#include "worker/lane.h"
#include "worker/share.h"

static void answer_came(void *arg, PmHttpRequest *request);

/*
 * A request begins so soon after its intent was written, ms, or writes it
 * anew: whoever finds the intent after a crash knows when it ended.
 */
#define BEGINS_WITHIN		1000

/*
 * How long a message of unknown outcome rests before it is looked up:
 * settle_time the first time, then so many times as long as the last time, for
 * a search that lags is what makes one message two.  Up to, ms
 */
#define REST_FACTOR			4
#define REST_CEILING		3600000

static dlist_head jobs = DLIST_STATIC_INIT(jobs);
static HTAB *in_flight = NULL;

/* All jobs there are. */
dlist_head *
pm_jobs(void)
{
	return &jobs;
}

/* Whether a message belongs to a job. */
bool
pm_in_flight(int64 id)
{
	return in_flight && hash_search(in_flight, &id, HASH_FIND, NULL) != NULL;
}

/*
 * A job for a batch, which it takes over.  It is not known to anybody until
 * pm_job_remember.
 */
PmJob *
pm_job_create(PmChannel *channel, PmBatch *batch, PmJobState state)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "postmark job",
												  ALLOCSET_SMALL_SIZES);
	PmJob	   *job = MemoryContextAllocZero(context, sizeof(PmJob));
	int			i;

	/* Nothing fails any more: it is for whoever gets the job to delete */
	MemoryContextSetParent(context, TopMemoryContext);

	for (i = 0; i < batch->nmessages; i++)
		job->size += batch->messages[i].size;
	job->context = context;
	job->channel = channel;
	job->batch = batch;
	job->state = state;
	MemoryContextSetParent(batch->context, context);
	return job;
}

/*
 * The batch's intent is committed: its messages are in flight from now on.  If
 * that fails half-way the job is known all the same, for pm_job_drop.
 */
void
pm_job_remember(PmJob *job)
{
	int			i;

	if (in_flight == NULL)
	{
		HASHCTL		info;

		info.keysize = sizeof(int64);
		info.entrysize = sizeof(int64);
		info.hcxt = TopMemoryContext;
		in_flight = hash_create("postmark messages in flight", 4096, &info,
								HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	job->known = true;
	dlist_push_tail(&jobs, &job->node);
	for (i = 0; i < job->batch->nmessages; i++)
		hash_search(in_flight, &job->batch->messages[i].id, HASH_ENTER, NULL);
}

static void
release_request(PmJob *job)
{
	if (job->sending)
	{
		MemoryContextDelete(job->sending);
	}
	else if (job->request)
		pm_http_release(job->request);
	job->sending = NULL;
	job->request = NULL;
}

/* Forget a job; its messages are in flight no more. */
void
pm_job_drop(PmJob *job)
{
	int			i;

	release_request(job);
	for (i = 0; i < job->batch->nmessages; i++)
		hash_search(in_flight, &job->batch->messages[i].id, HASH_REMOVE, NULL);
	dlist_delete(&job->node);
	MemoryContextDelete(job->context);
}

/* When a message of unknown outcome is about to expire. */
TimestampTz
pm_expires_soon_at(const PmMessage *m)
{
	return m->expires_at - Min(PM_EXPIRES_SOON,
							   (m->expires_at - m->created_at) / 4);
}

/*
 * When a request of which nothing is known but its intent has ended for
 * certain, by the present settings.
 */
PmMoment
pm_job_life_ends(const PmBatch *batch)
{
	/* Of a clock that was ahead, perhaps */
	PmMoment	began = Min(pm_moment_of(batch->created_at), pm_moment());

	return pm_later(began, BEGINS_WITHIN + pm_request_timeout);
}

/*
 * What is left in a job is in doubt from now on; doubt.c looks it up.
 *
 * ended: when Postmark was done with the request, as far as we know
 */
void
pm_job_doubt(PmJob *job, PmMoment ended)
{
	PmBatch    *batch = job->batch;
	int64		rest = pm_settle_time;
	int			doubts = 0;
	int			i;

	for (i = 0; i < batch->nmessages; i++)
	{
		doubts = Max(doubts, batch->messages[i].ndoubts);
		if (batch->messages[i].disposal == PM_KEEP)
			pm_stats_add(job->channel->stats, PM_COUNT_IN_DOUBT, 1);
	}
	for (i = 0; i < doubts && rest < REST_CEILING; i++)
		rest *= REST_FACTOR;
	if (doubts > 0)
		rest = Min(rest, Max(REST_CEILING, pm_settle_time));

	job->state = PM_JOB_DOUBT;
	job->failures = 0;
	job->searched = 0;
	job->search_stream = 0;
	job->search_offset = 0;
	job->act_at = pm_later(ended, rest);

	/* But no longer than there is time to send it again */
	for (i = 0; i < batch->nmessages; i++)
		job->act_at =
			Min(job->act_at,
				pm_moment_of(pm_expires_soon_at(&batch->messages[i])));
	job->act_at = Max(job->act_at, pm_later(ended, pm_settle_time));
	job->rests_until = job->act_at;
}

/*
 * That one of the job's messages is back in a table, or deferred, is committed:
 * see that it is found there.
 */
void
pm_job_returned(PmJob *job, const PmMessage *m)
{
	PmLane	   *lane = pm_channel_lane(job->channel, job->batch->lane);

	if (m->disposal == PM_DEFER ||
		(m->disposal == PM_RELEASE && job->batch->deferred))
		pm_lane_look(lane, PM_AT_ONCE);
	else if (m->disposal == PM_RELEASE)
		pm_ranges_add(&lane->late, m->id, m->id);
}

/*
 * What the tables say of the batch now is what its messages' disposals say:
 * let go of all but those in doubt, and see that the others are found where
 * they are.
 */
void
pm_job_settle(PmJob *job)
{
	PmBatch    *batch = job->batch;
	int			kept = 0;
	int			i;

	for (i = 0; i < batch->nmessages; i++)
	{
		PmMessage  *m = &batch->messages[i];

		if (m->disposal == PM_KEEP)
		{
			batch->messages[kept++] = *m;
			continue;
		}
		hash_search(in_flight, &m->id, HASH_REMOVE, NULL);
		pm_job_returned(job, m);
	}
	batch->nmessages = kept;
	if (kept == 0)
		pm_job_drop(job);
	else
		pm_job_doubt(job, pm_moment());
}

/* Whether an error says that a text cannot be had in UTF-8. */
static bool
is_encoding_error(int sqlstate)
{
	return sqlstate == PM_ERRCODE_INVALID ||
		sqlstate == ERRCODE_CHARACTER_NOT_IN_REPERTOIRE ||
		sqlstate == ERRCODE_UNTRANSLATABLE_CHARACTER;
}

/*
 * Write the request's body and begin the request.  False if a message cannot be
 * had in UTF-8, which the queue's check keeps out, but a connector's own texts
 * might do; or for some other reason, memory for instance, which is no fault of
 * the message's.  Then nothing was sent, and nothing is left of it.
 *
 * sqlstate: set to the error's
 */
static bool
begin_request(PmJob *job, const char *token, int *sqlstate)
{
	PmBatch    *batch = job->batch;
	MemoryContext context = CurrentMemoryContext;
	volatile bool ok = true;

	PG_TRY();
	{
		int			i;

		job->sending = AllocSetContextCreate(job->context, "postmark sending",
											 ALLOCSET_SMALL_SIZES);
		MemoryContextSwitchTo(job->sending);
		initStringInfo(&job->body);
		pm_api_batch_begin(&job->body);
		for (i = 0; i < batch->nmessages; i++)
		{
			PmMessage  *m = &batch->messages[i];
			char		id[PM_METADATA_ID];
			PmApiMessage api;

			pm_metadata_id(m, id);
			memset(&api, 0, sizeof(api));
			api.to = m->email;
			api.template_alias = m->template_alias;
			api.code = m->code;
			api.payload = m->payload;
			api.no_track_links = m->no_track;
			api.metadata_id = id;
			api.metadata_batch = batch->uuid_text;
			pm_api_batch_add(&job->body, job->channel->connector, &api);
		}
		pm_api_batch_end(&job->body);

		/* It has grown by doubling */
		job->body.data = repalloc(job->body.data, job->body.len + 1);
		job->body.maxlen = job->body.len + 1;
		job->asker = (PmAsker) {answer_came, job};
		job->request = pm_api_start_batch(job->channel->connector, token,
										  &job->body, &job->asker);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		*sqlstate = geterrcode();
		FlushErrorState();
		if (job->sending)
			MemoryContextDelete(job->sending);
		job->sending = NULL;
		ok = false;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	return ok;
}

/* A request begins: count it, and how long its messages have waited for it. */
static void
count_request(PmJob *job)
{
	PmStats    *stats = job->channel->stats;
	TimestampTz now = GetCurrentTimestamp();
	PmTimes		waited = {{0}};
	int			i;

	job->started = pm_moment();
	pm_stats_add(stats, PM_COUNT_REQUESTS, 1);
	if (stats == NULL || job->batch->deferred)
		return;
	for (i = 0; i < job->batch->nmessages; i++)
		pm_times_add(&waited, now - job->batch->messages[i].created_at);
	pm_stats_mark(stats);
	pm_stats_times(stats, PM_COMMIT_TO_REQUEST, &waited);
}

/* It has ended: count how. */
static void
count_answer(PmJob *job, const PmHttpResult *result)
{
	PmStats    *stats = job->channel->stats;
	static const PmMetric by_class[] = {
		PM_COUNT_ANSWERS_2XX, PM_COUNT_ANSWERS_3XX, PM_COUNT_ANSWERS_4XX,
		PM_COUNT_ANSWERS_5XX
	};
	int			class = (int) (result->status / 100) - 2;
	PmTimes		took = {{0}};

	pm_stats_add(stats, PM_COUNT_BYTES_SENT, result->sent_len);
	if (result->phase != PM_HTTP_REPLIED)
	{
		pm_stats_add(stats, PM_COUNT_NO_ANSWER, 1);
		return;
	}
	pm_stats_add(stats, PM_COUNT_BYTES_RECEIVED, result->reply_len);
	if (class >= 0 && class < lengthof(by_class))
		pm_stats_add(stats, by_class[class], 1);
	pm_times_add(&took, pm_moment() - job->started);
	pm_stats_times(stats, PM_REQUEST_TO_ANSWER, &took);
}

/*
 * Send a job's batch.  If something expired while it waited, or others may have
 * sent it, or the channel no longer flows, it is given back to the queue
 * instead.  Returns false if it is to wait.
 */
bool
pm_job_start(PmJob *job)
{
	PmBatch    *batch = job->batch;
	TimestampTz now = GetCurrentTimestamp();
	char	   *token = NULL;
	bool		stale = false;
	int			sqlstate = 0;
	int			i;

	if (job->act_at > pm_moment())
		return false;

	/* What others may have sent is not sent before that is known */
	if (job->inherited && job->channel->recent_wanted)
		stale = true;
	job->doubtful = false;
	for (i = 0; i < batch->nmessages; i++)
	{
		if (batch->messages[i].expires_at <= now)
			stale = true;
		if (batch->messages[i].ndoubts > 0)
			job->doubtful = true;
	}
	if (!stale && pm_channel_flows(job->channel))
	{
		if (pm_channel_room(job->channel, job->doubtful, pm_moment()) == 0 ||
			pm_share_requests(job->channel) < 1 ||
			!pm_share_may_send(job->channel))
			return false;
		token = pm_channel_token(job->channel);
	}
	if (token == NULL)
	{
		pm_batch_dispose(batch, PM_RELEASE);
		job->state = PM_JOB_STORE;
		return true;
	}

	/* Once: committing may be what takes so long */
	if (!job->renewed &&
		(batch->created_at > now ||
		 TimestampDifferenceExceeds(batch->created_at, now, BEGINS_WITHIN)))
	{
		job->state = PM_JOB_LATE;
		job->act_at = PM_AT_ONCE;
		pfree(token);
		return true;
	}

	if (begin_request(job, token, &sqlstate))
	{
		pm_channel_spend(job->channel, job->doubtful);
		pm_share_sent(job->channel, job->body.maxlen);
		count_request(job);
		job->state = PM_JOB_SENDING;
	}
	else if (!is_encoding_error(sqlstate))
	{
		/* There may be no memory for a copy of the error */
		pm_log_failure("begin a request", sqlstate,
					   sqlstate == ERRCODE_OUT_OF_MEMORY ? "out of memory" :
					   unpack_sql_state(sqlstate));
		job->act_at = pm_later(pm_moment(), pm_failure_delay(job->failures++));
	}
	else if (batch->nmessages > 1)
		job->state = PM_JOB_SPLIT;
	else
	{
		pm_message_finish(&batch->messages[0], "failed",
						  "The message cannot be converted to UTF-8.");
		job->state = PM_JOB_STORE;
	}
	pfree(token);
	return job->state != PM_JOB_READY;
}

/* Postmark may repeat what it was sent: no code must be shown anywhere. */
static void
mask_verdict(PmVerdict *verdict, const PmMessage *m)
{
	if (verdict->text == NULL)
		return;
	pm_api_mask(verdict->text, m->code);
	pm_api_mask_payload(verdict->text, m->payload);
}

/* What an answer for one message means for it. */
static void
apply_verdict(PmJob *job, PmMessage *m, const PmVerdict *verdict)
{
	TimestampTz now = GetCurrentTimestamp();
	PmChannel  *channel = job->channel;

	m->error_code = verdict->error_code > 0 ? verdict->error_code : -1;
	if (verdict->outcome != PM_ACCEPTED)
		m->last_error = pm_api_detail(verdict);
	switch (verdict->outcome)
	{
		case PM_ACCEPTED:
			m->attempts++;
			m->message_id = verdict->message_id;
			m->last_error = NULL;
			pm_message_finish(m, "sent", NULL);
			break;
		case PM_SUPPRESSED:
			m->attempts++;
			pm_message_finish(m, "suppressed", m->last_error);
			break;
		case PM_REFUSED:
		case PM_POISONED:
			m->attempts++;
			pm_message_finish(m, "failed", m->last_error);
			break;
		case PM_NO_TEMPLATE:
			m->disposal = PM_DEFER;
			m->retry_at = TimestampTzPlusMilliseconds(now, PM_NO_TEMPLATE_DELAY);
			break;
		case PM_MISCONFIGURED:
			m->disposal = PM_RELEASE;
			if (channel->state != PM_BLOCKED)
				pm_channel_block(channel, verdict);
			break;
		case PM_UNAVAILABLE:
		case PM_RATE_LIMITED:
			m->disposal = PM_DEFER;
			m->attempts++;
			m->retry_at =
				TimestampTzPlusMilliseconds(now,
											pm_message_delay(m->attempts));
			break;
		case PM_IN_DOUBT:
			m->disposal = PM_KEEP;
			break;
	}
}

/*
 * What the results of a batch say of the channel.  One that was accepted shows
 * that nothing is wrong with it.  Where all were put off, or left in doubt, that
 * is trouble of the connector's, though the request was answered; and that its
 * configuration is refused is trouble as well, see apply_verdict.
 */
static void
judge_channel(PmJob *job, const PmVerdict *items)
{
	PmChannel  *channel = job->channel;
	const PmVerdict *put_off = NULL;
	const PmVerdict *braking = NULL;
	bool		misconfigured = false;
	bool		judged = false;
	int			i;

	for (i = 0; i < job->batch->nmessages; i++)
	{
		const PmVerdict *item = &items[i];

		switch (item->outcome)
		{
			case PM_ACCEPTED:
				pm_channel_accepted(channel);
				pm_channel_succeeded(channel);
				return;
			case PM_MISCONFIGURED:
				misconfigured = true;
				break;
			case PM_UNAVAILABLE:
			case PM_RATE_LIMITED:
			case PM_IN_DOUBT:
				put_off = item;
				break;
			case PM_REFUSED:
			case PM_POISONED:
				judged = true;
				if (pm_channel_refused(channel, item))
					braking = item;
				break;
			default:
				judged = true;
				break;
		}
	}
	if (misconfigured)
		return;
	if (braking)
		pm_channel_brake(channel, braking);
	else if (judged)
		pm_channel_succeeded(channel);
	else if (put_off)
		pm_channel_back_off(channel, put_off);
}

/* The request of a job has ended: find out what it means. */
static void
answer_came(void *arg, PmHttpRequest *request)
{
	PmJob	   *job = arg;
	PmBatch    *batch = job->batch;
	MemoryContext old = MemoryContextSwitchTo(batch->context);
	PmHttpResult result;
	PmVerdict	whole;
	PmVerdict  *items = palloc0(sizeof(PmVerdict) * batch->nmessages);
	const char **to = palloc(sizeof(char *) * batch->nmessages);
	int			i;

	for (i = 0; i < batch->nmessages; i++)
		to[i] = batch->messages[i].email;
	pm_channel_ended(job->channel, job->doubtful);
	job->state = PM_JOB_STORE;
	pm_http_result(job->request, &result);
	count_answer(job, &result);
	if (result.shortage && result.phase == PM_HTTP_NOT_SENT)
	{
		pm_share_shortage();
		pm_batch_dispose(batch, PM_RELEASE);
	}
	else if (pm_api_read_batch(&result, batch->nmessages, to, &whole, items))
	{
		if (job->doubtful)
			job->channel->doubtful_failures = 0;
		for (i = 0; i < batch->nmessages; i++)
			mask_verdict(&items[i], &batch->messages[i]);
		judge_channel(job, items);
		for (i = 0; i < batch->nmessages; i++)
			apply_verdict(job, &batch->messages[i], &items[i]);
	}
	else
	{
		for (i = 0; i < batch->nmessages; i++)
			mask_verdict(&whole, &batch->messages[i]);
		switch (whole.outcome)
		{
			case PM_MISCONFIGURED:
				pm_batch_dispose(batch, PM_RELEASE);
				pm_channel_block(job->channel, &whole);
				break;
			case PM_UNAVAILABLE:
			case PM_RATE_LIMITED:
				pm_batch_dispose(batch, PM_RELEASE);
				pm_channel_back_off(job->channel, &whole);
				break;
			case PM_IN_DOUBT:
				pm_batch_dispose(batch, PM_KEEP);
				for (i = 0; i < batch->nmessages; i++)
					batch->messages[i].last_error = pm_api_detail(&whole);
				if (job->doubtful)
					pm_channel_doubted(job->channel);
				else
					pm_channel_back_off(job->channel, &whole);
				break;
			default:

				/* Refused whole: halve it until the culprit stands alone */
				pm_channel_succeeded(job->channel);
				if (batch->nmessages == 1)
					apply_verdict(job, &batch->messages[0], &whole);
				else
					job->state = PM_JOB_SPLIT;
				break;
		}
	}
	pfree(items);
	pfree(to);
	release_request(job);
	MemoryContextSwitchTo(old);

	for (i = 0; i < batch->nmessages; i++)
		if (job->state == PM_JOB_SPLIT || batch->messages[i].disposal != PM_KEEP)
			return;
	pm_job_doubt(job, pm_moment());
}
