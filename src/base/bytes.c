/*-------------------------------------------------------------------------
 *
 * bytes.c
 *		Bytes as values of SQL.
 *
 * src/base/bytes.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/bytes.h"
#include "base/compat.h"

/* So many bytes as a bytea, in the current memory context. */
Datum
pm_bytes_datum(const unsigned char *bytes, int len)
{
	bytea	   *result = palloc(VARHDRSZ + len);

	SET_VARSIZE(result, VARHDRSZ + len);
	memcpy(VARDATA(result), bytes, len);
	return PointerGetDatum(result);
}
