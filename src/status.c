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

#include "access/htup_details.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"

#include "queue/state.h"
#include "settings/config_store.h"
#include "settings/connector.h"

PG_FUNCTION_INFO_V1(postmark_state);

/*
 * postmark_state(connector) returns (state, detail, hint, worker_pid), for the
 * view postmark_status
 */
Datum
postmark_state(PG_FUNCTION_ARGS)
{
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	TupleDesc	desc;
	PmState		state;
	Datum		values[4];
	bool		nulls[4] = {false, false, false, false};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");

	/* The tables are looked at first: the settings are in them */
	if (!pm_tables_state(&state))
	{
		const PmConnector *connector = pm_find_connector(name);

		if (connector == NULL)
			PG_RETURN_NULL();
		pm_connector_state(connector, &state);
	}

	values[0] = CStringGetTextDatum(state.state);
	nulls[1] = (state.detail == NULL);
	if (state.detail)
		values[1] = CStringGetTextDatum(state.detail);
	nulls[2] = (state.hint == NULL);
	if (state.hint)
		values[2] = CStringGetTextDatum(state.hint);
	nulls[3] = (state.worker_pid == 0);
	values[3] = Int32GetDatum(state.worker_pid);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc),
													  values, nulls)));
}
