/*-------------------------------------------------------------------------
 *
 * inquiry.h
 *		Asking Postmark about addresses.
 *
 * src/worker/inquiry.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_INQUIRY_H
#define PM_INQUIRY_H

#include "base/clock.h"
#include "worker/channel.h"

extern void pm_inquiries_wake(void);
extern PmMoment pm_inquiry_next_moment(const PmChannel *channel);
extern bool pm_inquiry_ask(PmChannel *channel, PmMoment now);

#endif							/* PM_INQUIRY_H */
