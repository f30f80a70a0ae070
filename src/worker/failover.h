/*-------------------------------------------------------------------------
 *
 * failover.h
 *		What another server may have sent of our messages.
 *
 * src/worker/failover.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_FAILOVER_H
#define PM_FAILOVER_H

#include "base/clock.h"
#include "worker/channel.h"

extern void pm_failover_timeline(int timeline);
extern void pm_failover_begin(void);
extern void pm_failover_suspect(void);
extern bool pm_failover_look_wanted(void);
extern void pm_failover_look_body(void *arg);
extern void pm_failover_looked(bool seen);
extern int64 pm_failover_floor(const PmChannel *channel);
extern bool pm_failover_withheld(const PmChannel *channel, int64 id);
extern void pm_failover_ask(PmChannel *channel, PmMoment now);
extern void pm_failover_decide(PmChannel *channel, PmMoment now);
extern void pm_failover_end(void);

#endif							/* PM_FAILOVER_H */
