/*-------------------------------------------------------------------------
 *
 * doubt.h
 *		What is in doubt.
 *
 * src/worker/doubt.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_DOUBT_H
#define PM_DOUBT_H

#include "base/clock.h"
#include "queue/queue.h"
#include "worker/jobs.h"

extern void pm_doubt_load(PmIntent *intents, int nintents);
extern void pm_doubt_look(PmJob *job, PmMoment now);
extern void pm_doubt_found(PmJob *job);

#endif							/* PM_DOUBT_H */
