/*-------------------------------------------------------------------------
 *
 * queue_vacuum.h
 *		Making the space of sent messages usable again.
 *
 * src/worker/queue_vacuum.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_QUEUE_VACUUM_H
#define PM_QUEUE_VACUUM_H

#include "base/clock.h"
#include "utils/rel.h"

extern int64 pm_queue_bytes(Relation queue);
extern void pm_vacuum_used(Size bytes);
extern void pm_vacuum_keep(PmMoment now);
extern void pm_vacuum_end(bool wait);

extern PGDLLEXPORT void postmark_vacuum_main(Datum arg);

#endif							/* PM_QUEUE_VACUUM_H */
