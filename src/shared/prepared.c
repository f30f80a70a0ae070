/*-------------------------------------------------------------------------
 *
 * prepared.c
 *		Which prepared transactions concern us.
 *
 * What a transaction noted for its commit (wake.c) is in the memory of its
 * backend, and gone once it is prepared; COMMIT PREPARED may run in another
 * session, after a restart, on another server.  But a prepared transaction
 * keeps its locks.  So the lock table is asked before COMMIT PREPARED which
 * prepared transactions have written to tables of ours, and after it which of
 * them is no more: that one was ours, and the worker is told.  A commit of
 * anybody else's wakes nobody.
 *
 * src/shared/prepared.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/twophase.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "storage/procarray.h"

#include "base/catalog.h"
#include "shared/prepared.h"
#include "shared/wake.h"
#include "shared/wakeup.h"

/* A prepared transaction that has written to a table of ours */
typedef struct Prepared
{
	TransactionId xid;
	bool		databases;		/* or rather to pg_database */
	uint32		reasons;		/* what the worker is to be told, PM_WAKE_* */
} Prepared;

/* Which table means what */
static const struct
{
	PmObject	table;
	uint32		reasons;
}			tables[] = {
	{PM_QUEUE, PM_WAKE_RESCAN | PM_WAKE_CODES},
	{PM_DEFERRED, PM_WAKE_RESCAN | PM_WAKE_CODES},
	{PM_SETTINGS, PM_WAKE_SETTINGS},
	{PM_TEMPLATES, PM_WAKE_SETTINGS},
	{PM_SECRETS, PM_WAKE_SETTINGS},
	{PM_INSTANCE, PM_WAKE_SETTINGS | PM_WAKE_CATALOG},
	{PM_SUPPRESSED_ADDRESSES, PM_WAKE_SUPPRESSED},
	{PM_INQUIRIES, PM_WAKE_FEEDBACK},
	{PM_CAPTURES, PM_WAKE_CAPTURED}
};

/* Add the prepared transactions that hold a writer's lock on a table. */
static List *
add_writers(List *list, Oid database, Oid relation, uint32 reasons)
{
	VirtualTransactionId *holder;
	LOCKTAG		tag;

	/* It conflicts with whatever writes, and with nothing that reads */
	SET_LOCKTAG_RELATION(tag, database, relation);
	for (holder = GetLockConflicts(&tag, ShareLock, NULL);
		 VirtualTransactionIdIsValid(*holder); holder++)
	{
		TransactionId xid;
		bool		more;

		if (VirtualTransactionIdIsRecoveredPreparedXact(*holder))
			xid = holder->localTransactionId;
		else
			xid = TwoPhaseGetXidByVirtualXID(*holder, &more);
		if (TransactionIdIsValid(xid))
		{
			Prepared   *prepared = palloc(sizeof(Prepared));

			prepared->xid = xid;
			prepared->databases = (database == InvalidOid);
			prepared->reasons = reasons;
			list = lappend(list, prepared);
		}
	}
	return list;
}

/*
 * The prepared transactions of this database whose commit concerns us, for
 * pm_note_prepared.  Needs a transaction.
 */
List *
pm_prepared_transactions(void)
{
	List	   *list = add_writers(NIL, InvalidOid, DatabaseRelationId, 0);
	int			i;

	if (pm_extension_present())
		for (i = 0; i < lengthof(tables); i++)
			if (OidIsValid(pm_object(tables[i].table)))
				list = add_writers(list, MyDatabaseId,
								   pm_object(tables[i].table),
								   tables[i].reasons);
	return list;
}

/* Note, for our own commit, what those have done that are prepared no more. */
void
pm_note_prepared(const List *transactions)
{
	ListCell   *cell;

	foreach(cell, transactions)
	{
		const Prepared *prepared = lfirst(cell);

		if (TransactionIdIsInProgress(prepared->xid) ||
			!TransactionIdDidCommit(prepared->xid))
			continue;
		if (prepared->databases)
			pm_note_databases();
		else
			pm_note(prepared->reasons);
	}
}
