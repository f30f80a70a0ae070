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
#include "queue/queue.h"
#include "settings/config_store.h"
#include "settings/connector.h"
#include "shared/transaction.h"
#include "worker/channel.h"
#include "worker/doubt.h"
#include "worker/failover.h"
#include "worker/housekeeping.h"
#include "worker/jobs.h"
#include "worker/scan.h"

/* Shortest time between two scans before a sleep, ms */
#define RESCAN_DELAY		60000

static bool reload_wanted;
static bool rescan_wanted;
static bool taken_over;			/* what an earlier worker left */
static bool copied;				/* the queue is another database's */
static PmMoment rescanned_at;
static bool active_since_rescan;

/* Settings have changed, or were never read: load them at the next scan. */
void
pm_scan_reload(void)
{
	reload_wanted = true;
}

/* Anything may have been queued: look at all lanes at the next scan. */
void
pm_scan_rescan(void)
{
	rescan_wanted = true;
}

/* Whether the settings that are known are those that hold. */
bool
pm_scan_loaded(void)
{
	return !reload_wanted;
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

/* What an earlier worker of this database left. */
static void
take_over(void)
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

static void
load_body(void *arg)
{
	Oid			database;
	int			timeline;

	pm_config_forget();
	pm_channels_load();
	pm_instance_read(&database, &timeline);
	pm_failover_timeline(timeline);
	copied = (database != MyDatabaseId);
	if (copied)
		return;

	/* A missing template may be there now */
	pm_deferred_retry_templates();
	if (!taken_over)
		take_over();
}

/* Forget what is known of the lanes; look which of them have messages. */
static void
rescan_body(void *arg)
{
	int32		lane;
	int32		from;
	int			i;

	for (i = 0; i < pm_channel_count(); i++)
	{
		int			p;

		for (p = 0; p < PM_PRIORITIES; p++)
		{
			PmLane	   *known = pm_channel(i)->lanes[p];

			if (known == NULL)
				continue;
			known->cursor = 0;
			known->dirty = false;
			known->late.n = 0;
			known->locked.n = 0;
			known->due = PM_NEVER;
		}
	}
	for (from = 0; pm_next_queue_lane(from, &lane); from = lane + 1)
	{
		PmChannel  *channel = pm_channel_by_number(PM_LANE_CONNECTOR(lane));

		if (channel)
			pm_channel_lane(channel, lane)->dirty = true;
	}
	for (from = 0; pm_next_deferred_lane(from, &lane); from = lane + 1)
	{
		PmChannel  *channel = pm_channel_by_number(PM_LANE_CONNECTOR(lane));

		if (channel)
			pm_channel_lane(channel, lane)->due = PM_AT_ONCE;
	}
}

/*
 * Do what was asked for, in transactions of its own.  Returns false if one
 * failed: then it is to be tried again.
 */
bool
pm_scan(PmMoment now)
{
	int			sqlstate;

	if (reload_wanted)
	{
		if (!pm_run_transaction("read its settings", load_body, NULL,
								&sqlstate))
			return false;

		/* Everything is to be found out once the copy may send */
		taken_over = !copied;
		reload_wanted = false;
		pm_house_reload();
	}
	if (rescan_wanted && !copied)
	{
		if (!pm_run_transaction("scan the queue", rescan_body, NULL, &sqlstate))
			return false;
		rescan_wanted = false;
		active_since_rescan = false;
		rescanned_at = now;
	}
	return true;
}
