/*-------------------------------------------------------------------------
 *
 * queue_session.c
 *		The queue's tables, for the SQL-callable functions.
 *
 * These run in somebody's transaction: the search_path may be hostile, so
 * every name and operator is qualified; the isolation level may be REPEATABLE
 * READ, so what the worker has done meanwhile is read with the latest
 * snapshot.  No function here updates a row that the worker locks.
 *
 * src/queue/queue_session.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/catalog.h"
#include "base/owner.h"
#include "base/subtransaction.h"
#include "queue/batch.h"
#include "queue/dedup.h"
#include "queue/queue.h"
#include "queue/queue_session.h"
#include "settings/config_store.h"
#include "settings/connector.h"
#include "settings/connector_roles.h"
#include "shared/stats.h"
#include "shared/wake.h"

#define CONTENT_COLUMNS \
	"id, created_at, expires_at, email, usage_type, code, payload, locale, connector, no_track"

/* Not of a connector that others have for themselves, see others() */
#define NOT_OTHERS(argument) " AND connector" PM_NE "ALL (" argument ")"

static PmStatement insert_queue = {
	"INSERT INTO @.postmark_queue (email, usage_type, code, payload, locale,"
	" connector, expires_at, no_track, queued_by, dedup_key)"
	" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) RETURNING id",
	10, {TEXTOID, TEXTOID, TEXTOID, JSONBOID, TEXTOID, TEXTOID, TIMESTAMPTZOID,
	BOOLOID, OIDOID, TEXTOID},
	"INSERT INTO @.postmark_queue (email, usage_type, code, payload, locale,"
	" connector, expires_at, no_track)"
	" VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING id"
};
#define DELETE_QUEUED(queued_by) \
	"DELETE FROM @.postmark_queue WHERE lane" PM_EQ "ANY ($1)" \
	" AND id" PM_EQ "$2" NOT_OTHERS("$3") \
	" RETURNING " CONTENT_COLUMNS ", created_at, 0, " queued_by
#define DELETE_DEFERRED(queued_by) \
	"DELETE FROM @.postmark_deferred WHERE id" PM_EQ "$1" NOT_OTHERS("$2") \
	" RETURNING " CONTENT_COLUMNS ", due_at, attempts, " queued_by
#define DELETE_FAILED(queued_by) \
	"DELETE FROM @.postmark_history WHERE id" PM_EQ "$1" \
	" AND status" PM_EQ "'failed'" \
	" AND expires_at" PM_GT "pg_catalog.clock_timestamp()" NOT_OTHERS("$2") \
	" RETURNING " CONTENT_COLUMNS ", due_at, attempts, " queued_by

/* 1.0 does not know who queued a message */
#define NOBODY "NULL::pg_catalog.oid"

