/*-------------------------------------------------------------------------
 *
 * code_unlock.h
 *		Taking failed attempts back.
 *
 * src/codes/code_unlock.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_CODE_UNLOCK_H
#define PM_CODE_UNLOCK_H

extern void pm_counters_lock(void);
extern int	pm_counter_forget(char kind, const unsigned char *hmac,
							  bool *counted);
extern int	pm_address_counter_forget(const char *connector,
									  const char *address, bool *counted);

#endif							/* PM_CODE_UNLOCK_H */
