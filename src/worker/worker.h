/*-------------------------------------------------------------------------
 *
 * worker.h
 *		The background processes, and what keeps databases free of them.
 *
 * src/worker/worker.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_WORKER_H
#define PM_WORKER_H

extern void pm_register_launcher(void);
extern void pm_install_database_hooks(void);

extern PGDLLEXPORT void postmark_launcher_main(Datum arg);
extern PGDLLEXPORT void postmark_worker_main(Datum arg);
extern PGDLLEXPORT void postmark_vacuum_main(Datum arg);

#endif							/* PM_WORKER_H */