static PmStatement delete_queue = {
	DELETE_QUEUED("queued_by"), 3, {INT4ARRAYOID, INT8OID, TEXTARRAYOID},
	DELETE_QUEUED(NOBODY)
};
static PmStatement delete_deferred = {
	DELETE_DEFERRED("queued_by"), 2, {INT8OID, TEXTARRAYOID},
	DELETE_DEFERRED(NOBODY)
};
static PmStatement delete_failed = {
	DELETE_FAILED("queued_by"), 2, {INT8OID, TEXTARRAYOID},
	DELETE_FAILED(NOBODY)
};
static PmStatement find_intent = {
	"SELECT 1 FROM @.postmark_intents WHERE $1" PM_EQ "ANY (ids)",
	1, {INT8OID}
};
static PmStatement insert_cancelled = {
	"INSERT INTO @.postmark_history (id, connector, email, usage_type, locale,"
	" status, attempts, created_at, due_at, expires_at, finished_at, queued_by)"
	" VALUES ($1, $2, $3, $4, $5, 'cancelled', $6, $7, $8, $9,"
	" pg_catalog.clock_timestamp(), $10)",
	10, {INT8OID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, INT4OID, TIMESTAMPTZOID,
	TIMESTAMPTZOID, TIMESTAMPTZOID, OIDOID},
	"INSERT INTO @.postmark_history (id, connector, email, usage_type, locale,"
	" status, attempts, created_at, due_at, expires_at, finished_at)"
	" VALUES ($1, $2, $3, $4, $5, 'cancelled', $6, $7, $8, $9,"
	" pg_catalog.clock_timestamp())"
};
static PmStatement status_history = {
	"SELECT status, xmin FROM @.postmark_history WHERE id" PM_EQ "$1"
	NOT_OTHERS("$3"),
	3, {INT8OID, INT4ARRAYOID, TEXTARRAYOID}
};
static PmStatement status_queue = {
	"SELECT 'queued', xmin FROM @.postmark_queue"
	" WHERE lane" PM_EQ "ANY ($2) AND id" PM_EQ "$1" NOT_OTHERS("$3"),
	3, {INT8OID, INT4ARRAYOID, TEXTARRAYOID}
};
static PmStatement status_deferred = {
	"SELECT 'deferred', xmin FROM @.postmark_deferred WHERE id" PM_EQ "$1"
	NOT_OTHERS("$3"),
	3, {INT8OID, INT4ARRAYOID, TEXTARRAYOID}
};
/* Of a message: its status, and who queued it */
static PmStatement find_own = {
	"SELECT m.status, o.queued_by FROM @.postmark_messages AS m,"
	" (SELECT queued_by FROM @.postmark_history WHERE id" PM_EQ "$1"
	" UNION ALL SELECT queued_by FROM @.postmark_queue"
	" WHERE lane" PM_EQ "ANY ($2) AND id" PM_EQ "$1"
	" UNION ALL SELECT queued_by FROM @.postmark_deferred"
	" WHERE id" PM_EQ "$1) AS o"
	" WHERE m.id" PM_EQ "$1",
	2, {INT8OID, INT4ARRAYOID}
};
static PmStatement unfinished_queue = {
	"SELECT 1 FROM @.postmark_queue WHERE lane" PM_EQ "ANY ($1)"
	" AND id" PM_LE "$2",
	2, {INT4ARRAYOID, INT8OID}
};
static PmStatement unfinished_deferred = {
	"SELECT 1 FROM @.postmark_deferred WHERE lane" PM_EQ "ANY ($1)"
	" AND (due_at" PM_LE "$3 OR (attempts" PM_GT "0 AND id" PM_LE "$2))",
	3, {INT4ARRAYOID, INT8OID, TIMESTAMPTZOID}
};

/* Whether a query has a row under the given snapshot; the row is kept. */
static bool
found(PmStatement *query, Datum *values, Snapshot snapshot)
{
	pm_execute_snapshot(query, values, snapshot, true, 1);
	return SPI_processed > 0;
}

/* All lanes of a connector (number), or of all connectors (0). */
static Datum
lanes(int number)
{
	const PmConnector *connector;
	int			max = PM_PRIORITIES;
	Datum	   *elements = palloc(sizeof(Datum) * max);
	int			n = 0;
	int			i;

	for (i = 0; (connector = pm_connectors(i)) != NULL; i++)
	{
		int			priority;

		if (number != 0 && connector->number != number)
			continue;
		if (n == max)
		{
			max *= 2;
			elements = repalloc(elements, sizeof(Datum) * max);
		}
		for (priority = 0; priority < PM_PRIORITIES; priority++)
			elements[n++] = Int32GetDatum(PM_LANE(connector->number, priority));
	}
	return PointerGetDatum(construct_array(elements, n, INT4OID, sizeof(int32),
										   true, TYPALIGN_INT));
}

/*
 * The names of the connectors that a role may not use, as a text[]: to it their
 * messages are none.  InvalidOid: there are no such ones.
 */
static Datum
others(Oid role)
{
	const PmConnector *connector;
	ArrayBuildState *names = initArrayResult(TEXTOID, CurrentMemoryContext,
											 false);
	int			i;

	for (i = 0; OidIsValid(role) && (connector = pm_connectors(i)) != NULL; i++)
		if (!pm_may_use(connector, role))
			names = accumArrayResult(names,
									 CStringGetTextDatum(connector->name),
									 false, TEXTOID, CurrentMemoryContext);
	return makeArrayResult(names, CurrentMemoryContext);
}

/*
 * Insert a message into the hot table, whose row trigger completes it, in the
 * name of queued_by.  expires_at 0 stands for the default.  Returns its id, or
 * that of the message that holds its key.
 */
