/*-------------------------------------------------------------------------
 *
 * sweep.h
 *		Expired messages of connectors that do not flow.
 *
 * src/worker/sweep.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_SWEEP_H
#define PM_SWEEP_H

#include "base/clock.h"

extern bool pm_sweep_keep(PmMoment now);

#endif							/* PM_SWEEP_H */
