/*-------------------------------------------------------------------------
 *
 * poll.c
 *		Asking Postmark what became of mail.
 *
 * For a database that no webhook can reach.  Every feedbackInterval the worker
 * asks for what bounced and for what was suppressed since it last asked, and
 * stores it as the webhook would have.  Up to which time it has asked is stored
 * with what was answered, so that whoever comes next goes on from there.  A
 * time asked about begins before the last one ended: clocks differ, and a bounce
 * may be listed a while after it happened.  What comes twice changes nothing.
 *
 * A bounce in Postmark's list has no metadata, so of each that is new Postmark is
 * asked what it mailed to that address: there is the metadata.  That is a
 * request a bounce.  An index of what Postmark calls a message would do without,
 * but every mail would have to pay for it, and few bounce.
 *
 * What there is to ask about has no bounds, but what is asked at once has: a
 * time of which there is more than one answer can hold is halved.
 *
 * Mail goes first.  One question of a connector is under way at a time, and
 * none while it does not flow; and the answers are stored in steps of a
 * millisecond, with pauses that are longer.
 *
 * src/worker/poll.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/catalog.h"
#include "base/clock.h"
#include "base/times.h"
#include "feedback/event.h"
#include "feedback/feedback_store.h"
#include "postmark/api.h"
#include "postmark/api_errors.h"
#include "postmark/http.h"
#include "shared/transaction.h"
#include "worker/backoff.h"
#include "worker/channel.h"
#include "worker/poll.h"
#include "worker/share.h"

static void answer_came(void *arg, PmHttpRequest *request);

/*
 * So long before the end of the last one a time begins, us.  A server that does
 * not look at the zone of a time takes it for one an hour later, see
 * postmark/api.c.
 */
#define OVERLAP			(2 * USECS_PER_HOUR)

/* Postmark keeps bounces for so long, us */
#define BOUNCES_KEPT	(INT64CONST(45) * USECS_PER_DAY)

/* No suppression is older: 2009-01-01 */
#define SUPPRESSIONS_BEGIN	(INT64CONST(3288) * USECS_PER_DAY)

/* The shortest time that is asked about, us */
#define SHORTEST		USECS_PER_SEC

/*
 * So many bounces that were stored are remembered, so as not to be asked about
 * again; and one that Postmark's search does not show so long after it happened,
 * us, is of a message that is none of ours.
 */
#define SEEN_MAX		10000
#define SEARCH_LAG		(10 * USECS_PER_MINUTE)

/* An answer is short if the next one may be about twice the time: events */
#define FEW				500

/* Without a token, or without the extension, look again after, ms */
#define LOOK_AGAIN		60000

/*
 * A step takes up no more events after this time, us; the pause behind it is so
 * many times as long as it took.
 */
#define STEP_TIME		1000
#define PAUSE_FACTOR	4

/* What a transaction reads or stores */
typedef struct Step
{
	PmChannel  *channel;
	int			stored;			/* events of the answer so far */
	bool		present;		/* there are tables to read */
	TimestampTz bounces_until;
	TimestampTz suppressions_until;
} Step;

/* Whether what is next is to store something, for which no socket is needed. */
bool
pm_poll_may_store(const PmChannel *channel)
{
	const PmPoll *poll = &channel->poll;

	return poll->context && poll->resolved == poll->nevents;
}

/* When to go on with a connector; PM_NEVER: not as it is now. */
PmMoment
pm_poll_next_moment(const PmChannel *channel)
{
	const PmPoll *poll = &channel->poll;

	if (poll->asked || channel->state != PM_OPEN ||
		channel->connector == NULL || channel->connector->invalid ||
		channel->connector->paused || pm_channel_captures(channel) ||
		channel->connector->feedback_interval == 0)
		return PM_NEVER;
	if (channel->inquiry.asked && !pm_poll_may_store(channel))
		return PM_NEVER;
	return poll->reload ? PM_AT_ONCE : poll->at;
}

