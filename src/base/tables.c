/*-------------------------------------------------------------------------
 *
 * tables.c
 *		Whether a table is still as the extension made it, and what somebody
 *		attached to it.
 *
 * The owner of a table, who need not be a superuser, can give a column another
 * type, and C code that trusts its number would take a number for a pointer.
 * Whoever may create a trigger on a table, or attach anything else to it, has
 * it run with the rights that the extension works with.  So a table is looked
 * at before it is used, and what was found is remembered until its relcache
 * entry changes.
 *
 * That holds only while nobody can alter the table: it is looked at under the
 * lock with which it is used.
 *
 * src/base/tables.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/xlog.h"
#include "catalog/pg_am.h"
#include "catalog/pg_attrdef.h"
#include "catalog/pg_class.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_depend.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_policy.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_rewrite.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/plancache.h"
#include "utils/regproc.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "base/catalog.h"
#include "base/errors.h"
#include "base/tables.h"

/* pg_constraint.contype of NOT NULL, where the server keeps it there */
#define NOT_NULL_CONSTRAINT 'n'

typedef struct Column
{
	const char *name;
	Oid			type;
	bool		not_null;
	int			since;			/* PM_SQL_... */
} Column;

#define COLUMN(identifier, name, type, not_null, since) \
	{name, type, not_null, since},

static const Column settings[] = {PM_SETTINGS_COLUMNS(COLUMN)};
static const Column templates[] = {PM_TEMPLATES_COLUMNS(COLUMN)};
static const Column secrets[] = {PM_SECRETS_COLUMNS(COLUMN)};
static const Column queue[] = {PM_QUEUE_COLUMNS(COLUMN)};
static const Column deferred[] = {PM_DEFERRED_COLUMNS(COLUMN)};
static const Column intents[] = {PM_INTENTS_COLUMNS(COLUMN)};
static const Column history[] = {PM_HISTORY_COLUMNS(COLUMN)};
static const Column trouble[] = {PM_TROUBLE_COLUMNS(COLUMN)};
static const Column instance[] = {PM_INSTANCE_COLUMNS(COLUMN)};
static const Column codes[] = {PM_CODES_COLUMNS(COLUMN)};
static const Column sends[] = {PM_SENDS_COLUMNS(COLUMN)};
static const Column attempts[] = {PM_ATTEMPTS_COLUMNS(COLUMN)};
static const Column feedback[] = {PM_FEEDBACK_COLUMNS(COLUMN)};
static const Column suppressed[] = {PM_SUPPRESSED_COLUMNS(COLUMN)};
static const Column inquiries[] = {PM_INQUIRIES_COLUMNS(COLUMN)};
static const Column progress[] = {PM_PROGRESS_COLUMNS(COLUMN)};
static const Column forgotten[] = {PM_FORGOTTEN_COLUMNS(COLUMN)};
static const Column captures[] = {PM_CAPTURES_COLUMNS(COLUMN)};
static const Column dedup_keys[] = {PM_DEDUP_KEYS_COLUMNS(COLUMN)};

/* An index that is searched directly */
typedef struct KeyIndex
{
	PmObject	table;
	const char *column;			/* its first key */
} KeyIndex;

static const KeyIndex suppressed_key = {PM_SUPPRESSED_ADDRESSES, "key"};

#define TABLE(columns) {RELKIND_RELATION, lengthof(columns), columns}

