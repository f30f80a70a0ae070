/*-------------------------------------------------------------------------
 *
 * outdated.h
 *		Deleting rows that count for nothing any more.
 *
 * src/base/outdated.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_OUTDATED_H
#define PM_OUTDATED_H

#include "datatype/timestamp.h"

#include "base/owner.h"

extern bool pm_forget_outdated(PmStatement *forget, PmStatement *first,
							   int grace, TimestampTz now, int limit,
							   TimestampTz *next);

#endif							/* PM_OUTDATED_H */