int64
pm_queue_insert(const PmMessage *m)
{
	PmOwnerScope scope;
	Datum		values[10];
	char		nulls[11] = "          ";
	bool		isnull;
	int64		id = 0;

	pm_connect_owner(&scope);
	PM_NULLABLE_TEXT(values, nulls, 0, m->email);
	PM_NULLABLE_TEXT(values, nulls, 1, m->usage_type);
	PM_NULLABLE_TEXT(values, nulls, 2, m->code);
	PM_NULLABLE(values, nulls, 3, m->payload == NULL,
				JsonbPGetDatum(m->payload));
	PM_NULLABLE_TEXT(values, nulls, 4, m->locale);
	PM_NULLABLE_TEXT(values, nulls, 5, m->connector);
	PM_NULLABLE(values, nulls, 6, m->expires_at == 0,
				TimestampTzGetDatum(m->expires_at));
	PM_NULLABLE(values, nulls, 7, !m->no_track, BoolGetDatum(true));
	values[8] = ObjectIdGetDatum(m->queued_by);
	PM_NULLABLE_TEXT(values, nulls, 9, m->dedup_key);
	pm_execute(&insert_queue, values, nulls, 0);

	if (SPI_processed == 1)
		id = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0],
										 SPI_tuptable->tupdesc, 1, &isnull));
	else if (m->dedup_key)
		id = pm_dedup_holder(m);
	if (id == 0)
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
				 errmsg("message was not queued"),
				 errdetail("A trigger or rule that was added to postmark_queue kept the row out."),
				 errhint("Drop it, or let it raise an error that says why."),
				 errhidestmt(true)));
	pm_disconnect_owner(&scope);
	return id;
}

static void
insert_into_deferred(const PmMessage *m, int32 lane)
{
	pm_deferred_store(m, lane, m->due_at);
	pm_note_deferred(lane);
}

/* Insert a message, complete and checked, into postmark_deferred. */
void
pm_deferred_insert(const PmMessage *m, int32 lane)
{
	PmOwnerScope scope;

	pm_connect_owner(&scope);
	insert_into_deferred(m, lane);
	pm_disconnect_owner(&scope);
	pm_stats_note(PM_LANE_CONNECTOR(lane), m->connector, PM_COUNT_QUEUED, 1);
}

/* The row of CONTENT_COLUMNS, due_at, attempts, queued_by that a query returned. */
static void
read_returned(PmMessage *m)
{
	HeapTuple	tuple = SPI_tuptable->vals[0];
	TupleDesc	desc = SPI_tuptable->tupdesc;
	bool		isnull;
	Datum		value;

	memset(m, 0, sizeof(*m));
	m->id = DatumGetInt64(SPI_getbinval(tuple, desc, 1, &isnull));
	m->created_at = DatumGetTimestampTz(SPI_getbinval(tuple, desc, 2, &isnull));
	m->expires_at = DatumGetTimestampTz(SPI_getbinval(tuple, desc, 3, &isnull));
	m->email = SPI_getvalue(tuple, desc, 4);
	m->usage_type = SPI_getvalue(tuple, desc, 5);
	m->code = SPI_getvalue(tuple, desc, 6);
	value = SPI_getbinval(tuple, desc, 7, &isnull);
	m->payload = isnull ? NULL : DatumGetJsonbPCopy(value);
	m->locale = SPI_getvalue(tuple, desc, 8);
	m->connector = SPI_getvalue(tuple, desc, 9);
	value = SPI_getbinval(tuple, desc, 10, &isnull);
	m->no_track = !isnull && DatumGetBool(value);
	m->due_at = DatumGetTimestampTz(SPI_getbinval(tuple, desc, 11, &isnull));
	m->attempts = DatumGetInt32(SPI_getbinval(tuple, desc, 12, &isnull));
	value = SPI_getbinval(tuple, desc, 13, &isnull);
	m->queued_by = isnull ? InvalidOid : DatumGetObjectId(value);
}

/* Whether a message is in a request, as of now. */
static bool
in_flight(int64 id)
{
	Datum		values[1];

	values[0] = Int64GetDatum(id);
	return found(&find_intent, values, GetLatestSnapshot());
}

static void
count_cancelled(const char *name)
{
	const PmConnector *connector;
	int			i;

	for (i = 0; (connector = pm_connectors(i)) != NULL; i++)
		if (strcmp(connector->name, name) == 0)
			pm_stats_note(connector->number, name, PM_COUNT_CANCELLED, 1);
}

