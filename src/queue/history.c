/*-------------------------------------------------------------------------
 *
 * history.c
 *		The table of finished messages.
 *
 * Every message that is sent passes through here, and the SQL statement that
 * would store a batch (INSERT ... SELECT FROM unnest(...) ON CONFLICT DO
 * NOTHING) took half of the worker's time; see row_insert.c.
 *
 * src/queue/history.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "commands/async.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#include "base/catalog.h"
#include "base/outdated.h"
#include "base/owner.h"
#include "base/subtransaction.h"
#include "base/tables.h"
#include "queue/batch.h"
#include "queue/history.h"
#include "queue/row_insert.h"
#include "settings/config_store.h"
#include "settings/connector.h"
#include "shared/stats.h"

/* Columns of postmark_history */
enum
{
	PM_HISTORY_COLUMNS(PM_COLUMN_ENUM)
	HISTORY_COLUMNS
};

static PmStatement insert_history = {
	"INSERT INTO @.postmark_history (id, connector, email, usage_type, locale,"
	" template_alias, status, attempts, message_id, error_code, last_error,"
	" created_at, due_at, expires_at, finished_at, code, payload, no_track,"
	" queued_by)"
	" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14,"
	" $15, $16, $17, $18, $19) ON CONFLICT DO NOTHING",
	19, {INT8OID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, INT4OID,
		UUIDOID, INT4OID, TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID,
	TIMESTAMPTZOID, TIMESTAMPTZOID, TEXTOID, JSONBOID, BOOLOID, OIDOID},
	.sql_1_0 = "INSERT INTO @.postmark_history (id, connector, email,"
	" usage_type, locale, template_alias, status, attempts, message_id,"
	" error_code, last_error, created_at, due_at, expires_at, finished_at,"
	" code, payload, no_track)"
	" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14,"
	" $15, $16, $17, $18) ON CONFLICT DO NOTHING"
};
static PmStatement forget_content = {
	"UPDATE @.postmark_history SET code = NULL, payload = NULL"
	" WHERE id IN (SELECT id FROM @.postmark_history"
	" WHERE (code IS NOT NULL OR payload IS NOT NULL) AND expires_at <= $1"
	" ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED)",
	2, {TIMESTAMPTZOID, INT8OID}
};
static PmStatement next_content = {
	"SELECT expires_at FROM @.postmark_history"
	" WHERE code IS NOT NULL OR payload IS NOT NULL"
	" ORDER BY expires_at LIMIT 1",
	0, {0}
};
static PmStatement next_history_connector = {
	"SELECT connector, finished_at FROM @.postmark_history WHERE connector > $1"
	" ORDER BY connector, finished_at LIMIT 1",
	1, {TEXTOID}
};
static PmStatement read_old = {
	"SELECT ctid, finished_at FROM @.postmark_history"
	" WHERE connector = $1 AND finished_at >= $2 AND finished_at < $3"
	" ORDER BY finished_at OFFSET $4 LIMIT $5",
	5, {TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT8OID, INT8OID}
};
/* And what is known of them */
static PmStatement delete_old = {
	"WITH gone AS (DELETE FROM @.postmark_history WHERE ctid = ANY ($1)"
	" RETURNING id, created_at)"
	" DELETE FROM @.postmark_feedback AS f USING gone"
	" WHERE f.id = gone.id AND f.created_at = gone.created_at",
	1, {TIDARRAYOID},
	.sql_1_0 = "DELETE FROM @.postmark_history WHERE ctid = ANY ($1)"
};
static PmStatement next_old = {
	"SELECT finished_at FROM @.postmark_history"
	" WHERE connector = $1 AND finished_at >= $2"
	" ORDER BY finished_at LIMIT 1",
	2, {TEXTOID, TIMESTAMPTZOID}
};
static PmStatement check_at_once = {
	"SET CONSTRAINTS ALL IMMEDIATE", 0, {0}
};

