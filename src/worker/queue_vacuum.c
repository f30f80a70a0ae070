/*-------------------------------------------------------------------------
 *
 * queue_vacuum.c
 *		Making the space of sent messages usable again.
 *
 * Every row of the queue dies within moments, and its space is lost until
 * VACUUM has been there.  autovacuum looks at a database once a minute
 * (autovacuum_naptime): in that time a queue under load grows by more than a
 * gigabyte, and then a vacuum of all of it takes long enough for the next one.
 * So the worker counts what it sends, and after some tens of megabytes has the
 * tables vacuumed by a process of its own, which ends when it has done so.
 *
 * That is not done by the worker itself, which would see to no request
 * meanwhile, and not while a snapshot is held that could see what was sent:
 * there would be nothing to gain.  autovacuum stays the one that comes if no
 * worker slot is free, or if less was sent than is worth a process.
 *
 * src/worker/queue_vacuum.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/table.h"
#include "access/transam.h"
#include "access/xact.h"
#include "commands/vacuum.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/bufmgr.h"
#include "storage/ipc.h"
#include "storage/procarray.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/catalog.h"
#include "base/clock.h"
#include "base/compat.h"
#include "shared/process.h"
#include "shared/transaction.h"
#include "worker/queue_vacuum.h"

/* Vacuum after so many bytes of messages were sent... */
#define VACUUM_AFTER		(128 * 1024 * 1024)

/* ... or this part of the files, so that a large backlog is not read too often */
#define VACUUM_PART			4

/* When a snapshot is in the way, try again after, ms, doubling */
#define SNAPSHOT_DELAY		100
#define SNAPSHOT_CEILING	60000

/* Without a free worker slot it is tried again after, ms */
#define NO_SLOT_DELAY		10000

static Size dead;				/* bytes sent since the last vacuum began */
static Size enough = VACUUM_AFTER;
static TransactionId last_dead; /* they are dead to snapshots from here on */
static bool seen;				/* a snapshot may see them */
static PmMoment not_before;
static long delay = SNAPSHOT_DELAY;
static BackgroundWorkerHandle *vacuum_process = NULL;

static BlockNumber
pages_of(Oid relid)
{
	Relation	rel = relation_open(relid, AccessShareLock);
	BlockNumber pages = RelationGetNumberOfBlocks(rel);

	relation_close(rel, AccessShareLock);
	return pages;
}

/* Size of the queue's files: table, indexes, TOAST.  The caller has it open. */
int64
pm_queue_bytes(Relation queue)
{
	List	   *indexes = RelationGetIndexList(queue);
	int64		pages = RelationGetNumberOfBlocks(queue);
	ListCell   *lc;

	foreach(lc, indexes)
		pages += pages_of(lfirst_oid(lc));
	if (OidIsValid(queue->rd_rel->reltoastrelid))
		pages += pages_of(queue->rd_rel->reltoastrelid);
	return pages * BLCKSZ;
}

/* So many bytes of queued messages were sent; the transaction committed. */
void
pm_vacuum_used(Size bytes)
{
	if (dead < enough && dead + bytes >= enough)
		last_dead = ReadNextTransactionId();
	dead += bytes;
}

/* See whether a vacuum is worth while, and would find what was counted. */
static void
look_body(void *arg)
{
	Relation	queue = table_open(pm_object(PM_QUEUE), AccessShareLock);
	TransactionId horizon = GetOldestNonRemovableTransactionId(queue);

	enough = Max(VACUUM_AFTER, pm_queue_bytes(queue) / VACUUM_PART);
	seen = TransactionIdPrecedes(horizon, last_dead);
	table_close(queue, AccessShareLock);
}

