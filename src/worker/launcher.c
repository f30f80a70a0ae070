/*-------------------------------------------------------------------------
 *
 * launcher.c
 *		Keeps one worker running in every database that has the extension.
 *
 * Only a connection to a database can tell whether the extension is there, so
 * the launcher starts a worker in each, one after another; one that finds
 * nothing ends, and is not started again until CREATE EXTENSION or a change of
 * the databases says so.  A worker that ended by an error or by
 * pg_terminate_backend is started again, at growing intervals if it keeps
 * failing.
 *
 * src/worker/launcher.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/compat.h"
#include "base/wait_event.h"
#include "settings/guc.h"
#include "shared/process.h"
#include "shared/slots.h"
#include "worker/launcher.h"

/* A worker that lives shorter than this, ms, has failed at its start. */
#define SHORT_LIFE			5000

/* It is started again after, ms, doubling */
#define RESTART_DELAY		500
#define RESTART_CEILING		60000

/* The worker of a copied database is started again after, ms */
#define COPY_DELAY			1000

/* Without a free worker slot it is tried again after, ms */
#define NO_SLOT_DELAY		10000

/*
 * Workers that may be starting at the same time: more would be there sooner, but
 * the first sessions later.
 */
#define MAX_STARTING		8

/* pg_database.datconnlimit of one whose creation or removal was cut off */
#ifndef DATCONNLIMIT_INVALID_DB
#define DATCONNLIMIT_INVALID_DB	(-2)
#endif

/* What the launcher knows of a database */
typedef struct Database
{
	Oid			oid;			/* hash key */
	bool		listed;			/* was there at the last look */
	bool		wanted;			/* is to be looked at, or to have a worker */
	bool		changed;		/* the same, once the present worker ended */
	bool		copy;			/* of another database, as its last worker said */
	PmSlot	   *slot;			/* NULL: has no worker */
	BackgroundWorkerHandle *handle;
	PmMoment	started_at;
	PmMoment	start_at;		/* not before */
	int			failures;
	bool		waits;			/* it was said that its worker's commit does,
								 * for a synchronous standby */
	PmMoment	goes_on_at;		/* say then that it does no more */
} Database;

/*
 * That a worker's commits wait no more is said after so long without another
 * that waits, ms: where a standby is slow it is not said for each.
 */
#define GOES_ON_DELAY		5000

static HTAB *databases;
static bool list_wanted = true;

static void
launcher_detach(int code, Datum arg)
{
	PmShared   *shared = pm_shared();

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	shared->launcher = NULL;
	shared->launcher_pid = 0;
	LWLockRelease(shared->lock);
}

static Database *
database_entry(Oid oid)
{
	bool		found;
	Database   *db = hash_search(databases, &oid, HASH_ENTER, &found);

	if (!found)
	{
		memset(db, 0, sizeof(*db));
		db->oid = oid;
		db->wanted = true;
	}
	return db;
}

/* Read pg_database: forget what is gone, note what is new. */
static void
list_databases(void)
{
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;
	HASH_SEQ_STATUS seq;
	Database   *db;

	hash_seq_init(&seq, databases);
	while ((db = hash_seq_search(&seq)) != NULL)
		db->listed = false;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database form = (Form_pg_database) GETSTRUCT(tuple);

		if (form->datallowconn &&
			form->datconnlimit != DATCONNLIMIT_INVALID_DB)
			database_entry(form->oid)->listed = true;
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();

	/* It may have waited for a lock, which resets the latch: look again */
	SetLatch(MyLatch);

	hash_seq_init(&seq, databases);
	while ((db = hash_seq_search(&seq)) != NULL)
		if (!db->listed && db->slot == NULL)
		{
			pm_forget_first(db->oid);
			hash_search(databases, &db->oid, HASH_REMOVE, NULL);
		}
}

/* The extension was made or dropped in a database. */
static void
probe(Database *db)
{
	db->wanted = true;
	db->changed = true;
	db->start_at = PM_AT_ONCE;

	/* For its failed attempts, perhaps, of which there may be many */
	if (db->copy)
		db->start_at = pm_later(db->started_at, COPY_DELAY);
}

/* Take over what sessions asked for. */
static void
take_probes(void)
{
	PmShared   *shared = pm_shared();
	Oid			probes[PM_MAX_PROBES];
	int			nprobes;
	bool		probe_all;
	int			i;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	nprobes = shared->nprobes;
	memcpy(probes, shared->probes, sizeof(probes));
	probe_all = shared->probe_all;
	if (shared->list_databases || nprobes > 0)
		list_wanted = true;
	shared->list_databases = false;
	shared->nprobes = 0;
	shared->probe_all = false;
	LWLockRelease(shared->lock);

	for (i = 0; i < nprobes; i++)
		probe(database_entry(probes[i]));
	if (probe_all)
	{
		HASH_SEQ_STATUS seq;
		Database   *db;

		hash_seq_init(&seq, databases);
		while ((db = hash_seq_search(&seq)) != NULL)
			probe(db);
	}
}

