/*-------------------------------------------------------------------------
 *
 * message_bulk.c
 *		postmark_cancel_all and postmark_requeue_all.
 *
 * What postmark_cancel promises for one message holds for each of these, too:
 * what counts as cancelled was unsent and never will be sent.  They are taken
 * out in steps, each in a subtransaction that is rolled back and tried again
 * if the worker had one of them first, so that no message that is on its way
 * stays locked.
 *
 * src/queue/message_bulk.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/args.h"
#include "base/owner.h"
#include "base/errors.h"
#include "base/subtransaction.h"
#include "queue/queue.h"
#include "queue/queue_session.h"
#include "settings/config_store.h"
#include "settings/connector.h"
#include "shared/stats.h"
#include "shared/wake.h"

/* Messages that one step takes out */
#define STEP 1000

PG_FUNCTION_INFO_V1(postmark_cancel_all);
PG_FUNCTION_INFO_V1(postmark_requeue_all);

/* Ids of a connector's messages that are on their way, as an array */
static PmStatement find_in_flight = {
	"SELECT coalesce(pg_catalog.array_agg(i.id), '{}') FROM (SELECT pg_catalog.unnest(ids) AS id"
	" FROM @.postmark_intents WHERE lane" PM_GE "$1 AND lane" PM_LE "$2) AS i",
	2, {INT4OID, INT4OID}
};

/* Of one usage type, or of all for an empty one */
#define CANDIDATES \
	" AND ($2" PM_EQ "usage_type OR $2" PM_EQ "'') AND id" PM_GT "$3" \
	" AND id" PM_NE "ALL ($4) ORDER BY id LIMIT $5"

static PmStatement next_queued = {
	"SELECT id FROM @.postmark_queue WHERE lane" PM_EQ "$1" CANDIDATES,
	5, {INT4OID, TEXTOID, INT8OID, INT8ARRAYOID, INT8OID}
};
static PmStatement next_deferred = {
	"SELECT id FROM @.postmark_deferred WHERE lane" PM_EQ "$1" CANDIDATES,
	5, {INT4OID, TEXTOID, INT8OID, INT8ARRAYOID, INT8OID}
};

#define TO_HISTORY(due_at, attempts) \
	" RETURNING id, connector, email, usage_type, locale, created_at, expires_at, " \
	due_at " AS due_at, " attempts " AS attempts, queued_by)" \
	" INSERT INTO @.postmark_history (id, connector, email, usage_type, locale," \
	" status, attempts, created_at, due_at, expires_at, finished_at, queued_by)" \
	" SELECT id, connector, email, usage_type, locale, 'cancelled', attempts," \
	" created_at, due_at, expires_at, pg_catalog.clock_timestamp(), queued_by" \
	" FROM gone"

static PmStatement cancel_queued = {
	"WITH gone AS (DELETE FROM @.postmark_queue WHERE lane" PM_EQ "$1"
	" AND id" PM_EQ "ANY ($2)" TO_HISTORY("created_at", "0"),
	2, {INT4OID, INT8ARRAYOID}
};
static PmStatement cancel_deferred = {
	"WITH gone AS (DELETE FROM @.postmark_deferred WHERE lane" PM_EQ "$1"
	" AND id" PM_EQ "ANY ($2)" TO_HISTORY("due_at", "attempts"),
	2, {INT4OID, INT8ARRAYOID}
};
static PmStatement any_in_flight = {
	"SELECT 1 FROM @.postmark_intents WHERE lane" PM_EQ "$1"
	" AND ids OPERATOR(pg_catalog.&&) $2",
	2, {INT4OID, INT8ARRAYOID}
};
static PmStatement find_failed = {
	"SELECT id FROM @.postmark_history WHERE connector" PM_EQ "$1"
	" AND finished_at" PM_GE "$2 AND status" PM_EQ "'failed'"
	" AND expires_at" PM_GT "pg_catalog.clock_timestamp() ORDER BY id",
	2, {TEXTOID, TIMESTAMPTZOID}
};

/* Where the messages of a lane are, and how they are taken out */
typedef struct Place
{
	PmStatement *next;
	PmStatement *cancel;
} Place;

static const Place places[] = {
	{&next_queued, &cancel_queued},
	{&next_deferred, &cancel_deferred},
};

