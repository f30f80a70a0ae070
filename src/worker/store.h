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

#include "base/clock.h"
#include "worker/jobs.h"
#include "worker/turn.h"

extern bool pm_store_wanted(PmMoment now);
extern void pm_store(PmTurn *turn, PmMoment until);
extern bool pm_store_committed(void);
extern bool pm_store_done(void);
extern void pm_store_failed(bool together);
extern void pm_store_troubles(void);
extern void pm_store_again(PmJob *job, PmMoment now);

#endif							/* PM_STORE_H */
