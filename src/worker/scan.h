/*-------------------------------------------------------------------------
 *
 * scan.h
 *		What there is in the database for the worker to do.
 *
 * src/worker/scan.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_SCAN_H
#define PM_SCAN_H

#include "base/clock.h"

extern void pm_scan_reload(void);
extern void pm_scan_rescan(void);
extern void pm_scan_clock(void);
extern PmMoment pm_scan_retry(void);
extern void pm_scan(PmMoment now);
extern bool pm_scan_current(void);
extern bool pm_scan_ready(void);
extern bool pm_scan_copied(void);
extern void pm_scan_active(void);
extern PmMoment pm_scan_next(void);

#endif							/* PM_SCAN_H */
