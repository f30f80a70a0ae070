/*-------------------------------------------------------------------------
 *
 * delivery.c
 *		The worker's turns: one transaction that stores what is finished and
 *		claims what is next, then the requests for what was claimed.
 *
 * No transaction is open while a request is under way.  A turn's transaction
 * stores the results of all requests that have ended and writes the intents of
 * all that will begin, so that one flush to disk serves both.  What is done in
 * a turn is in other files; here it is decided when.
 *
 * src/worker/delivery.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "base/clock.h"
#include "postmark/http.h"
#include "shared/slots.h"
#include "shared/transaction.h"
#include "shared/wakeup.h"
#include "worker/channel.h"
#include "worker/claim.h"
#include "worker/delivery.h"
#include "worker/doubt.h"
#include "worker/failover.h"
#include "worker/housekeeping.h"
#include "worker/inquiry.h"
#include "worker/jobs.h"
#include "worker/poll.h"
#include "worker/probe.h"
#include "worker/pulse.h"
#include "worker/queue_space.h"
#include "worker/report.h"
#include "worker/scan.h"
#include "worker/share.h"
#include "worker/store.h"
#include "worker/sweep.h"
#include "worker/turn.h"

/*
 * A turn's transaction takes up no more work after this time, us: what it
 * stored and claimed goes on its way, and the network is seen to, before the
 * rest.  Else the requests of a slow server stay in step, and all its time is
 * lost while all their results are stored.
 */
#define STORE_TIME			2000
#define CLAIM_TIME			4000

/* When somebody has what the worker needs, try again after, ms */
#define LOCKED_DELAY		100

/* While requests are pending we never sleep for longer than this, ms */
#define PULSE				1000

static PmSlot *slot;
static PmMoment retry_at;		/* after a transaction that failed */

/*
 * Of the turn's transaction, in a row: until it succeeds, results are stored
 * with care.
 */
static int	failures;

/* Begin: the worker that has this slot knows nothing yet. */
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

/* A stored time lies ahead. */
void
pm_delivery_clock(void)
{
	pm_scan_clock();
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
	if (!pm_scan_current())
		pm_scan(pm_moment());
	if (pm_scan_current())
		pm_channels_wake(wakeup);
	else
		pm_scan_rescan();
}

static void
turn_body(void *arg)
{
	PmTurn	   *turn = arg;

	pm_store(turn, turn->now + STORE_TIME);
	if (pm_scan_current())
		pm_claim(turn, turn->now + CLAIM_TIME);
}

/*
 * Nothing of the turn's transaction happened.  If it was for what it claimed,
 * it is done again at once without that.  If it was for a lock that somebody
 * has, it is tried again soon; whoever keeps it for longer may have a row of
 * one connector, and must not hold up the others.
 */
static void
turn_failed(PmTurn *turn, int sqlstate)
{
	bool		locked = (sqlstate == ERRCODE_LOCK_NOT_AVAILABLE);
	long		delay;

	pm_turn_failed(turn);
	if (pm_claim_failed(turn, sqlstate))
	{
		pm_store_failed(true);
		return;
	}
	failures++;
	delay = locked ? LOCKED_DELAY : pm_failure_delay(failures);
	retry_at = pm_later(pm_moment(), delay);
	pm_store_failed(locked && failures == 1);
}

/* The turn's transaction, and what follows from how it ended. */
static void
run_turn(void)
{
	static PmTurn turn;
	int			sqlstate;

	pm_turn_begin(&turn, failures > 0);
	if (!pm_run_transaction("store results and claim messages", turn_body,
							&turn, &sqlstate))
	{
		turn_failed(&turn, sqlstate);
		return;
	}
	failures = 0;
	if (pm_store_committed() || turn.nlanes > 0)
		pm_scan_active();
	pm_turn_committed(&turn);
	ConditionVariableBroadcast(&slot->finished);
}

/* Take in what requests have brought. */
static void
collect_requests(void)
{
	PmHttpRequest *request;

	while ((request = pm_http_next_done()) != NULL)
	{
		const PmAsker *asker = pm_http_owner(request);

		asker->found(asker->arg, request);
	}
}