/* Delete an unsent message and note it as cancelled; false if there is none. */
static bool
take_out(int64 id, Oid role)
{
	LOCKTAG		tag;
	PmMessage	m;
	Datum		values[10];
	char		nulls[11] = "          ";

	/* See pm_queue_keep_out_cancels */
	pm_cancel_locktag(&tag);
	(void) LockAcquire(&tag, ShareLock, false, false);

	values[0] = lanes(0);
	values[1] = Int64GetDatum(id);
	values[2] = others(role);
	pm_execute_now(&delete_queue, values, false);
	if (SPI_processed == 0)
	{
		values[0] = Int64GetDatum(id);
		values[1] = values[2];
		pm_execute_now(&delete_deferred, values, false);
	}
	if (SPI_processed == 0)
		return false;
	read_returned(&m);

	/*
	 * We have the row; had the worker read it before us, its intent was
	 * committed when it gave up its lock, and is seen now.
	 */
	if (in_flight(id))
		return false;

	values[0] = Int64GetDatum(m.id);
	values[1] = CStringGetTextDatum(m.connector);
	values[2] = CStringGetTextDatum(m.email);
	values[3] = CStringGetTextDatum(m.usage_type);
	PM_NULLABLE_TEXT(values, nulls, 4, m.locale);
	values[5] = Int32GetDatum(m.attempts);
	values[6] = TimestampTzGetDatum(m.created_at);
	values[7] = TimestampTzGetDatum(m.due_at);
	values[8] = TimestampTzGetDatum(m.expires_at);
	PM_NULLABLE(values, nulls, 9, !OidIsValid(m.queued_by),
				ObjectIdGetDatum(m.queued_by));
	pm_execute(&insert_cancelled, values, nulls, 0);
	count_cancelled(m.connector);
	return true;
}

/* A message to be cancelled, for whom */
typedef struct Cancel
{
	int64		id;
	Oid			role;
} Cancel;

/* See pm_message_cancel. */
static bool
cancel_body(void *arg)
{
	const Cancel *cancel = arg;
	bool		done;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	pm_note_cancel();
	done = take_out(cancel->id, cancel->role);
	SPI_finish();
	return done;
}

/*
 * Take a message out of the queue.  True is a promise that holds once the
 * transaction commits: it was unsent, and never will be sent.  False leaves
 * everything as it was.  For a role that may use its connector, or InvalidOid.
 */
bool
pm_message_cancel(int64 id, Oid role)
{
	Cancel		cancel = {id, role};
	PmOwnerScope scope;
	bool		done;

	pm_connect_owner(&scope);
	if (in_flight(id))
	{
		pm_disconnect_owner(&scope);
		return false;
	}
	SPI_finish();

	done = pm_run_subtransaction(cancel_body, &cancel, NULL);
	pm_leave_owner(&scope);
	return done;
}

/*
 * Give a message that failed its time again, from now on, since what it failed
 * for has taken some of it.  That of a code is the code's, and stays.  Its tries
 * are counted anew, too.
 */
static void
begin_anew(PmMessage *m)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz begun = Max(m->due_at, m->created_at);

	if (m->code == NULL && !m->no_track)
		m->expires_at = Max(m->expires_at, now + (m->expires_at - begun));
	m->due_at = now;
	m->attempts = 0;
}

/*
 * Put a failed message that has not expired back into the queue, as if it were
 * queued now.  Raises PM001 or PM002 if its connector or template is gone.  For a
 * role that may use its connector.
 */
bool
pm_message_requeue(int64 id, Oid role)
{
	PmOwnerScope scope;
	Datum		values[2];
	PmMessage	m;
	const PmConnector *connector;
	const PmTemplate *template;

	pm_connect_owner(&scope);
	values[0] = Int64GetDatum(id);
	values[1] = others(role);
	pm_execute_now(&delete_failed, values, false);
	if (SPI_processed == 0)
	{
		pm_disconnect_owner(&scope);
		return false;
	}
	read_returned(&m);

	/* The lock that the INSERT takes, before postmark_remove comes between */
	LockRelationOid(pm_object(PM_DEFERRED), RowExclusiveLock);
	connector = pm_connector(m.connector, false);
	template = pm_require_template(connector, m.usage_type, m.locale);
	begin_anew(&m);
	pm_dedup_extend(m.id, m.expires_at);
	insert_into_deferred(&m, PM_LANE(connector->number, template->priority));
	pm_disconnect_owner(&scope);
	return true;
}

