/*-------------------------------------------------------------------------
 *
 * claim.h
 *		Claiming messages: reading them, and saying in the database that they are
 *		on their way.
 *
 * src/worker/claim.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_CLAIM_H
#define PM_CLAIM_H

#include "base/clock.h"

extern bool pm_claim_wanted(PmMoment now);
extern bool pm_claim_failed(int sqlstate);
extern void pm_claim(PmMoment now, PmMoment until, bool careful);

#endif							/* PM_CLAIM_H */
