/*-------------------------------------------------------------------------
 *
 * transaction.h
 *		The worker's transactions.
 *
 * src/shared/transaction.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_TRANSACTION_H
#define PM_TRANSACTION_H

typedef void (*PmTransactionBody) (void *arg);

extern bool pm_run_transaction(const char *what, PmTransactionBody body,
							   void *arg, int *sqlstate);
extern const char *pm_transaction_error(void);
extern void pm_log_failure(const char *what, int sqlstate,
						   const char *message);
extern long pm_failure_delay(int failures);

#endif							/* PM_TRANSACTION_H */
