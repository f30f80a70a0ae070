/*-------------------------------------------------------------------------
 *
 * queue_space.c
 *		Giving the disk space of an empty queue back.
 *
 * Vacuum makes the space of sent rows usable again (queue_vacuum.c), but the
 * files keep the size of the largest backlog there ever was, and the index
 * never shrinks.  TRUNCATE gives all of it back, under a lock that nobody may
 * have to wait for longer than a moment.  To find out that a table of 100 MB
 * has no row takes longer than that, so it is found out before the lock is
 * taken:
 *
 * 1. Under a SHARE lock, which is had only while no transaction that wrote to
 *	  the queue is open, note the last id that was given out.  From now on no
 *	  row up to that id can appear.
 * 2. Without a lock, a few pages at a time: see that there is no such row.
 * 3. Under the lock for TRUNCATE, see through the index that there is none
 *	  above that id either.
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
#include "access/tableam.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "storage/procarray.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/catalog.h"
#include "base/clock.h"
#include "base/compat.h"
#include "base/owner.h"
#include "base/tables.h"
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

/* Pages that one transaction looks at */
#define PAGES_AT_ONCE		128

/* Longest wait for a table's parts while we lock the table, ms */
#define PARTS_LOCK_TIMEOUT	"1ms"

typedef enum Step
{
	STEP_IDLE,					/* the files are small, as far as we know */
	STEP_NOTE,					/* 1. above */
	STEP_LOOK,					/* 2. */
	STEP_TRUNCATE				/* 3. */
} Step;

/* How a step ended */
typedef enum Outcome
{
	OUT_DONE,					/* nothing to give back, or it was */
	OUT_NEXT,					/* go on */
	OUT_BUSY,					/* somebody is in the way: try again */
	OUT_NOT_EMPTY				/* wait until more was sent */
} Outcome;

static Step step;
static Outcome outcome;
static const char *why;			/* it is BUSY or NOT_EMPTY, for DEBUG1 */
static Size used;				/* bytes of what was sent since the files were
								 * looked at */
static PmMoment next_at;		/* of the next step */
static PmMoment not_before;		/* of the next first step */
static long delay;				/* after the next failure, ms */
static int	tries;				/* of the last step */
static TransactionId last_change;	/* what was sent is dead to snapshots from
									 * here on */
static int64 last_id;			/* no row up to it can appear */
static uint64 catalog_changes;
static BlockNumber npages;
static BlockNumber next_page;

static PmStatement read_sequence = {
	"SELECT last_value FROM @.postmark_message_id_seq", 0, {0}
};

/* A published TRUNCATE would empty the subscriber's table as well. */
static PmStatement published = {
	"SELECT FROM pg_catalog.pg_publication p, pg_catalog.pg_publication_tables t,"
	" pg_catalog.pg_class c, pg_catalog.pg_namespace n"
	" WHERE p.pubtruncate AND t.pubname" PM_EQ "p.pubname"
	" AND c.oid" PM_EQ "$1 AND n.oid" PM_EQ "c.relnamespace"
	" AND t.schemaname" PM_EQ "n.nspname AND t.tablename" PM_EQ "c.relname",
	1, {OIDOID}
};
static PmStatement any_above = {
	"SELECT FROM @.postmark_settings s, pg_catalog.generate_series(0, 9) p,"
	" LATERAL (SELECT FROM @.postmark_queue q"
	" WHERE q.lane = s.number * 10 + p AND q.id > $1"
	" ORDER BY q.lane, q.id LIMIT 1) x",
	1, {INT8OID}
};
static PmStatement truncate_queue = {
	"TRUNCATE ONLY @.postmark_queue", 0, {0}
};

/* Begin: the files may be large. */
void
pm_space_start(void)
{
	step = STEP_NOTE;
	next_at = PM_AT_ONCE;
	not_before = PM_AT_ONCE;
	delay = RETRY_DELAY;
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
	if (step == STEP_IDLE && used >= WORTH_GIVING_BACK)
	{
		step = STEP_NOTE;
		next_at = not_before;
	}
}

static int64
sequence_value(void)
{
	bool		isnull;

	pm_execute(&read_sequence, NULL, NULL, 0);
	return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0],
									   SPI_tuptable->tupdesc, 1, &isnull));
}

/* Whether every row of the queue gets its id from the sequence. */
static bool
row_trigger_enabled(Relation queue)
{
	int			i;

	for (i = 0; queue->trigdesc && i < queue->trigdesc->numtriggers; i++)
		if (strcmp(queue->trigdesc->triggers[i].tgname,
				   "postmark_queue_row") == 0)
			return queue->trigdesc->triggers[i].tgenabled ==
				TRIGGER_FIRES_ALWAYS;
	return false;
}

/* Whether a snapshot is left that could see what was sent. */
static bool
seen_by_snapshot(Relation queue)
{
	return TransactionIdPrecedes(GetOldestNonRemovableTransactionId(queue),
								 last_change);
}

