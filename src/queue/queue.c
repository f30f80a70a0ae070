/*-------------------------------------------------------------------------
 *
 * queue.c
 *		The queue's tables: all SQL that reads and writes them for the worker.
 *
 * The hot table postmark_queue is inserted into and deleted from, never
 * updated; its primary key (lane, id) gives every read an index range above a
 * cursor, so that no plan depends on statistics and no scan walks over what
 * was deleted.  What is being sent stands in one row of postmark_intents a
 * request, and that row is also the fence: results are stored only by the
 * transaction that takes it away.
 *
 * src/queue/queue.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/catalog.h"
#include "base/compat.h"
#include "base/owner.h"
#include "queue/batch.h"
#include "queue/capture.h"
#include "queue/history.h"
#include "queue/message_check.h"
#include "queue/queue.h"
#include "settings/connector.h"
#include "shared/stats.h"
#include "shared/transaction.h"

/*
 * Rows fetched at first, before their size is known: a payload may have 256
 * kB, and a worker should stay small.
 */
#define FIRST_FETCH 16

/* Of every query that reads messages, which add the last of these */
#define MESSAGE_COLUMNS \
	"ctid, xmax, id, created_at, expires_at, email, usage_type, code, payload, locale, connector, no_track"

/*
 * What was tried: nothing of a message in the hot table.  1.0 has no column for
 * the batches in which one was in doubt, so there whoever was tried before
 * counts as one that was in doubt twice, in batches that nobody knows.  Nor does
 * it know who queued it.
 */
#define NOT_TRIED "created_at, 0, NULL::integer, NULL::text, NULL::uuid[]"
#define QUEUE_TRIES NOT_TRIED ", queued_by"
#define QUEUE_TRIES_1_0 NOT_TRIED ", NULL::oid"
#define DEFERRED_TRIES \
	"due_at, attempts, error_code, last_error, doubts, queued_by"
#define DEFERRED_TRIES_1_0 \
	"due_at, attempts, error_code, last_error, CASE WHEN attempts > 0 THEN" \
	" '{00000000-0000-0000-0000-000000000000," \
	"00000000-0000-0000-0000-000000000000}'::uuid[] END, NULL::oid"

enum
{
	COL_CTID,
	COL_XMAX,
	COL_ID,
	COL_CREATED_AT,
	COL_EXPIRES_AT,
	COL_EMAIL,
	COL_USAGE_TYPE,
	COL_CODE,
	COL_PAYLOAD,
	COL_LOCALE,
	COL_CONNECTOR,
	COL_NO_TRACK,
	COL_DUE_AT,
	COL_ATTEMPTS,
	COL_ERROR_CODE,
	COL_LAST_ERROR,
	COL_DOUBTS,
	COL_QUEUED_BY,
	MESSAGE_NCOLUMNS
};

