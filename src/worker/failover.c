/*-------------------------------------------------------------------------
 *
 * failover.c
 *		What another server may have sent of our messages.
 *
 * With asynchronous replication the primary may have sent a message whose
 * intent never reached the standby.  And a primary that stood still for a while
 * finds its messages sent by the standby that took over.  So after a change of
 * timeline, or a gap in our own time, the messages that were there before are
 * not claimed before Postmark was asked what it accepted lately, newest first;
 * each is known by its postmark_id, the id with the time of its creation, since
 * a sequence can issue an id again after a failover.  Nor is anything of them
 * that is in doubt settled before: that they are not in the batches we know of
 * says nothing of others.
 *
 * Messages that were queued since are nobody else's and go out at once; ids
 * grow, so one id divides them.  Where there are no others nothing is asked.
 * If the search does not tell, what is about to expire is decided on as
 * in_doubt says.
 *
 * src/worker/failover.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xlog.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "postmark/api.h"
#include "postmark/api_errors.h"
#include "postmark/http.h"
#include "queue/batch.h"
#include "queue/message_id.h"
#include "queue/queue.h"
#include "settings/connector.h"
#include "settings/guc.h"
#include "shared/slots.h"
#include "shared/stats.h"
#include "shared/transaction.h"
#include "shared/wakeup.h"
#include "worker/backoff.h"
#include "worker/channel.h"
#include "worker/doubt.h"
#include "worker/failover.h"
#include "worker/jobs.h"
#include "worker/lane.h"

static void page_came(void *arg, PmHttpRequest *request);

/* A search that failed is tried again after, ms, doubling */
#define SEARCH_BASE		1000
#define SEARCH_CEILING	60000

/* Postmark's clock and ours may differ by, us */
#define CLOCKS_DIFFER	(5 * SECS_PER_MINUTE * USECS_PER_SEC)

/* While requests of ours are under way, look again after, ms */
#define UNDER_WAY_DELAY	100

/* How often to look for what is about to expire, ms, and for how many */
#define EXPIRY_DELAY	1000
#define EXPIRY_ROWS		1000

/* What one page of the search says of one connector */
typedef struct FoundPage
{
	PmChannel  *channel;
	PmFound    *found;
	int			nfound;
	int64	   *ids;			/* of found[i] */
} FoundPage;

static int	current_timeline;
static int	stored_timeline;	/* that the queue was last drained on; 0: none */

/* Messages up to this id may be others'; PG_INT64_MAX: not known yet */
static int64 inherited_upto;

/* Finding that out */
static bool look_wanted;
static TransactionId look_since;	/* no transaction of others is later */
static int64 look_upto;

/* Of these, the ones that are sent although the search does not tell */
static HTAB *decided = NULL;

/* The timeline that postmark_instance has, 0 for none. */
void
pm_failover_timeline(int timeline)
{
	stored_timeline = timeline;
}

/*
 * Find out which messages were queued before, and are not finished.  The body
 * of a transaction, which pm_failover_looked follows; what an earlier server
 * has queued is told apart by its transactions.
 */
void
pm_failover_look_body(void *arg)
{
	int64		first;
	int			i;

	look_upto = Max(pm_last_message_id(), pm_highest_message_id());
	if (pm_queue_first_since(look_since, &first))
		look_upto = first - 1;
	for (i = 0; i < pm_channel_count(); i++)
	{
		PmChannel  *channel = pm_channel(i);
		TimestampTz expiry;

		pm_unsent_upto(PM_LANE(channel->number, PM_PRIORITIES - 1),
					   PM_LANE(channel->number, 0), look_upto, DT_NOBEGIN,
					   &channel->recent_since, &expiry);
	}
}

/*
 * From now on the messages that were found are held back, and no others.  If
 * there are such as could not be "seen", for a table is damaged, all are.
 */
void
pm_failover_looked(bool seen)
{
	PmMoment	now = pm_moment();
	int			i;

	if (!seen && look_upto == PG_INT64_MAX)
		return;
	inherited_upto = look_upto;
	look_wanted = false;
	for (i = 0; i < pm_channel_count(); i++)
	{
		PmChannel  *channel = pm_channel(i);

		if (!seen)
			channel->recent_since = DT_NOBEGIN;
		channel->recent_wanted = channel->recent_since != DT_NOEND;
		channel->recent_stale = channel->recent_asked;
		channel->recent_offset = 0;
		channel->recent_until = DT_NOEND;
		channel->recent_failures = 0;
		channel->expiry_at = PM_NEVER;

		/* The search lags behind what the other one sent last */
		channel->recent_at = pm_later(now, pm_settle_time);
		if (!TIMESTAMP_NOT_FINITE(channel->recent_since))
			channel->recent_since -= CLOCKS_DIFFER;
	}
}