static void
note_body(void *arg)
{
	Oid			relid = pm_object(PM_QUEUE);
	Relation	queue = table_open(relid, AccessShareLock);
	Datum		value = ObjectIdGetDatum(relid);
	bool		seen = seen_by_snapshot(queue);
	bool		large = pm_queue_bytes(queue) >= WORTH_GIVING_BACK;
	bool		ids_given = row_trigger_enabled(queue);

	table_close(queue, AccessShareLock);
	outcome = OUT_DONE;
	if (!large)
		return;

	/* Nobody tells us when that has changed: ask now and then */
	outcome = OUT_BUSY;
	why = "its row trigger is disabled";
	if (!ids_given)
		return;
	why = "a snapshot may see what was in it";
	if (seen)
		return;
	why = "a publication publishes its truncation";
	pm_execute(&published, &value, NULL, 1);
	if (SPI_processed > 0)
		return;
	why = "a transaction that writes to it is open";
	if (!ConditionalLockRelationOid(relid, ShareLock))
		return;
	last_id = sequence_value();
	queue = table_open(relid, NoLock);
	npages = RelationGetNumberOfBlocks(queue);
	table_close(queue, NoLock);
	UnlockRelationOid(relid, ShareLock);
	catalog_changes = pm_catalog_changes();
	next_page = 0;
	tries = 0;
	outcome = OUT_NEXT;
}

/* See that some more pages have no row up to last_id. */
static void
look_body(void *arg)
{
	Relation	queue = table_open(pm_object(PM_QUEUE), AccessShareLock);
	TupleTableSlot *slot = table_slot_create(queue, NULL);
	BlockNumber upto = Min(npages, next_page + PAGES_AT_ONCE);
	ItemPointerData first;
	ItemPointerData last;
	AttrNumber	id_column = get_attnum(RelationGetRelid(queue), "id");
	TableScanDesc scan;

	pm_check_table(PM_QUEUE);
	ItemPointerSet(&first, next_page, 0);
	ItemPointerSet(&last, upto - 1, PG_UINT16_MAX);
	outcome = OUT_NEXT;
	why = "there are messages in it";
	scan = table_beginscan_tidrange(queue, GetActiveSnapshot(), &first, &last,
									SO_NONE);
	while (outcome == OUT_NEXT &&
		   table_scan_getnextslot_tidrange(scan, ForwardScanDirection, slot))
	{
		bool		isnull;

		if (DatumGetInt64(slot_getattr(slot, id_column, &isnull)) <= last_id)
			outcome = OUT_NOT_EMPTY;
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	table_close(queue, AccessShareLock);
	next_page = upto;
}

static void
truncate_body(void *arg)
{
	Oid			relid = pm_object(PM_QUEUE);
	Datum		value = Int64GetDatum(last_id);
	Relation	queue;
	Oid			toast;
	bool		ids_given;
	bool		seen;

	outcome = OUT_BUSY;
	why = "there are messages in it";
	pm_execute(&any_above, &value, NULL, 1);
	if (SPI_processed > 0)
		return;
	why = "it is in use";
	if (!ConditionalLockRelationOid(relid, AccessExclusiveLock))
		return;
	pm_check_table(PM_QUEUE);
	queue = table_open(relid, NoLock);
	toast = queue->rd_rel->reltoastrelid;
	ids_given = row_trigger_enabled(queue);
	seen = seen_by_snapshot(queue);
	table_close(queue, NoLock);
	if (OidIsValid(toast) &&
		!ConditionalLockRelationOid(toast, AccessExclusiveLock))
		return;
	why = "a snapshot may see what was in it";
	if (seen)
		return;

	/* VACUUM FULL, DISABLE TRIGGER, ...: what was noted may not hold */
	why = "it was changed meanwhile";
	if (!ids_given || pm_catalog_changes() != catalog_changes)
	{
		outcome = OUT_NOT_EMPTY;
		return;
	}
	why = "there are messages in it";
	pm_execute(&any_above, &value, NULL, 1);
	if (SPI_processed > 0)
		return;
	(void) set_config_option("lock_timeout", PARTS_LOCK_TIMEOUT, PGC_SUSET,
							 PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
	pm_execute(&truncate_queue, NULL, NULL, 0);
	outcome = OUT_DONE;
}

/* Begin anew, but not at once. */
static void
put_off(PmMoment now, Step next)
{
	step = next;
	not_before = next_at = pm_later(now, delay);
	delay = Min(delay * 2, RETRY_CEILING);
}

/*
 * Do the next step if it is due, and have the queue vacuumed if it is time.
 *
 * working: requests are under way, or their results not stored: there are
 *			rows in the queue
 */
void
pm_space_keep(PmMoment now, bool working)
{
	int			sqlstate;
	bool		ok;

	pm_vacuum_keep(now);
	if (pm_space_next(working) > now)
		return;
	ok = pm_run_transaction("give the queue's disk space back",
							step == STEP_NOTE ? note_body :
							step == STEP_LOOK ? look_body : truncate_body,
							NULL, &sqlstate);
	if (!ok)
	{
		outcome = OUT_BUSY;
		why = "an error occurred";
	}
	if (outcome == OUT_BUSY || outcome == OUT_NOT_EMPTY)
		elog(DEBUG1, "the queue's disk space is not given back: %s", why);

	switch (outcome)
	{
		case OUT_NEXT:
			step = next_page < npages ? STEP_LOOK : STEP_TRUNCATE;
			break;
		case OUT_DONE:
			if (step == STEP_TRUNCATE)
				not_before = pm_later(now, TRUNCATE_DELAY);
			step = STEP_IDLE;
			delay = RETRY_DELAY;
			used = 0;
			break;
		case OUT_BUSY:
			if (step == STEP_TRUNCATE && ok && ++tries < MOMENT_TRIES)
				next_at = pm_later(now, MOMENT_DELAY);
			else
				put_off(now, STEP_NOTE);
			break;
		case OUT_NOT_EMPTY:
			put_off(now, STEP_IDLE);
			break;
	}
}

/* When pm_space_keep is to be called; PM_NEVER for never. */
PmMoment
pm_space_next(bool working)
{
	if (step == STEP_IDLE || (working && step != STEP_LOOK))
		return PM_NEVER;
	return next_at;
}
