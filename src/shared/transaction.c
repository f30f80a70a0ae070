/*-------------------------------------------------------------------------
 *
 * transaction.c
 *		The worker's transactions: one way to run them, in which a failure is
 *		an answer.
 *
 * What the worker knows outlives a transaction that fails: requests are under
 * way, results wait to be stored.  So an error rolls its transaction back,
 * goes to the log and ends here; whoever ran the transaction is told, and
 * decides when to try again.
 *
 * src/shared/transaction.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "replication/syncrep.h"
#include "replication/walsender.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"

#include "base/clock.h"
#include "base/owner.h"
#include "shared/slots.h"
#include "shared/transaction.h"

/* A repeated error is logged again after, ms, doubling */
#define LOG_BASE		1000L
#define LOG_CEILING		3600000L

/* A commit that waits for a standby is trouble after, ms */
#define COMMIT_WAITS	2000

/* After a failure, try again after, ms, doubling */
#define FAILED_DELAY	1000L
#define FAILED_CEILING	30000L

/*
 * How long to wait after a transaction has failed so many times in a row, ms.
 */
long
pm_failure_delay(int failures)
{
	return Min(FAILED_DELAY << Min(failures, 5), FAILED_CEILING);
}

/* Why a transaction failed last, as pm_transaction_error says it */
static char last_error[256];

/*
 * Note what an error says.  One that is the storage's or the system's names
 * blocks and files, any other might name what was in a row.
 */
static void
note_error(const ErrorData *error)
{
	int			category = ERRCODE_TO_CATEGORY(error->sqlerrcode);

	if (error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE)
		strlcpy(last_error, "somebody has a table of the extension locked",
				sizeof(last_error));
	else if (error->constraint_name && error->table_name)
		snprintf(last_error, sizeof(last_error),
				 "constraint \"%s\" of table \"%s\" is violated",
				 error->constraint_name, error->table_name);
	else if (error->message &&
		(error->sqlerrcode == ERRCODE_DATA_CORRUPTED ||
		 error->sqlerrcode == ERRCODE_INDEX_CORRUPTED ||
		 category == ERRCODE_TO_CATEGORY(ERRCODE_SYSTEM_ERROR) ||
		 category == ERRCODE_TO_CATEGORY(ERRCODE_INSUFFICIENT_RESOURCES)))
		strlcpy(last_error, error->message, sizeof(last_error));
	else
		strlcpy(last_error, "an error that is in the server's log",
				sizeof(last_error));
}

/* Why a transaction failed last, fit to be shown; static. */
const char *
pm_transaction_error(void)
{
	return last_error;
}

/*
 * Log an error, unless the last one was of the same kind and is not long ago,
 * so that a lasting trouble does not fill the log.
 *
 * what: could not be done; NULL: nothing is logged
 */
void
pm_log_failure(const char *what, int sqlstate, const char *message)
{
	static int	last_sqlstate = 0;
	static PmMoment next_log = PM_AT_ONCE;
	static long log_interval = LOG_BASE;
	PmMoment	now = pm_moment();

	if (sqlstate != last_sqlstate)
	{
		log_interval = LOG_BASE;
		next_log = PM_AT_ONCE;
		last_sqlstate = sqlstate;
	}
	if (what == NULL || now < next_log)
		return;
	ereport(LOG,
			(errcode(sqlstate),
			 errmsg("postmark_connector could not %s: %s", what, message),
			 errhint("It is tried again; this message is repeated at growing intervals.")));
	next_log = pm_later(now, log_interval);
	log_interval = Min(log_interval * 2, LOG_CEILING);
}

/* Of the commit under way, see commit() */
static TimeoutId commit_timer = MAX_TIMEOUTS;

static void
commit_waits(void)
{
	pm_commit_waits(true);
}

static void
stop_commit_timer(void)
{
	if (commit_timer == MAX_TIMEOUTS)
		return;
	disable_timeout(commit_timer, true);
	if (get_timeout_indicator(commit_timer, true))
		pm_commit_waits(false);
}

/*
 * Commit.  Where that waits for a synchronous standby this process can do
 * nothing meanwhile, not even write to the log; so a timer tells who can.
 */
static void
commit(void)
{
	if (!SyncRepRequested() || SyncRepStandbyNames[0] == '\0')
	{
		CommitTransactionCommand();
		return;
	}
	if (commit_timer == MAX_TIMEOUTS)
		commit_timer = RegisterTimeout(USER_TIMEOUT, commit_waits);
	enable_timeout_after(commit_timer, COMMIT_WAITS);
	CommitTransactionCommand();
	stop_commit_timer();
}

/*
 * Run a transaction of the worker's: with SPI, a snapshot, and the rights of
 * the queue's owner in a restricted context.
 *
 * what:     what it does, for pg_stat_activity and the log; NULL: to log nothing
 * body:     the work, may raise errors; called with "arg"
 * sqlstate: set to the error's, 0 if there was none
 *
 * Returns whether it committed; the caller's memory context is the current one
 * again.  An error is logged here and goes no further.
 */
bool
pm_run_transaction(const char *what, PmTransactionBody body, void *arg,
				   int *sqlstate)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool ok = false;

	*sqlstate = 0;
	pm_health_begin();
	PG_TRY();
	{
		PmOwnerScope scope;

		SetCurrentStatementStartTimestamp();
		StartTransactionCommand();
		if (what)
			pgstat_report_activity(STATE_RUNNING, what);
		PushActiveSnapshot(GetTransactionSnapshot());
		pm_connect_owner(&scope);
		body(arg);
		pm_disconnect_owner(&scope);
		PopActiveSnapshot();
		commit();
		ok = true;
	}
	PG_CATCH();
	{
		ErrorData  *error;

		stop_commit_timer();
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		HOLD_INTERRUPTS();
		FlushErrorState();
		AbortCurrentTransaction();
		RESUME_INTERRUPTS();
		MemoryContextSwitchTo(context);

		*sqlstate = error->sqlerrcode;
		note_error(error);
		pm_health_end(what, last_error);
		pm_log_failure(what, error->sqlerrcode, error->message);
		FreeErrorData(error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);

	if (ok)
	{
		pm_health_end(what, NULL);
		pgstat_report_stat(false);
	}
	return ok;
}