/*
 * Nothing that is there now is claimed, sent or settled until pm_failover_looked
 * says what is to be held back: all but what transactions from "since" on have
 * queued.
 */
static void
hold_back(TransactionId since)
{
	dlist_iter	iter;
	int			i;

	look_wanted = true;
	look_since = since;
	look_upto = inherited_upto = PG_INT64_MAX;
	for (i = 0; i < pm_channel_count(); i++)
	{
		pm_channel(i)->recent_wanted = true;
		pm_channel(i)->recent_at = pm_channel(i)->expiry_at = PM_NEVER;
	}
	dlist_foreach(iter, pm_jobs())
		dlist_container(PmJob, node, iter.cur)->inherited = true;
}

/*
 * A worker begins, and has taken up the intents that it found.  If there was a
 * failover, what was queued before it is held back.
 */
void
pm_failover_begin(void)
{
	TransactionId since;

	current_timeline = (int) GetWALInsertionTimeLine();
	if (stored_timeline == 0 || stored_timeline == current_timeline)
		return;
	LWLockAcquire(pm_shared()->lock, LW_SHARED);
	since = pm_shared()->first_xid;
	LWLockRelease(pm_shared()->lock);
	hold_back(since);
}

/* We stood still for a while: another server may have taken over. */
void
pm_failover_suspect(void)
{
	hold_back(ReadNextTransactionId());
}

/* Whether pm_failover_look_body has something to find out. */
bool
pm_failover_look_wanted(void)
{
	return look_wanted;
}

/* Messages of the channel up to this id are held back; 0: none. */
int64
pm_failover_floor(const PmChannel *channel)
{
	return channel->recent_wanted ? inherited_upto : 0;
}

/* Whether a deferred message is held back. */
bool
pm_failover_withheld(const PmChannel *channel, int64 id)
{
	return id <= pm_failover_floor(channel) &&
		(decided == NULL || !hash_search(decided, &id, HASH_FIND, NULL));
}

/* Whether requests that were ours before are not known to have ended. */
static bool
under_way(const PmChannel *channel)
{
	dlist_iter	iter;

	dlist_foreach(iter, pm_jobs())
	{
		PmJob	   *job = dlist_container(PmJob, node, iter.cur);

		if (job->channel == channel && job->inherited &&
			job->state != PM_JOB_DOUBT && job->state != PM_JOB_SEARCHING)
			return true;
	}
	return false;
}

/* A page could not be had; ask again later. */
static void
page_failed(PmChannel *channel, const PmVerdict *verdict)
{
	long		delay;

	channel->recent_failures++;
	channel->recent_offset = 0;
	channel->recent_until = DT_NOEND;
	delay = SEARCH_BASE / 2 +
		pm_jitter(Min(SEARCH_BASE << Min(channel->recent_failures, 8),
					  SEARCH_CEILING));
	channel->recent_at = pm_later(pm_moment(),
								  Max(delay, Min(verdict->retry_after_ms,
												 SEARCH_CEILING)));
	channel->expiry_at = PM_AT_ONCE;
	pm_channel_search_failed(channel, verdict);
}

/* Ask for the next page, where it is time to. */
void
pm_failover_ask(PmChannel *channel, PmMoment now)
{
	MemoryContext old;
	char	   *token;

	if (!channel->recent_wanted || channel->recent_asked ||
		channel->recent_at > now || channel->state != PM_OPEN)
		return;
	if (under_way(channel))
	{
		channel->recent_at = pm_later(now, UNDER_WAY_DELAY);
		return;
	}
	if (pm_channel_captures(channel))
	{
		PmVerdict	verdict = {.outcome = PM_UNAVAILABLE};

		verdict.text = pstrdup("it is not asked while messages are captured");
		page_failed(channel, &verdict);
		return;
	}
	token = pm_channel_token(channel);
	if (token == NULL)
	{
		pm_channel_no_token(channel);
		return;
	}
	old = MemoryContextSwitchTo(TopMemoryContext);
	channel->recent_asked = true;
	channel->asker = (PmAsker) {page_came, channel};
	(void) pm_api_start_recent(channel->connector, token,
							   channel->recent_until, channel->recent_offset,
							   &channel->asker);
	MemoryContextSwitchTo(old);
	pfree(token);
}

