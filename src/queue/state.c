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
#include "access/xact.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "base/clock.h"
#include "base/owner.h"
#include "base/tables.h"
#include "postmark/api_errors.h"
#include "queue/batch.h"
#include "queue/origin.h"
#include "queue/queue.h"
#include "queue/state.h"
#include "settings/config_store.h"
#include "settings/connector.h"
#include "settings/connector_token.h"
#include "settings/guc.h"
#include "settings/token.h"
#include "shared/slots.h"

static PmStatement find_pause_reason = {
	"SELECT pause_reason, paused_at FROM @.postmark_settings"
	" WHERE connector" PM_EQ "$1",
	1, {TEXTOID}
};
static PmStatement find_trouble = {
	"SELECT state, detail, hint FROM @.postmark_trouble"
	" WHERE connector" PM_EQ "$1",
	1, {TEXTOID}
};

/*
 * What a connector has finished, and how: the newest that left, the newest that
 * was refused since the account awaits approval, and how many of these.
 */
static PmStatement find_left = {
	"SELECT finished_at FROM @.postmark_history WHERE connector" PM_EQ "$1"
	" AND (status" PM_EQ "'sent' OR NOT $2)"
	" ORDER BY finished_at DESC LIMIT 1",
	2, {TEXTOID, BOOLOID}
};
static PmStatement find_unapproved = {
	"SELECT pg_catalog.count(*), pg_catalog.max(finished_at),"
	" pg_catalog.max(last_error) FROM @.postmark_history"
	" WHERE connector" PM_EQ "$1 AND error_code" PM_EQ "412"
	" AND status" PM_EQ "'failed' AND finished_at" PM_GT
	"(pg_catalog.now() OPERATOR(pg_catalog.-) pg_catalog.interval '1 hour')",
	1, {TEXTOID}
};

/*
 * The newest of the messages that are tried again, if it was put off for a
 * reason; of many of them not all are looked at.
 */
static PmStatement find_put_off = {
	"SELECT last_error, coalesce(error_code, 0), created_at,"
	" pg_catalog.count(*) OVER () FROM"
	" (SELECT last_error, error_code, created_at, id FROM @.postmark_deferred"
	" WHERE lane" PM_GE "$1 AND lane" PM_LE "($1 OPERATOR(pg_catalog.+) 9)"
	" AND last_error IS NOT NULL LIMIT 10000) d"
	" ORDER BY created_at DESC, id DESC LIMIT 1",
	1, {INT4OID}
};

/*
 * Whether a message that is due has waited since before a time, though no
 * request of its connector is under way.
 */
static PmStatement find_waiting = {
	"SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM @.postmark_intents"
	" WHERE lane" PM_GE "$1 AND lane" PM_LE "($1 OPERATOR(pg_catalog.+) 9)"
	" AND created_at" PM_GT "$3) AND"
	" (EXISTS (SELECT 1 FROM @.postmark_queue WHERE lane" PM_GE "$1"
	" AND lane" PM_LE "($1 OPERATOR(pg_catalog.+) 9) AND created_at" PM_LT "$2)"
	" OR EXISTS (SELECT 1 FROM @.postmark_deferred WHERE lane" PM_GE "$1"
	" AND lane" PM_LE "($1 OPERATOR(pg_catalog.+) 9) AND due_at" PM_LT "$2))",
	3, {INT4OID, TIMESTAMPTZOID, TIMESTAMPTZOID}
};

/* When the first of the messages that were put off is to be sent */
static PmStatement find_due = {
	"SELECT pg_catalog.min(d.due_at)"
	" FROM pg_catalog.generate_series($1, $1 OPERATOR(pg_catalog.+) 9) l"
	" CROSS JOIN LATERAL (SELECT due_at FROM @.postmark_deferred"
	" WHERE lane" PM_EQ "l ORDER BY due_at LIMIT 1) d",
	1, {INT4OID}
};

/* The worker's transactions take milliseconds; this long is trouble, us. */
#define BUSY_TROUBLE		(2 * USECS_PER_SEC)
#define FAILING_TROUBLE		(1 * USECS_PER_SEC)

/* A message that is due waits no longer, us, unless it has to; see waits() */
#define WAITING_TROUBLE		(5 * USECS_PER_SEC)

/* Mail that was put off is an exception if other mail left within, us */
#define LEFT_LATELY			(60 * USECS_PER_SEC)

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

	if (problem)
		return psprintf("the stored token %s", problem);
	problem = pm_token_file_problem(name);
	return problem ? psprintf("token missing: %s", problem)
		: pstrdup("token missing");
}

