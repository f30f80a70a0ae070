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

#include "replication/logicalworker.h"

#include "base/row_trigger.h"

PG_FUNCTION_INFO_V1(postmark_not_replicated);

/*
 * postmark_not_replicated() RETURNS trigger
 *		BEFORE ROW trigger: nothing happens to the row if it is an apply worker
 *		that writes it.
 */
Datum
postmark_not_replicated(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = pm_before_row(fcinfo, "postmark_not_replicated");

	if (IsLogicalWorker())
		return PointerGetDatum(NULL);
	return pm_row_as_it_is(trigger);
}