/* Let go of what was answered. */
static void
drop_answer(PmPoll *poll)
{
	if (poll->context)
		MemoryContextDelete(poll->context);
	poll->context = NULL;
	poll->events = NULL;
	poll->nevents = poll->resolved = poll->stored = 0;
}

/* Whether a bounce was stored of late. */
static bool
was_seen(const PmPoll *poll, int64 bounce)
{
	int			i;

	for (i = 0; bounce != 0 && i < poll->nseen; i++)
		if (poll->seen[i] == bounce)
			return true;
	return false;
}

/* It is stored. */
static void
note_seen(PmPoll *poll, int64 bounce)
{
	if (bounce == 0)
		return;
	if (poll->seen == NULL)
		poll->seen = MemoryContextAlloc(TopMemoryContext,
										sizeof(int64) * SEEN_MAX);
	poll->seen[poll->next_seen] = bounce;
	poll->next_seen = (poll->next_seen + 1) % SEEN_MAX;
	poll->nseen = Min(poll->nseen + 1, SEEN_MAX);
}

/* Forget what is known in memory: the settings may be others. */
static void
begin_anew(PmPoll *poll)
{
	drop_answer(poll);
	poll->part = PM_POLL_NOTHING;
	poll->at = PM_AT_ONCE;
	poll->failures = 0;
	poll->reload = false;
}

/* A time as it is asked about */
static TimestampTz
whole_second(TimestampTz time)
{
	return time - time % USECS_PER_SEC;
}

/* Begin to ask for bounces, or for suppressions. */
static void
begin_part(PmPoll *poll, PmPollPart part)
{
	TimestampTz from;

	poll->part = part;
	if (part == PM_POLL_BOUNCES)
		from = Max(pm_time_plus(Min(poll->bounces_until, poll->until),
								-OVERLAP),
				   poll->until - BOUNCES_KEPT);
	else
		from = Max(pm_time_plus(Min(poll->suppressions_until, poll->until),
								-OVERLAP),
				   SUPPRESSIONS_BEGIN);
	poll->from = whole_second(Min(from, poll->until - SHORTEST));
	poll->to = poll->until;
	poll->offset = 0;
	poll->at = PM_AT_ONCE;
}

static void
begin_body(void *arg)
{
	Step	   *step = arg;
	const PmConnector *connector = step->channel->connector;

	step->present = pm_extension_present() &&
		pm_progress_begin(connector, &step->bounces_until,
						  &step->suppressions_until);
}

/*
 * See how far a connector has been asked about, and begin to ask on if it is
 * time to.  Returns whether it is.
 */
static bool
begin_round(PmChannel *channel, PmMoment now)
{
	PmPoll	   *poll = &channel->poll;
	TimestampTz clock = GetCurrentTimestamp();
	Step		step = {channel};
	TimestampTz due;
	int			sqlstate;

	if (!pm_run_transaction("see what it has asked Postmark", begin_body,
							&step, &sqlstate) || !step.present)
	{
		poll->at = pm_later(now, LOOK_AGAIN);
		return false;
	}
	due = pm_time_plus(Min(step.bounces_until, step.suppressions_until),
					   channel->connector->feedback_interval * USECS_PER_SEC);

	/* A time ahead of the clock is none that was asked about */
	if (due > clock &&
		Max(step.bounces_until, step.suppressions_until) <= clock)
	{
		poll->at = pm_moment_of(due);
		return false;
	}
	strlcpy(poll->stream, channel->connector->message_stream,
			sizeof(poll->stream));
	poll->bounces_until = step.bounces_until;
	poll->suppressions_until = step.suppressions_until;
	poll->until = whole_second(clock);
	if (poll->bounces_until == DT_NOBEGIN)
		poll->nseen = poll->next_seen = 0;
	begin_part(poll, PM_POLL_BOUNCES);
	return true;
}

/*
 * Ask the next question about a connector, where it is time to.  Returns
 * whether a request is under way now.
 */
