/*-------------------------------------------------------------------------
 *
 * enqueue.c
 *		Putting messages into the queue: postmark_enqueue, the trigger for a
 *		signup table, and the row trigger of the queue itself.
 *
 * A message is checked and completed in one place, the row trigger of
 * postmark_queue, so that a plain INSERT, a bulk load and COPY behave like
 * postmark_enqueue.  The trigger runs with the rights of whoever inserts: it
 * needs none, since settings are read from a cache and the sequence is
 * advanced from C.
 *
 * src/queue/enqueue.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "replication/logicalworker.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "base/args.h"
#include "base/catalog.h"
#include "base/errors.h"
#include "base/tables.h"
#include "base/times.h"
#include "queue/batch.h"
#include "queue/dedup.h"
#include "queue/enqueue.h"
#include "queue/message_check.h"
#include "queue/message_id.h"
#include "queue/origin.h"
#include "queue/queue_session.h"
#include "queue/row_insert.h"
#include "queue/trigger_row.h"
#include "settings/config_store.h"
#include "settings/connector.h"
#include "settings/connector_token.h"
#include "settings/guc.h"
#include "shared/slots.h"
#include "shared/stats.h"
#include "shared/wake.h"

/* Columns of postmark_queue */
enum
{
	PM_QUEUE_COLUMNS(PM_COLUMN_ENUM)
};

/* Default time to live, seconds */
#define EXPIRES_WITH_CODE		600
#define EXPIRES_WITHOUT_CODE	86400

PM_HIDDEN_FUNCTION(postmark_queue_row);
PM_HIDDEN_FUNCTION(postmark_enqueue);
PM_HIDDEN_FUNCTION(postmark_enqueue_trigger);

static bool is_copy = false;	/* the queue is another database's */

/* To be called before an id is taken, and before settings are looked up. */
static void
begin_queueing(void)
{
	static bool begun = false;

	if (begun)
		return;
	is_copy = !pm_begin_queue();
	begun = true;
}

/*
 * Say once a session what keeps queued messages from being sent.  A worker
 * that has not started yet is no reason.
 */
static void
warn_if_stuck(const PmConnector *connector)
{
	static bool warned = false;
	PmShared   *shared = pm_shared();

	if (warned)
		return;

	if (shared == NULL)
	{
		warned = true;
		ereport(WARNING,
				(errmsg("messages are queued but not sent: postmark_connector is not preloaded"),
				 errhint("Add postmark_connector to shared_preload_libraries and restart the server."),
				 errhidestmt(true)));
	}
	else if (is_copy)
	{
		warned = true;
		ereport(WARNING,
				(errmsg("messages are queued but not sent: this database is a copy of another one"),
				 errhint("Use postmark_resume if they are this database's to send."),
				 errhidestmt(true)));
	}
	else if (!pm_worker_enabled || pm_no_process_left())
	{
		if (pm_worker_pid(MyDatabaseId) != 0)
			return;
		warned = true;
		ereport(WARNING,
				(errmsg("messages are queued but not sent: this database has no worker"),
				 pm_worker_enabled
				 ? errhint("Raise max_worker_processes and restart the server.")
				 : errhint("Set postmark_connector.worker to on."),
				 errhidestmt(true)));
	}
	else if (!connector->captures)
	{
		char	   *token = pm_connector_token(connector, true);

		if (token == NULL)
		{
			warned = true;
			ereport(WARNING,
					(errmsg("messages are queued but not sent: connector \"%s\" has no server token",
							connector->name),
					 errhint("Use postmark_set_token."),
					 errhidestmt(true)));
		}
		else
			pm_forget_token(token);
	}
}

/* When a message expires that says nothing of it. */
static TimestampTz
default_expiry(TimestampTz from, const PmTemplate *template, bool has_code)
{
	int			seconds = template->expires_in;

	if (seconds == 0)
		seconds = has_code ? EXPIRES_WITH_CODE : EXPIRES_WITHOUT_CODE;
	return TimestampTzPlusMilliseconds(from, (int64) seconds * 1000);
}

/*
 * Check a point in time that is to be within the days to come that a message
 * may live, or wait: PM003.
 *
 * nearer: what to do if it is later, as a hint
 */
