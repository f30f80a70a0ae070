/*-------------------------------------------------------------------------
 *
 * databases.c
 *		Living with commands on databases and extensions.
 *
 * DROP DATABASE, ALTER DATABASE RENAME and SET TABLESPACE, and CREATE DATABASE
 * with a template need a database that nobody is connected to, the worker
 * included.  So the worker is stopped first, and the launcher is kept from
 * starting another until the command is over.  Commands that the user may not
 * run stop nothing.
 *
 * src/worker/databases.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "base/catalog.h"
#include "base/clock.h"
#include "base/compat.h"
#include "base/wait_event.h"
#include "codes/attempts.h"
#include "shared/prepared.h"
#include "shared/slots.h"
#include "shared/stats.h"
#include "shared/wake.h"
#include "shared/wakeup.h"
#include "worker/databases.h"

/* How long to wait for a worker to go, ms */
#define STOP_TIMEOUT 5000

static ProcessUtility_hook_type prev_process_utility = NULL;
static object_access_hook_type prev_object_access = NULL;

/* Let workers into the database again. */
static void
release_databases(void)
{
	PmShared   *shared = pm_shared();
	bool		released = false;
	int			i;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (i = 0; i < shared->nholds; i++)
		if (shared->holds[i].pid == MyProcPid)
		{
			shared->holds[i].pid = 0;
			released = true;
		}
	LWLockRelease(shared->lock);
	if (released)
		pm_wake_launcher();
}

static void
release_on_error(int code, Datum arg)
{
	release_databases();
}

/* Stop the worker of a database and keep it from being started again. */
static void
hold_database(Oid database)
{
	PmShared   *shared = pm_shared();
	PmMoment	end = pm_later(pm_moment(), STOP_TIMEOUT);
	PmSlot	   *slot;
	int			i;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (i = 0; i < shared->nholds; i++)
		if (shared->holds[i].pid == 0)
		{
			shared->holds[i].pid = MyProcPid;
			shared->holds[i].database = database;
			break;
		}
	slot = pm_find_slot(database);
	if (slot)
	{
		pg_atomic_write_u32(&slot->stop, 1);
		if (slot->proc)
			SetLatch(&slot->proc->procLatch);
	}
	LWLockRelease(shared->lock);

	/* The launcher gives the slot back when the process has ended */
	ConditionVariablePrepareToSleep(&shared->changed);
	while (slot && slot->database == database && pm_moment() < end)
		ConditionVariableTimedSleep(&shared->changed, 20,
									pm_wait_event(PM_WAIT_WORKER_END));
	ConditionVariableCancelSleep();
}

static Oid
owned_database(const char *name)
{
	Oid			oid = get_database_oid(name, true);

	return OidIsValid(oid) &&
		object_ownercheck(DatabaseRelationId, oid, GetUserId())
		? oid : InvalidOid;
}

/* What the server has for this is static in the older releases of 15. */
static bool
may_create_databases(void)
{
	HeapTuple	tuple;
	bool		may = superuser();

	if (may)
		return true;
	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(GetUserId()));
	if (HeapTupleIsValid(tuple))
	{
		may = ((Form_pg_authid) GETSTRUCT(tuple))->rolcreatedb;
		ReleaseSysCache(tuple);
	}
	return may;
}

/* The template of CREATE DATABASE, if the user may copy it. */
static Oid
template_database(const CreatedbStmt *stmt)
{
	const char *name = "template1";
	ListCell   *cell;
	Oid			oid;
	HeapTuple	tuple;
	bool		allowed;

	foreach(cell, stmt->options)
	{
		DefElem    *option = lfirst_node(DefElem, cell);

		if (strcmp(option->defname, "template") == 0 && option->arg)
			name = defGetString(option);
	}
	oid = get_database_oid(name, true);
	if (!OidIsValid(oid) || !may_create_databases())
		return InvalidOid;
	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(oid));
	if (!HeapTupleIsValid(tuple))
		return InvalidOid;
	allowed = ((Form_pg_database) GETSTRUCT(tuple))->datistemplate ||
		object_ownercheck(DatabaseRelationId, oid, GetUserId());
	ReleaseSysCache(tuple);
	return allowed ? oid : InvalidOid;
}

/*
 * The database that a command needs for itself, InvalidOid if it needs none or
 * will be refused.  *changes becomes whether it changes the databases.
 */
