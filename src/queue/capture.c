/*-------------------------------------------------------------------------
 *
 * capture.c
 *		Messages that were kept instead of being sent: the table behind
 *		postmark_captured.
 *
 * Where a connector's "delivery" says so, a message goes all the way that it
 * would go in earnest, and where a request would begin it is put here, in the
 * transaction that finishes it.  So it is either here or sent, never both, and
 * nothing is ever in doubt.
 *
 * What is kept is what a template would have been filled in with, code and link
 * in plain: that is what a test asks for.  It is kept as long as the history.
 *
 * src/queue/capture.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/outdated.h"
#include "base/owner.h"
#include "postmark/api.h"
#include "queue/batch.h"
#include "queue/capture.h"
#include "shared/wake.h"
#include "shared/wakeup.h"

PG_FUNCTION_INFO_V1(postmark_captured_clear);

static PmStatement insert_capture = {
	"INSERT INTO @.postmark_captures (message_id, id, connector, email,"
	" usage_type, template_alias, template_model, captured_at)"
	" VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
	8, {UUIDOID, INT8OID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, JSONBOID,
	TIMESTAMPTZOID}
};
static PmStatement purge_captures = {
	"DELETE FROM @.postmark_captures WHERE message_id IN"
	" (SELECT message_id FROM @.postmark_captures WHERE captured_at < $1"
	" ORDER BY captured_at LIMIT $2 FOR UPDATE SKIP LOCKED)",
	2, {TIMESTAMPTZOID, INT8OID}
};
static PmStatement next_capture = {
	"SELECT captured_at FROM @.postmark_captures ORDER BY captured_at LIMIT 1",
	0, {0}
};
static PmStatement clear_captures = {
	"DELETE FROM @.postmark_captures", 0, {0}
};

/* Keep one message; id 0 stands for none.  Needs SPI and its owner's rights. */
static void
keep(const PmMessage *m, TimestampTz now)
{
	Datum		values[8];
	char		nulls[9] = "        ";

	values[0] = UUIDPGetDatum(m->message_id);
	PM_NULLABLE(values, nulls, 1, m->id == 0, Int64GetDatum(m->id));
	values[2] = CStringGetTextDatum(m->connector);
	values[3] = CStringGetTextDatum(m->email);
	values[4] = CStringGetTextDatum(m->usage_type);
	values[5] = CStringGetTextDatum(m->template_alias);
	values[6] = JsonbPGetDatum(pm_api_model(m->code, m->payload));
	values[7] = TimestampTzGetDatum(now);
	pm_execute(&insert_capture, values, nulls, 0);
}

/*
 * Keep those messages of a batch that are finished and captured.  For the
 * worker, see queue.h.
 *
 * now: the time of finishing
 */
void
pm_captures_insert(const PmBatch *batch, TimestampTz now)
{
	int			i;

	for (i = 0; i < batch->nmessages; i++)
		if (batch->messages[i].disposal == PM_FINISH &&
			batch->messages[i].captured)
			keep(&batch->messages[i], now);
}

/*
 * Keep a message that was not queued, in the caller's transaction: connector,
 * email, usage_type, template_alias, message_id, and code and payload if it has
 * them.  An error where that may not write.
 */
void
pm_capture_at_once(const PmMessage *message)
{
	PmOwnerScope scope;

	PreventCommandIfReadOnly("INSERT");
	pm_connect_owner(&scope);
	keep(message, GetCurrentTimestamp());
	pm_disconnect_owner(&scope);
	pm_note(PM_WAKE_CAPTURED);
}

/*
 * Forget messages that were kept before "before", at most "limit".
 *
 * Returns whether there may be more at once; *next becomes no later than the
 * time of the oldest that is left.
 */
bool
pm_captures_purge(TimestampTz before, int limit, TimestampTz *next)
{
	return pm_sql_version() >= PM_SQL_1_1 &&
		pm_forget_outdated(&purge_captures, &next_capture, 0, before, limit,
						   next);
}

/*
 * postmark_captured_clear() returns bigint
 *
 * Forgets all messages that were kept, of all connectors.  Returns how many.
 */
Datum
postmark_captured_clear(PG_FUNCTION_ARGS)
{
	PmOwnerScope scope;
	int64		n;

	PreventCommandIfReadOnly("postmark_captured_clear()");
	pm_connect_owner(&scope);
	pm_execute(&clear_captures, NULL, NULL, 0);
	n = SPI_processed;
	pm_disconnect_owner(&scope);
	PG_RETURN_INT64(n);
}