/* Add up what requests and batches each channel has. */
static void
count_shares(void)
{
	dlist_iter	iter;
	int			i;

	for (i = 0; i < pm_channel_count(); i++)
	{
		PmChannel  *channel = pm_channel(i);

		channel->asking = channel->probing + channel->recent_asked +
			channel->inquiry.asked + channel->poll.asked;
		channel->body_bytes = channel->claimed_bytes = 0;
	}
	dlist_foreach(iter, pm_jobs())
	{
		PmJob	   *job = dlist_container(PmJob, node, iter.cur);

		if (job->state == PM_JOB_SEARCHING)
			job->channel->asking++;
		else if (job->state == PM_JOB_READY || job->state == PM_JOB_LATE)
			job->channel->claimed_bytes += job->size;
		else if (job->state == PM_JOB_SENDING)
			job->channel->body_bytes += job->body.maxlen;
	}
	pm_share_begin();
}

/* Ask of a channel what is to be asked, where there is a socket for it. */
static void
ask(PmChannel *channel, PmMoment now)
{
	if (channel->probing || channel->recent_asked ||
		pm_share_requests(channel) < 1)
		return;
	if (!pm_probe_ask(channel, now) && channel->connector)
		pm_failover_ask(channel, now);
	if (channel->probing || channel->recent_asked ||
		pm_inquiry_ask(channel, now) || pm_poll_ask(channel, now))
		pm_share_asked(channel);
}

/* The same of a batch in doubt. */
static void
look(PmJob *job, PmMoment now)
{
	if (pm_share_requests(job->channel) < 1)
		return;
	pm_doubt_look(job, now);
	if (job->state == PM_JOB_SEARCHING)
		pm_share_asked(job->channel);
}

/* Move every job on that can be moved on without the turn's transaction. */
static void
advance_jobs(PmMoment now)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, pm_jobs())
	{
		PmJob	   *job = dlist_container(PmJob, node, iter.cur);

		if (job->state == PM_JOB_READY)
		{
			if (pm_pulse_missed())
				pm_failover_suspect();
			pm_job_start(job);
		}
		else if (job->state == PM_JOB_DOUBT)
			look(job, now);
		else
			pm_store_again(job, now);
	}
}

/* Look which channels have nothing on its way, and nothing to send. */
static void
see_who_rests(PmMoment now)
{
	int			i;

	for (i = 0; i < pm_channel_count(); i++)
	{
		PmChannel  *channel = pm_channel(i);
		bool		busy = false;
		dlist_iter	iter;

		if (channel->trouble == NULL || channel->connector == NULL)
			continue;
		dlist_foreach(iter, pm_jobs())
			if (dlist_container(PmJob, node, iter.cur)->channel == channel)
				busy = true;
		if (!busy)
			pm_channel_rested(channel, now);
	}
}

/* When there is something to do without anything happening. */
static PmMoment
next_turn(PmMoment now)
{
	PmMoment	next = Min(Min(pm_house_next(), pm_scan_retry()),
						   pm_space_next(!dlist_is_empty(pm_jobs())));
	dlist_iter	iter;
	int			i;

	dlist_foreach(iter, pm_jobs())
	{
		PmJob	   *job = dlist_container(PmJob, node, iter.cur);

		if (job->state == PM_JOB_STORE || job->state == PM_JOB_SPLIT ||
			job->state == PM_JOB_LATE ||
			(job->state == PM_JOB_DOUBT && pm_share_requests(job->channel) > 0) ||
			(job->state == PM_JOB_READY && job->act_at > now))
			next = Min(next, job->act_at);
		else if (job->state == PM_JOB_READY && job->channel->in_flight == 0)
			next = Min(next, pm_later(now, LOCKED_DELAY));
	}
	for (i = 0; i < pm_channel_count(); i++)
	{
		PmChannel  *channel = pm_channel(i);
		PmMoment	at = pm_channel_next(channel, now);

		/* What it could do now was done, or has to wait for a request */
		if (pm_scan_current() &&
			(at > now ||
			 (pm_share_requests(channel) > 0 && pm_share_may_claim(channel))))
			next = Min(next, at);
		if (pm_scan_current() && !channel->probing && !channel->recent_asked &&
			pm_share_requests(channel) > 0)
			next = Min(next, Min(pm_inquiry_next_moment(channel),
								 pm_poll_next_moment(channel)));
		if (pm_scan_current() && pm_poll_may_store(channel))
			next = Min(next, pm_poll_next_moment(channel));
		if (channel->trouble_dirty)
			next = now;
	}
	next = Min(next, pm_share_next(now));
	if (dlist_is_empty(pm_jobs()))
		next = Min(next, pm_scan_next());
	else
		next = Min(next, pm_later(now, PULSE));
	return next == PM_NEVER ? next : Max(next, retry_at);
}

