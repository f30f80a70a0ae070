/*-------------------------------------------------------------------------
 *
 * row_trigger.c
 *		What BEFORE ROW triggers that change nothing have in common.
 *
 * src/base/row_trigger.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/row_trigger.h"

/*
 * What a function was called with that is a BEFORE ROW trigger; an error if it
 * was called in another way.
 *
 * name: the function's, for that error
 */
TriggerData *
pm_before_row(FunctionCallInfo fcinfo, const char *name)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_BEFORE(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("%s must be fired BEFORE and FOR EACH ROW", name)));
	return trigger;
}

/* The result of a BEFORE ROW trigger that lets the row be. */
Datum
pm_row_as_it_is(const TriggerData *trigger)
{
	return PointerGetDatum(TRIGGER_FIRED_BY_UPDATE(trigger->tg_event)
						   ? trigger->tg_newtuple : trigger->tg_trigtuple);
}