/* Finish those messages of the page that we still hold. */
static void
settle_page(void *arg)
{
	FoundPage  *page = arg;
	TimestampTz now = GetCurrentTimestamp();
	int			p;

	for (p = 0; p < PM_PRIORITIES * 2; p++)
	{
		int32		lane = page->channel->number * PM_PRIORITIES + p / 2;
		PmBatch    *batch = pm_batch_create(CurrentMemoryContext, lane,
											p % 2 == 1, page->nfound);
		int			kept = 0;
		int			i;

		pm_queue_read_ids(batch, page->ids, page->nfound);
		for (i = 0; i < batch->nmessages; i++)
		{
			PmMessage  *m = &batch->messages[i];
			char		metadata[PM_METADATA_ID];
			int			j;

			if (pm_in_flight(m->id))
				continue;
			pm_metadata_id(m, metadata);
			for (j = 0; j < page->nfound; j++)
				if (strcmp(page->found[j].metadata_id, metadata) == 0)
					break;
			if (j == page->nfound)
				continue;
			m->message_id = &page->found[j].message_id;
			m->attempts++;
			m->error_code = -1;
			m->last_error = NULL;
			pm_message_finish(m, "sent", NULL);
			batch->messages[kept++] = *m;
		}
		batch->nmessages = kept;
		if (kept > 0)
			pm_batch_store(batch, now, true);
		pm_stats_note(page->channel->number, page->channel->name,
					  PM_COUNT_FOUND_AGAIN, kept);
		MemoryContextDelete(batch->context);
	}
}

/* All that Postmark can tell was taken in: the connector goes on. */
static void
search_complete(PmChannel *channel)
{
	int			p;

	channel->recent_wanted = false;
	channel->recent_failures = 0;
	channel->expiry_at = PM_NEVER;
	pm_channel_search_failed(channel, NULL);
	for (p = 0; p < PM_PRIORITIES; p++)
	{
		if (channel->lanes[p] == NULL)
			continue;
		pm_ranges_add(&channel->lanes[p]->late, 1, inherited_upto);
		pm_lane_look(channel->lanes[p], PM_AT_ONCE);
	}
	pm_doubt_resume(channel);
}

/*
 * Go on behind a page that was taken in.  Offsets end where the search shows no
 * more; then it is asked for what is older than the last message seen.  Returns
 * false if it cannot tell what is older.
 */
static bool
next_page(PmChannel *channel, const PmFoundPage *page)
{
	TimestampTz until;

	channel->recent_offset += page->nread;
	if (page->nread == 0 || channel->recent_offset >= page->total ||
		(page->oldest != DT_NOBEGIN && page->oldest < channel->recent_since))
	{
		search_complete(channel);
		return true;
	}

	/* What is accepted meanwhile must not move what follows */
	if (channel->recent_until == DT_NOEND && page->newest != DT_NOBEGIN)
		channel->recent_until = page->newest + USECS_PER_SEC;
	if (channel->recent_offset + PM_SEARCH_PAGE <= PM_SEARCH_WINDOW)
		return true;
	if (page->oldest == DT_NOBEGIN)
		return false;

	/* To the second, for fractions may not be looked at, unless that repeats */
	until = page->oldest + USECS_PER_SEC - 1;
	until -= until % USECS_PER_SEC;
	if (until >= channel->recent_until)
		until = page->oldest + 1;
	if (until >= channel->recent_until)
		return false;
	channel->recent_until = until;
	channel->recent_offset = 0;
	return true;
}

/* A page has come, or not; releases the request. */
static void
page_came(void *arg, PmHttpRequest *request)
{
	PmChannel  *channel = arg;
	PmHttpResult result;
	PmVerdict	verdict;
	PmFoundPage page;
	FoundPage	settle;
	int			sqlstate;
	bool		stale = channel->recent_stale || look_wanted;
	bool		taken;
	int			i;

	channel->recent_asked = channel->recent_stale = false;
	pm_http_result(request, &result);
	taken = pm_api_read_search(&result, &verdict, &page);
	pm_http_release(request);
	if (stale || !channel->recent_wanted)
		return;
	channel->recent_at = pm_moment();
	if (!taken)
	{
		page_failed(channel, &verdict);
		if (verdict.outcome == PM_MISCONFIGURED)
			pm_channel_block(channel, &verdict);
		return;
	}
	if (page.nfound > 0)
	{
		settle.channel = channel;
		settle.found = page.found;
		settle.nfound = page.nfound;
		settle.ids = palloc(sizeof(int64) * page.nfound);
		for (i = 0; i < page.nfound; i++)
			settle.ids[i] = strtoll(page.found[i].metadata_id, NULL, 10);
		if (!pm_run_transaction("store what was sent by another server",
								settle_page, &settle, &sqlstate))
		{
			channel->recent_at = pm_later(pm_moment(), SEARCH_BASE);
			return;
		}
		pm_doubt_match(channel, page.found, page.nfound);
	}
	if (!next_page(channel, &page))
	{
		verdict.outcome = PM_UNAVAILABLE;
		verdict.text = pstrdup("it does not show messages that are old enough");
		page_failed(channel, &verdict);
	}
}

typedef struct Expiry
{
	PmChannel  *channel;
	bool		none;			/* nothing is held back any more */
	bool		pending;		/* something is about to expire */
	TimestampTz next;			/* when the next one does */
	int64	   *again;			/* are sent although the search does not tell */
	int			nagain;
} Expiry;

