/*-------------------------------------------------------------------------
 *
 * queue_space.h
 *		Giving the disk space of an empty queue back.
 *
 * src/worker/queue_space.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_QUEUE_SPACE_H
#define PM_QUEUE_SPACE_H

#include "base/clock.h"

extern void pm_space_start(void);
extern void pm_space_used(Size bytes);
extern void pm_space_keep(PmMoment now, bool working);
extern PmMoment pm_space_next(bool working);

#endif							/* PM_QUEUE_SPACE_H */
