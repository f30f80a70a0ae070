/*-------------------------------------------------------------------------
 *
 * queue_session.h
 *		The queue's tables, for the SQL-callable functions: in the caller's
 *		transaction, under the caller's search_path and isolation level, with the
 *		owner's rights.  They connect to SPI themselves.
 *
 * src/queue/queue_session.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_QUEUE_SESSION_H
#define PM_QUEUE_SESSION_H

#include "base/owner.h"
#include "queue/batch.h"

extern int64 pm_queue_insert(const PmMessage *message);
extern void pm_deferred_insert(const PmMessage *message, int32 lane);
extern int64 *pm_collect_ids(PmStatement *statement, Datum *values,
							 uint64 *n);
extern bool pm_message_cancel(int64 id, Oid role);
extern bool pm_message_requeue(int64 id, Oid role);
extern char *pm_message_status(int64 id, Oid role, bool *own);
extern char *pm_own_message_status(int64 id, Oid role);
extern bool pm_connector_unfinished(int number, int64 upto, TimestampTz due);

#endif							/* PM_QUEUE_SESSION_H */
