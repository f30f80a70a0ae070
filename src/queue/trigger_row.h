/*-------------------------------------------------------------------------
 *
 * trigger_row.h
 *		What the triggers for signup tables read from a row.
 *
 * src/queue/trigger_row.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_TRIGGER_ROW_H
#define PM_TRIGGER_ROW_H

#include "commands/trigger.h"
#include "utils/jsonb.h"

extern HeapTuple pm_trigger_row(FunctionCallInfo fcinfo, const char *function,
								const char *row_hint,
								const char *arguments_hint);
extern char *pm_trigger_column(const TriggerData *trigger, HeapTuple row,
							   const char *column);
extern Jsonb *pm_trigger_payload(const TriggerData *trigger, HeapTuple row,
								 const char *column);

#endif							/* PM_TRIGGER_ROW_H */
