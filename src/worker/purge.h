/*-------------------------------------------------------------------------
 *
 * purge.h
 *		Forgetting finished messages that are older than history_retention.
 *
 * src/worker/purge.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_PURGE_H
#define PM_PURGE_H

#include "base/clock.h"

extern int64 pm_retention(void);
extern void pm_purge_start(void);
extern void pm_purge_finished(void);
extern void pm_purge_keep(PmMoment now);
extern PmMoment pm_purge_next(void);

#endif							/* PM_PURGE_H */
