/*-------------------------------------------------------------------------
 *
 * inquiry.c
 *		Asking Postmark about addresses.
 *
 * An event that names no message of ours is not believed; it only says of
 * which address there may be news.  What Postmark answers counts.  One question
 * of a connector is under way at a time, and none while it does not flow: mail
 * goes first.
 *
 * src/worker/inquiry.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/catalog.h"
#include "base/clock.h"
#include "feedback/event.h"
#include "feedback/feedback_store.h"
#include "postmark/api.h"
#include "postmark/api_errors.h"
#include "postmark/http.h"
#include "shared/transaction.h"
#include "worker/channel.h"
#include "worker/inquiry.h"

static void answer_came(void *arg, PmHttpRequest *request);

/* A question that was not answered is asked again after, ms */
#define ASK_AGAIN	60000

/* What a transaction reads or stores of one question */
typedef struct Question
{
	PmChannel  *channel;
	MemoryContext context;		/* for what is read */
	char	   *stream;
	char	   *address;
	PmEvent    *event;			/* what came of it, or NULL */
} Question;

/* There may be addresses to ask about, of any connector. */
void
pm_inquiries_wake(void)
{
	int			i;

	for (i = 0; i < pm_channel_count(); i++)
		pm_channel(i)->inquiry.at = PM_AT_ONCE;
}

/* When to ask about a connector's next address; PM_NEVER: not as it is now. */
PmMoment
pm_inquiry_next_moment(const PmChannel *channel)
{
	if (channel->inquiry.asked || channel->poll.asked ||
		channel->state != PM_OPEN ||
		channel->connector == NULL || channel->connector->invalid ||
		channel->connector->paused || pm_channel_captures(channel))
		return PM_NEVER;
	return channel->inquiry.at;
}

static void
next_body(void *arg)
{
	Question   *question = arg;
	char	   *stream;
	char	   *address;

	if (!pm_extension_present() ||
		!pm_inquiry_next(question->channel->name, &stream, &address))
		return;
	question->stream = MemoryContextStrdup(question->context, stream);
	question->address = MemoryContextStrdup(question->context, address);
}

/*
 * Ask about a connector's next address, where it is time to.  Returns whether a
 * request is under way now.
 */
bool
pm_inquiry_ask(PmChannel *channel, PmMoment now)
{
	PmInquiry  *inquiry = &channel->inquiry;
	Question	question = {channel, CurrentMemoryContext, NULL, NULL, NULL};
	MemoryContext old;
	char	   *token;
	int			sqlstate;

	if (pm_inquiry_next_moment(channel) > now)
		return false;
	if (!pm_run_transaction("see which addresses to ask about", next_body,
							&question, &sqlstate))
	{
		inquiry->at = pm_later(now, ASK_AGAIN);
		return false;
	}
	if (question.address == NULL)
	{
		inquiry->at = PM_NEVER;
		return false;
	}
	token = pm_channel_token(channel);
	if (token == NULL)
	{
		inquiry->at = pm_later(now, ASK_AGAIN);
		return false;
	}
	old = MemoryContextSwitchTo(TopMemoryContext);
	inquiry->asked = true;
	inquiry->asker = (PmAsker) {answer_came, channel};
	inquiry->stream = pstrdup(question.stream);
	inquiry->address = pstrdup(question.address);
	(void) pm_api_start_suppression(channel->connector, token,
									inquiry->stream, inquiry->address,
									&inquiry->asker);
	MemoryContextSwitchTo(old);
	pfree(token);
	return true;
}

static void
put_off_body(void *arg)
{
	Question   *question = arg;

	pm_inquiry_put_off(question->channel->name, question->stream,
					   question->address);
}

static void
answered_body(void *arg)
{
	Question   *question = arg;

	if (question->channel->connector)
		pm_inquiry_answered(question->channel->connector, question->stream,
							question->address, question->event);
}

/* It has been answered, or not; releases the request. */
static void
answer_came(void *arg, PmHttpRequest *request)
{
	PmChannel  *channel = arg;
	PmInquiry  *inquiry = &channel->inquiry;
	Question	question = {channel, CurrentMemoryContext, inquiry->stream,
	inquiry->address, NULL};
	PmHttpResult result;
	PmVerdict	verdict;
	PmSuppression found;
	PmEvent		event;
	bool		final;
	bool		stored;
	int			sqlstate;

	pm_http_result(request, &result);
	final = pm_api_read_suppression(&result, inquiry->address, &verdict,
									&found);
	if (final)
	{
		found.email = inquiry->address;
		if (pm_event_of_suppression(&found, inquiry->stream, &event))
			question.event = &event;
	}
	else
		final = verdict.outcome == PM_REFUSED ||
			pm_api_blames_stream(&verdict);
	pm_http_release(request);

	stored = pm_run_transaction(final ? "store what Postmark says of an address" :
								"put off asking about an address",
								final ? answered_body : put_off_body,
								&question, &sqlstate);
	inquiry->at = final && stored ? PM_AT_ONCE :
		pm_later(pm_moment(), ASK_AGAIN);
	pfree(inquiry->stream);
	pfree(inquiry->address);
	inquiry->asked = false;
}
