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
#include "postmark/api.h"
#include "queue/queue.h"
#include "worker/jobs.h"

#define PM_MAY_HAVE_BEEN_SENT \
	"The outcome is unknown, and Postmark's message search could not tell: the message may have been sent."

extern TimestampTz pm_decide_at(const PmChannel *channel, const PmMessage *m);
extern void pm_doubt_load(PmIntent *intents, int nintents);
extern void pm_doubt_look(PmJob *job, PmMoment now);
extern void pm_doubt_match(PmChannel *channel, const PmFound *found,
						   int nfound);
extern void pm_doubt_resume(PmChannel *channel);

#endif							/* PM_DOUBT_H */
