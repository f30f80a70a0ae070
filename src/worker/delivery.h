/*-------------------------------------------------------------------------
 *
 * delivery.h
 *		The worker's work, in turns: claiming messages, sending them, storing what
 *		came of it, and finding out what is in doubt.
 *
 * src/worker/delivery.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_DELIVERY_H
#define PM_DELIVERY_H

#include "base/clock.h"
#include "shared/slots.h"
#include "shared/wakeup.h"

extern void pm_delivery_start(PmSlot *slot);
extern void pm_delivery_reload(void);
extern void pm_delivery_rescan(void);
extern void pm_delivery_clock(void);
extern void pm_delivery_wake(const PmWakeup *wakeup);
extern PmMoment pm_delivery_turn(void);
extern bool pm_delivery_decided(void);
extern void pm_delivery_activity(char *text, Size size);
extern bool pm_delivery_is_copy(void);

#endif							/* PM_DELIVERY_H */
