/*-------------------------------------------------------------------------
 *
 * pulse.h
 *		Noticing that this process stood still.
 *
 * src/worker/pulse.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_PULSE_H
#define PM_PULSE_H

extern void pm_pulse_sleep(long timeout_ms);
extern bool pm_pulse_missed(void);

#endif							/* PM_PULSE_H */
