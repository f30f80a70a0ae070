/*-------------------------------------------------------------------------
 *
 * enqueue.h
 *		Queueing a message from within a function.
 *
 * src/queue/enqueue.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_ENQUEUE_H
#define PM_ENQUEUE_H

#include "queue/batch.h"

extern int64 pm_enqueue(PmMessage *message, Oid role);

#endif							/* PM_ENQUEUE_H */
