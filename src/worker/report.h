/*-------------------------------------------------------------------------
 *
 * report.h
 *		A line in the server's log where a connector's state changes.
 *
 * src/worker/report.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_REPORT_H
#define PM_REPORT_H

extern void pm_report_states(void);

#endif							/* PM_REPORT_H */