/* A worker has ended: decide what is next for its database. */
static void
worker_ended(Database *db, PmMoment now)
{
	PmWorkerExit reason = db->slot->exit;
	bool		was_short = now < pm_later(db->started_at, SHORT_LIFE);

	pm_free_slot(db->slot);
	db->slot = NULL;
	pfree(db->handle);
	db->handle = NULL;

	switch (reason)
	{
		case PM_EXIT_NO_EXTENSION:

			/* It may have been created again after the worker looked */
			db->wanted = db->changed;
			db->failures = 0;
			db->copy = false;
			break;
		case PM_EXIT_COPIED:

			/* Until postmark_resume; or it was resumed after it looked */
			db->wanted = db->changed;
			db->failures = 0;
			db->copy = true;
			if (db->changed)
				db->start_at = now;
			break;
		case PM_EXIT_STOPPED:
			db->failures = 0;
			db->start_at = now;
			break;
		case PM_EXIT_UNKNOWN:

			/* Perhaps its database is gone */
			list_wanted = true;
			db->failures = was_short ? db->failures + 1 : 0;
			db->start_at = now;
			if (db->failures > 2)
				db->start_at =
					pm_later(now, Min(RESTART_DELAY << Min(db->failures - 3, 10),
									  RESTART_CEILING));
			break;
	}
}

/* Start a worker in a database.  False if the server has no room for it. */
static bool
start_worker(Database *db, PmMoment now)
{
	BackgroundWorker worker;
	PmWorkerArgs args;
	PmSlot	   *slot = pm_take_slot(db->oid);
	bool		started = false;

	if (slot)
	{
		pm_process_describe(&worker, "worker", db->oid);
		worker.bgw_main_arg = Int32GetDatum((int32) (slot - pm_shared()->slots));
		memset(&args, 0, sizeof(args));
		args.generation = slot->generation;
		args.known_copy = db->copy;
		memcpy(worker.bgw_extra, &args, sizeof(args));
		worker.bgw_notify_pid = MyProcPid;
		started = RegisterDynamicBackgroundWorker(&worker, &db->handle);
		if (started)
		{
			db->changed = false;
			db->slot = slot;
			db->started_at = now;
		}
		else
			pm_free_slot(slot);
	}

	if (started != !pm_shared()->no_worker_slot)
	{
		if (!started)
			ereport(WARNING,
					(errmsg("postmark_connector could not start a worker: no background worker slot is free"),
					 errdetail("The connectors of the databases without one are in the state no_worker."),
					 errhint("Raise max_worker_processes and restart the server.")));
		else
			ereport(LOG,
					(errmsg("postmark_connector starts workers again: a background worker slot is free")));
		LWLockAcquire(pm_shared()->lock, LW_EXCLUSIVE);
		pm_shared()->no_worker_slot = !started;
		LWLockRelease(pm_shared()->lock);
	}
	return started;
}

/* The name of a database, palloc'd in the current memory context. */
static char *
database_name(Oid oid)
{
	MemoryContext context = CurrentMemoryContext;
	char	   *name;

	StartTransactionCommand();
	name = get_database_name(oid);
	name = MemoryContextStrdup(context, name ? name : "?");
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	return name;
}

/*
 * Whether there is news of a database: its worker's commits wait for a
 * synchronous standby, or do so no more.  *next becomes no later than when to
 * look again.
 */
static bool
has_news(Database *db, PmMoment now, PmMoment *next)
{
	if (db->slot == NULL)
		db->waits = false;
	else if (pg_atomic_read_u32(&db->slot->commit_waits) != 0)
	{
		db->goes_on_at = PM_NEVER;
		return !db->waits;
	}
	else if (db->waits)
	{
		if (db->goes_on_at == PM_NEVER)
			db->goes_on_at = pm_later(now, GOES_ON_DELAY);
		*next = Min(*next, db->goes_on_at);
		return db->goes_on_at <= now;
	}
	return false;
}

/*
 * Say so in the log, in place of the worker, which can't while it waits.
 * Returns when to look again.
 */
static PmMoment
report_waits(PmMoment now)
{
	for (;;)
	{
		PmMoment	next = PM_NEVER;
		HASH_SEQ_STATUS seq;
		Database   *db;
		char	   *name;

		hash_seq_init(&seq, databases);
		while ((db = hash_seq_search(&seq)) != NULL &&
			   !has_news(db, now, &next))
			;
		if (db == NULL)
			return next;

		/* No scan may be open where a transaction ends */
		hash_seq_term(&seq);
		db->waits = !db->waits;
		name = database_name(db->oid);
		if (db->waits)
			ereport(WARNING,
					(errmsg("postmark_connector: the worker of database \"%s\" waits for a synchronous standby",
							name),
					 errdetail("No mail of this database is sent until one confirms its commits."),
					 errhint("Have a synchronous standby connect, or change synchronous_standby_names.")));
		else
			ereport(LOG,
					(errmsg("postmark_connector: the worker of database \"%s\" goes on: its commits are confirmed",
							name)));
		pfree(name);
	}
}

