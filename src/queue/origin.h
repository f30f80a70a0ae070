/*-------------------------------------------------------------------------
 *
 * origin.h
 *		Whether the queue is this database's own, or came with a copy.
 *
 * src/queue/origin.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_ORIGIN_H
#define PM_ORIGIN_H

extern bool pm_queue_is_own(void);
extern bool pm_begin_queue(void);
extern bool pm_adopt_database(void);

#endif							/* PM_ORIGIN_H */
