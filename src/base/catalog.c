/*-------------------------------------------------------------------------
 *
 * catalog.c
 *		Where this database keeps the extension's objects.
 *
 * The extension works in whatever schema CREATE EXTENSION chose, also after
 * that schema was renamed, and under any search_path of the caller.  So its
 * relations are found by OID through the extension itself; the result is
 * cached in the session and dropped when one of the relations, or a schema,
 * changes.
 *
 * src/base/catalog.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_extension.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "base/catalog.h"

/* The extension's relations, and the version whose SQL made them first */
static const struct
{
	const char *name;
	int			since;
}			relations[PM_OBJECTS] = {
	[PM_SETTINGS] = {"postmark_settings", PM_SQL_1_0},
	[PM_TEMPLATES] = {"postmark_templates", PM_SQL_1_0},
	[PM_SECRETS] = {"postmark_secrets", PM_SQL_1_0},
	[PM_QUEUE] = {"postmark_queue", PM_SQL_1_0},
	[PM_DEFERRED] = {"postmark_deferred", PM_SQL_1_0},
	[PM_INTENTS] = {"postmark_intents", PM_SQL_1_0},
	[PM_HISTORY] = {"postmark_history", PM_SQL_1_0},
	[PM_TROUBLE] = {"postmark_trouble", PM_SQL_1_0},
	[PM_INSTANCE] = {"postmark_instance", PM_SQL_1_0},
	[PM_CODES] = {"postmark_codes", PM_SQL_1_0},
	[PM_SENDS] = {"postmark_sends", PM_SQL_1_0},
	[PM_ATTEMPTS] = {"postmark_attempts", PM_SQL_1_0},
	[PM_FEEDBACK] = {"postmark_feedback", PM_SQL_1_1},
	[PM_SUPPRESSED_ADDRESSES] = {"postmark_suppressed", PM_SQL_1_1},
	[PM_SUPPRESSED_KEY] = {"postmark_suppressed_key", PM_SQL_1_1},
	[PM_INQUIRIES] = {"postmark_inquiries", PM_SQL_1_1},
	[PM_PROGRESS] = {"postmark_feedback_progress", PM_SQL_1_1},
	[PM_FORGOTTEN] = {"postmark_forgotten", PM_SQL_1_1},
	[PM_CAPTURES] = {"postmark_captures", PM_SQL_1_1},
	[PM_DEDUP_KEYS] = {"postmark_dedup_keys", PM_SQL_1_1},
	[PM_MESSAGE_ID_SEQ] = {"postmark_message_id_seq", PM_SQL_1_0},
};

/*
 * The versions of the SQL objects that this library serves: its own and the
 * one before, since a server is restarted first and each database is updated
 * later.
 */
static const struct
{
	const char *name;
	int			version;
}			versions[] = {
	{"1.0", PM_SQL_1_0},
	{"1.1", PM_SQL_1_1},
};

/*
 * What the session knows.  It is good if nothing was invalidated since the
 * look-up began; generation changes when a look-up found something else.
 */
static struct
{
	uint64		invalidations;	/* so many have come */
	uint64		seen;			/* so many had come, plus one, when it was
								 * looked up */
	uint64		generation;
	Oid			objects[PM_OBJECTS];
	uint64		changes[PM_OBJECTS];	/* so many have come for each */
	Oid			owner;
	int			version;		/* of the SQL objects, PM_SQL_... */
	char	   *schema;			/* quoted, in TopMemoryContext */
}			known;

static void
relation_changed(Datum arg, Oid relid)
{
	int			i;

	for (i = 0; i < PM_OBJECTS; i++)
	{
		if (OidIsValid(relid) && known.objects[i] != relid)
			continue;
		known.changes[i]++;
		known.invalidations++;
	}
}

static void
schema_changed(Datum arg, int cacheid, uint32 hashvalue)
{
	known.invalidations++;
}

/*
 * Read the extension's row: its OID, InvalidOid if it is not there.
 *
 * Whoever commits tells us before the server's caches are told, so what counts
 * is the catalog as it is at this moment: no cache, no older snapshot.
 *
 * schema, version: become its schema, and the version of its objects, palloc'd;
 *					NULL if they are not wanted
 */
static Oid
read_extension(Oid *schema, char **version)
{
	Relation	rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	Oid			extension = InvalidOid;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber,
				F_NAMEEQ, CStringGetDatum(PM_EXTENSION));
	InvalidateCatalogSnapshot();
	scan = systable_beginscan(rel, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		Form_pg_extension form = (Form_pg_extension) GETSTRUCT(tuple);
		bool		isnull;
		Datum		value = heap_getattr(tuple, Anum_pg_extension_extversion,
										 RelationGetDescr(rel), &isnull);

		extension = form->oid;
		if (schema)
			*schema = form->extnamespace;
		if (version)
			*version = isnull ? pstrdup("") : TextDatumGetCString(value);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return extension;
}

/* A version of the objects as PM_SQL_..., 0 for one that is not served */
static int
served_version(const char *name)
{
	int			i;

	for (i = 0; i < lengthof(versions); i++)
		if (strcmp(versions[i].name, name) == 0)
			return versions[i].version;
	return 0;
}

/*
 * Fill "known".  Where the extension is not there: an error, or false if
 * missing_ok; *missing becomes the name of a relation that is missing.
 */