static void
check_time(TimestampTz when, TimestampTz now, const char *name,
		   const char *nearer)
{
	static const Interval longest = {.day = PM_LIFE_DAYS};
	Datum		last;

	if (TIMESTAMP_NOT_FINITE(when))
		ereport(ERROR,
				(errcode(PM_ERRCODE_INVALID),
				 errmsg("%s must be finite", name),
				 errhint("Give a point in time, or NULL for the default."),
				 errhidestmt(true)));

	/* As the caller would add them: a day may have 25 hours */
	last = DirectFunctionCall2(timestamptz_pl_interval,
							   TimestampTzGetDatum(now),
							   IntervalPGetDatum(&longest));
	if (when > DatumGetTimestampTz(last))
		ereport(ERROR,
				(errcode(PM_ERRCODE_INVALID),
				 errmsg("%s is too far ahead", name),
				 errdetail("At most %d days are allowed.", PM_LIFE_DAYS),
				 errhint("%s", nearer),
				 errhidestmt(true)));
}

/* The end of a message's life: "from" and expires_in.  PM003 for none. */
static TimestampTz
add_expires_in(TimestampTz from, const Interval *expires_in)
{
	static const Interval longest = {.day = PM_LIFE_DAYS};
	static const Interval none = {0};
	TimestampTz end = from;

	/* Compared before it is added: the sum might be no time at all */
	if (pm_interval_compare(expires_in, &longest) > 0)
		ereport(ERROR,
				(errcode(PM_ERRCODE_INVALID),
				 errmsg("expires_in is too long"),
				 errdetail("At most %d days are allowed.", PM_LIFE_DAYS),
				 errhint("Give an interval such as '10 minutes', or NULL for the template's."),
				 errhidestmt(true)));
	if (pm_interval_compare(expires_in, &none) > 0)
		end = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
													  TimestampTzGetDatum(from),
													  IntervalPGetDatum(expires_in)));
	if (end <= from)
		ereport(ERROR,
				(errcode(PM_ERRCODE_INVALID),
				 errmsg("expires_in must be positive"),
				 errhint("Give an interval such as '10 minutes', or NULL for the template's."),
				 errhidestmt(true)));
	return end;
}

static char *
text_or_null(Datum value, bool isnull)
{
	return isnull ? NULL : TextDatumGetCString(value);
}

/*
 * Give a message its id; false, and another one's, if that holds its key.  May
 * read settings anew, as pm_connectors does.
 */
static bool
give_id(PmMessage *m)
{
	m->id = pm_next_message_id();
	if (m->dedup_key == NULL || pm_dedup_claim(m))
		return true;
	pm_set_session_message_id(m->id);
	return false;
}

/*
 * Check a message that is to be sent now, give it what it lacks, and note it
 * for the worker.
 *
 * m:		   email, usage_type, code, payload, locale, connector (NULL: the
 *			   default one), dedup_key, expires_at and queued_by (InvalidOid:
 *			   whoever runs this); gets id, created_at, connector, expires_at,
 *			   queued_by
 * role:	   who uses the connector
 * has_expiry: whether it has an expires_at
 * lane:	   becomes its lane
 *
 * False if another message holds its key: then it gets that one's id, and is
 * not to be queued.
 */
static bool
admit(PmMessage *m, Oid role, bool has_expiry, int32 *lane)
{
	static bool checked_stuck = false;
	const PmConnector *connector;
	const PmTemplate *template;
	int			number;

	pm_check_message(m);
	begin_queueing();
	if (m->connector == NULL)
		m->connector = PM_DEFAULT_CONNECTOR;
	connector = pm_use_connector(m->connector, role);
	template = pm_require_template(connector, m->usage_type, m->locale);

	if (!OidIsValid(m->queued_by))
		m->queued_by = GetUserId();
	m->created_at = GetCurrentTimestamp();
	if (!has_expiry)
		m->expires_at = default_expiry(m->created_at, template,
									   m->code != NULL);
	else
		check_time(m->expires_at, m->created_at, "expires_at",
				   "Give an earlier point in time, or NULL for the template's.");

	if (!checked_stuck)
	{
		checked_stuck = true;
		warn_if_stuck(connector);
	}
	number = connector->number;
	*lane = PM_LANE(number, template->priority);
	if (!give_id(m))
		return false;
	pm_note_message(*lane, m->id);
	pm_stats_note(number, m->connector, PM_COUNT_QUEUED, 1);
	return true;
}

/*
 * Look at what somebody demands of the table's rows.  The server does so again,
 * and would show one that fails, code and all, together with the statement.
 */
