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

#include "datatype/timestamp.h"

extern bool pm_claim_has_room(void);
extern bool pm_claim_wanted(TimestampTz now);
extern void pm_claim(TimestampTz now, TimestampTz until, bool careful);

#endif							/* PM_CLAIM_H */
