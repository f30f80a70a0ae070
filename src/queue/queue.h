/*-------------------------------------------------------------------------
 *
 * queue.h
 *		The queue's tables: what the worker reads and writes in them.
 *
 * Everything here runs in a transaction of the caller's, with SPI connected,
 * a snapshot, and the rights of the queue's owner; pm_run_transaction does
 * that.
 *
 * src/queue/queue.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_QUEUE_H
#define PM_QUEUE_H

#include "storage/lock.h"

#include "base/catalog.h"
#include "queue/batch.h"

/* Why a message is deferred whose usage type has no template */
#define PM_NO_TEMPLATE_TEXT "There is no template for the usage type."

/* The state of a row of postmark_intents */
typedef struct PmIntent
{
	pg_uuid_t	uuid;
	int32		lane;
	bool		deferred;
	TimestampTz created_at;
	int			nids;
	int64	   *ids;
} PmIntent;

/* Where reading deferred messages goes on: behind this one */
typedef struct PmDeferredPosition
{
	TimestampTz due_at;			/* DT_NOBEGIN: from the first one on */
	int64		id;
} PmDeferredPosition;

/* Whether a message is to be left out while others are read */
typedef bool (*PmPassedOver) (int64 id, void *arg);

extern PmObject pm_queue_table(void);
extern char *pm_queue_failure(void);

/* Reading */
extern bool pm_queue_read(PmBatch *batch, int64 above, int64 upto, int limit,
						  Size max_size);
extern bool pm_deferred_read(PmBatch *batch, bool doubtful, TimestampTz due,
							 PmDeferredPosition *position,
							 PmPassedOver passed_over, void *arg, int limit,
							 Size max_size);
extern void pm_queue_read_ids(PmBatch *batch, const int64 *ids, int nids);
extern void pm_cancel_locktag(LOCKTAG *tag);
extern void pm_queue_keep_out_cancels(void);
extern void pm_queue_lock(PmBatch *batch, int first);
extern bool pm_next_queue_lane(int32 from, int32 *lane);
extern bool pm_next_deferred_lane(int32 from, int32 *lane);
extern bool pm_deferred_due(int32 lane, bool doubtful, TimestampTz after,
							TimestampTz *due);
extern int	pm_queue_expired(PmBatch *batch, PmDeferredPosition *position,
							 int limit, TimestampTz *next);
extern bool pm_queue_first_since(TransactionId xid, int64 *first);
extern void pm_unsent_upto(int32 first_lane, int32 last_lane, int64 upto,
						   TimestampTz now, TimestampTz *oldest,
						   TimestampTz *expiry);
extern void pm_unsent_read(PmBatch *batch, int64 upto, TimestampTz until,
						   PmPassedOver passed_over, void *arg, int limit);
extern int	pm_read_intents(PmIntent **intents);

/* Writing */
extern void pm_intent_insert(PmBatch *batch);
extern bool pm_intent_renew(const PmBatch *batch);
extern void pm_deferred_store(const PmMessage *m, int32 lane, TimestampTz due);
extern bool pm_batch_store(PmBatch *batch, TimestampTz now, bool careful);
extern void pm_trouble_store(const char *connector, const char *state,
							 const char *detail, const char *hint);
extern void pm_trouble_clear_all(void);
extern void pm_deferred_retry_templates(void);
extern void pm_deferred_take_back(int64 by, int64 beyond);
extern void pm_instance_read(Oid *database, int *timeline);
extern void pm_instance_set_timeline(int timeline);

#endif							/* PM_QUEUE_H */
