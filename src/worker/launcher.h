/*-------------------------------------------------------------------------
 *
 * launcher.h
 *		The background process that gives each database its worker.
 *
 * src/worker/launcher.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_LAUNCHER_H
#define PM_LAUNCHER_H

extern void pm_register_launcher(void);
extern PGDLLEXPORT void postmark_launcher_main(Datum arg);

#endif							/* PM_LAUNCHER_H */
