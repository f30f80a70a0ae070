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

extern void pm_random_bytes(unsigned char *bytes, int n);

#endif							/* PM_RANDOM_H */