/*
 * Whether something keeps the worker from storing and claiming messages of any
 * connector: its transaction does not end, or none of them commits.
 */
static bool
explain_health(PmState *state, const PmHealth *health)
{
	int64		now = pm_common_us();
	int64		busy = health->busy_since ? now - health->busy_since : 0;
	int64		failing = health->failing_since ? now - health->failing_since : 0;

	if (busy > BUSY_TROUBLE)
	{
		const char *event = pgstat_get_wait_event(health->waits_for);
		bool		standby = event && strcmp(event, "SyncRep") == 0;

		state->detail = psprintf("the worker waits for %s since %d s",
								 standby ? "a synchronous standby" :
								 event ? event : "its own transaction",
								 (int) (busy / USECS_PER_SEC));
		state->hint = pstrdup(standby ?
							  "Have a synchronous standby connect, or change synchronous_standby_names." :
							  "See pg_stat_activity and pg_locks for the process of worker_pid.");
	}
	else if (failing > FAILING_TROUBLE)
	{
		state->detail = psprintf("the worker could not %s since %d s: %s",
								 health->what,
								 (int) (failing / USECS_PER_SEC),
								 health->error);
		state->hint = pstrdup("See the server's log, and mend what it names; the worker tries again by itself.");
	}
	else
		return false;
	state->state = "backing_off";
	state->since = GetCurrentTimestamp() -
		(busy > BUSY_TROUBLE ? busy : failing);
	state->act = true;
	return true;
}

/*
 * Whether a message of the connector waits that should have left: nothing of
 * the connector was finished for a while, though the worker was told.
 *
 * rate: of requests, per second; 0: as many as there may be
 */
static bool
explain_waiting(PmState *state, const PmHealth *health, int number,
				const char *name, double rate)
{
	int64		limit = WAITING_TROUBLE;
	int64		now_us = pm_common_us();
	TimestampTz now = GetCurrentTimestamp();
	Datum		values[3];
	bool		isnull;

	if (rate > 0)
		limit = Max(limit, (int64) Min(2 * USECS_PER_SEC / rate, 1e15));
	if (now_us - health->woken_at < limit)
		return false;
	values[0] = CStringGetTextDatum(name);
	values[1] = BoolGetDatum(false);
	pm_execute(&find_left, values, NULL, 1);
	if (SPI_processed > 0)
	{
		TimestampTz left =
			DatumGetTimestampTz(SPI_getbinval(SPI_tuptable->vals[0],
											  SPI_tuptable->tupdesc, 1,
											  &isnull));

		if (!isnull && left > now - limit && left <= now)
			return false;
	}
	values[0] = Int32GetDatum(number * PM_PRIORITIES);
	values[1] = TimestampTzGetDatum(now - limit);
	values[2] = TimestampTzGetDatum(now - limit -
									(int64) pm_request_timeout * 1000);
	pm_execute(&find_waiting, values, NULL, 1);
	if (SPI_processed == 0)
		return false;

	state->state = "backing_off";
	state->act = true;
	if (health->failed_at && now_us - health->failed_at < limit)
		state->detail = psprintf("messages that are due wait: the worker could not %s: %s",
								 health->what, health->error);
	else
		state->detail = pstrdup("messages that are due wait, and none has left lately");
	state->hint = pstrdup("See pg_locks for who has the extension's tables or rows of them locked, and the server's log.");
	return true;
}

/*
 * When the newest of a connector's messages left that were sent, DT_NOBEGIN for
 * never.
 */
static TimestampTz
last_left(const char *name)
{
	Datum		values[2];
	bool		isnull;

	values[0] = CStringGetTextDatum(name);
	values[1] = BoolGetDatum(true);
	pm_execute(&find_left, values, NULL, 1);
	if (SPI_processed == 0)
		return DT_NOBEGIN;
	return DatumGetTimestampTz(SPI_getbinval(SPI_tuptable->vals[0],
											 SPI_tuptable->tupdesc, 1,
											 &isnull));
}

/*
 * Whether mail of the connector was refused within the last hour since the
 * account awaits approval.  Strings are of the given memory context.
 *
 * left:   when the newest message left
 * detail: becomes what is to be shown
 * since:  becomes whether none has left since
 */
