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

/* Make a fresh random (version 4) uuid, or raise an error. */
void
pm_random_uuid(pg_uuid_t *uuid)
{
	pm_random_bytes(uuid->data, UUID_LEN);
	uuid->data[6] = (uuid->data[6] & 0x0f) | 0x40;
	uuid->data[8] = (uuid->data[8] & 0x3f) | 0x80;
}
