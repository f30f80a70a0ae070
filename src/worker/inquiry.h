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
#include "postmark/http.h"
#include "worker/channel.h"

extern void pm_inquiries_wake(void);
extern PmMoment pm_inquiry_next_moment(const PmChannel *channel);
extern bool pm_inquiry_ask(PmChannel *channel, PmMoment now);
extern void pm_inquiry_found(PmChannel *channel, PmHttpRequest *request);

#endif							/* PM_INQUIRY_H */
