/*-------------------------------------------------------------------------
 *
 * row_trigger.h
 *		What BEFORE ROW triggers that change nothing have in common.
 *
 * src/base/row_trigger.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_ROW_TRIGGER_H
#define PM_ROW_TRIGGER_H

#include "commands/trigger.h"
#include "fmgr.h"

extern TriggerData *pm_before_row(FunctionCallInfo fcinfo, const char *name);
extern Datum pm_row_as_it_is(const TriggerData *trigger);

#endif							/* PM_ROW_TRIGGER_H */
