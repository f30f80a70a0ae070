/*-------------------------------------------------------------------------
 *
 * queue_space.c
 *		Giving the disk space of an empty queue back.
 *
 * Vacuum makes the space of sent rows usable again (queue_vacuum.c), but the
 * files keep the size of the largest backlog there ever was, and the index
 * never shrinks.  TRUNCATE gives all of it back, under a lock that nobody may
 * have to wait for longer than a moment.
 *
 * Whether the queue is empty is decided under that lock, with a snapshot of that
 * moment, by the first entry of its primary key: nothing that was seen before
 * counts.  What is left there of sent rows makes the look long, so it is taken
 * once before without the lock, which also marks what is dead in the index; the
 * lock is only asked for if that was short.
 *
 * Locks are only taken if they are free, so that nobody ever queues up behind
 * us.  As VACUUM does, we wait until no snapshot is left that could see what
 * was there: TRUNCATE would take it away from it.
 *
 * src/worker/queue_space.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/transam.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "storage/lmgr.h"
#include "storage/procarray.h"
#include "utils/guc.h"
#include "utils/rel.h"

#include "base/catalog.h"
#include "base/clock.h"
#include "base/compat.h"
#include "base/owner.h"
#include "shared/transaction.h"
#include "worker/queue_space.h"
#include "worker/queue_vacuum.h"

/* Files smaller than this are left alone. */
#define WORTH_GIVING_BACK	(16 * 1024 * 1024)

/* Shortest time between two TRUNCATEs, ms */
#define TRUNCATE_DELAY		60000

/* When something was in the way, try again after, ms */
#define RETRY_DELAY			500
#define RETRY_CEILING		60000

/* While messages come and go, wait for a moment without any: ms, times */
#define MOMENT_DELAY		20
#define MOMENT_TRIES		100

/* A look that takes longer is not taken under the lock, us */
#define LOOK_TIME			10000

/* Longest wait for a table's parts while we lock the table, ms */
#define PARTS_LOCK_TIMEOUT	"1ms"

/* How it ended */
typedef enum Outcome
{
	OUT_DONE,					/* it was given back */
	OUT_SMALL,					/* there is nothing to give back */
	OUT_NOT_EMPTY,				/* there are messages, perhaps for a moment */
	OUT_IN_USE,					/* somebody is at it, perhaps for a moment */
	OUT_BUSY					/* something is in the way for longer */
} Outcome;

static bool wanted;				/* the files may be large */
static Outcome outcome;
static const char *why;			/* what is in the way, for DEBUG1 */
static Size used;				/* bytes of what was sent since the files were
								 * looked at */
static PmMoment next_at;		/* when to try */
static PmMoment not_before;		/* after a TRUNCATE */
static long delay;				/* after the next failure, ms */
static int	moments;			/* in a row */
static TransactionId last_change;	/* what was sent is dead to snapshots from
									 * here on */

/* A published TRUNCATE would empty the subscriber's table as well. */
static PmStatement published = {
	"SELECT FROM pg_catalog.pg_publication p, pg_catalog.pg_publication_tables t,"
	" pg_catalog.pg_class c, pg_catalog.pg_namespace n"
	" WHERE p.pubtruncate AND t.pubname" PM_EQ "p.pubname"
	" AND c.oid" PM_EQ "$1 AND n.oid" PM_EQ "c.relnamespace"
	" AND t.schemaname" PM_EQ "n.nspname AND t.tablename" PM_EQ "c.relname",
	1, {OIDOID}
};
static PmStatement any_message = {
	"SELECT FROM @.postmark_queue ORDER BY lane, id LIMIT 1", 0, {0}
};
static PmStatement truncate_queue = {
	"TRUNCATE ONLY @.postmark_queue", 0, {0}
};

/* Begin: the files may be large. */
void
pm_space_start(void)
{
	wanted = true;
	next_at = PM_AT_ONCE;
	not_before = PM_AT_ONCE;
	delay = RETRY_DELAY;
	moments = 0;
	used = 0;
	last_change = ReadNextTransactionId();
}