static bool
find_objects(bool missing_ok, const char **missing)
{
	static bool callbacks_registered = false;
	Oid			extension;
	Oid			schema = InvalidOid;
	HeapTuple	tuple;
	const char *quoted;
	Oid			objects[PM_OBJECTS];
	char	   *version_name = NULL;
	int			version;
	Oid			owner;
	uint64		seen;
	bool		changed;
	int			i;

	*missing = NULL;
	if (known.seen == known.invalidations + 1)
		return true;

	if (!callbacks_registered)
	{
		CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
		CacheRegisterSyscacheCallback(NAMESPACEOID, schema_changed, (Datum) 0);
		callbacks_registered = true;
	}

	/* One that comes while we look counts: we may have seen the old state */
	seen = known.invalidations + 1;
	extension = read_extension(&schema, &version_name);
	if (!OidIsValid(extension) && missing_ok)
		return false;
	if (!OidIsValid(extension))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("extension \"%s\" is not installed in this database",
						PM_EXTENSION),
				 errhint("Use CREATE EXTENSION %s.", PM_EXTENSION)));

	version = served_version(version_name);
	if (version == 0 && missing_ok)
		return false;
	if (version == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("version %s of extension \"%s\" is not served by the library that is loaded",
						version_name, PM_EXTENSION),
				 errdetail("The library serves %s and %s.", versions[0].name,
						   versions[lengthof(versions) - 1].name),
				 errhint("Use ALTER EXTENSION %s UPDATE; if the library is older than the extension's objects, install the newer one and restart the server.",
						 PM_EXTENSION)));

	for (i = 0; i < PM_OBJECTS; i++)
	{
		objects[i] = InvalidOid;
		if (relations[i].since > version)
			continue;
		objects[i] = get_relname_relid(relations[i].name, schema);
		if (OidIsValid(objects[i]))
			continue;
		*missing = relations[i].name;
		if (missing_ok)
			return false;
		else
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_TABLE),
					 errmsg("relation \"%s\" of extension \"%s\" does not exist",
							relations[i].name, PM_EXTENSION),
					 errhint("Drop the extension and create it again.")));
	}
	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(objects[PM_QUEUE]));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", objects[PM_QUEUE]);
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);

	quoted = quote_identifier(get_namespace_name(schema));
	changed = known.version != version ||
		memcmp(known.objects, objects, sizeof(objects)) != 0;
	if (known.schema == NULL || strcmp(known.schema, quoted) != 0)
	{
		char	   *copy = MemoryContextStrdup(TopMemoryContext, quoted);

		if (known.schema)
			pfree(known.schema);
		known.schema = copy;
		changed = true;
	}

	/* What was found out about a relation holds no more */
	for (i = 0; i < PM_OBJECTS; i++)
		if (known.objects[i] != objects[i] || known.owner != owner ||
			known.version != version)
			known.changes[i]++;
	memcpy(known.objects, objects, sizeof(objects));
	known.owner = owner;
	known.version = version;
	if (changed)
		known.generation++;
	known.seen = seen;
	return true;
}

/* Name of one of the extension's relations, which may not be there. */
const char *
pm_object_name(PmObject which)
{
	return relations[which].name;
}

/* OID of the extension in this database, InvalidOid if it is not there. */
Oid
pm_extension_oid(void)
{
	return read_extension(NULL, NULL);
}

/*
 * Whether the extension is installed here with all its relations, so that what
 * follows raises no error.
 */
bool
pm_extension_present(void)
{
	const char *missing;

	return find_objects(true, &missing);
}

/*
 * The name of a relation that the extension lacks, although it is installed;
 * NULL if it has all of them.
 */
const char *
pm_missing_object(void)
{
	const char *missing;

	(void) find_objects(true, &missing);
	return missing;
}

static void
require_objects(void)
{
	const char *missing;

	(void) find_objects(false, &missing);
}

/*
 * OID of one of the extension's relations; InvalidOid for one that the SQL
 * objects of this database are too old to have, see pm_sql_version.  Needs a
 * transaction; error if the extension is not installed.
 */
Oid
pm_object(PmObject which)
{
	require_objects();
	return known.objects[which];
}

/*
 * The extension's schema, quoted where that is needed.  Good until the next
 * catalog access.
 */
const char *
pm_schema(void)
{
	require_objects();
	return known.schema;
}

/* Owner of the queue table, with whose rights everything is done. */
Oid
pm_owner(void)
{
	require_objects();
	return known.owner;
}

/*
 * The version of the SQL objects in this database, PM_SQL_1_0 for instance:
 * whoever uses a relation or a column that came later asks first.  Changes
 * with pm_catalog_generation.  Errors as pm_object.
 */
int
pm_sql_version(void)
{
	require_objects();
	return known.version;
}

/* Changes whenever the objects are others, or in another schema. */
uint64
pm_catalog_generation(void)
{
	require_objects();
	return known.generation;
}

/*
 * Changes whenever anything about one of the relations may have: its columns,
 * its owner, what is attached to it.  Never 0.
 */
uint64
pm_object_changes(PmObject which)
{
	require_objects();
	return known.changes[which];
}

/*
 * Changes, too, when anything else about the objects did: a trigger, the file
 * that holds a table, statistics.
 */
uint64
pm_catalog_changes(void)
{
	return known.invalidations;
}
