/*-------------------------------------------------------------------------
 *
 * process.c
 *		What all of our background processes have in common.
 *
 * src/shared/process.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/compat.h"
#include "shared/process.h"

/*
 * Describe a background process to the postmaster: one that connects to a
 * database, is started once recovery is over, and not started again.  A
 * command that needs the process's database to itself may end it, where the
 * server can.
 *
 * kind:	 what it is, as pg_stat_activity shows it, "worker" for instance;
 *			 its entry point is postmark_KIND_main
 * database: that it is for, InvalidOid for none in particular
 */
void
pm_process_describe(BackgroundWorker *worker, const char *kind, Oid database)
{
	memset(worker, 0, sizeof(*worker));
	worker->bgw_flags = BGWORKER_SHMEM_ACCESS |
		BGWORKER_BACKEND_DATABASE_CONNECTION;
	if (OidIsValid(database))
		worker->bgw_flags |= BGWORKER_INTERRUPTIBLE;
	worker->bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker->bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(worker->bgw_library_name, "postmark_connector", BGW_MAXLEN);
	snprintf(worker->bgw_function_name, BGW_MAXLEN, "postmark_%s_main", kind);
	snprintf(worker->bgw_type, BGW_MAXLEN, "postmark_connector %s", kind);
	if (OidIsValid(database))
		snprintf(worker->bgw_name, BGW_MAXLEN, "%s for database %u",
				 worker->bgw_type, database);
	else
		strlcpy(worker->bgw_name, worker->bgw_type, BGW_MAXLEN);
}