static void
check_constraints(Relation queue, HeapTuple row, const bool *nulls)
{
	TupleDesc	desc = RelationGetDescr(queue);
	bool		demanded = desc->constr && desc->constr->num_check > 0;
	EState	   *estate;
	ResultRelInfo *target;
	TupleTableSlot *slot;
	int			i;

	for (i = 0; i < desc->natts && !demanded; i++)
		demanded = nulls[i] && TupleDescAttr(desc, i)->attnotnull;

	/* A generated column has its value later than a trigger */
	if (!demanded || desc->constr->has_generated_stored)
		return;
	estate = CreateExecutorState();
	target = makeNode(ResultRelInfo);
	InitResultRelInfo(target, queue, 0, NULL, 0);
	slot = MakeSingleTupleTableSlot(desc, &TTSOpsHeapTuple);
	ExecStoreHeapTuple(row, slot, false);
	ExecConstraints(target, slot, estate);
	ExecDropSingleTupleTableSlot(slot);
	FreeExecutorState(estate);
}

/*
 * Row trigger of postmark_queue: checks a message, gives it id, lane and times,
 * and notes it for the worker.  Keeps out one whose key another message holds.
 */
static Datum
postmark_queue_row_hidden(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	TupleDesc	desc;
	Datum	   *values;
	bool	   *nulls;
	PmMessage	m;
	bool		knows_role;
	int32		lane;
	HeapTuple	result;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_BEFORE(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigger->tg_event) ||
		RelationGetRelid(trigger->tg_relation) != pm_object(PM_QUEUE))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("postmark_queue_row is the row trigger of postmark_queue only"),
				 errhint("Use postmark_enqueue_trigger on tables of your own.")));

	/* What another server queued, that server sends. */
	if (IsLogicalWorker())
		return PointerGetDatum(NULL);
	if (!TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("queued messages cannot be changed"),
				 errhint("Use postmark_cancel and queue another message.")));

	pm_check_table(PM_QUEUE);
	desc = RelationGetDescr(trigger->tg_relation);
	values = palloc(sizeof(Datum) * desc->natts);
	nulls = palloc(sizeof(bool) * desc->natts);
	heap_deform_tuple(trigger->tg_trigtuple, desc, values, nulls);

	memset(&m, 0, sizeof(m));
	m.email = text_or_null(values[COL_EMAIL], nulls[COL_EMAIL]);
	m.usage_type = text_or_null(values[COL_USAGE_TYPE], nulls[COL_USAGE_TYPE]);
	m.code = text_or_null(values[COL_CODE], nulls[COL_CODE]);
	m.payload = nulls[COL_PAYLOAD] ? NULL : DatumGetJsonbP(values[COL_PAYLOAD]);
	m.locale = text_or_null(values[COL_LOCALE], nulls[COL_LOCALE]);
	m.connector = text_or_null(values[COL_CONNECTOR], nulls[COL_CONNECTOR]);
	m.expires_at = DatumGetTimestampTz(values[COL_EXPIRES_AT]);
	knows_role = pm_column_count(PM_QUEUE) > COL_QUEUED_BY;

	/* Nobody queues in another one's name but the owner: see pm_queue_insert */
	if (knows_role && !nulls[COL_QUEUED_BY] && GetUserId() == pm_owner())
		m.queued_by = DatumGetObjectId(values[COL_QUEUED_BY]);
	if (COL_DEDUP_KEY < pm_column_count(PM_QUEUE))
		m.dedup_key = text_or_null(values[COL_DEDUP_KEY], nulls[COL_DEDUP_KEY]);
	if (!admit(&m, GetUserId(), !nulls[COL_EXPIRES_AT], &lane))
		return PointerGetDatum(NULL);

	values[COL_LANE] = Int32GetDatum(lane);
	values[COL_ID] = Int64GetDatum(m.id);
	values[COL_CREATED_AT] = TimestampTzGetDatum(m.created_at);
	values[COL_EXPIRES_AT] = TimestampTzGetDatum(m.expires_at);
	if (nulls[COL_CONNECTOR])
		values[COL_CONNECTOR] = CStringGetTextDatum(m.connector);
	nulls[COL_LANE] = nulls[COL_ID] = nulls[COL_CREATED_AT] = false;
	nulls[COL_EXPIRES_AT] = nulls[COL_CONNECTOR] = false;
	nulls[COL_PAYLOAD] = (m.payload == NULL);
	nulls[COL_LOCALE] = (m.locale == NULL);
	if (knows_role)
	{
		values[COL_QUEUED_BY] = ObjectIdGetDatum(m.queued_by);
		nulls[COL_QUEUED_BY] = false;
	}
	result = heap_form_tuple(desc, values, nulls);
	check_constraints(trigger->tg_relation, result, nulls);

	return PointerGetDatum(result);
}