/*
 * Do all there is to do at the moment.  Returns when there will be more to do
 * if nothing happens meanwhile, PM_NEVER for never.
 */
PmMoment
pm_delivery_turn(void)
{
	PmMoment	now = pm_moment();
	int			i;

	if (pm_pulse_missed())
		pm_failover_suspect();
	pm_scan(now);
	if (pm_scan_copied())
	{
		pm_house_keep_codes(now);
		return Min(pm_house_next_codes(), pm_scan_retry());
	}
	if (!pm_scan_ready())
		return pm_scan_retry();

	collect_requests();
	count_shares();
	for (i = 0; i < pm_channel_count(); i++)
	{
		PmChannel  *channel = pm_channel(i);

		pm_channel_tick(channel, now);
		if (pm_scan_current())
			ask(channel, now);
		pm_failover_decide(channel, now);
	}
	pm_failover_end();
	if (retry_at <= now &&
		(pm_store_wanted(now) || (pm_scan_current() && pm_claim_wanted(now))))
		run_turn();
	advance_jobs(now);
	pm_channels_mended();
	if (failures == 0 && pm_store_done())
		pm_health_mended("store the result of ");
	see_who_rests(now);
	pm_channels_show();
	pm_report_states();

	if (pm_sweep_keep(now))
		ConditionVariableBroadcast(&slot->finished);
	pm_house_keep(now);
	for (i = 0; pm_scan_current() && i < pm_channel_count(); i++)
		pm_poll_keep(pm_channel(i), now);
	pm_space_keep(now, !dlist_is_empty(pm_jobs()));

	/* Before a long sleep: what came in without a wake-up, perhaps */
	if (dlist_is_empty(pm_jobs()) && pm_scan_next() <= now)
	{
		pm_scan_rescan();
		return now;
	}
	return next_turn(now);
}

/*
 * Whether the settings are known, and no connector is being tried of which it
 * is not stored yet how that went.
 */
bool
pm_delivery_decided(void)
{
	PmMoment	now = pm_moment();
	int			i;

	if (!pm_scan_current())
		return false;
	for (i = 0; i < pm_channel_count(); i++)
		if (pm_channel_on_trial(pm_channel(i), now))
			return false;
	return true;
}

/*
 * What is under way, in words, for pg_stat_activity; "" if nothing is.
 *
 * text: room for "size" bytes, into which what fits is written
 */
void
pm_delivery_activity(char *text, Size size)
{
	Size		len = 0;
	int			i;

	text[0] = '\0';
	for (i = 0; i < pm_channel_count() && len < size; i++)
	{
		PmChannel  *channel = pm_channel(i);

		if (channel->in_flight > 0)
			len += snprintf(text + len, size - len,
							"%s %d request%s of connector %s",
							len > 0 ? "," : "sending", channel->in_flight,
							channel->in_flight == 1 ? "" : "s", channel->name);
	}
}

/* Whether the database is a copy of another one, as far as is known. */
bool
pm_delivery_is_copy(void)
{
	return pm_scan_copied() && pm_scan_current();
}
