/*-------------------------------------------------------------------------
 *
 * store.h
 *		Storing what came of messages.
 *
 * src/worker/store.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_STORE_H
#define PM_STORE_H

#include "worker/jobs.h"

extern bool pm_store_wanted(TimestampTz now);
extern void pm_store(TimestampTz now, TimestampTz until, bool careful);
extern bool pm_store_committed(void);
extern void pm_store_failed(bool together);
extern void pm_store_again(PmJob *job, TimestampTz now);

#endif							/* PM_STORE_H */