/* The row of a finished message, so many columns of it as the table has. */
static void
make_row(const PmMessage *m, TimestampTz now, int ncolumns, Datum *values,
		 bool *nulls)
{
	bool		keep_content;

#define PUT(column, value, isnull) \
	do { \
		nulls[column] = (isnull); \
		values[column] = nulls[column] ? (Datum) 0 : (value); \
	} while (0)
#define PUT_TEXT(column, text) \
	PUT(column, CStringGetTextDatum(text), (text) == NULL)

	/* A failed message can be put back into the queue until it expires */
	keep_content = strcmp(m->status, "failed") == 0 && m->expires_at > now;

	PUT(COL_ID, Int64GetDatum(m->id), false);
	PUT_TEXT(COL_CONNECTOR, m->connector);
	PUT_TEXT(COL_EMAIL, m->email);
	PUT_TEXT(COL_USAGE_TYPE, m->usage_type);
	PUT_TEXT(COL_LOCALE, m->locale);
	PUT_TEXT(COL_TEMPLATE_ALIAS, m->template_alias);
	PUT_TEXT(COL_STATUS, m->status);
	PUT(COL_ATTEMPTS, Int32GetDatum(m->attempts), false);
	PUT(COL_MESSAGE_ID,
		UUIDPGetDatum(m->message_id), m->message_id == NULL);
	PUT(COL_ERROR_CODE, Int32GetDatum(m->error_code), m->error_code < 0);
	PUT_TEXT(COL_LAST_ERROR, m->last_error);
	PUT(COL_CREATED_AT, TimestampTzGetDatum(m->created_at), false);
	PUT(COL_DUE_AT, TimestampTzGetDatum(m->due_at), false);
	PUT(COL_EXPIRES_AT, TimestampTzGetDatum(m->expires_at), false);
	PUT(COL_FINISHED_AT, TimestampTzGetDatum(now), false);
	PUT_TEXT(COL_CODE, keep_content ? m->code : NULL);
	PUT(COL_PAYLOAD, JsonbPGetDatum(m->payload),
		!keep_content || m->payload == NULL);
	PUT(COL_NO_TRACK, BoolGetDatum(true), !m->no_track);
	if (ncolumns > COL_QUEUED_BY)
		PUT(COL_QUEUED_BY, ObjectIdGetDatum(m->queued_by),
			!OidIsValid(m->queued_by));

#undef PUT_TEXT
#undef PUT
}

typedef struct Finished
{
	const PmMessage **messages;
	TimestampTz now;
	int			ncolumns;		/* of the table */
} Finished;

static void
make_finished_row(void *arg, int i, Datum *values, bool *nulls)
{
	const Finished *finished = arg;

	make_row(finished->messages[i], finished->now, finished->ncolumns, values,
			 nulls);
}

/*
 * Tell whoever listens on the connector's channel, which it must have, what
 * became of a message, once the transaction commits.  Any role may listen, so
 * nothing of it is said but its id.
 */
void
pm_notify_status(const PmConnector *connector, int64 id, const char *status)
{
	/* Names and statuses need no escape in JSON */
	char	   *payload =
		psprintf("{\"id\": " INT64_FORMAT ", \"connector\": \"%s\", \"status\": \"%s\"}",
				 id, connector->name, status);

	Async_Notify(connector->notify_channel, payload);
	pfree(payload);
}

/* The same of the messages of a batch, if its connector has a channel. */
static void
notify(const PmBatch *batch, const PmMessage **messages, int n)
{
	const PmConnector *connector =
		pm_connector_by_number(PM_LANE_CONNECTOR(batch->lane));
	int			i;

	if (connector == NULL || connector->notify_channel == NULL)
		return;
	for (i = 0; i < n; i++)
		pm_notify_status(connector, messages[i]->id, messages[i]->status);
}