/* Say in the log that no database has a worker any more, or that they may. */
static void
report_enabled(void)
{
	static bool enabled = true;

	if (pm_worker_enabled == enabled)
		return;
	enabled = pm_worker_enabled;
	if (enabled)
		ereport(LOG,
				(errmsg("postmark_connector: databases have workers again: %s is on",
						"postmark_connector.worker")));
	else
		ereport(LOG,
				(errmsg("postmark_connector: no database has a worker: %s is off",
						"postmark_connector.worker"),
				 errdetail("What is queued stays so, and its connectors are in the state no_worker."),
				 errhint("Set it to on and reload the configuration.")));
}

/* See to all databases; returns when to look again, PM_NEVER for never. */
static PmMoment
see_to_databases(void)
{
	PmMoment	now = pm_moment();
	PmMoment	next = PM_NEVER;
	HASH_SEQ_STATUS seq;
	Database   *db;
	int			starting = 0;
	bool		full = false;

	hash_seq_init(&seq, databases);
	while ((db = hash_seq_search(&seq)) != NULL)
	{
		pid_t		pid;

		if (db->slot &&
			GetBackgroundWorkerPid(db->handle, &pid) == BGWH_STOPPED)
			worker_ended(db, now);
		else if (db->slot && !db->slot->ready)
			starting++;
	}
	if (list_wanted)
	{
		list_wanted = false;
		list_databases();
	}
	report_enabled();
	next = report_waits(now);

	hash_seq_init(&seq, databases);
	while ((db = hash_seq_search(&seq)) != NULL)
	{
		bool		held;

		if (db->slot || !db->wanted || !db->listed || !pm_worker_enabled)
			continue;
		LWLockAcquire(pm_shared()->lock, LW_SHARED);
		held = pm_database_held(db->oid);
		LWLockRelease(pm_shared()->lock);
		if (held)
			continue;
		if (db->start_at > now)
			next = Min(next, db->start_at);
		else if (full || starting >= MAX_STARTING)
			;					/* when one of them has started or ended */
		else if (start_worker(db, now))
			starting++;
		else
		{
			full = true;
			next = Min(next, pm_later(now, NO_SLOT_DELAY));
		}
	}
	return next;
}

/* Entry point of the launcher. */
void
postmark_launcher_main(Datum arg)
{
	PmShared   *shared = pm_shared();
	HASHCTL		info;
	int			i;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);

	info.keysize = sizeof(Oid);
	info.entrysize = sizeof(Database);
	info.hcxt = TopMemoryContext;
	databases = hash_create("postmark databases", 64, &info,
							HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);

	/*
	 * Workers of an earlier launcher end: without their handles we could not
	 * know when they do.
	 */
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	if (!TransactionIdIsValid(shared->first_xid))
		shared->first_xid = ReadNextTransactionId();
	shared->launcher = MyProc;
	shared->launcher_pid = MyProcPid;
	shared->launcher_seen = true;
	for (i = 0; i < shared->nslots; i++)
	{
		pg_atomic_write_u32(&shared->slots[i].stop, 1);
		if (shared->slots[i].proc)
			SetLatch(&shared->slots[i].proc->procLatch);
	}
	LWLockRelease(shared->lock);
	before_shmem_exit(launcher_detach, (Datum) 0);

	for (i = 0; i < shared->nslots; i++)
	{
		ConditionVariablePrepareToSleep(&shared->changed);
		while (shared->slots[i].proc != NULL)
			ConditionVariableTimedSleep(&shared->changed, 1000,
										pm_wait_event(PM_WAIT_WORKER_END));
		ConditionVariableCancelSleep();
		if (OidIsValid(shared->slots[i].database))
			pm_free_slot(&shared->slots[i]);
	}

	pgstat_report_activity(STATE_IDLE, "seeing to databases");
	for (;;)
	{
		PmMoment	next;
		long		timeout = -1;
		int			events = WL_LATCH_SET | WL_EXIT_ON_PM_DEATH;

		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		take_probes();
		next = see_to_databases();
		if (next != PM_NEVER)
		{
			timeout = pm_ms_until(next);
			events |= WL_TIMEOUT;
		}
		(void) WaitLatch(MyLatch, events, timeout,
						 pm_wait_event(PM_WAIT_LAUNCHER_MAIN));
		ResetLatch(MyLatch);
	}
}

/* Have the postmaster start the launcher once recovery is over. */
void
pm_register_launcher(void)
{
	BackgroundWorker worker;

	pm_process_describe(&worker, "launcher", InvalidOid);
	worker.bgw_restart_time = 1;
	RegisterBackgroundWorker(&worker);
}