bool
pm_poll_ask(PmChannel *channel, PmMoment now)
{
	PmPoll	   *poll = &channel->poll;
	const PmEvent *about = NULL;
	MemoryContext old;
	char	   *token;

	if (pm_poll_next_moment(channel) > now)
		return false;
	if (poll->reload)
		begin_anew(poll);
	if (poll->resolved < poll->nevents)
		about = &poll->events[poll->resolved].event;
	else if (poll->context ||
			 (poll->part == PM_POLL_NOTHING && !begin_round(channel, now)))
		return false;
	token = pm_channel_token(channel);
	if (token == NULL)
	{
		poll->at = pm_later(now, LOOK_AGAIN);
		return false;
	}
	old = MemoryContextSwitchTo(TopMemoryContext);
	poll->asked = true;
	poll->asker = (PmAsker) {answer_came, channel};
	if (about)
		(void) pm_api_start_mailed(channel->connector, token, poll->stream,
								   about->email,
								   pm_time_plus(about->at, USECS_PER_MINUTE),
								   &poll->asker);
	else if (poll->part == PM_POLL_BOUNCES)
		(void) pm_api_start_bounces(channel->connector, token, poll->stream,
									poll->from, poll->to, poll->offset,
									&poll->asker);
	else
		(void) pm_api_start_dump(channel->connector, token, poll->stream,
								 poll->from, poll->to,
								 poll->to - poll->from <= SHORTEST, &poll->asker);
	MemoryContextSwitchTo(old);
	pfree(token);
	return true;
}

/* Take over a page of bounces; false if it is of a time that is too long. */
static bool
take_bounces(PmPoll *poll, const PmBouncePage *page)
{
	int			i;

	if (page->total > PM_SEARCH_WINDOW && poll->to - poll->from > SHORTEST)
		return false;
	poll->events = palloc(sizeof(PmPolled) * Max(page->nbounces, 1));
	for (i = 0; i < page->nbounces; i++)
	{
		PmPolled   *polled = &poll->events[poll->nevents];

		if (!page->bounces[i].has_message_id ||
			was_seen(poll, page->bounces[i].id) ||
			!pm_event_of_bounce(&page->bounces[i], &polled->event))
			continue;
		polled->bounce = page->bounces[i].id;
		polled->message_id = page->bounces[i].message_id;
		polled->final = polled->event.at < poll->until - SEARCH_LAG;
		poll->nevents++;
	}
	poll->offset += page->nread;
	poll->more = page->nread > 0 && poll->offset < page->total &&
		poll->offset + PM_BOUNCE_PAGE <= PM_SEARCH_WINDOW;
	poll->few = page->total < FEW;
	poll->cut = page->total > PM_SEARCH_WINDOW;
	return true;
}

static void
take_dump(PmPoll *poll, const PmDump *dump)
{
	int			i;

	poll->events = palloc(sizeof(PmPolled) * Max(dump->n, 1));
	for (i = 0; i < dump->n; i++)
		if (pm_event_of_suppression(&dump->suppressions[i], poll->stream,
									&poll->events[poll->nevents].event))
			poll->nevents++;
	poll->resolved = poll->nevents;
	poll->more = poll->cut = false;
	poll->few = dump->n < FEW;
}

/*
 * Read an answer, whose events then wait to be stored.  False if there is none,
 * for the reason that the verdict gives; *too_much: since the time that was
 * asked about is too long.
 */
static bool
read_answer(PmPoll *poll, const PmHttpResult *result, PmVerdict *verdict,
			bool *too_much)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext,
												  "postmark feedback",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	bool		read;

	poll->context = context;
	*too_much = result->too_long;
	if (poll->part == PM_POLL_BOUNCES)
	{
		PmBouncePage page;

		read = pm_api_read_bounces(result, verdict, &page);
		if (read && !take_bounces(poll, &page))
		{
			*too_much = true;
			read = false;
		}
	}
	else
	{
		PmDump		dump;

		read = pm_api_read_dump(result, verdict, &dump);
		if (read)
			take_dump(poll, &dump);
	}
	MemoryContextSwitchTo(old);
	if (!read)
		drop_answer(poll);
	return read;
}

