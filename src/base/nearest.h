/*-------------------------------------------------------------------------
 *
 * nearest.h
 *		The name that was probably meant, for a HINT.
 *
 * src/base/nearest.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_NEAREST_H
#define PM_NEAREST_H

/* A search.  Only best is for others to read. */
typedef struct PmNearest
{
	const char *wanted;
	const char *best;			/* NULL: nothing is near enough */
	int			distance;
} PmNearest;

extern void pm_nearest_begin(PmNearest *nearest, const char *wanted);
extern void pm_nearest_consider(PmNearest *nearest, const char *candidate);

#endif							/* PM_NEAREST_H */