static PmStatement read_queue = {
	"SELECT " MESSAGE_COLUMNS ", " QUEUE_TRIES " FROM @.postmark_queue"
	" WHERE lane = $1 AND id > $2 AND id <= $3 ORDER BY id LIMIT $4",
	4, {INT4OID, INT8OID, INT8OID, INT8OID},
	"SELECT " MESSAGE_COLUMNS ", " QUEUE_TRIES_1_0 " FROM @.postmark_queue"
	" WHERE lane = $1 AND id > $2 AND id <= $3 ORDER BY id LIMIT $4"
};
static PmStatement read_deferred = {
	"SELECT " MESSAGE_COLUMNS ", " DEFERRED_TRIES " FROM @.postmark_deferred"
	" WHERE lane = $1 AND due_at <= $2 AND (due_at, id) > ($3, $4)"
	" AND (doubts IS NOT NULL) = $6"
	" ORDER BY due_at, id LIMIT $5",
	6, {INT4OID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT8OID, INT8OID, BOOLOID},
	"SELECT " MESSAGE_COLUMNS ", " DEFERRED_TRIES_1_0
	" FROM @.postmark_deferred"
	" WHERE lane = $1 AND due_at <= $2 AND (due_at, id) > ($3, $4)"
	" AND (attempts > 0) = $6"
	" ORDER BY due_at, id LIMIT $5"
};
static PmStatement read_queue_ids = {
	"SELECT " MESSAGE_COLUMNS ", " QUEUE_TRIES " FROM @.postmark_queue"
	" WHERE lane = $1 AND id = ANY ($2)",
	2, {INT4OID, INT8ARRAYOID},
	"SELECT " MESSAGE_COLUMNS ", " QUEUE_TRIES_1_0 " FROM @.postmark_queue"
	" WHERE lane = $1 AND id = ANY ($2)"
};
static PmStatement read_deferred_ids = {
	"SELECT " MESSAGE_COLUMNS ", " DEFERRED_TRIES " FROM @.postmark_deferred"
	" WHERE lane = $1 AND id = ANY ($2)",
	2, {INT4OID, INT8ARRAYOID},
	"SELECT " MESSAGE_COLUMNS ", " DEFERRED_TRIES_1_0
	" FROM @.postmark_deferred WHERE lane = $1 AND id = ANY ($2)"
};
static PmStatement lock_queue = {
	"SELECT id FROM @.postmark_queue WHERE ctid = ANY ($1)"
	" FOR KEY SHARE SKIP LOCKED",
	1, {TIDARRAYOID}
};
static PmStatement lock_deferred = {
	"SELECT id FROM @.postmark_deferred WHERE ctid = ANY ($1)"
	" FOR KEY SHARE SKIP LOCKED",
	1, {TIDARRAYOID}
};
static PmStatement next_queue_lane = {
	"SELECT lane FROM @.postmark_queue WHERE lane >= $1"
	" ORDER BY lane, id LIMIT 1",
	1, {INT4OID}
};
static PmStatement next_deferred_lane = {
	"SELECT lane FROM @.postmark_deferred WHERE lane >= $1"
	" ORDER BY lane, due_at, id LIMIT 1",
	1, {INT4OID}
};
static PmStatement deferred_due = {
	"SELECT due_at FROM @.postmark_deferred WHERE lane = $1 AND due_at > $2"
	" AND (doubts IS NOT NULL) = $3 ORDER BY lane, due_at LIMIT 1",
	3, {INT4OID, TIMESTAMPTZOID, BOOLOID},
	"SELECT due_at FROM @.postmark_deferred WHERE lane = $1 AND due_at > $2"
	" AND (attempts > 0) = $3 ORDER BY lane, due_at LIMIT 1"
};
static PmStatement walk_queue = {
	"SELECT id, expires_at, created_at FROM @.postmark_queue"
	" WHERE lane = $1 AND id > $3 ORDER BY id LIMIT $4",
	4, {INT4OID, TIMESTAMPTZOID, INT8OID, INT8OID}
};
static PmStatement walk_deferred = {
	"SELECT id, expires_at, due_at FROM @.postmark_deferred"
	" WHERE lane = $1 AND (due_at, id) > ($2, $3)"
	" ORDER BY due_at, id LIMIT $4",
	4, {INT4OID, TIMESTAMPTZOID, INT8OID, INT8OID}
};
static PmStatement inherited_queue = {
	"SELECT " MESSAGE_COLUMNS ", " QUEUE_TRIES " FROM @.postmark_queue"
	" WHERE lane = $1 AND id <= $2 AND expires_at <= $3"
	" ORDER BY expires_at LIMIT $4",
	4, {INT4OID, INT8OID, TIMESTAMPTZOID, INT8OID},
	"SELECT " MESSAGE_COLUMNS ", " QUEUE_TRIES_1_0 " FROM @.postmark_queue"
	" WHERE lane = $1 AND id <= $2 AND expires_at <= $3"
	" ORDER BY expires_at LIMIT $4"
};
static PmStatement inherited_deferred = {
	"SELECT " MESSAGE_COLUMNS ", " DEFERRED_TRIES " FROM @.postmark_deferred"
	" WHERE lane = $1 AND id <= $2 AND expires_at <= $3"
	" ORDER BY expires_at LIMIT $4",
	4, {INT4OID, INT8OID, TIMESTAMPTZOID, INT8OID},
	"SELECT " MESSAGE_COLUMNS ", " DEFERRED_TRIES_1_0
	" FROM @.postmark_deferred"
	" WHERE lane = $1 AND id <= $2 AND expires_at <= $3"
	" ORDER BY expires_at LIMIT $4"
};
static PmStatement newest_first = {
	"SELECT id, xmin FROM @.postmark_queue WHERE lane = $1 ORDER BY id DESC",
	1, {INT4OID}
};
static PmStatement unsent_upto = {
	"SELECT min(created_at), min(expires_at) FILTER (WHERE expires_at > $4)"
	" FROM (SELECT created_at, expires_at FROM @.postmark_queue"
	" WHERE lane BETWEEN $1 AND $2 AND id <= $3"
	" UNION ALL SELECT created_at, expires_at FROM @.postmark_deferred"
	" WHERE lane BETWEEN $1 AND $2 AND id <= $3) m",
	4, {INT4OID, INT4OID, INT8OID, TIMESTAMPTZOID}
};
static PmStatement read_intents = {
	"SELECT batch, lane, deferred, created_at, ids FROM @.postmark_intents",
	0, {0}
};
static PmStatement insert_intent = {
	"INSERT INTO @.postmark_intents (batch, lane, deferred, created_at, ids)"
	" VALUES ($1, $2, $3, $4, $5)",
	5, {UUIDOID, INT4OID, BOOLOID, TIMESTAMPTZOID, INT8ARRAYOID}
};
static PmStatement update_intent = {
	"UPDATE @.postmark_intents SET ids = $2 WHERE batch = $1",
	2, {UUIDOID, INT8ARRAYOID}
};
static PmStatement renew_intent = {
	"UPDATE @.postmark_intents SET created_at = $2 WHERE batch = $1",
	2, {UUIDOID, TIMESTAMPTZOID}
};
static PmStatement delete_intent = {
	"DELETE FROM @.postmark_intents WHERE batch = $1",
	1, {UUIDOID}
};
static PmStatement delete_queue = {
	"DELETE FROM @.postmark_queue WHERE lane = $1 AND id = ANY ($2)",
	2, {INT4OID, INT8ARRAYOID}
};
static PmStatement delete_queue_tids = {
	"DELETE FROM @.postmark_queue WHERE ctid = ANY ($1) RETURNING id",
	1, {TIDARRAYOID}
};
static PmStatement delete_deferred = {
	"DELETE FROM @.postmark_deferred WHERE id = ANY ($1)",
	1, {INT8ARRAYOID}
};
static PmStatement insert_deferred = {
	"INSERT INTO @.postmark_deferred (id, lane, due_at, created_at, expires_at,"
	" email, usage_type, code, payload, locale, connector, attempts,"
	" error_code, last_error, no_track, doubts, queued_by)"
	" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15,"
	" $16, $17)",
	17, {INT8OID, INT4OID, TIMESTAMPTZOID, TIMESTAMPTZOID, TIMESTAMPTZOID,
		TEXTOID, TEXTOID, TEXTOID, JSONBOID, TEXTOID, TEXTOID, INT4OID,
	INT4OID, TEXTOID, BOOLOID, UUIDARRAYOID, OIDOID},
	"INSERT INTO @.postmark_deferred (id, lane, due_at, created_at, expires_at,"
	" email, usage_type, code, payload, locale, connector, attempts,"
	" error_code, last_error, no_track)"
	" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)"
};
static PmStatement clear_trouble = {
	"DELETE FROM @.postmark_trouble WHERE connector = $1", 1, {TEXTOID}
};
static PmStatement insert_trouble = {
	"INSERT INTO @.postmark_trouble (connector, state, detail, hint, since)"
	" VALUES ($1, $2, $3, $4, clock_timestamp())",
	4, {TEXTOID, TEXTOID, TEXTOID, TEXTOID}
};
static PmStatement clear_all_trouble = {
	"DELETE FROM @.postmark_trouble", 0, {0}
};
static PmStatement retry_templates = {
	"UPDATE @.postmark_deferred SET due_at = clock_timestamp()"
	" WHERE due_at > clock_timestamp() AND id IN (SELECT id"
	" FROM @.postmark_deferred WHERE error_code = 1101 OR last_error = '"
	PM_NO_TEMPLATE_TEXT "' FOR UPDATE SKIP LOCKED)",
	0, {0}
};
static PmStatement take_back_retries = {
	"UPDATE @.postmark_deferred"
	" SET due_at = greatest(clock_timestamp(), due_at - $1)"
	" WHERE due_at > clock_timestamp() + $2"
	" AND (attempts > 0 OR last_error IS NOT NULL)",
	2, {INTERVALOID, INTERVALOID}
};
static PmStatement read_instance = {
	"SELECT database, timeline FROM @.postmark_instance LIMIT 1", 0, {0}
};
static PmStatement set_timeline = {
	"UPDATE @.postmark_instance SET timeline = $1", 1, {INT4OID}
};

