/*-------------------------------------------------------------------------
 *
 * failover.h
 *		What Postmark accepted of a server that failed.
 *
 * src/worker/failover.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_FAILOVER_H
#define PM_FAILOVER_H

#include "base/clock.h"
#include "postmark/http.h"
#include "worker/channel.h"

extern void pm_failover_timeline(int timeline);
extern void pm_failover_begin(void);
extern void pm_failover_ask(PmChannel *channel, PmMoment now);
extern void pm_failover_found(PmChannel *channel, PmHttpRequest *request);
extern void pm_failover_end(void);

#endif							/* PM_FAILOVER_H */
