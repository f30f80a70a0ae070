/*-------------------------------------------------------------------------
 *
 * scan.c
 *		What there is in the database: the settings, the requests that an
 *		earlier worker left, and the lanes that have messages.
 *
 * The worker is told what was committed, and keeps in memory where to look for
 * it.  A crash takes that away, and a prepared transaction says nothing when it
 * commits.  So nothing relies on it: a scan finds everything out anew, and asks
 * the tables for no more than which lanes are not empty.  Whoever has reason to
 * think that something was missed asks for one.
 *
 * src/worker/scan.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "codes/code_store.h"
#include "queue/message_id.h"
#include "queue/origin.h"
#include "queue/queue.h"
#include "settings/config_store.h"
#include "settings/connector.h"
#include "shared/slots.h"
#include "shared/transaction.h"
#include "worker/channel.h"
#include "worker/doubt.h"
#include "worker/failover.h"
#include "worker/housekeeping.h"
#include "worker/jobs.h"
#include "worker/lane.h"
#include "worker/scan.h"
#include "worker/store.h"

/* Shortest time between two scans before a sleep, ms */
#define RESCAN_DELAY		60000

/* The wall clock is set back if it falls behind ours by more than this, us */
#define SET_BACK			USECS_PER_SEC

/*
 * No retry is due later than this, us, unless its time is that of a clock that
 * was ahead.
 */
#define LATEST_RETRY		(2 * SECS_PER_HOUR * USECS_PER_SEC)

/* Such a time less this, us, has passed. */
#define LONG_AGO			(INT64CONST(100) * 365 * USECS_PER_DAY)

/* When somebody has a table locked, try it again after, ms */
#define LOCKED_DELAY		100

/*
 * A part of all this, in a transaction of its own: what one cannot have does
 * not keep the others from being done.
 */
typedef struct Step
{
	const char *what;			/* for the log */
	PmTransactionBody body;
	bool		wanted;
	int			failures;		/* in a row */
	PmMoment	at;				/* not before */
} Step;

static void load_body(void *arg);
static void take_over_body(void *arg);
static void templates_body(void *arg);
static void ids_body(void *arg);
static void rescan_body(void *arg);
static void clock_body(void *arg);

static Step load = {"read its settings", load_body};
static Step take_over = {"see what was under way", take_over_body};
static Step look = {"see what others may have sent", pm_failover_look_body};
static Step templates = {"see which messages have a template", templates_body};
static Step ids = {"see which ids messages have", ids_body};
static Step rescan = {"scan the queue", rescan_body};
static Step take_back = {"take back times that lie ahead", clock_body};

static bool ready;				/* settings were read, and what an earlier
								 * worker left was taken over */
static bool copied;				/* the queue is another database's */
static PmMoment rescanned_at;
static int64 wall_ahead;			/* of our own clock, when last looked at */
static int64 set_back;			/* so far, us; 0: not that we know */
static bool active_since_rescan;

/* Settings have changed, or were never read: load them at the next scan. */
void
pm_scan_reload(void)
{
	load.wanted = true;
	load.at = PM_AT_ONCE;
}

/* A stored time lies ahead: the wall clock was set back. */
void
pm_scan_clock(void)
{
	take_back.wanted = true;
}

/* See whether it was just now. */
static void
watch_clock(void)
{
	int64		ahead = GetCurrentTimestamp() - pm_moment();

	if (ahead < wall_ahead - SET_BACK)
	{
		set_back += wall_ahead - ahead;
		take_back.wanted = true;
	}
	wall_ahead = ahead;
}

static void
clock_body(void *arg)
{
	if (set_back > 0)
		pm_deferred_take_back(set_back, 0);
	pm_deferred_take_back(LONG_AGO, LATEST_RETRY);
	pm_codes_take_back();
}

/* Anything may have been queued: look at all lanes at the next scan. */
void
pm_scan_rescan(void)
{
	rescan.wanted = true;
}

/*
 * Whether the settings that are known are those that hold.  Without them nothing
 * is claimed, but the answers to what was sent are stored.
 */
bool
pm_scan_current(void)
{
	return !load.wanted;
}

/* Whether it is known what an earlier worker left; nothing is done before. */
bool
pm_scan_ready(void)
{
	return ready;
}

/* Whether the queue came with a copied database: then nothing is sent. */
bool
pm_scan_copied(void)
{
	return copied;
}

/* Messages have gone their way since the lanes were last looked at. */
void
pm_scan_active(void)
{
	active_since_rescan = true;
}

/*
 * When the lanes should be looked at once more if there is nothing else to do,
 * for what came in without a wake-up, perhaps; PM_NEVER: they need not.
 */
PmMoment
pm_scan_next(void)
{
	if (!active_since_rescan)
		return PM_NEVER;
	return pm_later(rescanned_at, RESCAN_DELAY);
}

/* When a part that failed is to be tried again; PM_NEVER: none did. */
PmMoment
pm_scan_retry(void)
{
	const Step *steps[] = {
		&load, &take_over, &look, &templates, &ids, &rescan, &take_back
	};
	PmMoment	next = PM_NEVER;
	int			i;

	/* Of a copy nothing but the settings is read */
	for (i = 0; i < (copied ? 1 : lengthof(steps)); i++)
		if (steps[i]->wanted)
			next = Min(next, steps[i]->at);
	return next;
}

static void
load_body(void *arg)
{
	Oid			database;
	int			timeline;

	pm_config_forget();
	pm_channels_load();
	pm_instance_read(&database, &timeline);
	pm_failover_timeline(timeline);
	copied = (database != MyDatabaseId && !pm_adopt_database());
}

