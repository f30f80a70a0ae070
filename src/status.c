/*-------------------------------------------------------------------------
 *
 * status.c
 *		The SQL function behind the view postmark_status.
 *
 * src/status.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "access/htup_details.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "queue/state.h"
#include "settings/config_store.h"
#include "settings/connector.h"
#include "shared/stats.h"

PG_FUNCTION_INFO_V1(postmark_state);

/* So many columns the function had in version 1.0 */
#define COLUMNS_1_0 4
#define COLUMNS 8

static void
put_text(Datum *value, bool *isnull, const char *text)
{
	*isnull = (text == NULL);
	if (text)
		*value = CStringGetTextDatum(text);
}

/* How long ago a time was, as now() - time says it; not less than nothing */
static Datum
put_age(TimestampTz since)
{
	TimestampTz now = Max(GetCurrentTimestamp(), since);

	return DirectFunctionCall2(timestamp_mi, TimestampTzGetDatum(now),
							   TimestampTzGetDatum(since));
}

/* A time of the last minutes from COMMIT to request, as a quantile says it */
static void
put_lately(Datum *value, bool *isnull, PmStats *stats, double fraction)
{
	double		us = pm_stats_lately(stats, fraction);
	Interval   *interval = palloc0(sizeof(Interval));

	*isnull = isnan(us);
	if (!*isnull)
		interval->time = (TimeOffset) us;
	*value = IntervalPGetDatum(interval);
}

/*
 * postmark_state(connector) returns (state, detail, hint, worker_pid,
 * state_age, next_attempt_at, latency_p50, latency_p99), for the view
 * postmark_status
 *
 * NULL asks for the state of a database that has no connector.
 */
Datum
postmark_state(PG_FUNCTION_ARGS)
{
	TupleDesc	desc;
	PmState		state;
	Datum		values[COLUMNS];
	bool		nulls[COLUMNS] = {0};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (desc->natts != COLUMNS_1_0 && desc->natts != COLUMNS)
		elog(ERROR, "postmark_state returns %d columns", desc->natts);

	/* The tables are looked at first: the settings are in them */
	if (!pm_tables_state(&state))
	{
		if (PG_ARGISNULL(0))
			pm_no_connector_state(&state);
		else
		{
			char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
			const PmConnector *connector = pm_find_connector(name);

			if (connector == NULL)
				PG_RETURN_NULL();
			pm_connector_state(connector, &state);
		}
	}

	put_text(&values[0], &nulls[0], state.state);
	put_text(&values[1], &nulls[1], state.detail);
	put_text(&values[2], &nulls[2], state.hint);
	nulls[3] = (state.worker_pid == 0);
	values[3] = Int32GetDatum(state.worker_pid);
	values[4] = put_age(state.since);
	nulls[5] = TIMESTAMP_IS_NOEND(state.next_attempt);
	values[5] = TimestampTzGetDatum(state.next_attempt);
	put_lately(&values[6], &nulls[6], state.stats, 0.5);
	put_lately(&values[7], &nulls[7], state.stats, 0.99);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc),
													  values, nulls)));
}