typedef struct Admitted
{
	const PmMessage *message;
	int32		lane;
	int			ncolumns;		/* of the table */
} Admitted;

/* The row of postmark_queue that the row trigger would make. */
static void
make_queue_row(void *arg, int i, Datum *values, bool *nulls)
{
	const Admitted *admitted = arg;
	const PmMessage *m = admitted->message;

	memset(nulls, false, admitted->ncolumns);
	values[COL_LANE] = Int32GetDatum(admitted->lane);
	values[COL_ID] = Int64GetDatum(m->id);
	values[COL_CREATED_AT] = TimestampTzGetDatum(m->created_at);
	values[COL_EXPIRES_AT] = TimestampTzGetDatum(m->expires_at);
	values[COL_EMAIL] = CStringGetTextDatum(m->email);
	values[COL_USAGE_TYPE] = CStringGetTextDatum(m->usage_type);
	if (m->code)
		values[COL_CODE] = CStringGetTextDatum(m->code);
	else
		nulls[COL_CODE] = true;
	values[COL_PAYLOAD] = JsonbPGetDatum(m->payload);
	nulls[COL_PAYLOAD] = (m->payload == NULL);
	if (m->locale)
		values[COL_LOCALE] = CStringGetTextDatum(m->locale);
	else
		nulls[COL_LOCALE] = true;
	values[COL_CONNECTOR] = CStringGetTextDatum(m->connector);
	values[COL_NO_TRACK] = BoolGetDatum(true);
	nulls[COL_NO_TRACK] = !m->no_track;
	if (admitted->ncolumns > COL_QUEUED_BY)
		values[COL_QUEUED_BY] = ObjectIdGetDatum(m->queued_by);
	if (admitted->ncolumns > COL_DEDUP_KEY)
	{
		nulls[COL_DEDUP_KEY] = (m->dedup_key == NULL);
		if (m->dedup_key)
			values[COL_DEDUP_KEY] = CStringGetTextDatum(m->dedup_key);
	}
}

/*
 * Queue a message to be sent now, as an INSERT into postmark_queue would.
 *
 * m: email, usage_type, code, payload, locale, connector, expires_at (0: the
 *	  template's), no_track, dedup_key; checked here
 * role: who uses the connector
 *
 * Returns the message's id, or that of the message that holds its key.
 */
int64
pm_enqueue(PmMessage *m, Oid role)
{
	Relation	queue;
	int			ncolumns;
	bool		plain;

	PreventCommandIfReadOnly("INSERT");
	PreventCommandIfParallelMode("INSERT");
	if (m->connector == NULL)
		m->connector = PM_DEFAULT_CONNECTOR;
	queue = table_open(pm_object(PM_QUEUE), RowExclusiveLock);
	pm_check_table(PM_QUEUE);
	ncolumns = pm_column_count(PM_QUEUE);
	plain = pm_insert_is_plain(queue, ncolumns, "postmark_queue_row") &&
		pm_indexes_are_plain(queue);
	if (plain)
	{
		Admitted	admitted;

		admitted.message = m;
		admitted.ncolumns = ncolumns;
		if (admit(m, role, m->expires_at != 0, &admitted.lane))
			pm_insert_rows(queue, 1, make_queue_row, &admitted);
	}
	table_close(queue, NoLock);
	if (!plain)
	{
		/* The row trigger then sees the owner */
		(void) pm_use_connector(m->connector, role);
		m->queued_by = GetUserId();
		m->id = pm_queue_insert(m);
	}
	return m->id;
}

/*
 * Queue a message, now or for later; what postmark_enqueue and the trigger of
 * a signup table share.
 *
 * m:          email, usage_type, code, payload, locale, connector, dedup_key;
 *			   checked here
 * role:	   who uses the connector
 * send_after: NULL, or when to send it
 * expires_in: NULL for the template's, or how long it is good for
 *
 * Returns the message's id, or that of the message that holds its key; 0 if it
 * is not queued (in an apply worker).
 */
