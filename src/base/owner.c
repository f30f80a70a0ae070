/*-------------------------------------------------------------------------
 *
 * owner.c
 *		Working with the rights of the owner of the extension's tables.
 *
 * Whoever calls one of our functions needs no right to the tables: they are
 * worked on with their owner's.  So nothing of the caller's may reach that
 * work, and nothing that others attached to the tables may be run by it (see
 * tables.c).  SQL text that names the tables is planned once, and planned anew
 * when they moved.
 *
 * src/base/owner.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "executor/spi.h"
#include "jit/jit.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "optimizer/cost.h"
#include "storage/sinval.h"
#include "utils/guc.h"
#include "utils/plancache.h"
#include "utils/snapmgr.h"

#include "base/catalog.h"
#include "base/errors.h"
#include "base/owner.h"
#include "base/tables.h"

/*
 * Of the owner's work.  Temporary tables come last: else a session's would
 * pass for others.
 */
#define OWNER_SEARCH_PATH	"pg_catalog, pg_temp"

static void
set_for_scope(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_SUSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

/*
 * What the session may have set, and what must not reach the owner's work.
 *
 * A plan that is made for its parameters, once printed, shows them: keys,
 * codes and payloads.  A plan must not depend on statistics, either, which our
 * tables may never have had; so none is made for one execution, and sequential
 * scans are off.  What that makes look dear is not to be compiled.
 */
static void
pin_settings(void)
{
	static const struct
	{
		const char *name;
		const bool *on;
	}			off[] = {
		{"debug_print_parse", &Debug_print_parse},
		{"debug_print_rewritten", &Debug_print_rewritten},
		{"debug_print_plan", &Debug_print_plan},
		{"enable_seqscan", &enable_seqscan},
		{"jit", &jit_enabled}
	};
	const char *explain;
	int			i;

	for (i = 0; i < lengthof(off); i++)
		if (*off[i].on)
			set_for_scope(off[i].name, "off");
	if (plan_cache_mode != PLAN_CACHE_MODE_FORCE_GENERIC_PLAN)
		set_for_scope("plan_cache_mode", "force_generic_plan");

	/* What a trigger of the owner's calls is not for the session to choose */
	if (strcmp(namespace_search_path, OWNER_SEARCH_PATH) != 0)
		set_for_scope("search_path", OWNER_SEARCH_PATH);

	/* It logs parameters, whatever the plan */
	explain = GetConfigOption("auto_explain.log_min_duration", true, false);
	if (explain && strcmp(explain, "-1") != 0)
		set_for_scope("auto_explain.log_min_duration", "-1");
}

/*
 * Go on with the rights of the queue's owner, in a restricted context: what
 * the owner attached to a table runs as the owner and cannot change the
 * session.  The session's settings are out of the way, see above, and rows that
 * somebody's constraint refuses are not shown.  The scope lives until
 * pm_leave_owner.  An error in between needs no care: transaction abort restores
 * the user and the settings.
 */
void
pm_enter_owner(PmOwnerScope *scope)
{
	Oid			owner = pm_owner();

	GetUserIdAndSecContext(&scope->save_user, &scope->save_context);
	SetUserIdAndSecContext(owner,
						   scope->save_context |
						   SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_RESTRICTED_OPERATION);
	scope->guc_level = NewGUCNestLevel();
	pin_settings();
	scope->mask.callback = pm_mask_secrets;
	scope->mask.arg = NULL;
	scope->mask.previous = error_context_stack;
	error_context_stack = &scope->mask;
}

/* Back to the rights and settings that pm_enter_owner found. */
void
pm_leave_owner(const PmOwnerScope *scope)
{
	error_context_stack = scope->mask.previous;
	AtEOXact_GUC(false, scope->guc_level);
	SetUserIdAndSecContext(scope->save_user, scope->save_context);
}

/* SPI's memory of the outermost scope of pm_connect_owner; NULL: none is open */
static MemoryContext outermost = NULL;

/* That memory goes, at the scope's end or with its transaction. */
static void
outermost_ended(void *arg)
{
	outermost = NULL;
}

/*
 * Go on with the rights of the queue's owner, and with SPI, for whose errors
 * the same holds.
 */
void
pm_connect_owner(PmOwnerScope *scope)
{
	static MemoryContextCallback end = {.func = outermost_ended};

	pm_enter_owner(scope);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	if (outermost == NULL)
	{
		outermost = CurrentMemoryContext;
		MemoryContextRegisterResetCallback(outermost, &end);
	}
}

/*
 * Where to keep what must live as long as any scope of pm_connect_owner that is
 * open now; NULL if none is.
 */
MemoryContext
pm_owner_context(void)
{
	return outermost;
}

/* Back to what pm_connect_owner found. */
void
pm_disconnect_owner(const PmOwnerScope *scope)
{
	SPI_finish();
	pm_leave_owner(scope);
}

/* The saved plan of a statement, made anew when the extension's objects moved. */
static SPIPlanPtr
make_plan(PmStatement *statement)
{
	uint64		current = pm_catalog_generation();
	StringInfoData text;
	SPIPlanPtr	made;
	const char *c;

	if (statement->plan && statement->generation == current)
		return statement->plan;

	initStringInfo(&text);
	c = statement->sql_1_0 && pm_sql_version() == PM_SQL_1_0 ?
		statement->sql_1_0 : statement->sql;
	for (; *c; c++)
	{
		if (*c == '@')
			appendStringInfoString(&text, pm_schema());
		else
			appendStringInfoCharMacro(&text, *c);
	}
	made = SPI_prepare(text.data, statement->nargs, statement->types);
	if (made == NULL)
		elog(ERROR, "could not prepare \"%s\": %s", text.data,
			 SPI_result_code_string(SPI_result));
	SPI_keepplan(made);
	pfree(text.data);

	if (statement->plan)
		SPI_freeplan(statement->plan);
	statement->plan = made;
	statement->generation = current;
	return made;
}

/*
 * The saved plan of a statement, ready to be executed: the tables that it uses
 * are locked, so that they stay as they are, and checked.  Needs SPI; errors
 * as SPI_prepare and pm_check_table.
 */
SPIPlanPtr
pm_plan(PmStatement *statement)
{
	SPIPlanPtr	plan;
	uint64		changes;
	uint64		messages;

	/*
	 * To wait for a lock is to learn what has changed meanwhile.  Where no
	 * message came nothing has: a server with debug_discard_caches forgets each
	 * time.
	 */
	do
	{
		changes = pm_catalog_changes();
		messages = SharedInvalidMessageCounter;
		plan = make_plan(statement);
		pm_check_plan(plan);
	} while (pm_catalog_changes() != changes &&
			 SharedInvalidMessageCounter != messages);
	return plan;
}

static void
raise_failure(const PmStatement *statement, int result)
{
	if (result < 0)
		elog(ERROR, "could not execute \"%s\": %s", statement->sql,
			 SPI_result_code_string(result));
}

/*
 * Execute a statement with the transaction's own snapshot, for at most "limit"
 * rows (0: all).  Returns SPI's result code; any that is an error is raised.
 *
 * Here and below, the current memory context stays what it is.  SPI would leave
 * its own, and what is made there ends with the scope.
 */
int
pm_execute(PmStatement *statement, Datum *values, const char *nulls,
		   long limit)
{
	MemoryContext context = CurrentMemoryContext;
	int			result = SPI_execute_plan(pm_plan(statement), values, nulls,
										  false, limit);

	raise_failure(statement, result);
	MemoryContextSwitchTo(context);
	return result;
}

/*
 * Execute a statement whose arguments are not null under the given snapshot,
 * for at most "limit" rows (0: all).  read_only: it sees nothing newer than
 * the snapshot, not even what this transaction did since.  Errors are raised.
 */
void
pm_execute_snapshot(PmStatement *statement, Datum *values, Snapshot snapshot,
					bool read_only, long limit)
{
	MemoryContext context = CurrentMemoryContext;

	raise_failure(statement,
				  SPI_execute_snapshot(pm_plan(statement), values, NULL,
									   snapshot, InvalidSnapshot, read_only,
									   true, limit));
	MemoryContextSwitchTo(context);
}

/*
 * The same for all rows, under a snapshot of this moment also where the
 * transaction's own is older, in which everything is that this transaction did
 * before.
 */
void
pm_execute_now(PmStatement *statement, Datum *values, bool read_only)
{
	Snapshot	snapshot;

	CommandCounterIncrement();
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	pm_execute_snapshot(statement, values, snapshot, read_only, 0);
	UnregisterSnapshot(snapshot);
}