/* The table that the last statement was about */
static PmObject at_table = PM_QUEUE;

/* The table at which a transaction failed, where this file's statements did. */
PmObject
pm_queue_table(void)
{
	return at_table;
}

/* What is to be shown of that, palloc'd. */
char *
pm_queue_failure(void)
{
	return psprintf("The table \"%s\" cannot be used: %s",
					pm_object_name(at_table), pm_transaction_error());
}

static int64
int8_column(HeapTuple tuple, TupleDesc desc, int column)
{
	bool		isnull;

	return DatumGetInt64(SPI_getbinval(tuple, desc, column, &isnull));
}

static TimestampTz
time_column(HeapTuple tuple, TupleDesc desc, int column)
{
	bool		isnull;

	return DatumGetTimestampTz(SPI_getbinval(tuple, desc, column, &isnull));
}

/* Copy a row of MESSAGE_COLUMNS and the others into a message. */
static void
read_message(PmBatch *batch, PmMessage *message, HeapTuple tuple,
			 TupleDesc desc)
{
	MemoryContext old = MemoryContextSwitchTo(batch->context);
	Datum		values[MESSAGE_NCOLUMNS];
	bool		isnull[MESSAGE_NCOLUMNS];

#define TEXT(column) \
	(isnull[column] ? NULL : TextDatumGetCString(values[column]))

	Assert(desc->natts == MESSAGE_NCOLUMNS);
	heap_deform_tuple(tuple, desc, values, isnull);
	memset(message, 0, sizeof(*message));
	message->tid = *(ItemPointer) DatumGetPointer(values[COL_CTID]);
	message->touched =
		TransactionIdIsValid(DatumGetTransactionId(values[COL_XMAX]));
	message->id = DatumGetInt64(values[COL_ID]);
	message->created_at = DatumGetTimestampTz(values[COL_CREATED_AT]);
	message->expires_at = DatumGetTimestampTz(values[COL_EXPIRES_AT]);
	message->email = TEXT(COL_EMAIL);
	message->usage_type = TEXT(COL_USAGE_TYPE);
	message->code = TEXT(COL_CODE);
	if (!isnull[COL_PAYLOAD])
	{
		message->payload = DatumGetJsonbPCopy(values[COL_PAYLOAD]);
		message->size += pm_rendered_size(message->payload, PM_MESSAGE_MAX);
	}
	message->locale = TEXT(COL_LOCALE);
	message->connector = TEXT(COL_CONNECTOR);
	message->no_track = !isnull[COL_NO_TRACK] &&
		DatumGetBool(values[COL_NO_TRACK]);
	message->due_at = DatumGetTimestampTz(values[COL_DUE_AT]);
	message->attempts = DatumGetInt32(values[COL_ATTEMPTS]);
	message->error_code = isnull[COL_ERROR_CODE] ? -1
		: DatumGetInt32(values[COL_ERROR_CODE]);
	message->last_error = TEXT(COL_LAST_ERROR);
	if (!isnull[COL_DOUBTS])
	{
		Datum	   *elements;
		int			i;

		deconstruct_array(DatumGetArrayTypeP(values[COL_DOUBTS]), UUIDOID,
						  UUID_LEN, false, TYPALIGN_CHAR, &elements, NULL,
						  &message->ndoubts);
		message->doubts = palloc(sizeof(pg_uuid_t) *
								 Max(message->ndoubts, 1));
		for (i = 0; i < message->ndoubts; i++)
			message->doubts[i] = *DatumGetUUIDP(elements[i]);
	}
	if (!isnull[COL_QUEUED_BY])
		message->queued_by = DatumGetObjectId(values[COL_QUEUED_BY]);
	message->size += strlen(message->email) + 300;
	MemoryContextSwitchTo(old);

#undef TEXT
}

