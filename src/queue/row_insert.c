/*-------------------------------------------------------------------------
 *
 * row_insert.c
 *		Putting rows into our tables without a statement.
 *
 * A row goes into the queue and into the history for every message there is,
 * and most of what an INSERT through SPI costs is the executor's beginning and
 * end, and arrays or parameters made only to be taken apart again.  So rows go
 * into a table as COPY and logical replication put them there.  What that way
 * does not do, triggers, rules, constraints and policies that the table's
 * owner added, is asked for first; the caller then uses a statement.
 *
 * src/queue/row_insert.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_index.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "base/compat.h"
#include "queue/row_insert.h"

/* Rows that are put into the table at once */
#define ROWS_AT_ONCE	100

/* Whether a trigger fires in this session. */
static bool
fires(const Trigger *trigger)
{
	switch (trigger->tgenabled)
	{
		case TRIGGER_FIRES_ON_ORIGIN:
			return SessionReplicationRole != SESSION_REPLICATION_ROLE_REPLICA;
		case TRIGGER_FIRES_ON_REPLICA:
			return SessionReplicationRole == SESSION_REPLICATION_ROLE_REPLICA;
		default:
			return trigger->tgenabled == TRIGGER_FIRES_ALWAYS;
	}
}

/*
 * Whether an INSERT into the table does nothing but put a row there.
 *
 * ncolumns:	so many it has as the install script makes it
 * row_trigger: name of our own row trigger, whose work the caller does, or
 *				NULL; it must be enabled
 */
bool
pm_insert_is_plain(Relation rel, int ncolumns, const char *row_trigger)
{
	TupleDesc	desc = RelationGetDescr(rel);
	bool		found = (row_trigger == NULL);
	int			i;

	if (desc->natts != ncolumns || rel->rd_rel->relkind != RELKIND_RELATION ||
		rel->rd_rel->relispartition || rel->rd_rel->relrowsecurity ||
		rel->rd_rules != NULL ||
		(desc->constr && (desc->constr->num_check > 0 ||
						  desc->constr->has_generated_stored)))
		return false;
	for (i = 0; rel->trigdesc && i < rel->trigdesc->numtriggers; i++)
	{
		const Trigger *trigger = &rel->trigdesc->triggers[i];

		if (!TRIGGER_FOR_INSERT(trigger->tgtype) || !fires(trigger))
			continue;
		if (row_trigger == NULL || strcmp(trigger->tgname, row_trigger) != 0 ||
			trigger->tgenabled != TRIGGER_FIRES_ALWAYS)
			return false;
		found = true;
	}
	return found;
}

/*
 * Whether no index of the table has an expression or a predicate.  They are
 * the owner's to run: whoever has other rights uses a statement, with the
 * owner's.
 */
bool
pm_indexes_are_plain(Relation rel)
{
	List	   *indexes = RelationGetIndexList(rel);
	ListCell   *lc;
	bool		plain = true;

	foreach(lc, indexes)
	{
		HeapTuple	tuple = SearchSysCache1(INDEXRELID,
											ObjectIdGetDatum(lfirst_oid(lc)));

		if (!HeapTupleIsValid(tuple))
			elog(ERROR, "cache lookup failed for index %u", lfirst_oid(lc));
		plain = plain &&
			heap_attisnull(tuple, Anum_pg_index_indexprs, NULL) &&
			heap_attisnull(tuple, Anum_pg_index_indpred, NULL);
		ReleaseSysCache(tuple);
	}
	list_free(indexes);
	return plain;
}

/*
 * An error if the row lacks a value that its owner asks for.  The row is not
 * shown, as the server would: there is a code in it.
 */
static void
check_not_null(Relation rel, const TupleTableSlot *slot)
{
	TupleDesc	desc = RelationGetDescr(rel);
	int			i;

	for (i = 0; i < desc->natts; i++)
		if (slot->tts_isnull[i] && TupleDescAttr(desc, i)->attnotnull)
			ereport(ERROR,
					(errcode(ERRCODE_NOT_NULL_VIOLATION),
					 errmsg("null value in column \"%s\" of relation \"%s\" violates not-null constraint",
							NameStr(TupleDescAttr(desc, i)->attname),
							RelationGetRelationName(rel)),
					 errtablecol(rel, i + 1)));
}

/*
 * Insert "n" rows into a table that is open with RowExclusiveLock and of which
 * pm_insert_is_plain is true.  That the transaction may write is the caller's to
 * see to.  A duplicate key is an error, and so is a null where none may be.
 */
void
pm_insert_rows(Relation rel, int n, PmMakeRow make, void *arg)
{
	EState	   *estate;
	MemoryContext row_context;
	MemoryContext old;
	ResultRelInfo *target;
	CommandId	command;
	TupleTableSlot *slots[ROWS_AT_ONCE];
	int			from;
	int			i;

	command = GetCurrentCommandId(true);
	estate = CreateExecutorState();
	row_context = GetPerTupleMemoryContext(estate);
	old = MemoryContextSwitchTo(estate->es_query_cxt);
	target = makeNode(ResultRelInfo);
	InitResultRelInfo(target, rel, 0, NULL, 0);
	ExecOpenIndices(target, false);
	for (i = 0; i < Min(n, ROWS_AT_ONCE); i++)
		slots[i] = table_slot_create(rel, &estate->es_tupleTable);

	for (from = 0; from < n; from += ROWS_AT_ONCE)
	{
		int			count = Min(n - from, ROWS_AT_ONCE);

		MemoryContextSwitchTo(row_context);
		for (i = 0; i < count; i++)
		{
			make(arg, from + i, slots[i]->tts_values, slots[i]->tts_isnull);
			check_not_null(rel, slots[i]);
			ExecStoreVirtualTuple(slots[i]);
		}
		table_multi_insert(rel, slots, count, command, 0, NULL);
		for (i = 0; i < count; i++)
		{
			list_free(ExecInsertIndexTuples(target, estate, 0, slots[i],
											NIL, NULL));
			ExecClearTuple(slots[i]);
		}
		ResetPerTupleExprContext(estate);
	}

	MemoryContextSwitchTo(old);
	ExecResetTupleTable(estate->es_tupleTable, false);
	ExecCloseIndices(target);
	FreeExecutorState(estate);
	CommandCounterIncrement();
}