/*
 * A message's status as of now: that of the history, "queued" or "deferred",
 * or NULL for an unknown id.  *own becomes whether the current transaction
 * itself queued it.  For a role that may use its connector, or InvalidOid.
 */
char *
pm_message_status(int64 id, Oid role, bool *own)
{
	static PmStatement *const queries[] = {
		&status_history, &status_queue, &status_deferred
	};
	PmOwnerScope scope;
	MemoryContext context = CurrentMemoryContext;
	Snapshot	snapshot;
	Datum		values[3];
	char	   *status = NULL;
	int			i;

	*own = false;
	pm_connect_owner(&scope);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	values[0] = Int64GetDatum(id);
	values[1] = lanes(0);
	values[2] = others(role);
	for (i = 0; i < lengthof(queries) && status == NULL; i++)
	{
		HeapTuple	tuple;
		bool		isnull;

		if (!found(queries[i], values, snapshot))
			continue;
		tuple = SPI_tuptable->vals[0];
		status = MemoryContextStrdup(context,
									 SPI_getvalue(tuple, SPI_tuptable->tupdesc,
												  1));
		*own = i > 0 &&
			TransactionIdIsCurrentTransactionId(DatumGetTransactionId(SPI_getbinval(tuple,
																					SPI_tuptable->tupdesc,
																					2, &isnull)));
	}
	UnregisterSnapshot(snapshot);
	pm_disconnect_owner(&scope);
	return status;
}

/*
 * The status of a message as of now, as postmark_messages has it, where a role
 * queued it whose rights "role" has; NULL for one of others, or none.
 */
char *
pm_own_message_status(int64 id, Oid role)
{
	PmOwnerScope scope;
	MemoryContext context = CurrentMemoryContext;
	Datum		values[2];
	char	   *status = NULL;

	pm_connect_owner(&scope);
	values[0] = Int64GetDatum(id);
	values[1] = lanes(0);
	pm_execute_now(&find_own, values, true);
	if (SPI_processed > 0)
	{
		HeapTuple	row = SPI_tuptable->vals[0];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		bool		isnull;
		Datum		queued_by = SPI_getbinval(row, desc, 2, &isnull);

		if (isnull ? superuser_arg(role) :
			has_privs_of_role(role, DatumGetObjectId(queued_by)))
			status = MemoryContextStrdup(context, SPI_getvalue(row, desc, 1));
	}
	pm_disconnect_owner(&scope);
	return status;
}

/*
 * Whether a connector has, as of now, messages with an id up to "upto", or
 * deferred ones that were due at "due", that are not finished.
 */
bool
pm_connector_unfinished(int number, int64 upto, TimestampTz due)
{
	PmOwnerScope scope;
	Snapshot	snapshot;
	Datum		values[3];
	bool		result;

	pm_connect_owner(&scope);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	values[0] = lanes(number);
	values[1] = Int64GetDatum(upto);
	values[2] = TimestampTzGetDatum(due);
	result = found(&unfinished_queue, values, snapshot) ||
		found(&unfinished_deferred, values, snapshot);
	UnregisterSnapshot(snapshot);
	pm_disconnect_owner(&scope);
	return result;
}

/*
 * The ids, its first column, that a statement returns as of now, in the current
 * memory context, and their number.
 */
int64 *
pm_collect_ids(PmStatement *statement, Datum *values, uint64 *n)
{
	MemoryContext context = CurrentMemoryContext;
	PmOwnerScope scope;
	int64	   *ids;
	uint64		i;
	bool		isnull;

	pm_connect_owner(&scope);
	pm_execute_now(statement, values, true);
	*n = SPI_processed;
	ids = MemoryContextAllocHuge(context, sizeof(int64) * Max(*n, 1));
	for (i = 0; i < *n; i++)
		ids[i] = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[i],
											 SPI_tuptable->tupdesc, 1,
											 &isnull));
	pm_disconnect_owner(&scope);
	return ids;
}