/*
 * Append the rows of a query to a batch, through a cursor, until "limit" were
 * read or they have "max_size" bytes.
 *
 * passed_over: whether a message is to be left out, by its id and "arg", or
 *				NULL; such ones count neither for the limit nor for the size
 * position:	becomes that of the last row that was looked at, or NULL
 *
 * Returns whether there are no more.
 */
static bool
read_messages(PmBatch *batch, PmStatement *query, Datum *values,
			  PmPassedOver passed_over, void *arg,
			  PmDeferredPosition *position, int limit, Size max_size)
{
	Portal		portal;
	int			want = Min(limit, FIRST_FETCH);
	int			nread = 0;
	Size		size = 0;
	bool		exhausted = false;

	portal = SPI_cursor_open(NULL, pm_plan(query), values, NULL, false);
	while (nread < limit && size < max_size && !exhausted)
	{
		TupleDesc	desc;
		uint64		i;

		if (nread > 0)
			want = Min(limit - nread,
					   Max((max_size - size) / Max(size / nread, 1), 1));
		SPI_cursor_fetch(portal, true, want);
		desc = SPI_tuptable->tupdesc;
		for (i = 0; i < SPI_processed && size < max_size; i++)
		{
			HeapTuple	row = SPI_tuptable->vals[i];
			PmMessage  *message = &batch->messages[batch->nmessages];
			int64		id = int8_column(row, desc, COL_ID + 1);

			if (position)
			{
				position->due_at = time_column(row, desc, COL_DUE_AT + 1);
				position->id = id;
			}
			if (passed_over && passed_over(id, arg))
				continue;
			read_message(batch, message, row, desc);
			batch->nmessages++;
			size += message->size;
			nread++;
		}
		exhausted = (SPI_processed < want && i == SPI_processed);
		SPI_freetuptable(SPI_tuptable);

		/* Where all were left out there may be many of them */
		if (nread == 0)
			want = Min(limit, want * 2);
	}
	SPI_cursor_close(portal);
	return exhausted;
}

/*
 * Append messages of the batch's lane with above < id <= upto to it, in the
 * order of their ids: at most "limit", and no more once they have "max_size"
 * bytes.  Returns whether there are no more of them.
 */
bool
pm_queue_read(PmBatch *batch, int64 above, int64 upto, int limit,
			  Size max_size)
{
	Datum		values[4];

	at_table = PM_QUEUE;
	values[0] = Int32GetDatum(batch->lane);
	values[1] = Int64GetDatum(above);
	values[2] = Int64GetDatum(upto);
	values[3] = Int64GetDatum(limit);
	return read_messages(batch, &read_queue, values, NULL, NULL, NULL, limit,
						 max_size);
}

/*
 * The same for deferred messages of the lane that were due at "due", in that
 * order, from behind "position" on, which is moved: for those that were in
 * doubt, or for the others, as "doubtful" says.  Those that "passed_over" is
 * true of are left out.
 */
bool
pm_deferred_read(PmBatch *batch, bool doubtful, TimestampTz due,
				 PmDeferredPosition *position,
				 PmPassedOver passed_over, void *arg, int limit, Size max_size)
{
	Datum		values[6];

	at_table = PM_DEFERRED;
	values[0] = Int32GetDatum(batch->lane);
	values[1] = TimestampTzGetDatum(due);
	values[2] = TimestampTzGetDatum(position->due_at);
	values[3] = Int64GetDatum(position->id);
	values[4] = Int64GetDatum(PG_INT64_MAX);
	values[5] = BoolGetDatum(doubtful);
	return read_messages(batch, &read_deferred, values, passed_over, arg,
						 position, limit, max_size);
}

static Datum
int8_array(const int64 *ids, int nids)
{
	Datum	   *elements = palloc(sizeof(Datum) * Max(nids, 1));
	int			i;

	for (i = 0; i < nids; i++)
		elements[i] = Int64GetDatum(ids[i]);
	return PointerGetDatum(construct_array(elements, nids, INT8OID,
										   sizeof(int64), FLOAT8PASSBYVAL,
										   TYPALIGN_DOUBLE));
}

/*
 * Append those of the messages "ids" to the batch that are still there.  It
 * must have room for them.
 */
void
pm_queue_read_ids(PmBatch *batch, const int64 *ids, int nids)
{
	Datum		values[2];

	at_table = batch->deferred ? PM_DEFERRED : PM_QUEUE;
	values[0] = Int32GetDatum(batch->lane);
	values[1] = int8_array(ids, nids);
	read_messages(batch, batch->deferred ? &read_deferred_ids : &read_queue_ids,
				  values, NULL, NULL, NULL, nids, MaxAllocSize);
}

