/*-------------------------------------------------------------------------
 *
 * args.c
 *		Arguments of SQL functions that may be null.
 *
 * src/base/args.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "base/args.h"

/* The n-th argument, from 0, a text: palloc'd, or NULL for a null */
char *
pm_text_arg(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(n));
}

/* The same for a jsonb, which may be the caller's: not to be written to */
Jsonb *
pm_jsonb_arg(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? NULL : PG_GETARG_JSONB_P(n);
}