static bool
awaits_approval(MemoryContext context, const char *name, TimestampTz left,
				char **detail, bool *since)
{
	Datum		values[1];
	bool		isnull;
	int64		n;

	values[0] = CStringGetTextDatum(name);
	pm_execute(&find_unapproved, values, NULL, 1);
	n = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0],
									SPI_tuptable->tupdesc, 1, &isnull));
	if (n == 0)
		return false;
	*since = left < DatumGetTimestampTz(SPI_getbinval(SPI_tuptable->vals[0],
													  SPI_tuptable->tupdesc, 2,
													  &isnull));
	*detail =
		MemoryContextStrdup(context,
							psprintf(INT64_FORMAT " messages failed within the last hour, for the Postmark account awaits approval: %s",
									 n, spi_text(CurrentMemoryContext, 3)));
	return true;
}

static const char *
approval_hint(void)
{
	PmVerdict	verdict = {.outcome = PM_REFUSED, .error_code = 412};

	return pm_api_hint(&verdict);
}

/*
 * What Postmark's refusals say of the account, a whole text that says what to
 * do as well, NULL for nothing.  Nobody else does: its API has no call that
 * tells whether an account is approved.  In the current memory context.
 */
char *
pm_account_problem(const PmConnector *connector)
{
	MemoryContext context = CurrentMemoryContext;
	char	   *name = pstrdup(connector->name);
	PmOwnerScope scope;
	char	   *detail;
	bool		since;
	bool		found;

	pm_connect_owner(&scope);
	found = awaits_approval(context, name, last_left(name), &detail, &since) &&
		since;
	pm_disconnect_owner(&scope);
	return found ? psprintf("%s %s", detail, approval_hint()) : NULL;
}

/*
 * What the connector's mail came to says more than the last request: it is put
 * off again and again, or refused since the account awaits approval.  Where
 * other mail leaves, that is a detail.
 */
static void
explain_outcomes(PmState *state, MemoryContext context, int number,
				 const char *name)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz left = last_left(name);
	Datum		values[1];
	bool		since;
	bool		isnull;
	int64		n;

	if (awaits_approval(context, name, left, &state->detail, &since))
	{
		if (since)
			state->state = "blocked";
		state->act = since;
		state->hint = MemoryContextStrdup(context, approval_hint());
		return;
	}

	values[0] = Int32GetDatum(number * PM_PRIORITIES);
	pm_execute(&find_put_off, values, NULL, 1);
	if (SPI_processed > 0)
	{
		const char *error = spi_text(CurrentMemoryContext, 1);
		int			code = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[0],
													   SPI_tuptable->tupdesc,
													   2, &isnull));
		TimestampTz created =
			DatumGetTimestampTz(SPI_getbinval(SPI_tuptable->vals[0],
											  SPI_tuptable->tupdesc, 3,
											  &isnull));
		bool		no_template = code == 1101 ||
			strcmp(error, PM_NO_TEMPLATE_TEXT) == 0;
		PmVerdict	verdict = {.outcome = no_template ? PM_NO_TEMPLATE : PM_UNAVAILABLE,
		.http_status = 200, .error_code = code};

		n = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0],
										SPI_tuptable->tupdesc, 4, &isnull));
		if (left < created && left < now - LEFT_LATELY)
			state->state = "backing_off";
		state->act = no_template;
		state->detail =
			MemoryContextStrdup(context,
								psprintf(INT64_FORMAT " %s to be tried again: %s",
										 n, n == 1 ? "message waits" :
										 "messages wait", error));
		state->hint = MemoryContextStrdup(context, pm_api_hint(&verdict));
	}
}

/* When a message that was put off is to be sent next, DT_NOEND: none is. */
static TimestampTz
next_due(int number)
{
	Datum		values[1];
	Datum		due;
	bool		isnull;

	values[0] = Int32GetDatum(number * PM_PRIORITIES);
	pm_execute(&find_due, values, NULL, 1);
	due = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1,
						&isnull);
	return isnull ? DT_NOEND : DatumGetTimestampTz(due);
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
	state->next_attempt = DT_NOEND;
	state->since = pm_stats_state(NULL, state->state, false);
	return true;
}

/*
 * How long the state has lasted; and what there is to say about the next
 * attempt, which is known of a connector that does not flow for the moment.
 *
 * begun: when the state began if that is known by other means, DT_NOEND if not
 */
