/*-------------------------------------------------------------------------
 *
 * subtransaction.c
 *		Work that is undone by itself if it comes to nothing.
 *
 * Whoever begins a subtransaction from C has to end it, also for an error that
 * it does not understand: a transaction that is aborted in one stays open, and
 * a handler above ends one subtransaction, ours in place of its own.
 *
 * src/base/subtransaction.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/resowner.h"

#include "base/subtransaction.h"

/*
 * Run "body" with "arg" in a subtransaction, in the current memory context.
 *
 * expected: which errors are an answer, NULL: none.  All others are raised
 *			 again once the subtransaction is over.
 *
 * Returns whether it was kept: false if body returned false or raised an error
 * that is expected.
 */
bool
pm_run_subtransaction(PmSubtransactionBody body, void *arg,
					  PmExpectedError expected)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool keep = false;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		keep = body(arg);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		if (expected == NULL || !expected(error->sqlerrcode))
			ReThrowError(error);
		FreeErrorData(error);
		return false;
	}
	PG_END_TRY();
	if (keep)
		ReleaseCurrentSubTransaction();
	else
		RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return keep;
}
