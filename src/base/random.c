/*-------------------------------------------------------------------------
 *
 * random.c
 *		Bytes that nobody can guess.
 *
 * src/base/random.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/random.h"

/* Fill "bytes" with n random bytes, or raise an error. */
void
pm_random_bytes(unsigned char *bytes, int n)
{
	if (!pg_strong_random(bytes, n))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate random values"),
				 errhint("Try again."),
				 errhidestmt(true)));
}
