/*-------------------------------------------------------------------------
 *
 * trigger_grant.c
 *		What CREATE TRIGGER says to a role that may not execute our triggers.
 *
 * Who owns a sign-up table is hardly ever a superuser, and all that the server
 * says is that permission is denied.  So the error gets a HINT with what is to
 * be granted.
 *
 * src/queue/trigger_grant.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "tcop/utility.h"
#include "utils/builtins.h"

#include "base/catalog.h"
#include "base/tables.h"
#include "queue/trigger_grant.h"

static ProcessUtility_hook_type prev_process_utility = NULL;

/* The name of the function that a trigger is to call, if it is ours; or NULL. */
static const char *
our_function(Node *stmt)
{
	if (!IsA(stmt, CreateTrigStmt))
		return NULL;
	return pm_sign_up_function(strVal(llast(((CreateTrigStmt *) stmt)->funcname)));
}

/* Called for whatever is said while the command runs. */
static void
add_hint(void *grants)
{
	if (geterrcode() == ERRCODE_INSUFFICIENT_PRIVILEGE)
		errhint("Who creates the trigger needs TRIGGER on the table, and these grants: %s",
				(char *) grants);
}

static void
process_utility(PlannedStmt *pstmt, const char *queryString, bool readOnlyTree,
				ProcessUtilityContext context, ParamListInfo params,
				QueryEnvironment *queryEnv, DestReceiver *dest,
				QueryCompletion *qc)
{
	const char *function = our_function(pstmt->utilityStmt);
	ErrorContextCallback callback = {0};

	if (function && pm_extension_present())
	{
		const char *schema = pm_schema();
		const char *role = quote_identifier(GetUserNameFromId(GetUserId(),
															  false));

		callback.callback = add_hint;
		callback.arg = psprintf("GRANT USAGE ON SCHEMA %s TO %s; GRANT EXECUTE ON FUNCTION %s.%s TO %s;",
								schema, role, schema, function, role);
		callback.previous = error_context_stack;
		error_context_stack = &callback;
	}
	(prev_process_utility ? prev_process_utility : standard_ProcessUtility)
		(pstmt, queryString, readOnlyTree, context, params, queryEnv, dest, qc);
	if (callback.callback)
		error_context_stack = callback.previous;
}

/* Install the hook; to be called while libraries are preloaded. */
void
pm_install_trigger_hook(void)
{
	prev_process_utility = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
}
