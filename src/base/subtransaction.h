/*-------------------------------------------------------------------------
 *
 * subtransaction.h
 *		Work that is undone by itself if it comes to nothing.
 *
 * src/base/subtransaction.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_SUBTRANSACTION_H
#define PM_SUBTRANSACTION_H

/* The work; false: undo it.  It ends what it begins, SPI for instance. */
typedef bool (*PmSubtransactionBody) (void *arg);

/* Whether an error with that SQLSTATE is an answer, and not a failure */
typedef bool (*PmExpectedError) (int sqlstate);

extern bool pm_run_subtransaction(PmSubtransactionBody body, void *arg,
								  PmExpectedError expected);

#endif							/* PM_SUBTRANSACTION_H */
