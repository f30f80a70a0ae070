/*-------------------------------------------------------------------------
 *
 * failover.c
 *		What an earlier primary sent that this server still holds as unsent.
 *
 * With asynchronous replication the primary may have sent a message whose
 * intent never reached the standby.  So after a change of timeline nothing of
 * a connector is claimed before Postmark was asked what it accepted lately,
 * newest first; each message is known by its postmark_id, the id with the time
 * of its creation, since a sequence can issue an id again after a failover.
 *
 * src/worker/failover.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "postmark/api.h"
#include "postmark/api_errors.h"
#include "postmark/http.h"
#include "queue/batch.h"
#include "queue/queue.h"
#include "settings/connector.h"
#include "shared/transaction.h"
#include "worker/channel.h"
#include "worker/failover.h"
#include "worker/jobs.h"

/* Postmark's search reaches no further than this many messages back. */
#define RECENT_MESSAGES	10000

/* A search that failed is tried again after, ms */
#define SEARCH_DELAY	2000

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

/* The timeline that postmark_instance has, 0 for none. */
void
pm_failover_timeline(int timeline)
{
	stored_timeline = timeline;
}

/*
 * A worker begins.  If there was a failover, nothing of any connector is to be
 * claimed before Postmark was asked.
 */
void
pm_failover_begin(void)
{
	int			i;

	current_timeline = (int) GetWALInsertionTimeLine();
	if (stored_timeline == 0 || stored_timeline == current_timeline)
		return;
	for (i = 0; i < pm_channel_count(); i++)
	{
		pm_channel(i)->recent_wanted = true;
		pm_channel(i)->recent_offset = 0;
		pm_channel(i)->recent_at = PM_AT_ONCE;
	}
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
	token = pm_channel_token(channel);
	if (token == NULL)
	{
		pm_channel_no_token(channel);
		return;
	}
	old = MemoryContextSwitchTo(TopMemoryContext);
	channel->recent_asked = true;
	(void) pm_api_start_recent(channel->connector, token,
							   channel->recent_offset, channel);
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
		MemoryContextDelete(batch->context);
	}
}

/*
 * A page has come, or not.  With the last one, all that Postmark can tell was
 * taken in, and the connector may send.
 */
void
pm_failover_found(PmChannel *channel, PmHttpRequest *request)
{
	PmMoment	now = pm_moment();
	PmHttpResult result;
	PmVerdict	verdict;
	FoundPage	page;
	int64		total;
	int			nread;
	int			sqlstate;
	bool		taken;
	int			i;

	page.channel = channel;
	channel->recent_asked = false;
	channel->recent_at = now;
	pm_http_result(request, &result);
	taken = pm_api_read_search(&result, &verdict, &total, &nread, &page.found,
							   &page.nfound);
	pm_http_release(request);
	if (taken)
		pm_channel_succeeded(channel);
	else if (verdict.outcome == PM_MISCONFIGURED)
		pm_channel_block(channel, &verdict);
	else
		pm_channel_back_off(channel, &verdict);
	if (taken && page.nfound > 0)
	{
		page.ids = palloc(sizeof(int64) * page.nfound);
		for (i = 0; i < page.nfound; i++)
			page.ids[i] = strtoll(page.found[i].metadata_id, NULL, 10);
		taken = pm_run_transaction("store what was sent before a failover",
								   settle_page, &page, &sqlstate);
	}
	if (!taken)
	{
		channel->recent_at = pm_later(now, SEARCH_DELAY);
		return;
	}
	channel->recent_offset += nread;
	channel->recent_wanted = nread > 0 &&
		channel->recent_offset < Min(total, RECENT_MESSAGES);
}

/* From now on this is the timeline on which the queue is drained. */
static void
timeline_body(void *arg)
{
	pm_instance_set_timeline(current_timeline);
}

/* Once no connector is to be asked about any more, the failover is over. */
void
pm_failover_end(void)
{
	int			sqlstate;
	int			i;

	if (stored_timeline == current_timeline)
		return;
	for (i = 0; i < pm_channel_count(); i++)
		if (pm_channel(i)->recent_wanted && pm_channel(i)->connector)
			return;
	if (pm_run_transaction("store its timeline", timeline_body, NULL,
						   &sqlstate))
		stored_timeline = current_timeline;
}
