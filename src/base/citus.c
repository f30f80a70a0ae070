/*-------------------------------------------------------------------------
 *
 * citus.c
 *		Where a row trigger is fired if Citus distributes its table.
 *
 * It is fired on the shards, tables that are named after the distributed one
 * and a number.  Two things are then not what they seem.  A reference table
 * has a shard on every node, and each row comes to all of them.  And whoever
 * distributes a table has its rows copied into shards that are made with its
 * triggers: the rows are not new, though a session of Citus's inserts them as
 * it would what an application adds.  But it does so in the transaction that
 * makes the shard, by COPY, or, where the shard is on this node, in the
 * statement that distributes the table.
 *
 * Moved shards need nothing: they get their triggers after their rows.
 *
 * src/base/citus.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_namespace.h"
#include "nodes/value.h"
#include "parser/parse_func.h"
#include "tcop/pquery.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/portal.h"
#include "utils/rel.h"

#include "base/citus.h"

/* The sessions that Citus opens on other nodes for a statement */
#define CITUS_SESSION	"citus_internal "

/* Columns of pg_dist_partition, and what they say of a reference table */
#define DIST_RELATION	1
#define DIST_METHOD		2
#define DIST_REPLICATION 5
#define METHOD_NONE		'n'
#define REPLICATION_2PC 't'

/* Citus has to be preloaded, so this does not change. */
static bool
citus_loaded(void)
{
	static int	loaded = -1;

	if (loaded < 0)
		loaded = GetConfigOption("citus.shard_count", true, false) != NULL;
	return loaded > 0;
}

/* The table that a relation is a shard of, by its name; InvalidOid: none. */
static Oid
distributed_table(Relation relation)
{
	char	   *name = pstrdup(RelationGetRelationName(relation));
	char	   *number = strrchr(name, '_');

	if (number == NULL || number[1] == '\0' ||
		strspn(number + 1, "0123456789") != strlen(number + 1))
		return InvalidOid;
	*number = '\0';
	return get_relname_relid(name, RelationGetNamespace(relation));
}

/*
 * Whether Citus copies the row that a trigger was fired for, which was there
 * before.
 */
bool
pm_citus_copies(const TriggerData *trigger)
{
	Relation	relation = trigger->tg_relation;

	if (!citus_loaded() || ActivePortal == NULL ||
		relation->rd_createSubid == InvalidSubTransactionId)
		return false;
	if (strncmp(application_name, CITUS_SESSION, strlen(CITUS_SESSION)) == 0)
		return ActivePortal->commandTag == CMDTAG_COPY;
	return ActivePortal->commandTag == CMDTAG_SELECT &&
		OidIsValid(distributed_table(relation));
}

/* Whether Citus has a table on every node. */
static bool
is_reference_table(Oid table)
{
	Oid			catalog = get_relname_relid("pg_dist_partition",
											PG_CATALOG_NAMESPACE);
	Relation	relation;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		result = false;

	if (!OidIsValid(catalog))
		return false;
	relation = table_open(catalog, AccessShareLock);
	ScanKeyInit(&key, DIST_RELATION, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(table));
	scan = systable_beginscan(relation, InvalidOid, false, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		TupleDesc	desc = RelationGetDescr(relation);
		bool		isnull[2];
		Datum		method = heap_getattr(tuple, DIST_METHOD, desc, &isnull[0]);
		Datum		replication = heap_getattr(tuple, DIST_REPLICATION, desc,
											   &isnull[1]);

		result = !isnull[0] && !isnull[1] &&
			DatumGetChar(method) == METHOD_NONE &&
			DatumGetChar(replication) == REPLICATION_2PC;
	}
	systable_endscan(scan);
	table_close(relation, AccessShareLock);
	return result;
}

/* Whether a trigger's WHEN clause asks whether this is the coordinator. */
static bool
asks_for_coordinator(const Trigger *trigger)
{
	char	   *name = "citus_is_coordinator";
	Oid			function;

	if (trigger->tgqual == NULL)
		return false;
	function = LookupFuncName(list_make2(makeString("pg_catalog"),
										 makeString(name)), 0, NULL, true);
	return strstr(trigger->tgqual, psprintf(":funcid %u ", function)) != NULL;
}

/*
 * Refuse a trigger on a reference table that would be fired on every node,
 * each time for the same row.
 *
 * One that asks for the coordinator is not remembered: CREATE OR REPLACE can
 * take its condition away, and leaves it its OID.
 */
void
pm_citus_check(const TriggerData *trigger)
{
	static Oid	checked = InvalidOid;
	Oid			table;

	if (!citus_loaded() || trigger->tg_trigger->tgoid == checked ||
		asks_for_coordinator(trigger->tg_trigger))
		return;
	table = distributed_table(trigger->tg_relation);
	if (OidIsValid(table) && is_reference_table(table))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("trigger of reference table \"%s\" is fired on every node",
						get_rel_name(table)),
				 errdetail("Each of them would send a mail for the same row."),
				 errhint("Create the trigger FOR EACH ROW WHEN (citus_is_coordinator()).")));
	checked = trigger->tg_trigger->tgoid;
}
