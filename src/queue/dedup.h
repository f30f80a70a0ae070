/*-------------------------------------------------------------------------
 *
 * dedup.h
 *		One message for a key, however often it is queued.
 *
 * src/queue/dedup.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_DEDUP_H
#define PM_DEDUP_H

#include "queue/batch.h"

extern bool pm_dedup_claim(PmMessage *m);
extern int64 pm_dedup_holder(const PmMessage *m);
extern void pm_dedup_extend(int64 id, TimestampTz expires_at);
extern bool pm_dedup_cleanup(TimestampTz now, int limit, TimestampTz *next);

#endif							/* PM_DEDUP_H */
