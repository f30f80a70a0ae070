/*-------------------------------------------------------------------------
 *
 * undo.h
 *		What goes back if a turn's transaction fails.
 *
 * src/worker/undo.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_UNDO_H
#define PM_UNDO_H

#include "worker/channel.h"
#include "worker/jobs.h"

extern void pm_undo_begin(void);
extern void pm_undo_expect_jobs(int n);
extern void pm_undo_note_job(PmJob *job);
extern void pm_undo_note_lane(PmLane *lane);
extern int	pm_undo_njobs(void);
extern int	pm_undo_nlanes(void);
extern void pm_undo_committed(void);
extern void pm_undo_failed(void);

#endif							/* PM_UNDO_H */
