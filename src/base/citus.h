/*-------------------------------------------------------------------------
 *
 * citus.h
 *		Where a row trigger is fired if Citus distributes its table.
 *
 * src/base/citus.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_CITUS_H
#define PM_CITUS_H

#include "commands/trigger.h"

extern bool pm_citus_copies(const TriggerData *trigger);
extern void pm_citus_check(const TriggerData *trigger);

#endif							/* PM_CITUS_H */