/* Of pointers to item pointers */
static Datum
tid_array(Datum *tids, int ntids)
{
	return PointerGetDatum(construct_array(tids, ntids, TIDOID,
										   sizeof(ItemPointerData), false,
										   TYPALIGN_SHORT));
}

/*
 * What postmark_cancel locks, in ShareLock, until its transaction ends.  In
 * pg_locks it is an object that belongs to postmark_intents.
 */
void
pm_cancel_locktag(LOCKTAG *tag)
{
	SET_LOCKTAG_OBJECT(*tag, MyDatabaseId, RelationRelationId,
					   pm_object(PM_INTENTS), 1);
}

/*
 * Keep postmark_cancel out until the end of the transaction, unless it is at
 * work already.  To be called before the messages are read.
 *
 * To lock every row costs time with each message, and hardly ever does anybody
 * cancel at just that moment.  So there is one lock for all that cancel, which
 * they share; if we have it instead, nobody can cancel what we read, and only
 * rows that somebody else has locked are looked at one by one.
 */
void
pm_queue_keep_out_cancels(void)
{
	LOCKTAG		tag;

	pm_cancel_locktag(&tag);
	(void) LockAcquire(&tag, ExclusiveLock, false, true);
}

/* Whether that has been done in this transaction, and was had. */
static bool
cancels_kept_out(void)
{
	LOCKTAG		tag;

	pm_cancel_locktag(&tag);
	return LockHeldByMe(&tag, ExclusiveLock, false);
}

/*
 * See that the messages from "first" on cannot be cancelled until the end of
 * the transaction, and set "locked" of those: the others are being deleted, or
 * are gone.
 */
void
pm_queue_lock(PmBatch *batch, int first)
{
	PmStatement *query = batch->deferred ? &lock_deferred : &lock_queue;
	bool		kept_out = cancels_kept_out();
	int			n = 0;
	Datum	   *tids;
	Datum		values[1];
	int			expected = first;
	uint64		row;
	int			i;

	tids = palloc(sizeof(Datum) * Max(batch->nmessages - first, 1));
	for (i = first; i < batch->nmessages; i++)
	{
		PmMessage  *m = &batch->messages[i];

		m->locked = kept_out && !m->touched;
		if (!m->locked)
			tids[n++] = PointerGetDatum(&m->tid);
	}
	if (n == 0)
		return;

	values[0] = tid_array(tids, n);
	pm_execute(query, values, NULL, 0);
	for (row = 0; row < SPI_processed; row++)
	{
		int64		id = int8_column(SPI_tuptable->vals[row],
									 SPI_tuptable->tupdesc, 1);

		/* They mostly come in the order that we have them in */
		for (i = expected; i < batch->nmessages; i++)
			if (batch->messages[i].id == id)
				break;
		if (i == batch->nmessages)
			for (i = first; i < batch->nmessages; i++)
				if (batch->messages[i].id == id)
					break;
		if (i == batch->nmessages)
			continue;
		batch->messages[i].locked = true;
		expected = i + 1;
	}
	SPI_freetuptable(SPI_tuptable);
}

static bool
next_lane(PmStatement *query, int32 from, int32 *lane)
{
	Datum		values[1];
	bool		isnull;

	values[0] = Int32GetDatum(from);
	pm_execute(query, values, NULL, 1);
	if (SPI_processed == 0)
		return false;
	*lane = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[0],
										SPI_tuptable->tupdesc, 1, &isnull));
	return true;
}

/* The first lane from "from" on that has messages in the hot table. */
bool
pm_next_queue_lane(int32 from, int32 *lane)
{
	return next_lane(&next_queue_lane, from, lane);
}

/* The first lane from "from" on that has deferred messages. */
bool
pm_next_deferred_lane(int32 from, int32 *lane)
{
	return next_lane(&next_deferred_lane, from, lane);
}

/*
 * When a lane's next deferred message is due, later than "after": of those that
 * were in doubt, or of the others.
 */
