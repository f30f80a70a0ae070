/*-------------------------------------------------------------------------
 *
 * code_store.h
 *		The tables of verification codes.
 *
 * src/codes/code_store.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_CODE_STORE_H
#define PM_CODE_STORE_H

#include "codes/attempts.h"
#include "codes/code_secret.h"

/*
 * A code that has expired is "expired" for so long, then it is forgotten;
 * seconds.
 */
#define PM_CODES_GRACE	600

/* No code is to be forgotten sooner after it was issued, seconds. */
#define PM_CODES_CLEANUP_AFTER (60 + PM_CODES_GRACE)

/* How often somebody may be sent a code */
typedef struct PmSendLimits
{
	int			limit;			/* messages in a window, 0: any number */
	int			window;			/* s */
	int			interval;		/* s between two of a usage type */
} PmSendLimits;

/*
 * For the SQL-callable functions: in the caller's transaction, under the
 * caller's search_path and isolation level, with the owner's rights.  Whatever
 * the isolation level, they see what has been committed by now.
 */
extern void pm_code_key_hold(void);
extern bool pm_code_key(const char *connector, bool create,
						unsigned char *key);
extern PmCode *pm_codes_find(const PmCode *of, int *n);
extern bool pm_token_find(const unsigned char *hmac, PmCode *code);
extern void pm_code_put(const PmCode *code);
extern bool pm_code_take(const PmCode *code);
extern int	pm_send_wait(const char *connector, const char *address,
						 const char *usage_type, const PmSendLimits *limits,
						 TimestampTz now, bool *resend);
extern void pm_send_note(const PmCode *code, const PmSendLimits *limits);
extern void pm_counters_load(PmCounter *counters, int n);
extern void pm_code_lock(const unsigned char *name);

/* For the worker: in pm_run_transaction */
extern void pm_attempts_store(const PmAttempts *attempts, int n);
extern bool pm_codes_cleanup(TimestampTz now, int limit, TimestampTz *next);
extern void pm_codes_take_back(void);

#endif							/* PM_CODE_STORE_H */