/* Count them, once the transaction commits. */
static void
count(const PmBatch *batch, const PmMessage **messages, int n)
{
	static const PmMetric metrics[] = {
		PM_COUNT_SENT, PM_COUNT_FAILED, PM_COUNT_EXPIRED, PM_COUNT_SUPPRESSED
	};
	uint64		counts[lengthof(metrics)] = {0};
	int			i;
	int			m;

	if (n == 0)
		return;
	for (i = 0; i < n; i++)
	{
		for (m = 0; m < lengthof(metrics); m++)
			if (strcmp(messages[i]->status, pm_metric_names[metrics[m]]) == 0)
				break;
		if (m < lengthof(metrics))
			counts[m]++;
	}
	for (m = 0; m < lengthof(metrics); m++)
		pm_stats_note(PM_LANE_CONNECTOR(batch->lane), messages[0]->connector,
					  metrics[m], counts[m]);
}

/*
 * Store the finished messages of a batch, and notify whoever listens.
 *
 * now:     the time of finishing
 * careful: an id that is there already is left alone, rather than an error
 */
void
pm_history_insert(const PmBatch *batch, TimestampTz now, bool careful)
{
	Finished	finished;
	int			n = 0;
	int			inserted = 0;
	int			i;

	finished.now = now;
	finished.messages = palloc(sizeof(PmMessage *) * batch->nmessages);
	for (i = 0; i < batch->nmessages; i++)
		if (batch->messages[i].disposal == PM_FINISH)
			finished.messages[n++] = &batch->messages[i];
	notify(batch, finished.messages, n);

	if (!careful)
	{
		Relation	history = table_open(pm_object(PM_HISTORY),
										 RowExclusiveLock);
		bool		plain;

		pm_check_table(PM_HISTORY);
		finished.ncolumns = pm_column_count(PM_HISTORY);
		plain = pm_insert_is_plain(history, finished.ncolumns, NULL);
		if (plain)
			pm_insert_rows(history, n, make_finished_row, &finished);
		table_close(history, NoLock);
		if (plain)
		{
			count(batch, finished.messages, n);
			return;
		}
	}
	for (i = 0; i < n; i++)
	{
		Datum		values[HISTORY_COLUMNS];
		bool		isnull[HISTORY_COLUMNS];
		char		nulls[HISTORY_COLUMNS];
		int			c;

		make_row(finished.messages[i], now, HISTORY_COLUMNS, values, isnull);
		for (c = 0; c < HISTORY_COLUMNS; c++)
			nulls[c] = isnull[c] ? 'n' : ' ';
		pm_execute(&insert_history, values, nulls, 0);
		if (SPI_processed > 0)
			finished.messages[inserted++] = finished.messages[i];
	}
	count(batch, finished.messages, inserted);
}

/*
 * Take code and payload out of at most "limit" failed messages that have
 * expired.
 *
 * Returns whether there may be more at once; *next becomes no later than the
 * time of the next one.
 */
bool
pm_history_forget_content(TimestampTz now, int limit, TimestampTz *next)
{
	return pm_forget_outdated(&forget_content, &next_content, 0, now, limit,
							  next);
}

/*
 * The first connector behind "connector" that has finished messages, which may
 * have been removed since, in its place, NAMEDATALEN bytes.  False: none.
 */
bool
pm_history_next_connector(char *connector)
{
	Datum		values[1];
	bool		isnull;
	Datum		value;

	values[0] = CStringGetTextDatum(connector);
	pm_execute(&next_history_connector, values, NULL, 1);
	if (SPI_processed == 0)
		return false;
	value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1,
						  &isnull);
	strlcpy(connector, TextDatumGetCString(value), NAMEDATALEN);
	return true;
}

static void
delete_rows(Datum *tids, int n)
{
	Datum		values[1];

	values[0] = PointerGetDatum(construct_array(tids, n, TIDOID,
												sizeof(ItemPointerData), false,
												TYPALIGN_SHORT));
	pm_execute(&delete_old, values, NULL, 0);
}