static const struct
{
	char		kind;
	int			ncolumns;
	const Column *columns;
	const KeyIndex *index;
}			tables[PM_OBJECTS] = {
	[PM_SETTINGS] = TABLE(settings),
	[PM_TEMPLATES] = TABLE(templates),
	[PM_SECRETS] = TABLE(secrets),
	[PM_QUEUE] = TABLE(queue),
	[PM_DEFERRED] = TABLE(deferred),
	[PM_INTENTS] = TABLE(intents),
	[PM_HISTORY] = TABLE(history),
	[PM_TROUBLE] = TABLE(trouble),
	[PM_INSTANCE] = TABLE(instance),
	[PM_CODES] = TABLE(codes),
	[PM_SENDS] = TABLE(sends),
	[PM_ATTEMPTS] = TABLE(attempts),
	[PM_FEEDBACK] = TABLE(feedback),
	[PM_SUPPRESSED_ADDRESSES] = TABLE(suppressed),
	[PM_SUPPRESSED_KEY] = {RELKIND_INDEX, 0, NULL, &suppressed_key},
	[PM_INQUIRIES] = TABLE(inquiries),
	[PM_PROGRESS] = TABLE(progress),
	[PM_FORGOTTEN] = TABLE(forgotten),
	[PM_CAPTURES] = TABLE(captures),
	[PM_DEDUP_KEYS] = TABLE(dedup_keys),
	[PM_MESSAGE_ID_SEQ] = {RELKIND_SEQUENCE},
};

/* What is wrong with a relation */
typedef struct Fault
{
	char	   *message;		/* NULL: nothing */
	const char *hint;
} Fault;

/*
 * Up to which of its changes, counted from 1, a relation is known to be in
 * order.
 */
static uint64 sound_at[PM_OBJECTS];

/* Note a fault; the message is palloc'd, the hint a constant. */
static void
found_fault(Fault *fault, const char *hint, char *message)
{
	fault->message = message;
	fault->hint = hint;
}

#define UNDO_HINT	"The extension works with its tables as it made them. Undo the change."
#define ATTACHED_HINT \
	"What is attached to the extension's tables runs with their owner's rights. Drop it, or have the function belong to the tables' owner or to a superuser."

/* How many columns a table has that the objects' version made. */
int
pm_column_count(PmObject which)
{
	int			version = pm_sql_version();
	int			n = 0;
	int			i;

	for (i = 0; i < tables[which].ncolumns; i++)
		if (tables[which].columns[i].since <= version)
			n++;
	return n;
}

/* Hold the columns against what they should be. */
static void
check_columns(PmObject which, Relation rel, Fault *fault)
{
	TupleDesc	desc = RelationGetDescr(rel);
	const char *name = RelationGetRelationName(rel);
	int			version = pm_sql_version();
	int			i;

	for (i = 0; i < tables[which].ncolumns; i++)
	{
		const Column *column = &tables[which].columns[i];
		Form_pg_attribute found;

		if (column->since > version)
			continue;
		found = i < desc->natts ? TupleDescAttr(desc, i) : NULL;
		if (found == NULL || found->attisdropped ||
			strcmp(NameStr(found->attname), column->name) != 0)
			found_fault(fault, UNDO_HINT,
						psprintf("column \"%s\" of table \"%s\" is missing, or not in its place",
								 column->name, name));
		else if (found->atttypid != column->type || found->atttypmod != -1)
			found_fault(fault, UNDO_HINT,
						psprintf("column \"%s\" of table \"%s\" has type %s instead of %s",
								 column->name, name,
								 format_type_with_typemod(found->atttypid,
														  found->atttypmod),
								 format_type_be(column->type)));
		else if (column->not_null && !found->attnotnull)
			found_fault(fault, UNDO_HINT,
						psprintf("column \"%s\" of table \"%s\" may be null",
								 column->name, name));
		if (fault->message)
			return;
	}
}

/* See that an index is one of that column, of the type that the column has. */
static void
check_index(const KeyIndex *expected, Relation rel, Fault *fault)
{
	Form_pg_index index = rel->rd_index;
	AttrNumber	key = index->indkey.values[0];

	if (index->indrelid == pm_object(expected->table) && key > 0 &&
		index->indisvalid && rel->rd_rel->relam == BTREE_AM_OID &&
		strcmp(get_attname(index->indrelid, key, false),
			   expected->column) == 0)
		return;
	found_fault(fault, UNDO_HINT,
				psprintf("index \"%s\" is another one",
						 RelationGetRelationName(rel)));
}

