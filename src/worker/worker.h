/*-------------------------------------------------------------------------
 *
 * worker.h
 *		A background worker for one database.
 *
 * src/worker/worker.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_WORKER_H
#define PM_WORKER_H

extern PGDLLEXPORT void postmark_worker_main(Datum arg);

#endif							/* PM_WORKER_H */