/* Not all of a second can be had: say so once. */
static void
give_up(PmChannel *channel)
{
	PmPoll	   *poll = &channel->poll;

	if (poll->from <= poll->given_up)
		return;
	poll->given_up = poll->from;
	ereport(LOG,
			(errmsg("postmark_connector cannot read all that Postmark lists of connector \"%s\" for the second %s",
					channel->name, timestamptz_to_str(poll->from)),
			 errhint("Postmark shows what became of that mail.")));
}

/*
 * There is more than an answer can hold: ask about half of the time.  Where
 * that cannot be had, what there is of it is given up.
 */
static void
narrow(PmChannel *channel)
{
	PmPoll	   *poll = &channel->poll;
	int64		span = poll->to - poll->from;

	poll->offset = 0;
	if (span > SHORTEST)
	{
		poll->to = whole_second(poll->from + span / 2);
		return;
	}
	give_up(channel);
	poll->more = false;
	poll->few = true;

	/* As if nothing had been listed: the next step goes on behind it */
	poll->context = AllocSetContextCreate(TopMemoryContext,
										  "postmark feedback",
										  ALLOCSET_SMALL_SIZES);
}

/* A question was not answered: ask it again later. */
static void
not_answered(PmChannel *channel, const PmHttpResult *result,
			 const PmVerdict *verdict)
{
	PmPoll	   *poll = &channel->poll;
	long		delay = pm_block_delay(poll->failures++);

	if (result->retry_after_ms >= 0)
		delay = Max(delay, pm_retry_after_delay(result->retry_after_ms));
	poll->at = pm_later(pm_moment(), delay);
	if (poll->failures == 2)
		ereport(LOG,
				(errmsg("postmark_connector could not ask Postmark what became of the mail of connector \"%s\"",
						channel->name),
				 errdetail_internal("%s", pm_api_detail(verdict)),
				 errhint("It is tried again; this message is not repeated before it has succeeded.")));
}

/*
 * Postmark was asked what it mailed to the address of a bounce: note which of
 * our messages that was.
 */
static void
resolve(PmChannel *channel, const PmHttpResult *result)
{
	PmPoll	   *poll = &channel->poll;
	PmPolled   *polled = &poll->events[poll->resolved];
	MemoryContext old = MemoryContextSwitchTo(poll->context);
	PmVerdict	verdict;
	PmFoundPage page;
	int			i;

	if (pm_api_read_search(result, &verdict, &page))
	{
		for (i = 0; i < page.nfound; i++)
			if (memcmp(&page.found[i].message_id, &polled->message_id,
					   sizeof(pg_uuid_t)) == 0)
			{
				pm_event_name_message(&polled->event,
									  page.found[i].metadata_id);
				polled->final = true;
			}
		poll->failures = 0;
		poll->resolved++;
	}
	else if (verdict.outcome == PM_REFUSED || result->too_long)
		poll->resolved++;
	else
		not_answered(channel, result, &verdict);
	MemoryContextSwitchTo(old);
}

/* A question has been answered, or not; releases the request. */
static void
answer_came(void *arg, PmHttpRequest *request)
{
	PmChannel  *channel = arg;
	PmPoll	   *poll = &channel->poll;
	PmHttpResult result;
	PmVerdict	verdict;
	bool		too_much;

	poll->asked = false;
	pm_http_result(request, &result);
	if (result.shortage)
	{
		pm_share_shortage();
		poll->at = PM_AT_ONCE;
	}
	else if (!poll->reload)
	{
		poll->at = PM_AT_ONCE;
		if (poll->context)
			resolve(channel, &result);
		else if (read_answer(poll, &result, &verdict, &too_much))
		{
			poll->failures = 0;
			if (poll->cut)
				give_up(channel);
		}
		else if (too_much)
			narrow(channel);
		else
			not_answered(channel, &result, &verdict);
	}
	pm_http_release(request);
}

/* Whether all of the answers about the time that was asked about is stored. */
static bool
is_complete(const PmPoll *poll, int stored)
{
	return stored == poll->nevents && !poll->more;
}

