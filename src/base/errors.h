/*-------------------------------------------------------------------------
 *
 * errors.h
 *		The extension's SQLSTATEs, and the rule that a statement which may
 *		carry a secret is never written to the log.
 *
 * src/base/errors.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_ERRORS_H
#define PM_ERRORS_H

#include "fmgr.h"

#define PM_ERRCODE_NOT_CONFIGURED	MAKE_SQLSTATE('P','M','0','0','1')
#define PM_ERRCODE_NO_TEMPLATE		MAKE_SQLSTATE('P','M','0','0','2')
#define PM_ERRCODE_INVALID			MAKE_SQLSTATE('P','M','0','0','3')
#define PM_ERRCODE_SUPPRESSED		MAKE_SQLSTATE('P','M','0','0','4')
#define PM_ERRCODE_REFUSED			MAKE_SQLSTATE('P','M','0','0','5')
#define PM_ERRCODE_REFUSED_CONFIG	MAKE_SQLSTATE('P','M','0','0','6')
#define PM_ERRCODE_TOO_MANY			MAKE_SQLSTATE('P','M','0','0','7')
#define PM_ERRCODE_UNAVAILABLE		MAKE_SQLSTATE('P','M','0','0','8')

/*
 * An SQL function that takes a code, a payload or a token: while it runs, no
 * error of anybody's may write the statement to the log, since it holds the
 * secret as a literal.  (CONTEXT is left out of the log as well, see
 * errors.c.)  Stands in place of PG_FUNCTION_INFO_V1; the function itself is
 * then a static one, whose name ends in "_hidden".
 */
#define PM_HIDDEN_FUNCTION(name) \
	static Datum name##_hidden(PG_FUNCTION_ARGS); \
	PG_FUNCTION_INFO_V1(name); \
	Datum \
	name(PG_FUNCTION_ARGS) \
	{ \
		return pm_call_hidden(name##_hidden, fcinfo); \
	} \
	extern int	no_such_variable

extern void pm_mask_secrets(void *arg);
extern Datum pm_call_hidden(PGFunction function, FunctionCallInfo fcinfo);

#endif							/* PM_ERRORS_H */
