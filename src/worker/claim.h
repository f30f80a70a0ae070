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
#include "worker/turn.h"

extern bool pm_claim_wanted(PmMoment now);
extern bool pm_claim_failed(PmTurn *turn, int sqlstate);
extern void pm_claim(PmTurn *turn, PmMoment until);

#endif							/* PM_CLAIM_H */
