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

#include "utils/elog.h"

#define PM_ERRCODE_NOT_CONFIGURED	MAKE_SQLSTATE('P','M','0','0','1')
#define PM_ERRCODE_NO_TEMPLATE		MAKE_SQLSTATE('P','M','0','0','2')
#define PM_ERRCODE_INVALID			MAKE_SQLSTATE('P','M','0','0','3')
#define PM_ERRCODE_SUPPRESSED		MAKE_SQLSTATE('P','M','0','0','4')
#define PM_ERRCODE_REFUSED			MAKE_SQLSTATE('P','M','0','0','5')
#define PM_ERRCODE_REFUSED_CONFIG	MAKE_SQLSTATE('P','M','0','0','6')
#define PM_ERRCODE_TOO_MANY			MAKE_SQLSTATE('P','M','0','0','7')
#define PM_ERRCODE_UNAVAILABLE		MAKE_SQLSTATE('P','M','0','0','8')

/*
 * While a function that takes a code, a payload or a token runs, no error of
 * anybody's may write the statement to the log: it holds the secret as a
 * literal.  (CONTEXT is left out of the log as well, see errors.c.)  Call
 * PM_HIDE_STATEMENT() right after the declarations, and PM_SHOW_STATEMENT()
 * before every return.
 */
extern void pm_hide_statement_callback(void *arg);

#define PM_HIDE_STATEMENT() \
	ErrorContextCallback pm_hide_; \
	pm_hide_.callback = pm_hide_statement_callback; \
	pm_hide_.arg = NULL; \
	pm_hide_.previous = error_context_stack; \
	error_context_stack = &pm_hide_

#define PM_SHOW_STATEMENT() \
	(error_context_stack = pm_hide_.previous)

#endif							/* PM_ERRORS_H */