/* Start the process; false if the server has no room for it. */
static bool
start_process(void)
{
	BackgroundWorker worker;
	MemoryContext old;
	bool		started;

	pm_process_describe(&worker, "vacuum", MyDatabaseId);
	worker.bgw_main_arg = ObjectIdGetDatum(MyDatabaseId);
	worker.bgw_notify_pid = MyProcPid;

	/* The handle outlives the turn */
	old = MemoryContextSwitchTo(TopMemoryContext);
	started = RegisterDynamicBackgroundWorker(&worker, &vacuum_process);
	MemoryContextSwitchTo(old);
	return started;
}

/*
 * Have the queue vacuumed if enough was sent.  To be called after messages were
 * sent; what keeps it from being vacuumed now is looked at again with the next
 * ones, for without them the files grow no more.
 */
void
pm_vacuum_keep(PmMoment now)
{
	pid_t		pid;
	int			sqlstate;
	bool		looked;

	if (vacuum_process &&
		GetBackgroundWorkerPid(vacuum_process, &pid) == BGWH_STOPPED)
	{
		pfree(vacuum_process);
		vacuum_process = NULL;
	}
	if (vacuum_process || dead < enough || now < not_before)
		return;

	looked = pm_run_transaction("look at the queue's size", look_body, NULL,
								&sqlstate);
	if (!looked || seen)
	{
		if (looked)
			elog(DEBUG1, "the queue is not vacuumed: a snapshot may see what was in it");
		not_before = pm_later(now, delay);
		delay = Min(delay * 2, SNAPSHOT_CEILING);
		return;
	}
	delay = SNAPSHOT_DELAY;
	if (dead < enough)
		return;
	if (start_process())
		dead = 0;
	else
	{
		elog(DEBUG1, "the queue is not vacuumed: no background worker slot is free");
		not_before = pm_later(now, NO_SLOT_DELAY);
	}
}

/*
 * End the process, if there is one.
 *
 * wait: until it is gone, which takes a moment; may raise an error for an
 *		 interrupt.  Without it none is raised.
 */
void
pm_vacuum_end(bool wait)
{
	if (vacuum_process == NULL)
		return;
	TerminateBackgroundWorker(vacuum_process);
	if (wait)
		(void) WaitForBackgroundWorkerShutdown(vacuum_process);
}

/* Entry point of the process; the argument is the database. */
void
postmark_vacuum_main(Datum arg)
{
	static const PmObject tables[] = {PM_QUEUE, PM_INTENTS, PM_DEFERRED};
	VacuumParams params;
	List	   *relations = NIL;
	MemoryContext context;
	int			i;

	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(arg),
											  InvalidOid, 0);
	SetConfigOption("application_name", "postmark_connector", PGC_SUSET,
					PGC_S_OVERRIDE);

	/* Not that a table was skipped, because autovacuum is there, say */
	SetConfigOption("log_min_messages", "error", PGC_SUSET, PGC_S_OVERRIDE);

	context = AllocSetContextCreate(TopMemoryContext, "postmark vacuum",
									ALLOCSET_DEFAULT_SIZES);
	PortalContext = context;
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	if (OidIsValid(pm_extension_oid()))
	{
		pgstat_report_activity(STATE_RUNNING, "VACUUM of the queue");
		MemoryContextSwitchTo(context);
		for (i = 0; i < lengthof(tables); i++)
			relations = lappend(relations,
								makeVacuumRelation(NULL, pm_object(tables[i]),
												   NIL));
		memset(&params, 0, sizeof(params));
		params.options = VACOPT_VACUUM | VACOPT_SKIP_LOCKED |
			VACOPT_PROCESS_MAIN | VACOPT_PROCESS_TOAST;
		params.freeze_min_age = -1;
		params.freeze_table_age = -1;
		params.multixact_freeze_min_age = -1;
		params.multixact_freeze_table_age = -1;
		params.log_vacuum_min_duration = -1;
		params.nworkers = -1;
		vacuum(relations, &params,
			   GetAccessStrategyWithSize(BAS_VACUUM, VacuumBufferUsageLimit),
			   context, true);
	}
	CommitTransactionCommand();
	pgstat_report_stat(true);
	proc_exit(0);
}