static Oid
needed_database(Node *stmt, bool *changes)
{
	*changes = false;
	if (IsA(stmt, DropdbStmt))
	{
		*changes = true;
		return owned_database(((DropdbStmt *) stmt)->dbname);
	}
	if (IsA(stmt, RenameStmt) &&
		((RenameStmt *) stmt)->renameType == OBJECT_DATABASE)
		return owned_database(((RenameStmt *) stmt)->subname);
	if (IsA(stmt, AlterDatabaseStmt))
	{
		AlterDatabaseStmt *alter = (AlterDatabaseStmt *) stmt;
		ListCell   *cell;

		*changes = true;
		foreach(cell, alter->options)
		{
			if (strcmp(lfirst_node(DefElem, cell)->defname, "tablespace") == 0)
				return owned_database(alter->dbname);
		}
		return InvalidOid;
	}
	if (IsA(stmt, CreatedbStmt))
	{
		*changes = true;
		return template_database((CreatedbStmt *) stmt);
	}
	return InvalidOid;
}

static void
run_utility(PlannedStmt *pstmt, const char *queryString, bool readOnlyTree,
			ProcessUtilityContext context, ParamListInfo params,
			QueryEnvironment *queryEnv, DestReceiver *dest, QueryCompletion *qc)
{
	if (prev_process_utility)
		prev_process_utility(pstmt, queryString, readOnlyTree, context, params,
							 queryEnv, dest, qc);
	else
		standard_ProcessUtility(pstmt, queryString, readOnlyTree, context,
								params, queryEnv, dest, qc);
}

/* Run a command while a database is free of workers. */
static void
run_holding(Oid database, PlannedStmt *pstmt, const char *queryString,
			bool readOnlyTree, ProcessUtilityContext context,
			ParamListInfo params, QueryEnvironment *queryEnv,
			DestReceiver *dest, QueryCompletion *qc)
{
	PG_ENSURE_ERROR_CLEANUP(release_on_error, (Datum) 0);
	{
		hold_database(database);
		run_utility(pstmt, queryString, readOnlyTree, context, params,
					queryEnv, dest, qc);
	}
	PG_END_ENSURE_ERROR_CLEANUP(release_on_error, (Datum) 0);
	release_databases();
}

/* Have the worker and the launcher told of what a prepared transaction did. */
static void
run_commit_prepared(PlannedStmt *pstmt, const char *queryString,
					bool readOnlyTree, ProcessUtilityContext context,
					ParamListInfo params, QueryEnvironment *queryEnv,
					DestReceiver *dest, QueryCompletion *qc)
{
	Oid			extension = pm_extension_oid();
	List	   *prepared = pm_prepared_transactions();

	run_utility(pstmt, queryString, readOnlyTree, context, params, queryEnv,
				dest, qc);
	pm_note_prepared(prepared);
	if (pm_extension_oid() != extension)
		pm_note(PM_WAKE_CATALOG);
}

static void
process_utility(PlannedStmt *pstmt, const char *queryString, bool readOnlyTree,
				ProcessUtilityContext context, ParamListInfo params,
				QueryEnvironment *queryEnv, DestReceiver *dest,
				QueryCompletion *qc)
{
	Node	   *stmt = pstmt->utilityStmt;
	bool		changes;
	Oid			database;

	if (IsA(stmt, TransactionStmt) &&
		((TransactionStmt *) stmt)->kind == TRANS_STMT_COMMIT_PREPARED)
	{
		run_commit_prepared(pstmt, queryString, readOnlyTree, context, params,
							queryEnv, dest, qc);
		return;
	}

	database = needed_database(stmt, &changes);
	if (changes)
		pm_note_databases();
	if (OidIsValid(database))
		run_holding(database, pstmt, queryString, readOnlyTree, context,
					params, queryEnv, dest, qc);
	else
		run_utility(pstmt, queryString, readOnlyTree, context, params,
					queryEnv, dest, qc);
	if (OidIsValid(database) && IsA(stmt, DropdbStmt))
	{
		pm_attempts_forget(database);
		pm_stats_forget(database);
	}
}

/* CREATE EXTENSION, and whatever drops one */
static void
object_access(ObjectAccessType access, Oid classId, Oid objectId, int subId,
			  void *arg)
{
	if (prev_object_access)
		prev_object_access(access, classId, objectId, subId, arg);
	if (classId == ExtensionRelationId &&
		(access == OAT_POST_CREATE || access == OAT_DROP))
		pm_note(PM_WAKE_CATALOG);
}

/* Install the hooks; to be called while libraries are preloaded. */
void
pm_install_database_hooks(void)
{
	prev_process_utility = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
	prev_object_access = object_access_hook;
	object_access_hook = object_access;
}
