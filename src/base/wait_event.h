/*-------------------------------------------------------------------------
 *
 * wait_event.h
 *		What a process of ours waits for, by name.
 *
 * src/base/wait_event.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_WAIT_EVENT_H
#define PM_WAIT_EVENT_H

typedef enum PmWait
{
	PM_WAIT_LAUNCHER_MAIN,
	PM_WAIT_WORKER_MAIN,
	PM_WAIT_WORKER_END,
	PM_WAIT_REPLY,
	PM_WAIT_DELIVERY,
	PM_WAITS
} PmWait;

extern uint32 pm_wait_event(PmWait wait);

#endif							/* PM_WAIT_EVENT_H */