static int64
enqueue(PmMessage *m, Oid role, const TimestampTz *send_after,
		const Interval *expires_in)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz from = now;
	const PmConnector *connector;
	const PmTemplate *template;
	int32		lane;

	/* A row that was replicated was mailed where it comes from. */
	if (IsLogicalWorker())
		return 0;

	if (send_after)
	{
		check_time(*send_after, now, "send_after",
				   "Queue the message when its time is nearer.");
		from = Max(now, *send_after);
	}
	if (expires_in)
		m->expires_at = add_expires_in(from, expires_in);

	if (from == now)
		return pm_enqueue(m, role);

	pm_check_message(m);
	begin_queueing();

	/* The lock that an INSERT takes, before postmark_remove can come between */
	LockRelationOid(pm_object(PM_DEFERRED), RowExclusiveLock);
	connector = pm_use_connector(m->connector ? m->connector :
								 PM_DEFAULT_CONNECTOR, role);
	template = pm_require_template(connector, m->usage_type, m->locale);
	m->connector = pstrdup(connector->name);
	m->queued_by = GetUserId();
	m->created_at = now;
	m->due_at = from;
	if (expires_in == NULL)
		m->expires_at = default_expiry(from, template, m->code != NULL);
	warn_if_stuck(connector);
	lane = PM_LANE(connector->number, template->priority);
	if (give_id(m))
		pm_deferred_insert(m, lane);
	return m->id;
}

/*
 * postmark_enqueue(email, usage_type, code, payload, locale, send_after,
 * expires_in, connector, dedup_key) returns bigint
 *
 * 1.0's has no dedup_key.
 */
static Datum
postmark_enqueue_hidden(PG_FUNCTION_ARGS)
{
	PmMessage	m;
	TimestampTz send_after = 0;
	int64		id;

	memset(&m, 0, sizeof(m));
	m.email = pm_text_arg(fcinfo, 0);
	m.usage_type = pm_text_arg(fcinfo, 1);
	m.code = pm_text_arg(fcinfo, 2);
	m.payload = pm_jsonb_arg(fcinfo, 3);
	m.locale = pm_text_arg(fcinfo, 4);
	if (!PG_ARGISNULL(5))
		send_after = PG_GETARG_TIMESTAMPTZ(5);
	m.connector = pm_text_arg(fcinfo, 7);
	if (PG_NARGS() > 8)
		m.dedup_key = pm_text_arg(fcinfo, 8);

	id = enqueue(&m, GetUserId(), PG_ARGISNULL(5) ? NULL : &send_after,
				 PG_ARGISNULL(6) ? NULL : PG_GETARG_INTERVAL_P(6));
	PG_RETURN_INT64(id);
}

/*
 * Trigger for a signup table: EXECUTE FUNCTION postmark_enqueue_trigger(email
 * column, usage type [, code column] [, name=value ...]) with the names code,
 * payload, locale, dedup_key (columns), connector, expires_in (values).
 */
static Datum
postmark_enqueue_trigger_hidden(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	HeapTuple	row;
	PmMessage	m;
	char	   *expires_in_text = NULL;
	Interval   *expires_in = NULL;
	PmTriggerArg known[] = {
		{"code", PM_TRIGGER_COLUMN, &m.code},
		{"payload", PM_TRIGGER_PAYLOAD, &m.payload},
		{"locale", PM_TRIGGER_COLUMN, &m.locale},
		{"dedup_key", PM_TRIGGER_COLUMN, &m.dedup_key},
		{"connector", PM_TRIGGER_VALUE, &m.connector},
		{"expires_in", PM_TRIGGER_VALUE, &expires_in_text}
	};
	char	  **args;
	int			from = 2;

	row = pm_trigger_row(fcinfo, "postmark_enqueue_trigger",
						 "Use EXECUTE FUNCTION postmark_enqueue_trigger('email column', 'usage type', 'code column').");
	args = trigger->tg_trigger->tgargs;

	memset(&m, 0, sizeof(m));
	m.email = pm_trigger_email(trigger, row);
	m.usage_type = args[1];
	if (m.email == NULL)
		return PointerGetDatum(row);
	if (trigger->tg_trigger->tgnargs > from && strchr(args[from], '=') == NULL)
		m.code = pm_trigger_column(trigger, row, args[from++]);
	pm_trigger_args(trigger, row, from, known, lengthof(known),
					"postmark_enqueue_trigger",
					"the code column, or ");
	if (expires_in_text)
		expires_in = DatumGetIntervalP(DirectFunctionCall3(interval_in,
														   CStringGetDatum(expires_in_text),
														   ObjectIdGetDatum(InvalidOid),
														   Int32GetDatum(-1)));

	enqueue(&m, pm_trigger_role(trigger), NULL, expires_in);
	return PointerGetDatum(row);
}