/* Ids of SPI's result as an array, and the last of them; n is their number. */
static Datum
result_ids(int *n, int64 *last)
{
	Datum	   *ids = palloc(sizeof(Datum) * Max(SPI_processed, 1));
	bool		isnull;
	int			i;

	*n = (int) SPI_processed;
	for (i = 0; i < *n; i++)
		ids[i] = SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1,
							   &isnull);
	if (*n > 0)
		*last = DatumGetInt64(ids[*n - 1]);
	return PointerGetDatum(construct_array(ids, *n, INT8OID, sizeof(int64),
										   FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

/* Whether any of these is on its way, as of now. */
static bool
on_their_way(int32 lane, Datum ids)
{
	Datum		values[2];

	values[0] = Int32GetDatum(lane);
	values[1] = ids;
	pm_execute_now(&any_in_flight, values, true);
	return SPI_processed > 0;
}

/* The next messages of a lane that are to be cancelled */
typedef struct Step
{
	const Place *place;
	int32		lane;
	const char *usage_type;		/* NULL: any */
	int64		above;			/* with higher ids than that */
	int64		last;			/* the last one's that was looked at */
	int64		cancelled;		/* so many were */
	bool		more;			/* whether there may be others */
} Step;

/*
 * Cancel these messages; false if one of them has gone on its way.  With the
 * owner's rights.
 */
static bool
cancel_step(void *arg)
{
	Step	   *step = arg;
	Datum		values[5];
	Datum		cancel[2];
	bool		flew = false;
	bool		isnull;
	int			n;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");

	/* As of now, also where the transaction's snapshot is older */
	values[0] = Int32GetDatum(step->lane);
	values[1] = Int32GetDatum(step->lane);
	pm_execute_now(&find_in_flight, values, true);
	values[3] = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1,
							  &isnull);
	values[1] = CStringGetTextDatum(step->usage_type ? step->usage_type : "");
	values[2] = Int64GetDatum(step->above);
	values[4] = Int64GetDatum(STEP);
	pm_execute_now(step->place->next, values, true);
	cancel[0] = Int32GetDatum(step->lane);
	step->last = step->above;
	step->cancelled = 0;
	cancel[1] = result_ids(&n, &step->last);
	step->more = n > 0;
	if (n > 0)
	{
		pm_execute_now(step->place->cancel, cancel, false);
		step->cancelled = (int64) SPI_processed;
		flew = on_their_way(step->lane, cancel[1]);
	}
	SPI_finish();
	return !flew;
}

/*
 * postmark_cancel_all(connector, usage_type) returns bigint
 *
 * Cancels what is unsent of a connector, of one usage type or of all, and
 * returns how many that were.  PM001 if there is no such connector, PM003 for
 * an empty usage type, which an application may have meant for none.
 */
Datum
postmark_cancel_all(PG_FUNCTION_ARGS)
{
	PmOwnerScope scope;
	char	   *name = pm_text_arg(fcinfo, 0);
	char	   *usage_type = pm_text_arg(fcinfo, 1);
	int			number;
	LOCKTAG		tag;
	int64		count = 0;
	int			p;
	int			i;

	PreventCommandIfReadOnly("postmark_cancel_all()");
	if (usage_type && usage_type[0] == '\0')
		ereport(ERROR,
				(errcode(PM_ERRCODE_INVALID),
				 errmsg("usage type is empty"),
				 errhint("Give one such as 'Register', or NULL for all.")));
	number = pm_use_connector(name, GetUserId())->number;
	pm_enter_owner(&scope);
	pm_note_cancel();

	/* See pm_queue_keep_out_cancels */
	pm_cancel_locktag(&tag);
	(void) LockAcquire(&tag, ShareLock, false, false);

	for (p = 0; p < PM_PRIORITIES; p++)
	{
		for (i = 0; i < lengthof(places); i++)
		{
			Step		step = {&places[i], PM_LANE(number, p), usage_type};

			do
			{
				CHECK_FOR_INTERRUPTS();

				/* Else once more, without those */
				if (pm_run_subtransaction(cancel_step, &step, NULL))
				{
					count += step.cancelled;
					step.above = step.last;
				}
			} while (step.more);
		}
	}
	pm_leave_owner(&scope);
	pm_stats_note(number, name, PM_COUNT_CANCELLED, count);
	PG_RETURN_INT64(count);
}

/*
 * postmark_requeue_all(connector, since) returns bigint
 *
 * Puts what failed in that time and has not expired back into the queue, and
 * returns how many that were.  PM001 if there is no such connector, PM002 if
 * there is no template for one of them, PM003 for an interval that is null or
 * not positive.
 */
Datum
postmark_requeue_all(PG_FUNCTION_ARGS)
{
	char	   *name = pm_text_arg(fcinfo, 0);
	Datum		values[2];
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz from = now;
	int64	   *ids;
	int64		count = 0;
	uint64		n;
	uint64		i;

	PreventCommandIfReadOnly("postmark_requeue_all()");
	(void) pm_use_connector(name, GetUserId());
	if (!PG_ARGISNULL(1))
		from = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_mi_interval,
													   TimestampTzGetDatum(now),
													   PG_GETARG_DATUM(1)));
	if (from >= now)
		ereport(ERROR,
				(errcode(PM_ERRCODE_INVALID),
				 errmsg("since must be a positive interval"),
				 errhint("For instance: postmark_requeue_all('default', '1 hour').")));

	values[0] = CStringGetTextDatum(name);
	values[1] = TimestampTzGetDatum(from);
	ids = pm_collect_ids(&find_failed, values, &n);

	for (i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (pm_message_requeue(ids[i], GetUserId()))
			count++;
	}
	PG_RETURN_INT64(count);
}