/* What read_messages is to leave out here */
static bool
settled_elsewhere(int64 id, void *arg)
{
	return pm_in_flight(id) || !pm_failover_withheld(arg, id);
}

/* Decide on what is held back and cannot wait any longer for the search. */
static void
decide_body(void *arg)
{
	Expiry	   *expiry = arg;
	PmChannel  *channel = expiry->channel;
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz soon = now + PM_EXPIRES_SOON;
	TimestampTz oldest;
	int			p;

	for (p = 0; p < PM_PRIORITIES * 2; p++)
	{
		int32		lane = channel->number * PM_PRIORITIES + p / 2;
		PmBatch    *batch = pm_batch_create(CurrentMemoryContext, lane,
											p % 2 == 1, EXPIRY_ROWS);
		int			kept = 0;
		int			i;

		pm_unsent_read(batch, inherited_upto, soon, settled_elsewhere, channel,
					   EXPIRY_ROWS);
		pm_queue_lock(batch, 0);
		for (i = 0; i < batch->nmessages; i++)
		{
			PmMessage  *m = &batch->messages[i];

			if (m->locked && m->expires_at <= now)
				pm_message_finish(m, "expired", PM_MAY_HAVE_BEEN_SENT);
			else if (m->locked && pm_decide_at(channel, m) <= now)
			{
				m->disposal = PM_DEFER;
				m->retry_at = now;
				m->last_error = PM_MAY_HAVE_BEEN_SENT;
				if (expiry->nagain % EXPIRY_ROWS == 0)
					expiry->again = expiry->again == NULL
						? palloc(sizeof(int64) * EXPIRY_ROWS)
						: repalloc(expiry->again, sizeof(int64) *
								   (expiry->nagain + EXPIRY_ROWS));
				expiry->again[expiry->nagain++] = m->id;
			}
			else
			{
				expiry->pending = true;
				continue;
			}
			batch->messages[kept++] = *m;
		}
		if (batch->nmessages == EXPIRY_ROWS)
			expiry->pending = true;
		batch->nmessages = kept;
		if (kept > 0)
			pm_batch_store(batch, now, true);
		MemoryContextDelete(batch->context);
	}
	pm_unsent_upto(PM_LANE(channel->number, PM_PRIORITIES - 1),
				   PM_LANE(channel->number, 0), inherited_upto, soon,
				   &oldest, &expiry->next);
	expiry->none = oldest == DT_NOEND;
}

/*
 * See to what is held back of a channel and about to expire, where the search
 * does not tell and it is time to.
 */
void
pm_failover_decide(PmChannel *channel, PmMoment now)
{
	Expiry		expiry = {channel, false, false, DT_NOEND, NULL, 0};
	PmMoment	soon = pm_later(now, EXPIRY_DELAY);
	int			sqlstate;
	int			i;

	if (!channel->recent_wanted || look_wanted || channel->expiry_at > now)
		return;
	channel->expiry_at = soon;
	if (!pm_run_transaction("decide on what others may have sent", decide_body,
							&expiry, &sqlstate))
		return;
	if (expiry.none)
	{
		search_complete(channel);
		return;
	}
	if (!expiry.pending)
		channel->expiry_at = expiry.next == DT_NOEND ? PM_NEVER
			: Max(pm_moment_of(expiry.next - PM_EXPIRES_SOON), soon);
	if (expiry.nagain > 0 && decided == NULL)
	{
		HASHCTL		info;

		info.keysize = sizeof(int64);
		info.entrysize = sizeof(int64);
		info.hcxt = TopMemoryContext;
		decided = hash_create("postmark messages decided on", 64, &info,
							  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	for (i = 0; i < expiry.nagain; i++)
		hash_search(decided, &expiry.again[i], HASH_ENTER, NULL);
	for (i = 0; i < PM_PRIORITIES && expiry.nagain > 0; i++)
		if (channel->lanes[i])
			pm_lane_look(channel->lanes[i], PM_AT_ONCE);
}

/* From now on this is the timeline on which the queue is drained. */
static void
timeline_body(void *arg)
{
	pm_instance_set_timeline(current_timeline);
}

/*
 * Once no connector is to be asked about any more, nothing is held back, and
 * the failover is over.
 */
void
pm_failover_end(void)
{
	int			sqlstate;
	int			i;

	if (stored_timeline == current_timeline && decided == NULL)
		return;
	for (i = 0; i < pm_channel_count(); i++)
		if (pm_channel(i)->recent_wanted && pm_channel(i)->connector)
			return;
	if (decided)
		hash_destroy(decided);
	decided = NULL;
	if (stored_timeline != current_timeline &&
		pm_run_transaction("store its timeline", timeline_body, NULL,
						   &sqlstate))
		stored_timeline = current_timeline;
}
