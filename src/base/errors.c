/*-------------------------------------------------------------------------
 *
 * errors.c
 *		The rule that a statement which may carry a secret is never written
 *		to the log.
 *
 * An error that is raised anywhere below one of our functions, by us or by
 * anybody else, passes through the error context stack before it is logged.
 * A callback on that stack is therefore the one place from which the log line
 * of every such error can be told what to leave out.
 *
 * src/base/errors.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/errors.h"

/*
 * pm_hide_statement_callback
 *		Error context callback: keep the statement out of the server log.
 *
 * The CONTEXT lines go with it.  They repeat the same literals: a statement
 * that PL/pgSQL's EXECUTE runs is quoted there, and so are the parameters of
 * the extended protocol once log_parameter_max_length_on_error is set.  The
 * client still receives its CONTEXT, which it wrote itself.
 *
 * arg is not used.  Runs while an error is being built, so it must not raise
 * one.
 */
void
pm_hide_statement_callback(void *arg)
{
	errhidestmt(true);
	errhidecontext(true);
}
