/*-------------------------------------------------------------------------
 *
 * args.h
 *		Arguments of SQL functions that may be null.
 *
 * src/base/args.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_ARGS_H
#define PM_ARGS_H

#include "fmgr.h"
#include "utils/jsonb.h"

/* Our functions are not STRICT: what a null means they say themselves. */
extern char *pm_text_arg(FunctionCallInfo fcinfo, int n);
extern Jsonb *pm_jsonb_arg(FunctionCallInfo fcinfo, int n);

#endif							/* PM_ARGS_H */
