/*-------------------------------------------------------------------------
 *
 * errors.c
 *		The rule that a statement which may carry a secret is never written
 *		to the log, and that no row of ours is shown.
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
 * Error context callback for work on the extension's tables.
 *
 * In place of a row, or a key, that a constraint refuses, say that it is not
 * shown.  The extension's tables have none that its own rows could break;
 * whoever adds one need not know what is in them.  In place of the statements
 * of all sessions in a deadlock, which the server would write to its log, say
 * the same: those are others' as well, which hide theirs in vain.
 *
 * Runs while an error is being built, so it must not raise one.
 */
void
pm_mask_secrets(void *arg)
{
	if (ERRCODE_TO_CATEGORY(geterrcode()) ==
		ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION)
		errdetail("The row is not shown: there may be a code in it.");
	else if (geterrcode() == ERRCODE_T_R_DEADLOCK_DETECTED)
	{
		errdetail_log("The statements are not shown: there may be a code in them.");
		errhint("Try the transaction again.");
	}
}

/*
 * Error context callback: keep the statement out of the server log.
 *
 * The CONTEXT lines go with it.  They repeat the same literals: a statement
 * that PL/pgSQL's EXECUTE runs is quoted there, and so are the parameters of
 * the extended protocol once log_parameter_max_length_on_error is set.  The
 * client still receives its CONTEXT, which it wrote itself.
 *
 * Runs while an error is being built, so it must not raise one.
 */
static void
hide_statement(void *arg)
{
	pm_mask_secrets(arg);
	errhidestmt(true);
	errhidecontext(true);
}

/*
 * Call an SQL function with the statement hidden, see PM_HIDDEN_FUNCTION.
 * Returns what it returns.  An error in it restores the stack by itself.
 */
Datum
pm_call_hidden(PGFunction function, FunctionCallInfo fcinfo)
{
	ErrorContextCallback hide;
	Datum		result;

	hide.callback = hide_statement;
	hide.arg = NULL;
	hide.previous = error_context_stack;
	error_context_stack = &hide;
	result = function(fcinfo);
	error_context_stack = hide.previous;
	return result;
}