static void
see_times(PmState *state, TimestampTz begun)
{
	/* What is not committed, or of an older snapshot, is nobody else's state */
	bool		note = !IsolationUsesXactSnapshot() &&
		!TransactionIdIsValid(GetTopTransactionIdIfAny());
	int64		next;

	state->since = Min(pm_stats_state(state->stats, state->state, note), begun);
	if (strcmp(state->state, "paused") == 0 && begun != DT_NOEND)
		state->since = begun;

	if (!state->flows && strcmp(state->state, "blocked") != 0)
		state->next_attempt = DT_NOEND;
	else
	{
		TimestampTz now = GetCurrentTimestamp();

		next = state->stats ? pm_stats_next_attempt(state->stats) : 0;
		if (next != 0)
			state->next_attempt = now + (next - pm_common_us());
		state->next_attempt = Max(state->next_attempt, now);
	}
}

/*
 * The state of a database that has no connector: nothing can be queued there.
 * That is how a node begins that was added to a cluster.  Strings are of the
 * current memory context.
 */
void
pm_no_connector_state(PmState *state)
{
	memset(state, 0, sizeof(*state));
	state->worker_pid = pm_worker_pid(MyDatabaseId);
	state->stats = pm_stats_of(0, "*");
	state->state = "unconfigured";
	state->detail = pstrdup("this database has no connector");
	state->hint = pstrdup("Use postmark_configure.");
	state->act = true;
	see_times(state, DT_NOEND);
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
	bool		ready;			/* it has all that it needs */
	char	   *token;
	char	   *name = pstrdup(connector->name);
	bool		paused = connector->paused;
	char	   *reason = NULL;
	Datum		values[1];
	char	   *invalid = connector->invalid ? pstrdup(connector->invalid) : NULL;
	int			number = connector->number;
	double		rate = invalid ? 0 : connector->max_requests_per_second;
	bool		captures;
	PmHealth	health;
	TimestampTz begun = DT_NOEND;
	bool		isnull;

	memset(state, 0, sizeof(*state));
	state->next_attempt = DT_NOEND;
	state->stats = pm_stats_of(number, name);
	state->worker_pid = pm_worker_pid(MyDatabaseId);
	token = invalid ? NULL : pm_connector_token(connector, true);
	captures = invalid == NULL && connector->captures;
	ready = invalid == NULL && (captures || token != NULL);

	pm_connect_owner(&scope);
	original = pm_queue_is_own();

	if (original && paused)
	{
		values[0] = CStringGetTextDatum(name);
		pm_execute(&find_pause_reason, values, NULL, 1);
		if (SPI_processed > 0)
		{
			reason = spi_text(context, 1);
			begun = DatumGetTimestampTz(SPI_getbinval(SPI_tuptable->vals[0],
													  SPI_tuptable->tupdesc, 2,
													  &isnull));
			if (isnull)
				begun = DT_NOEND;
		}
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
			state->act = strcmp(kind, "blocked") == 0;
		}
		if (state->worker_pid != 0 && ready &&
			(state->state == NULL || strcmp(state->state, "running") == 0) &&
			pm_health(&health))
		{
			PmState		found = {.state = "running"};

			MemoryContextSwitchTo(context);
			if (explain_health(&found, &health) ||
				explain_waiting(&found, &health, number, name, rate))
				 /* worse than what was known */ ;
			else if (state->detail == NULL && !captures)
				explain_outcomes(&found, context, number, name);
			state->next_attempt = next_due(number);
			if (found.detail)
			{
				if (found.since != 0)
					begun = found.since;
				state->state = found.state;
				state->detail = found.detail;
				state->hint = found.hint;
				state->act = found.act;
				state->flows = true;
			}
		}
	}
	pm_disconnect_owner(&scope);

	state->found_out = state->found_out && ready && state->worker_pid != 0;
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
	else if (!ready)
	{
		state->state = "unconfigured";
		state->detail = invalid ? invalid : explain_no_token(name);
		state->hint = pstrdup(invalid ? "Use postmark_configure."
							  : "Use postmark_set_token, or put the token into the token directory.");
		state->act = true;
		state->flows = false;
	}
	else if (state->worker_pid == 0)
	{
		state->flows = false;
		state->hint = NULL;
		explain_no_worker(state);
	}
	else if (state->state == NULL || strcmp(state->state, "running") == 0)
	{
		state->state = captures ? "capturing" : "running";
		state->flows = state->well = true;
		if (captures)
		{
			if (state->detail == NULL)
				state->detail = pstrdup("messages are kept in postmark_captured instead of being sent");
			state->hint = pstrdup("Set the connector's \"delivery\" to \"postmark\" to send them.");
		}
	}
	see_times(state, begun);
}
