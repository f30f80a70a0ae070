/*-------------------------------------------------------------------------
 *
 * process.h
 *		What all of our background processes have in common.
 *
 * src/shared/process.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_PROCESS_H
#define PM_PROCESS_H

#include "postmaster/bgworker.h"

extern void pm_process_describe(BackgroundWorker *worker, const char *kind,
								Oid database);

#endif							/* PM_PROCESS_H */