/*
 * The extension's trigger function of that name that is for tables of others;
 * NULL if there is none.
 */
const char *
pm_sign_up_function(const char *name)
{
	static const char *const functions[] = {
		"postmark_enqueue_trigger", "postmark_issue_code_trigger"
	};
	int			i;

	for (i = 0; i < lengthof(functions); i++)
		if (strcmp(name, functions[i]) == 0)
			return functions[i];
	return NULL;
}

/*
 * Whether a trigger's function is one that queues a message.  On a table of
 * ours it would do so for what the worker notes of each message, and never come
 * to an end.
 */
static bool
queues_messages(Oid function)
{
	char	   *name = get_func_name(function);

	return name != NULL && pm_sign_up_function(name) != NULL &&
		get_func_namespace(function) ==
		get_rel_namespace(pm_object(PM_QUEUE));
}

static bool
trusted_owner(Oid role)
{
	return role == pm_owner() || superuser_arg(role);
}

/* Refuse a relation that belongs to somebody who is not trusted. */
static void
check_owner(const char *name, Oid owner, Fault *fault)
{
	if (!trusted_owner(owner))
		found_fault(fault,
					"Have all tables and views of the extension belong to one role.",
					psprintf("relation \"%s\" belongs to role \"%s\" instead of \"%s\"",
							 name, GetUserNameFromId(owner, true),
							 GetUserNameFromId(pm_owner(), true)));
}

/*
 * Refuse a function that belongs to somebody who is not trusted.
 *
 * what: what runs it, as in: trigger "audit"
 */
static void
check_function(Relation rel, Oid function, const char *what, Fault *fault)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		return;
	owner = ((Form_pg_proc) GETSTRUCT(tuple))->proowner;
	ReleaseSysCache(tuple);
	if (!trusted_owner(owner))
		found_fault(fault, ATTACHED_HINT,
					psprintf("%s of table \"%s\" runs function %s, which belongs to role \"%s\"",
							 what, RelationGetRelationName(rel),
							 format_procedure(function),
							 GetUserNameFromId(owner, true)));
}

/*
 * Triggers need only a privilege that the owner may have granted.  Whoever had
 * it is not known any more; so a condition, which can call any function
 * there is, is nobody's whom we trust.
 */
static void
check_triggers(Relation rel, Fault *fault)
{
	/* The relation's own list may be made anew at any look-up */
	TriggerDesc *triggers = CopyTriggerDesc(rel->trigdesc);
	int			i;

	for (i = 0; triggers && i < triggers->numtriggers; i++)
	{
		const Trigger *trigger = &triggers->triggers[i];

		if (trigger->tgisinternal)
			continue;
		if (trigger->tgqual)
			found_fault(fault,
						"What is attached to the extension's tables runs with their owner's rights. Have the trigger's function look at the condition.",
						psprintf("trigger \"%s\" of table \"%s\" has a condition",
								 trigger->tgname, RelationGetRelationName(rel)));
		else if (queues_messages(trigger->tgfoid))
			found_fault(fault,
						"Drop it: such a trigger is for tables of your own.",
						psprintf("trigger \"%s\" of table \"%s\" queues messages",
								 trigger->tgname, RelationGetRelationName(rel)));
		else
			check_function(rel, trigger->tgfoid,
						   psprintf("trigger \"%s\"", trigger->tgname), fault);
		if (fault->message)
			break;
	}
	FreeTriggerDesc(triggers);
}

/* Begin to read what an object depends on, or, with "referenced", its dependents. */
static SysScanDesc
begin_depend(Relation depend, bool referenced, Oid class, Oid object)
{
	ScanKeyData key[2];

	ScanKeyInit(&key[0],
				referenced ? Anum_pg_depend_refclassid : Anum_pg_depend_classid,
				BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(class));
	ScanKeyInit(&key[1],
				referenced ? Anum_pg_depend_refobjid : Anum_pg_depend_objid,
				BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(object));
	return systable_beginscan(depend,
							  referenced ? DependReferenceIndexId :
							  DependDependerIndexId, true, NULL, 2, key);
}