/* So many bytes of queued messages were sent; the transaction committed. */
void
pm_space_used(Size bytes)
{
	pm_vacuum_used(bytes);
	used += bytes;
	last_change = ReadNextTransactionId();
	if (!wanted && used >= WORTH_GIVING_BACK)
	{
		wanted = true;
		next_at = not_before;
	}
}

/* Whether a snapshot is left that could see what was sent. */
static bool
seen_by_snapshot(Relation queue)
{
	return TransactionIdPrecedes(GetOldestNonRemovableTransactionId(queue),
								 last_change);
}

/* Whether there is a message now, and how long it took to see that, us. */
static bool
any_messages(int64 *took)
{
	PmMoment	begin = pm_moment();

	pm_execute_now(&any_message, NULL, true);
	*took = pm_moment() - begin;
	return SPI_processed > 0;
}

static void
give_back_body(void *arg)
{
	Oid			relid = pm_object(PM_QUEUE);
	Relation	queue = table_open(relid, AccessShareLock);
	Datum		value = ObjectIdGetDatum(relid);
	Oid			toast = queue->rd_rel->reltoastrelid;
	bool		seen = seen_by_snapshot(queue);
	bool		large = pm_queue_bytes(queue) >= WORTH_GIVING_BACK;
	int64		took;

	table_close(queue, AccessShareLock);
	outcome = OUT_SMALL;
	if (!large)
		return;

	/* Nobody tells us when that has changed: ask now and then */
	outcome = OUT_BUSY;
	why = "a snapshot may see what was in it";
	if (seen)
		return;
	why = "a publication publishes its truncation";
	pm_execute(&published, &value, NULL, 1);
	if (SPI_processed > 0)
		return;

	outcome = OUT_NOT_EMPTY;
	why = "there are messages in it";
	if (any_messages(&took))
		return;
	outcome = OUT_IN_USE;
	why = "it takes long to see that there are none";
	if (took > LOOK_TIME)
		return;
	why = "it is in use";
	if (!ConditionalLockRelationOid(relid, AccessExclusiveLock))
		return;
	if (OidIsValid(toast) &&
		!ConditionalLockRelationOid(toast, AccessExclusiveLock))
		return;
	outcome = OUT_NOT_EMPTY;
	why = "there are messages in it";
	if (any_messages(&took))
		return;
	queue = table_open(relid, NoLock);
	seen = seen_by_snapshot(queue);
	table_close(queue, NoLock);
	outcome = OUT_BUSY;
	why = "a snapshot may see what was in it";
	if (seen)
		return;
	(void) set_config_option("lock_timeout", PARTS_LOCK_TIMEOUT, PGC_SUSET,
							 PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
	pm_execute(&truncate_queue, NULL, NULL, 0);
	outcome = OUT_DONE;
}

/*
 * Give the space back if it is time to and can be done, and have the queue
 * vacuumed if it is time.
 *
 * working: requests are under way, or their results not stored: there are
 *			rows in the queue
 */
void
pm_space_keep(PmMoment now, bool working)
{
	int			sqlstate;

	pm_vacuum_keep(now);
	if (pm_space_next(working) > now)
		return;
	if (!pm_run_transaction("give the queue's disk space back", give_back_body,
							NULL, &sqlstate))
	{
		outcome = OUT_BUSY;
		why = "an error occurred";
	}
	if (outcome == OUT_DONE || outcome == OUT_SMALL)
	{
		if (outcome == OUT_DONE)
			not_before = pm_later(now, TRUNCATE_DELAY);
		wanted = false;
		delay = RETRY_DELAY;
		moments = 0;
		used = 0;
		return;
	}
	elog(DEBUG1, "the queue's disk space is not given back: %s", why);
	if (outcome != OUT_BUSY && ++moments < MOMENT_TRIES)
	{
		next_at = pm_later(now, MOMENT_DELAY);
		return;
	}

	/* Messages that stay are a reason to wait until others were sent */
	moments = 0;
	next_at = not_before = pm_later(now, delay);
	delay = Min(delay * 2, RETRY_CEILING);
	if (outcome == OUT_NOT_EMPTY)
	{
		wanted = false;
		used = WORTH_GIVING_BACK;
	}
}

/* When pm_space_keep is to be called; PM_NEVER for never. */
PmMoment
pm_space_next(bool working)
{
	return wanted && !working ? next_at : PM_NEVER;
}
