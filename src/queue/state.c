/*-------------------------------------------------------------------------
 *
 * state.c
 *		Whether a connector flows, and if not, why.
 *
 * src/queue/state.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "base/owner.h"
#include "base/tables.h"
#include "queue/origin.h"
#include "queue/state.h"
#include "settings/config_store.h"
#include "settings/connector.h"
#include "settings/connector_token.h"
#include "settings/guc.h"
#include "settings/token.h"
#include "shared/slots.h"

static PmStatement find_pause_reason = {
	"SELECT pause_reason FROM @.postmark_settings WHERE connector" PM_EQ "$1",
	1, {TEXTOID}
};
static PmStatement find_trouble = {
	"SELECT state, detail, hint FROM @.postmark_trouble"
	" WHERE connector" PM_EQ "$1",
	1, {TEXTOID}
};

/* What keeps this database from having a worker. */
static void
explain_no_worker(PmState *state)
{
	PmShared   *shared = pm_shared();

	state->state = "no_worker";
	if (shared == NULL)
	{
		state->detail = pstrdup("the library is not preloaded");
		state->hint = pstrdup("Add postmark_connector to shared_preload_libraries and restart the server.");
	}
	else if (RecoveryInProgress())
	{
		state->detail = pstrdup("this server is a standby");
		state->hint = pstrdup("The primary sends; after a promotion this server does.");
	}
	else if (!pm_worker_enabled)
	{
		state->detail = pstrdup("postmark_connector.worker is off");
		state->hint = pstrdup("Set it to on and reload the configuration.");
	}
	else if (pm_no_process_left())
	{
		state->detail = pstrdup("no background worker could be started");
		state->hint = pstrdup("Raise max_worker_processes and restart the server.");
	}
	else
	{
		state->detail = pstrdup("the worker is starting");
		state->flows = true;
	}
}

static char *
spi_text(MemoryContext context, int column)
{
	char	   *text = SPI_getvalue(SPI_tuptable->vals[0],
									SPI_tuptable->tupdesc, column);

	return text ? MemoryContextStrdup(context, text) : NULL;
}

/* Why a connector without a usable token has none. */
static char *
explain_no_token(const char *name)
{
	char	   *stored = pm_stored_token(name);
	const char *problem = stored ? pm_token_problem(stored) : NULL;

	return problem ? psprintf("the stored token %s", problem)
		: pstrdup("token missing");
}

/*
 * The state of every connector where the extension's tables are not in order:
 * then nothing of a connector can be found out.  False if they are.  Strings
 * are of the current memory context.
 */
bool
pm_tables_state(PmState *state)
{
	const char *hint;
	const char *fault = pm_tables_fault(&hint);

	if (fault == NULL)
		return false;
	memset(state, 0, sizeof(*state));
	state->worker_pid = pm_worker_pid(MyDatabaseId);
	state->state = "unconfigured";
	state->detail = pstrdup(fault);
	state->hint = pstrdup(hint);
	return true;
}

/*
 * Find out the state of a connector.  Strings are of the current memory
 * context.
 */
void
pm_connector_state(const PmConnector *connector, PmState *state)
{
	MemoryContext context = CurrentMemoryContext;
	PmOwnerScope scope;
	bool		original;
	char	   *token;
	char	   *name = pstrdup(connector->name);
	bool		paused = connector->paused;
	char	   *reason = NULL;
	Datum		values[1];
	char	   *invalid = connector->invalid ? pstrdup(connector->invalid) : NULL;

	memset(state, 0, sizeof(*state));
	state->worker_pid = pm_worker_pid(MyDatabaseId);
	token = invalid ? NULL : pm_connector_token(connector, true);

	pm_connect_owner(&scope);
	original = pm_queue_is_own();

	if (original && paused)
	{
		values[0] = CStringGetTextDatum(name);
		pm_execute(&find_pause_reason, values, NULL, 1);
		if (SPI_processed > 0)
			reason = spi_text(context, 1);
	}
	else if (original)
	{
		values[0] = CStringGetTextDatum(name);
		pm_execute(&find_trouble, values, NULL, 1);
		if (SPI_processed > 0)
		{
			char	   *kind = spi_text(context, 1);

			state->state = kind;
			state->detail = spi_text(context, 2);
			state->hint = spi_text(context, 3);
			state->flows = strcmp(kind, "blocked") != 0;
			state->found_out = strcmp(kind, "running") != 0;
		}
	}
	pm_disconnect_owner(&scope);

	state->found_out = state->found_out && !invalid && token != NULL &&
		state->worker_pid != 0;
	if (!original)
	{
		state->state = "copied";
		state->detail = pstrdup("this database is a copy of another one, whose messages it does not send");
		state->hint = pstrdup("Use postmark_resume if they are this database's to send.");
	}
	else if (paused)
	{
		state->state = "paused";
		state->detail = reason ? psprintf("paused by hand: %s", reason)
			: pstrdup("paused by hand");
		state->hint = pstrdup("Use postmark_resume.");
		state->flows = false;
	}
	else if (invalid || token == NULL)
	{
		state->state = "unconfigured";
		state->detail = invalid ? invalid : explain_no_token(name);
		state->hint = pstrdup(invalid ? "Use postmark_configure."
							  : "Use postmark_set_token, or put the token into the token directory.");
		state->flows = false;
	}
	else if (state->worker_pid == 0)
	{
		state->flows = false;
		state->hint = NULL;
		explain_no_worker(state);
	}
	else if (state->state == NULL)
	{
		state->state = "running";
		state->flows = true;
	}
}
