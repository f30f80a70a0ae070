/*-------------------------------------------------------------------------
 *
 * replication.c
 *		Keeping what another server queued out of the tables here.
 *
 * A publication may hold tables of ours, all of them if it is FOR ALL TABLES.
 * What they say of messages is the publishing server's business: it sends
 * them, and its ids are another's here.  So a row trigger of theirs drops what
 * an apply worker brings.  It is enabled for replicas only, and so costs
 * sessions and the worker next to nothing.
 *
 * src/base/replication.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "commands/trigger.h"
#include "fmgr.h"
#include "replication/logicalworker.h"

PG_FUNCTION_INFO_V1(postmark_not_replicated);

/*
 * postmark_not_replicated() RETURNS trigger
 *		BEFORE ROW trigger: nothing happens to the row if it is an apply worker
 *		that writes it.
 */
Datum
postmark_not_replicated(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_BEFORE(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("%s must be fired BEFORE and FOR EACH ROW",
						"postmark_not_replicated")));
	if (IsLogicalWorker())
		return PointerGetDatum(NULL);
	return PointerGetDatum(TRIGGER_FIRED_BY_UPDATE(trigger->tg_event)
						   ? trigger->tg_newtuple : trigger->tg_trigtuple);
}
