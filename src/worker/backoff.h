/*-------------------------------------------------------------------------
 *
 * backoff.h
 *		How long to wait before something is tried again.
 *
 * src/worker/backoff.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_BACKOFF_H
#define PM_BACKOFF_H

/* A longer Retry-After is cut to this, ms, and in words */
#define PM_RETRY_AFTER_MAX (15 * 60 * 1000)
#define PM_RETRY_AFTER_MAX_TEXT "15 minutes"

extern long pm_jitter(long ceiling_ms);
extern long pm_backoff_delay(int failures);
extern long pm_brake_delay(int failures);
extern long pm_retry_after_delay(long retry_after_ms);
extern long pm_block_delay(int failures);
extern long pm_message_delay(int attempts);

#endif							/* PM_BACKOFF_H */