/* See try_delete. */
static bool
delete_row(void *arg)
{
	delete_rows(arg, 1);
	return true;
}

/* Whether it is the row that cannot go; all else is the whole step's matter. */
static bool
is_in_use(int sqlstate)
{
	return ERRCODE_TO_CATEGORY(sqlstate) ==
		ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION ||
		sqlstate == ERRCODE_LOCK_NOT_AVAILABLE;
}

/* Delete a row, in a subtransaction; false if that cannot be done. */
static bool
try_delete(Datum tid)
{
	return pm_run_subtransaction(delete_row, &tid, is_in_use);
}

/*
 * Delete some of a connector's finished messages from before "before": those
 * behind a position, which moves, and does not go back over what remains.
 *
 * limit:  so many rows at most
 * by_row: each by itself, and pass those over that somebody has locked, or
 *		   refers to; else one of them is an error
 * next:   if there are no more, the time of the next one (DT_NOEND: none)
 *
 * Returns whether there may be more.
 */
bool
pm_history_purge(PmHistoryPosition *position, TimestampTz before, int limit,
				 bool by_row, TimestampTz *next)
{
	static const char *const never[] = {
		"enable_bitmapscan", "enable_hashjoin", "enable_mergejoin"
	};
	Datum		values[5];
	Datum	   *tids;
	TimestampTz *times;
	bool	   *kept;
	int			n;
	int			i;

	/* The indexes serve: no plan is to look dearer for want of numbers */
	for (i = 0; i < lengthof(never); i++)
		(void) set_config_option(never[i], "off", PGC_SUSET, PGC_S_SESSION,
								 GUC_ACTION_LOCAL, true, 0, false);

	/* What a crash brings back is deleted again */
	(void) set_config_option("synchronous_commit", "off", PGC_SUSET,
							 PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);

	values[0] = CStringGetTextDatum(position->connector);
	values[1] = TimestampTzGetDatum(position->finished_at);
	values[2] = TimestampTzGetDatum(before);
	values[3] = Int64GetDatum(position->kept);
	values[4] = Int64GetDatum(limit);
	pm_execute(&read_old, values, NULL, 0);
	n = (int) SPI_processed;
	tids = palloc(sizeof(Datum) * Max(n, 1));
	times = palloc(sizeof(TimestampTz) * Max(n, 1));
	kept = palloc0(sizeof(bool) * Max(n, 1));
	for (i = 0; i < n; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		bool		isnull;

		tids[i] = datumCopy(SPI_getbinval(row, desc, 1, &isnull), false,
							sizeof(ItemPointerData));
		times[i] = DatumGetTimestampTz(SPI_getbinval(row, desc, 2, &isnull));
	}
	SPI_freetuptable(SPI_tuptable);

	if (n > 0)
	{
		/* Deferred ones could not be checked with the owner's rights */
		pm_execute(&check_at_once, NULL, NULL, 0);
		if (!by_row)
			delete_rows(tids, n);
		for (i = 0; by_row && i < n; i++)
			kept[i] = !try_delete(tids[i]);
		if (times[n - 1] != position->finished_at)
			position->kept = 0;
		position->finished_at = times[n - 1];
		for (i = 0; i < n; i++)
		{
			if (kept[i] && times[i] == position->finished_at)
				position->kept++;
			position->passed |= kept[i];
		}
	}
	if (n == limit)
		return true;

	values[1] = TimestampTzGetDatum(before);
	pm_execute(&next_old, values, NULL, 1);
	*next = DT_NOEND;
	if (SPI_processed > 0)
	{
		bool		isnull;

		*next = DatumGetTimestampTz(SPI_getbinval(SPI_tuptable->vals[0],
												  SPI_tuptable->tupdesc, 1,
												  &isnull));
	}
	return false;
}