/* What an earlier worker of this database left. */
static void
take_over_body(void *arg)
{
	PmIntent   *intents;
	int			nintents = pm_read_intents(&intents);
	dlist_mutable_iter iter;

	/* Nothing was claimed yet: these are of a try that failed half-way */
	dlist_foreach_modify(iter, pm_jobs())
		pm_job_drop(dlist_container(PmJob, node, iter.cur));

	pm_trouble_clear_all();
	pm_doubt_load(intents, nintents);
	pm_failover_begin();
}

/* A missing template may be there now. */
static void
templates_body(void *arg)
{
	pm_deferred_retry_templates();
}

/* Sessions take those behind them. */
static void
ids_body(void *arg)
{
	pm_ids_given(Max(pm_highest_message_id(), pm_last_message_id()));
}

/* The lanes that have messages */
typedef struct Found
{
	int			n;
	int			max;
	int32	   *lanes;			/* of the turn's memory */
} Found;

static Found hot;
static Found deferred;

static void
find_lanes(Found *found, bool (*next_lane) (int32 from, int32 *lane))
{
	int32		lane;
	int32		from;

	/* Somebody may have written a row into the last lane that there can be */
	for (from = 0; from >= 0 && next_lane(from, &lane); from = lane + 1)
	{
		if (found->n == found->max)
		{
			found->max *= 2;
			found->lanes = repalloc(found->lanes, sizeof(int32) * found->max);
		}
		found->lanes[found->n++] = lane;
	}
}

/* Look which lanes have messages. */
static void
rescan_body(void *arg)
{
	find_lanes(&hot, pm_next_queue_lane);
	find_lanes(&deferred, pm_next_deferred_lane);
}

static PmLane *
find_lane(int32 lane)
{
	PmChannel  *channel = pm_channel_by_number(PM_LANE_CONNECTOR(lane));

	return channel ? pm_channel_lane(channel, lane) : NULL;
}

/*
 * Forget what is known of the lanes, and see to those that were found, or, if
 * looking for them met an error, to all: each then shows by itself whether it
 * can be read.
 */
static void
begin_lanes(bool all)
{
	int			i;

	for (i = 0; i < pm_channel_count(); i++)
	{
		PmChannel  *channel = pm_channel(i);
		int			p;

		for (p = 0; p < PM_PRIORITIES; p++)
		{
			PmLane	   *lane = channel->lanes[p];

			if (all)
				lane = pm_channel_lane(channel,
									   channel->number * PM_PRIORITIES + p);
			if (lane == NULL)
				continue;
			pm_lane_forget(lane, all ? PM_AT_ONCE : PM_NEVER);
			lane->dirty = all;
		}
	}
	for (i = 0; !all && i < hot.n; i++)
	{
		PmLane	   *lane = find_lane(hot.lanes[i]);

		if (lane)
			lane->dirty = true;
	}
	for (i = 0; !all && i < deferred.n; i++)
	{
		PmLane	   *lane = find_lane(deferred.lanes[i]);

		if (lane)
			pm_lane_look(lane, PM_AT_ONCE);
	}
}

/* Do a part, if it is wanted and its time has come. */
static bool
run_step(Step *step, PmMoment now)
{
	int			sqlstate;

	if (!step->wanted || step->at > now)
		return false;
	if (pm_run_transaction(step->what, step->body, NULL, &sqlstate))
	{
		step->wanted = false;
		step->failures = 0;
		step->at = PM_AT_ONCE;
		return true;
	}
	step->failures++;
	step->at = pm_later(pm_moment(), sqlstate == ERRCODE_LOCK_NOT_AVAILABLE ?
						LOCKED_DELAY : pm_failure_delay(step->failures));
	return false;
}

/*
 * Do what was asked for, as far as it can be done now; see pm_scan_retry for the
 * rest.
 */
void
pm_scan(PmMoment now)
{
	bool		tried;

	if (run_step(&load, now))
	{
		if (!copied)
			pm_forget_first(MyDatabaseId);
		templates.wanted = !copied;
		take_over.wanted = !copied && !ready;
		pm_house_reload();
	}
	if (copied)
	{
		/* Everything is to be found out once the copy may send */
		ready = false;
		return;
	}
	tried = take_over.wanted && take_over.at <= now;
	watch_clock();
	if (run_step(&take_over, now))
		ready = ids.wanted = take_back.wanted = true;
	else if (tried)
	{
		int			i;

		/* Nothing goes on before: whatever it is, it is everybody's */
		for (i = 0; i < pm_channel_count(); i++)
			if (pm_channel(i)->connector)
				pm_channel_damaged(pm_channel(i), pm_queue_failure());
		pm_store_troubles();
	}
	if (!ready)
		return;
	look.wanted = pm_failover_look_wanted();
	tried = look.wanted && look.at <= now;
	if (run_step(&look, now))
		pm_failover_looked(true);
	else if (tried && look.failures > 1)
		pm_failover_looked(false);
	(void) run_step(&templates, now);
	(void) run_step(&ids, now);
	if (run_step(&take_back, now))
	{
		set_back = 0;
		rescan.wanted = true;
		pm_house_codes(PM_WAKE_ATTEMPTS);
	}
	if (rescan.wanted && rescan.at <= now)
	{
		bool		found;

		hot.n = deferred.n = 0;
		hot.max = deferred.max = 16;
		hot.lanes = palloc(sizeof(int32) * hot.max);
		deferred.lanes = palloc(sizeof(int32) * deferred.max);
		found = run_step(&rescan, now);
		begin_lanes(!found);
		rescan.wanted = false;
		rescan.at = PM_AT_ONCE;
		active_since_rescan = !found;
		rescanned_at = now;
	}
}