bool
pm_deferred_due(int32 lane, bool doubtful, TimestampTz after, TimestampTz *due)
{
	Datum		values[3];

	at_table = PM_DEFERRED;
	values[0] = Int32GetDatum(lane);
	values[1] = TimestampTzGetDatum(after);
	values[2] = BoolGetDatum(doubtful);
	pm_execute(&deferred_due, values, NULL, 1);
	if (SPI_processed == 0)
		return false;
	*due = time_column(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	return true;
}

/*
 * Look at the next "limit" messages of a lane that does not flow, in the hot
 * table or the deferred one, as batch->deferred says, from behind "position"
 * on, which is moved.  Those that have expired are appended to the batch, which
 * must have room for them; *next becomes the earliest expiry of the others, if
 * that is earlier.  Returns how many there were.
 */
int
pm_queue_expired(PmBatch *batch, PmDeferredPosition *position, int limit,
				 TimestampTz *next)
{
	TimestampTz now = GetCurrentTimestamp();
	int64	   *ids = palloc(sizeof(int64) * limit);
	int			nids = 0;
	Datum		values[4];
	int			nread;
	int			i;

	at_table = batch->deferred ? PM_DEFERRED : PM_QUEUE;
	values[0] = Int32GetDatum(batch->lane);
	values[1] = TimestampTzGetDatum(position->due_at);
	values[2] = Int64GetDatum(position->id);
	values[3] = Int64GetDatum(limit);
	pm_execute(batch->deferred ? &walk_deferred : &walk_queue, values, NULL, 0);
	nread = (int) SPI_processed;
	for (i = 0; i < nread; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		TimestampTz expires_at = time_column(row, desc, 2);

		position->id = int8_column(row, desc, 1);
		position->due_at = time_column(row, desc, 3);
		if (expires_at <= now)
			ids[nids++] = position->id;
		else
			*next = Min(*next, expires_at);
	}
	SPI_freetuptable(SPI_tuptable);
	if (nids > 0)
		pm_queue_read_ids(batch, ids, nids);
	pfree(ids);
	return nread;
}

/*
 * The lowest id of a message in the hot table that no transaction before "xid"
 * has queued.  False: there is none.
 */
bool
pm_queue_first_since(TransactionId xid, int64 *first)
{
	int32		lane;
	int32		from;
	bool		found = false;

	for (from = 0; pm_next_queue_lane(from, &lane); from = lane + 1)
	{
		Datum		values[1];
		Portal		portal;
		bool		older = false;

		values[0] = Int32GetDatum(lane);
		at_table = PM_QUEUE;
		portal = SPI_cursor_open(NULL, pm_plan(&newest_first), values, NULL,
								 false);
		while (!older)
		{
			uint64		i;

			SPI_cursor_fetch(portal, true, FIRST_FETCH);
			if (SPI_processed == 0)
				break;
			for (i = 0; i < SPI_processed && !older; i++)
			{
				HeapTuple	row = SPI_tuptable->vals[i];
				TupleDesc	desc = SPI_tuptable->tupdesc;
				int64		id = int8_column(row, desc, 1);
				bool		isnull;
				TransactionId by =
					DatumGetTransactionId(SPI_getbinval(row, desc, 2, &isnull));

				older = TransactionIdPrecedes(by, xid);
				if (!older && (!found || id < *first))
				{
					*first = id;
					found = true;
				}
			}
			SPI_freetuptable(SPI_tuptable);
		}
		SPI_cursor_close(portal);
	}
	return found;
}

/*
 * Of the unsent messages of these lanes with ids up to "upto": when the oldest was
 * made (DT_NOEND: there is none), and the first time after "now" at which one
 * expires (DT_NOEND: none does).
 */
void
pm_unsent_upto(int32 first_lane, int32 last_lane, int64 upto, TimestampTz now,
			   TimestampTz *oldest, TimestampTz *expiry)
{
	Datum		values[4];
	bool		isnull;
	Datum		value;

	values[0] = Int32GetDatum(first_lane);
	values[1] = Int32GetDatum(last_lane);
	values[2] = Int64GetDatum(upto);
	values[3] = TimestampTzGetDatum(now);
	at_table = PM_QUEUE;
	pm_execute(&unsent_upto, values, NULL, 1);
	value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1,
						  &isnull);
	*oldest = isnull ? DT_NOEND : DatumGetTimestampTz(value);
	value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2,
						  &isnull);
	*expiry = isnull ? DT_NOEND : DatumGetTimestampTz(value);
}

/*
 * Append messages of the batch's lane with ids up to "upto" that expire by
 * "until" to it, at most "limit", those first that expire first.  Those that
 * "passed_over" is true of are left out.
 */
void
pm_unsent_read(PmBatch *batch, int64 upto, TimestampTz until,
			   PmPassedOver passed_over, void *arg, int limit)
{
	Datum		values[4];

	values[0] = Int32GetDatum(batch->lane);
	values[1] = Int64GetDatum(upto);
	values[2] = TimestampTzGetDatum(until);
	values[3] = Int64GetDatum(PG_INT64_MAX);
	at_table = batch->deferred ? PM_DEFERRED : PM_QUEUE;
	read_messages(batch,
				  batch->deferred ? &inherited_deferred : &inherited_queue,
				  values, passed_over, arg, NULL, limit, MaxAllocSize);
}

/* All intents there are, in the current SPI procedure's upper context. */
int
pm_read_intents(PmIntent **intents)
{
	int			n;
	int			i;

	at_table = PM_INTENTS;
	pm_execute(&read_intents, NULL, NULL, 0);
	n = (int) SPI_processed;
	*intents = SPI_palloc(sizeof(PmIntent) * Max(n, 1));
	for (i = 0; i < n; i++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		PmIntent   *intent = &(*intents)[i];
		bool		isnull;
		ArrayType  *array;
		Datum	   *elements;
		int			j;

		intent->uuid = *DatumGetUUIDP(SPI_getbinval(tuple, desc, 1, &isnull));
		intent->lane = DatumGetInt32(SPI_getbinval(tuple, desc, 2, &isnull));
		intent->deferred = DatumGetBool(SPI_getbinval(tuple, desc, 3, &isnull));
		intent->created_at = time_column(tuple, desc, 4);
		array = DatumGetArrayTypeP(SPI_getbinval(tuple, desc, 5, &isnull));
		deconstruct_array(array, INT8OID, sizeof(int64), FLOAT8PASSBYVAL,
						  TYPALIGN_DOUBLE, &elements, NULL, &intent->nids);
		intent->ids = SPI_palloc(sizeof(int64) * Max(intent->nids, 1));
		for (j = 0; j < intent->nids; j++)
			intent->ids[j] = DatumGetInt64(elements[j]);
	}
	SPI_freetuptable(SPI_tuptable);
	return n;
}

