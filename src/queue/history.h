/*-------------------------------------------------------------------------
 *
 * history.h
 *		Finished messages.
 *
 * As in queue.h, everything runs in a transaction of the caller's, with SPI
 * connected, a snapshot, and the rights of the queue's owner.
 *
 * src/queue/history.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_HISTORY_H
#define PM_HISTORY_H

#include "queue/batch.h"

extern void pm_history_insert(const PmBatch *batch, TimestampTz now,
							  bool careful);
extern int	pm_history_forget_content(TimestampTz now, int limit,
									  TimestampTz *next);
extern int	pm_history_purge(TimestampTz before, int limit,
							 TimestampTz *oldest);

#endif							/* PM_HISTORY_H */