/* Refuse if something that belongs to the table calls a function it should not. */
static void
check_part(Relation rel, Relation depend, Oid class, Oid object,
		   const char *what, Fault *fault)
{
	SysScanDesc scan = begin_depend(depend, false, class, object);
	HeapTuple	tuple;

	while (fault->message == NULL &&
		   HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_depend entry = (Form_pg_depend) GETSTRUCT(tuple);

		if (entry->refclassid == ProcedureRelationId)
			check_function(rel, entry->refobjid, what, fault);
		else if (entry->refclassid == OperatorRelationId)
			check_function(rel, get_opcode(entry->refobjid), what, fault);
	}
	systable_endscan(scan);
}

/* Where constraints tell of NOT NULL, one may not have been validated. */
static void
check_constraint(Relation rel, Oid constraint, Fault *fault)
{
	HeapTuple	tuple = SearchSysCache1(CONSTROID,
										ObjectIdGetDatum(constraint));
	Form_pg_constraint form;

	if (!HeapTupleIsValid(tuple))
		return;
	form = (Form_pg_constraint) GETSTRUCT(tuple);
	if (form->contype == NOT_NULL_CONSTRAINT && !form->convalidated)
		found_fault(fault, UNDO_HINT,
					psprintf("constraint \"%s\" of table \"%s\" is not valid",
							 NameStr(form->conname),
							 RelationGetRelationName(rel)));
	ReleaseSysCache(tuple);
}

/* Rules, defaults, policies, constraints, index expressions */
static void
check_parts(Relation rel, Fault *fault)
{
	Relation	depend = table_open(DependRelationId, AccessShareLock);
	SysScanDesc scan = begin_depend(depend, true, RelationRelationId,
									RelationGetRelid(rel));
	HeapTuple	tuple;

	while (fault->message == NULL &&
		   HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_depend entry = (Form_pg_depend) GETSTRUCT(tuple);
		const char *what = NULL;

		/* Not what only refers to the table, as a view does */
		if (entry->deptype != DEPENDENCY_AUTO &&
			entry->deptype != DEPENDENCY_INTERNAL)
			continue;
		if (entry->classid == RewriteRelationId)
			what = "a rule";
		else if (entry->classid == AttrDefaultRelationId)
			what = "a default";
		else if (entry->classid == PolicyRelationId)
			what = "a policy";
		else if (entry->classid == ConstraintRelationId)
			what = "a constraint";
		else if (entry->classid == RelationRelationId)
			what = "an index";
		if (what == NULL)
			continue;
		check_part(rel, depend, entry->classid, entry->objid, what, fault);
		if (fault->message == NULL && entry->classid == ConstraintRelationId)
			check_constraint(rel, entry->objid, fault);
	}
	systable_endscan(scan);
	table_close(depend, AccessShareLock);
}

/* Look at a relation, on which the caller has a lock. */
static void
look_at(PmObject which, Oid relid, Fault *fault)
{
	Relation	rel = relation_open(relid, NoLock);

	fault->message = NULL;
	if (rel->rd_rel->relkind != tables[which].kind)
		found_fault(fault, UNDO_HINT,
					psprintf("relation \"%s\" is of another kind",
							 RelationGetRelationName(rel)));
	else
		check_owner(RelationGetRelationName(rel), rel->rd_rel->relowner, fault);
	if (fault->message == NULL && rel->rd_rel->relhassubclass &&
		find_inheritance_children(relid, NoLock) != NIL)
		found_fault(fault, UNDO_HINT,
					psprintf("table \"%s\" has child tables",
							 RelationGetRelationName(rel)));
	if (fault->message == NULL && tables[which].index)
		check_index(tables[which].index, rel, fault);
	if (fault->message == NULL)
		check_columns(which, rel, fault);
	if (fault->message == NULL)
		check_triggers(rel, fault);
	if (fault->message == NULL)
		check_parts(rel, fault);
	relation_close(rel, NoLock);
}