/* The ids of the messages whose disposal is "disposal", or of all. */
static Datum
disposal_ids(const PmBatch *batch, PmDisposal disposal, bool all, int *n)
{
	int64	   *ids = palloc(sizeof(int64) * Max(batch->nmessages, 1));
	int			i;

	*n = 0;
	for (i = 0; i < batch->nmessages; i++)
		if (all || batch->messages[i].disposal == disposal)
			ids[(*n)++] = batch->messages[i].id;
	return int8_array(ids, *n);
}

/* Write down that the batch is about to be sent. */
void
pm_intent_insert(PmBatch *batch)
{
	Datum		values[5];
	int			n;

	at_table = PM_INTENTS;
	values[0] = UUIDPGetDatum(&batch->uuid);
	values[1] = Int32GetDatum(batch->lane);
	values[2] = BoolGetDatum(batch->deferred);
	values[3] = TimestampTzGetDatum(batch->created_at);
	values[4] = disposal_ids(batch, PM_KEEP, true, &n);
	pm_execute(&insert_intent, values, NULL, 0);
}

static Datum
uuid_array(const pg_uuid_t *uuids, int nuuids)
{
	Datum	   *elements = palloc(sizeof(Datum) * Max(nuuids, 1));
	int			i;

	for (i = 0; i < nuuids; i++)
		elements[i] = UUIDPGetDatum(&uuids[i]);
	return PointerGetDatum(construct_array(elements, nuuids, UUIDOID, UUID_LEN,
										   false, TYPALIGN_CHAR));
}

/*
 * Write down that the batch, which has an intent, is about to be sent at
 * batch->created_at only.  Returns false if the intent was there no more.
 */
bool
pm_intent_renew(const PmBatch *batch)
{
	Datum		values[2];

	values[0] = UUIDPGetDatum(&batch->uuid);
	values[1] = TimestampTzGetDatum(batch->created_at);
	at_table = PM_INTENTS;
	pm_execute(&renew_intent, values, NULL, 0);
	return SPI_processed == 1;
}

/*
 * Put a message, complete and checked, into postmark_deferred, to be sent at
 * "due".  For the worker and for sessions.
 */
void
pm_deferred_store(const PmMessage *m, int32 lane, TimestampTz due)
{
	Datum		values[17];
	char		nulls[18] = "                 ";

	at_table = PM_DEFERRED;
	values[0] = Int64GetDatum(m->id);
	values[1] = Int32GetDatum(lane);
	values[2] = TimestampTzGetDatum(due);
	values[3] = TimestampTzGetDatum(m->created_at);
	values[4] = TimestampTzGetDatum(m->expires_at);
	values[5] = CStringGetTextDatum(m->email);
	values[6] = CStringGetTextDatum(m->usage_type);
	PM_NULLABLE_TEXT(values, nulls, 7, m->code);
	PM_NULLABLE(values, nulls, 8, m->payload == NULL,
				JsonbPGetDatum(m->payload));
	PM_NULLABLE_TEXT(values, nulls, 9, m->locale);
	values[10] = CStringGetTextDatum(m->connector);
	values[11] = Int32GetDatum(m->attempts);
	PM_NULLABLE(values, nulls, 12, m->error_code <= 0,
				Int32GetDatum(m->error_code));
	PM_NULLABLE_TEXT(values, nulls, 13, m->last_error);
	PM_NULLABLE(values, nulls, 14, !m->no_track, BoolGetDatum(true));
	PM_NULLABLE(values, nulls, 15, m->ndoubts == 0,
				uuid_array(m->doubts, m->ndoubts));
	PM_NULLABLE(values, nulls, 16, !OidIsValid(m->queued_by),
				ObjectIdGetDatum(m->queued_by));
	pm_execute(&insert_deferred, values, nulls, 0);
}

/*
 * Delete what was finished or deferred from the table that it is in.
 *
 * Rows of the hot table are never updated, so they are where they were read,
 * which is found faster than their ids.  Only if somebody deleted one, or moved
 * them all (VACUUM FULL), is the index asked.  A place that has become another
 * message's is an error; the batch is then stored with care.
 */
static void
delete_gone(PmBatch *batch, bool careful)
{
	int64	   *ids = palloc(sizeof(int64) * batch->nmessages);
	Datum	   *tids = palloc(sizeof(Datum) * batch->nmessages);
	Datum		values[2];
	int			n = 0;
	int			i;

	at_table = batch->deferred ? PM_DEFERRED : PM_QUEUE;
	for (i = 0; i < batch->nmessages; i++)
	{
		PmMessage  *m = &batch->messages[i];

		if (m->disposal != PM_FINISH && m->disposal != PM_DEFER)
			continue;
		tids[n] = PointerGetDatum(&m->tid);
		ids[n++] = m->id;
	}

	if (!batch->deferred && !careful)
	{
		int			expected = 0;
		uint64		row;

		values[0] = tid_array(tids, n);
		pm_execute(&delete_queue_tids, values, NULL, 0);
		for (row = 0; row < SPI_processed; row++)
		{
			int64		id = int8_column(SPI_tuptable->vals[row],
										 SPI_tuptable->tupdesc, 1);

			/* They mostly come in the order that we have them in */
			if (expected == n || ids[expected] != id)
				for (expected = 0; expected < n; expected++)
					if (ids[expected] == id)
						break;
			if (expected == n)
				ereport(ERROR,
						(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						 errmsg("a queued message has another one's place")));
			expected++;
		}
		SPI_freetuptable(SPI_tuptable);
		if (row == n)
			return;
	}
	values[0] = Int32GetDatum(batch->lane);
	values[1] = int8_array(ids, n);
	if (batch->deferred)
		pm_execute(&delete_deferred, &values[1], NULL, 0);
	else
		pm_execute(&delete_queue, values, NULL, 0);
}

