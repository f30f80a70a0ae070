/*-------------------------------------------------------------------------
 *
 * args.h
 *		Arguments of SQL functions that may be null.
 *
 * Our functions are not STRICT: what a null means they say themselves.
 *
 * src/base/args.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_ARGS_H
#define PM_ARGS_H

#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

/* The n-th argument, from 0, a text: palloc'd, or NULL for a null */
static inline char *
pm_text_arg(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(n));
}

/* The same for a jsonb, which may be the caller's: not to be written to */
static inline Jsonb *
pm_jsonb_arg(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? NULL : PG_GETARG_JSONB_P(n);
}

#endif							/* PM_ARGS_H */
