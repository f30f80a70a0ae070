/*-------------------------------------------------------------------------
 *
 * wake.h
 *		Telling the worker of this database, at COMMIT, what there is to do.
 *
 * src/shared/wake.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_WAKE_H
#define PM_WAKE_H

/* In a transaction: what its commit is to announce */
extern void pm_note_message(int32 lane, int64 id);
extern void pm_note_deferred(int32 lane);
extern void pm_note(uint32 reasons);
extern void pm_note_resume(int number);
extern void pm_note_databases(void);
extern bool pm_transaction_queued(void);
extern void pm_note_cancel(void);

/* At once, without regard to transactions */
extern void pm_wake_database(Oid database, uint32 reasons);
extern void pm_wake_launcher(void);

#endif							/* PM_WAKE_H */
