/*-------------------------------------------------------------------------
 *
 * random.h
 *		Bytes that nobody can guess.
 *
 * src/base/random.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_RANDOM_H
#define PM_RANDOM_H

#include "utils/uuid.h"

extern void pm_random_bytes(unsigned char *bytes, int n);
extern void pm_random_uuid(pg_uuid_t *uuid);

#endif							/* PM_RANDOM_H */
