/*-------------------------------------------------------------------------
 *
 * poll.h
 *		Asking Postmark what became of mail.
 *
 * src/worker/poll.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_POLL_H
#define PM_POLL_H

#include "base/clock.h"
#include "worker/channel.h"

extern PmMoment pm_poll_next_moment(const PmChannel *channel);
extern bool pm_poll_may_store(const PmChannel *channel);
extern bool pm_poll_ask(PmChannel *channel, PmMoment now);
extern void pm_poll_keep(PmChannel *channel, PmMoment now);

#endif							/* PM_POLL_H */