static void
store_body(void *arg)
{
	Step	   *step = arg;
	PmPoll	   *poll = &step->channel->poll;
	const PmConnector *connector = step->channel->connector;
	PmMoment	end = pm_moment() + STEP_TIME;

	step->stored = poll->stored;
	step->present = pm_extension_present() && pm_sql_version() >= PM_SQL_1_1;
	if (!step->present)
		return;

	/* What a crash takes back is asked again */
	(void) set_config_option("synchronous_commit", "off", PGC_SUSET,
							 PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
	while (step->stored < poll->nevents)
	{
		PmPolled   *polled = &poll->events[step->stored++];

		if (poll->part == PM_POLL_SUPPRESSIONS)
			pm_suppression_learn(connector, &polled->event);
		else
			pm_feedback_learn(connector, &polled->event);
		if (poll->store_failures > 0 || pm_moment() >= end)
			break;
	}

	/* That there were no bounces can be stored with the rest */
	if (is_complete(poll, step->stored) &&
		(poll->part == PM_POLL_SUPPRESSIONS || poll->to < poll->until))
		pm_progress_put(connector, poll->stream,
						poll->part == PM_POLL_BOUNCES ? poll->to :
						poll->until,
						poll->part == PM_POLL_SUPPRESSIONS ? poll->to :
						poll->suppressions_until);
}

/*
 * A step failed: the next one takes a single event, and one that cannot be
 * stored, whoever's constraint it is, is passed over.
 */
static void
step_failed(PmPoll *poll, int sqlstate)
{
	int			category = ERRCODE_TO_CATEGORY(sqlstate);

	poll->at = pm_later(pm_moment(), pm_failure_delay(poll->store_failures));
	if (poll->store_failures++ > 0 && poll->stored < poll->nevents &&
		(category == ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION ||
		 category == ERRCODE_DATA_EXCEPTION))
	{
		poll->stored++;
		poll->store_failures = 1;
		poll->at = PM_AT_ONCE;
	}
}

/* All about the time that was asked about is stored: go on behind it. */
static void
next_time(PmChannel *channel)
{
	PmPoll	   *poll = &channel->poll;
	int64		span = poll->to - poll->from;

	poll->offset = 0;
	if (poll->part == PM_POLL_SUPPRESSIONS)
		poll->suppressions_until = poll->to;
	else
		poll->bounces_until = poll->to;
	if (poll->to < poll->until)
	{
		poll->from = poll->to;
		poll->to = Min(poll->from + (poll->few ? 2 * span : span), poll->until);
	}
	else if (poll->part == PM_POLL_BOUNCES)
		begin_part(poll, PM_POLL_SUPPRESSIONS);
	else
	{
		poll->part = PM_POLL_NOTHING;
		poll->at = pm_later(pm_moment(),
							channel->connector->feedback_interval *
							INT64CONST(1000));
	}
}

/* Store some of what was answered about a connector, if it is time to. */
void
pm_poll_keep(PmChannel *channel, PmMoment now)
{
	PmPoll	   *poll = &channel->poll;
	Step		step = {channel};
	PmMoment	begun;
	PmMoment	end;
	int			sqlstate;

	if (poll->context == NULL || pm_poll_next_moment(channel) > now)
		return;
	if (poll->reload)
	{
		begin_anew(poll);
		return;
	}
	if (poll->resolved < poll->nevents)
		return;
	begun = pm_moment();
	if (!pm_run_transaction("store what became of messages", store_body, &step,
							&sqlstate))
	{
		step_failed(poll, sqlstate);
		return;
	}
	end = pm_moment();
	if (!step.present)
	{
		begin_anew(poll);
		poll->at = pm_later(end, LOOK_AGAIN);
		return;
	}
	poll->store_failures = 0;
	for (; poll->stored < step.stored; poll->stored++)
		if (poll->events[poll->stored].final)
			note_seen(poll, poll->events[poll->stored].bounce);
	poll->at = end + PAUSE_FACTOR * (end - begun);
	if (poll->stored < poll->nevents)
		return;
	drop_answer(poll);
	if (!poll->more)
		next_time(channel);
}
