/*-------------------------------------------------------------------------
 *
 * probe.h
 *		Whether a refused configuration is mended.
 *
 * src/worker/probe.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_PROBE_H
#define PM_PROBE_H

#include "base/clock.h"
#include "worker/channel.h"

extern bool pm_probe_ask(PmChannel *channel, PmMoment now);

#endif							/* PM_PROBE_H */
