/*-------------------------------------------------------------------------
 *
 * housekeeping.h
 *		What the worker does by the clock.
 *
 * src/worker/housekeeping.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_HOUSEKEEPING_H
#define PM_HOUSEKEEPING_H

#include "base/clock.h"
#include "queue/batch.h"

extern void pm_house_start(void);
extern void pm_house_reload(void);
extern void pm_house_codes(uint32 reasons);
extern void pm_house_finished(const PmMessage *message);
extern void pm_house_keep(PmMoment now);
extern PmMoment pm_house_next(void);
extern void pm_house_keep_codes(PmMoment now);
extern PmMoment pm_house_next_codes(void);

#endif							/* PM_HOUSEKEEPING_H */