/*
 * Store what became of a batch's messages: the finished ones go to the
 * history, the deferred ones to postmark_deferred, and the intent shrinks to
 * those that are still in doubt, or goes.
 *
 * now:     the time of finishing
 * careful: as for pm_history_insert
 *
 * Returns false, having written nothing, if the intent was there no more:
 * then somebody else has settled the batch.
 */
bool
pm_batch_store(PmBatch *batch, TimestampTz now, bool careful)
{
	Datum		values[2];
	int			ngone = 0;
	int			nfinished = 0;
	int			i;

	if (batch->has_intent)
	{
		int			nkept;
		Datum		kept = disposal_ids(batch, PM_KEEP, false, &nkept);

		at_table = PM_INTENTS;
		values[0] = UUIDPGetDatum(&batch->uuid);
		values[1] = kept;
		pm_execute(nkept > 0 ? &update_intent : &delete_intent, values, NULL, 0);
		if (SPI_processed != 1)
			return false;
	}

	for (i = 0; i < batch->nmessages; i++)
	{
		PmMessage  *m = &batch->messages[i];

		if (m->disposal == PM_FINISH || m->disposal == PM_DEFER)
			ngone++;
		if (m->disposal == PM_FINISH)
			nfinished++;
	}
	if (ngone == 0)
		return true;

	delete_gone(batch, careful);
	at_table = PM_HISTORY;
	if (nfinished > 0)
	{
		pm_history_insert(batch, now, careful);
		at_table = PM_CAPTURES;
		pm_captures_insert(batch, now);
	}
	for (i = 0; i < batch->nmessages; i++)
		if (batch->messages[i].disposal == PM_DEFER)
			pm_deferred_store(&batch->messages[i], batch->lane,
							  Min(batch->messages[i].retry_at,
								  batch->messages[i].expires_at));
	pm_stats_note(PM_LANE_CONNECTOR(batch->lane), batch->messages[0].connector,
				  PM_COUNT_RETRIED, ngone - nfinished);
	return true;
}

/* Show that a connector is in trouble, or no more (state NULL). */
void
pm_trouble_store(const char *connector, const char *state, const char *detail,
				 const char *hint)
{
	Datum		values[4];
	char		nulls[5] = "    ";

	at_table = PM_TROUBLE;
	values[0] = CStringGetTextDatum(connector);
	pm_execute(&clear_trouble, values, NULL, 0);
	if (state == NULL)
		return;
	values[1] = CStringGetTextDatum(state);
	values[2] = CStringGetTextDatum(detail ? detail : "");
	PM_NULLABLE_TEXT(values, nulls, 3, hint);
	pm_execute(&insert_trouble, values, nulls, 0);
}

/* Forget the troubles that an earlier worker wrote down. */
void
pm_trouble_clear_all(void)
{
	pm_execute(&clear_all_trouble, NULL, NULL, 0);
}

/* Messages that lacked a template are due: the settings have changed. */
void
pm_deferred_retry_templates(void)
{
	at_table = PM_DEFERRED;
	pm_execute(&retry_templates, NULL, NULL, 0);
}

/*
 * The clock was set back: what is to be tried again is due as much earlier.
 * What somebody put off by send_after is the wall clock's.
 *
 * by:	   how much, us
 * beyond: where it is due later than this, us from now
 */
void
pm_deferred_take_back(int64 by, int64 beyond)
{
	Interval	intervals[2] = {{by, 0, 0}, {beyond, 0, 0}};
	Datum		values[2];

	at_table = PM_DEFERRED;
	values[0] = IntervalPGetDatum(&intervals[0]);
	values[1] = IntervalPGetDatum(&intervals[1]);
	pm_execute(&take_back_retries, values, NULL, 0);
}

/* The database and timeline (0: none) that the queue belongs to. */
void
pm_instance_read(Oid *database, int *timeline)
{
	bool		isnull;

	*database = InvalidOid;
	*timeline = 0;
	pm_execute(&read_instance, NULL, NULL, 1);
	if (SPI_processed == 0)
		return;
	*database = DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[0],
											   SPI_tuptable->tupdesc, 1,
											   &isnull));
	*timeline = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[0],
											SPI_tuptable->tupdesc, 2, &isnull));
	if (isnull)
		*timeline = 0;
}

/* Write down the timeline on which the worker runs. */
void
pm_instance_set_timeline(int timeline)
{
	Datum		values[1];

	values[0] = Int32GetDatum(timeline);
	pm_execute(&set_timeline, values, NULL, 0);
}
