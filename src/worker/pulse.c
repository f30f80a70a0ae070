/*-------------------------------------------------------------------------
 *
 * pulse.c
 *		Noticing that this process stood still.
 *
 * A machine that is paused, or whose processes are stopped, knows nothing of
 * it, and a standby may have taken over meanwhile.  What shows is time: a sleep
 * that lasted much longer than it was to, or, where the pause stopped our own
 * clock as well, the time of day that is ahead of it.
 *
 * src/worker/pulse.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "base/clock.h"
#include "worker/pulse.h"

/*
 * A gap of less than this, ms, is nothing: machines are loaded, and no standby
 * takes over so soon.
 */
#define GAP					5000

/*
 * Work takes long where commits do, and then does so again and again.  So a gap
 * in it says something once in, ms
 */
#define WORK_GAP_INTERVAL	60000

static PmMoment last = PM_AT_ONCE;	/* when it was looked at */
static TimestampTz last_time;
static bool slept;				/* since then, */
static long allowed;			/* for so long at most, ms; -1: any time */
static PmMoment quiet_until = PM_AT_ONCE;

/* About to sleep for at most so many ms, -1: until something happens. */
void
pm_pulse_sleep(long timeout_ms)
{
	slept = true;
	allowed = timeout_ms;
}

/* Whether we stood still since the last time that this was asked. */
bool
pm_pulse_missed(void)
{
	PmMoment	now = pm_moment();
	TimestampTz time = GetCurrentTimestamp();
	int64		gap = 0;
	int64		ahead = 0;

	if (last != PM_AT_ONCE)
	{
		ahead = (time - last_time) - (now - last);
		if (!slept || allowed >= 0)
			gap = (now - last) - (slept ? allowed * INT64CONST(1000) : 0);
	}
	if (!slept && gap > GAP * INT64CONST(1000))
	{
		if (now < quiet_until)
			gap = 0;
		else
			quiet_until = pm_later(now, WORK_GAP_INTERVAL);
	}
	last = now;
	last_time = time;
	slept = false;
	return Max(gap, ahead) > GAP * INT64CONST(1000);
}
