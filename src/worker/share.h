/*-------------------------------------------------------------------------
 *
 * share.h
 *		What of the process's sockets and memory a connector may take.
 *
 * src/worker/share.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_SHARE_H
#define PM_SHARE_H

#include "base/clock.h"
#include "worker/channel.h"

extern void pm_share_begin(void);
extern int	pm_share_requests(const PmChannel *channel);
extern void pm_share_asked(PmChannel *channel);
extern bool pm_share_may_claim(const PmChannel *channel);
extern void pm_share_claimed(PmChannel *channel, Size bytes);
extern bool pm_share_may_send(const PmChannel *channel);
extern void pm_share_sent(PmChannel *channel, Size bytes);
extern void pm_share_shortage(void);
extern PmMoment pm_share_next(PmMoment now);

#endif							/* PM_SHARE_H */
