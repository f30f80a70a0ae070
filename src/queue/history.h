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
#include "settings/connector.h"

/* How far a connector's old messages have been seen to */
typedef struct PmHistoryPosition
{
	char		connector[NAMEDATALEN];
	TimestampTz finished_at;	/* none from before it */
	int64		kept;			/* of those of that time, so many remain */
	bool		passed;			/* there are others, too, that remain */
} PmHistoryPosition;

extern void pm_notify_status(const PmConnector *connector, int64 id,
							 const char *status);
extern void pm_history_insert(const PmBatch *batch, TimestampTz now,
							  bool careful);
extern bool pm_history_forget_content(TimestampTz now, int limit,
									  TimestampTz *next);
extern bool pm_history_next_connector(char *connector);
extern bool pm_history_purge(PmHistoryPosition *position, TimestampTz before,
							 int limit, bool by_row, TimestampTz *next);

#endif							/* PM_HISTORY_H */