static void
raise_fault(const Fault *fault)
{
	if (fault->message)
		ereport(ERROR,
				(errcode(PM_ERRCODE_NOT_CONFIGURED),
				 errmsg_internal("%s", fault->message),
				 errhint("%s", fault->hint)));
}

/*
 * See that a relation is as the extension made it, and that nothing is attached
 * to it that should not run with its owner's rights.  PM001 says what is.
 *
 * The caller has the lock on it with which it is going to be used: one that
 * keeps ALTER TABLE out, and CREATE TRIGGER if it is written to.  Cheap if it
 * was in order and did not change.
 */
void
pm_check_table(PmObject which)
{
	Fault		fault;
	Oid			relid = pm_object(which);
	uint64		changes = pm_object_changes(which);

	if (sound_at[which] == changes)
		return;
	look_at(which, relid, &fault);
	raise_fault(&fault);
	sound_at[which] = changes;
}

/*
 * What a view calls runs with our rights, and its owner can have it call
 * anything.
 */
static void
check_view(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Form_pg_class form;
	Fault		fault = {NULL, NULL};

	if (!HeapTupleIsValid(tuple))
		return;
	form = (Form_pg_class) GETSTRUCT(tuple);
	if (form->relkind == RELKIND_VIEW)
		check_owner(NameStr(form->relname), form->relowner, &fault);
	ReleaseSysCache(tuple);
	raise_fault(&fault);
}

/*
 * Whether a statement writes, so that triggers may be fired.  A SELECT does
 * that has a DELETE in its WITH.
 */
static bool
is_writing(const CachedPlanSource *source)
{
	ListCell   *lc;

	if (source->commandTag != CMDTAG_SELECT)
		return true;
	foreach(lc, source->query_list)
		if (lfirst_node(Query, lc)->hasModifyingCTE)
			return true;
	return false;
}

/*
 * Lock the relations of the extension that a plan uses, as its execution will,
 * and check them.  To be called anew, with a plan made anew if need be, until
 * pm_catalog_changes stays what it was.
 */
void
pm_check_plan(SPIPlanPtr plan)
{
	ListCell   *source;
	ListCell   *lc;
	int			i;

	foreach(source, SPI_plan_get_plan_sources(plan))
	{
		CachedPlanSource *plansource = lfirst(source);
		LOCKMODE	mode = is_writing(plansource) && !RecoveryInProgress() ?
			RowExclusiveLock : AccessShareLock;

		foreach(lc, plansource->relationOids)
		{
			Oid			relid = lfirst_oid(lc);

			for (i = 0; i < PM_OBJECTS; i++)
				if (pm_object(i) == relid)
					break;
			if (i == PM_OBJECTS)
				check_view(relid);
			else
			{
				LockRelationOid(relid, mode);
				if (pm_object(i) == relid)
					pm_check_table(i);
			}
		}
	}
}

/*
 * What is wrong with any of the extension's relations, NULL if nothing is;
 * *hint becomes what to do.  Raises no error for it, and waits for nobody: one
 * that is being altered is passed over.  In the current memory context.
 */
const char *
pm_tables_fault(const char **hint)
{
	const char *missing = pm_missing_object();
	int			i;

	if (missing)
	{
		*hint = "Undo the change, or drop the extension and create it again.";
		return psprintf("relation \"%s\" does not exist", missing);
	}
	for (i = 0; i < PM_OBJECTS; i++)
	{
		Oid			relid = pm_object(i);
		Fault		fault = {NULL, NULL};

		if (!OidIsValid(relid) ||
			!ConditionalLockRelationOid(relid, AccessShareLock))
			continue;
		if (relid == pm_object(i) &&
			sound_at[i] != pm_object_changes(i))
			look_at(i, relid, &fault);
		UnlockRelationOid(relid, AccessShareLock);
		if (fault.message)
		{
			*hint = fault.hint;
			return fault.message;
		}
	}
	return NULL;
}
