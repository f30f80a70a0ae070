/*-------------------------------------------------------------------------
 *
 * config_store.c
 *		The stored connectors, as the session knows them.
 *
 * Settings change rarely and are needed for every row that is queued, so each
 * session keeps all of them.  The statement triggers on the three tables send
 * a relcache invalidation for postmark_settings, which PostgreSQL delivers to
 * every session at commit, to this one after each command, and to this one
 * again at rollback: exactly when what we read may have become wrong.
 *
 * Tokens are not among what is kept, see pm_stored_token.
 *
 * The tables are scanned directly.  That needs no privilege of the caller, no
 * SPI, and nothing that a caller's search_path could change, so that a row
 * trigger can do it under a role that may only insert.
 *
 * src/settings/config_store.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "commands/trigger.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/catalog.h"
#include "base/compat.h"
#include "base/errors.h"
#include "base/owner.h"
#include "base/tables.h"
#include "settings/config_json.h"
#include "settings/config_store.h"
#include "settings/connector.h"
#include "settings/connector_roles.h"
#include "shared/wake.h"
#include "shared/wakeup.h"

/* Columns, counted as the server does */
#define SETTINGS_COLUMN(identifier, ...) SETTINGS_##identifier,
#define TEMPLATES_COLUMN(identifier, ...) TEMPLATES_##identifier,
#define SECRETS_COLUMN(identifier, ...) SECRETS_##identifier,

enum
{
	SETTINGS_NONE, PM_SETTINGS_COLUMNS(SETTINGS_COLUMN)
};
enum
{
	TEMPLATES_NONE, PM_TEMPLATES_COLUMNS(TEMPLATES_COLUMN)
};
enum
{
	SECRETS_NONE, PM_SECRETS_COLUMNS(SECRETS_COLUMN)
};

/* A row of postmark_settings. */
typedef struct SettingsRow
{
	char	   *name;
	int			number;
	Jsonb	   *options;
	bool		paused;
	int			ntemplates;
	PmTemplate *templates;
} SettingsRow;

typedef struct Store
{
	MemoryContext context;		/* of all of it */
	int			nconnectors;
	PmConnector **connectors;	/* ordered by number */
	PmConnector **by_name;		/* the same ones, ordered by name */
} Store;

/*
 * The store is good while no invalidation came since it was read.  Counting
 * them, rather than keeping a flag, makes one that arrives while the tables
 * are being read count, and an error there harmless.
 */
static Store *store = NULL;
static Store *pinned = NULL;	/* pm_config_pin's, may be an old one */
static Oid	store_relid = InvalidOid;	/* of postmark_settings */
static uint64 store_invalidations = 0;	/* seen when it was read */
static uint64 invalidations = 0;
static const PmConnector *last_found = NULL;

PG_FUNCTION_INFO_V1(postmark_settings_changed);

/*
 * postmark_settings_changed() RETURNS trigger
 *		Trigger of the tables that are read here: tell every session and the
 *		worker.  Fired by each statement, and for the rows that an apply worker
 *		writes, which fires no others.
 */
Datum
postmark_settings_changed(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" was not called by trigger manager",
						"postmark_settings_changed")));

	CacheInvalidateRelcacheByRelid(pm_object(PM_SETTINGS));
	pm_note(PM_WAKE_SETTINGS);
	return PointerGetDatum(NULL);
}

static void
settings_changed(Datum arg, Oid relid)
{
	if (relid == store_relid || !OidIsValid(relid))
		invalidations++;
}

/* ----------
 * Reading the tables
 * ----------
 */

/* A column's text, "" for NULL, which only edited rows can have. */
static char *
get_text(TupleTableSlot *slot, int attno)
{
	bool		isnull;
	Datum		value = slot_getattr(slot, attno, &isnull);

	return isnull ? pstrdup("") : TextDatumGetCString(value);
}

static int
get_int(TupleTableSlot *slot, int attno, int if_null)
{
	bool		isnull;
	Datum		value = slot_getattr(slot, attno, &isnull);

	return isnull ? if_null : DatumGetInt32(value);
}

/* What scan_table does with each row; state is the caller's. */
typedef void (*RowReader) (TupleTableSlot *slot, void *state);

static void
scan_table(Relation rel, Snapshot snapshot, RowReader reader, void *state)
{
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL, SO_NONE);

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
		reader(slot, state);
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
}

/* Rows of postmark_settings with their templates */
typedef struct RowList
{
	int			n;
	int			max;
	SettingsRow *rows;
} RowList;

static void
read_settings_row(TupleTableSlot *slot, void *state)
{
	RowList    *list = state;
	SettingsRow *row;
	bool		isnull;
	Datum		value;

	if (list->n == list->max)
	{
		list->max *= 2;
		list->rows = repalloc(list->rows, sizeof(SettingsRow) * list->max);
	}
	row = &list->rows[list->n];
	memset(row, 0, sizeof(SettingsRow));
	value = slot_getattr(slot, SETTINGS_CONFIG, &isnull);
	if (isnull)
		return;
	row->name = get_text(slot, SETTINGS_CONNECTOR);
	row->number = get_int(slot, SETTINGS_NUMBER, 0);
	row->options = DatumGetJsonbPCopy(value);
	(void) slot_getattr(slot, SETTINGS_PAUSED_AT, &isnull);
	row->paused = !isnull;
	list->n++;
}

static int
compare_names(const void *a, const void *b)
{
	const SettingsRow *s = a;
	const SettingsRow *t = b;

	return strcmp(s->name, t->name);
}

/* Needs the list to be sorted by name. */
static void
read_template_row(TupleTableSlot *slot, void *state)
{
	RowList    *list = state;
	SettingsRow wanted = {.name = get_text(slot, TEMPLATES_CONNECTOR)};
	SettingsRow *row;
	PmTemplate *template;

	row = bsearch(&wanted, list->rows, list->n, sizeof(SettingsRow),
				  compare_names);
	pfree(wanted.name);
	if (row == NULL)
		return;

	/* Grown whenever the number of them reaches a power of two. */
	if (row->ntemplates == 0)
		row->templates = palloc(sizeof(PmTemplate));
	else if ((row->ntemplates & (row->ntemplates - 1)) == 0)
		row->templates = repalloc(row->templates,
								  sizeof(PmTemplate) * row->ntemplates * 2);
	template = &row->templates[row->ntemplates++];
	template->usage_type = get_text(slot, TEMPLATES_USAGE_TYPE);
	template->locale = get_text(slot, TEMPLATES_LOCALE);
	if (*template->locale == '\0')
		template->locale = NULL;
	template->alias = get_text(slot, TEMPLATES_ALIAS);
	template->priority = get_int(slot, TEMPLATES_PRIORITY, PM_DEFAULT_PRIORITY);
	template->expires_in = get_int(slot, TEMPLATES_EXPIRES_IN, 0);
}

static int
compare_numbers(const void *a, const void *b)
{
	const PmConnector *s = *(const PmConnector *const *) a;
	const PmConnector *t = *(const PmConnector *const *) b;

	return s->number < t->number ? -1 : s->number > t->number;
}

/* Read all connectors, in the current memory context. */
static Store *
read_store(Relation settings, Relation templates)
{
	Store	   *new_store = palloc0(sizeof(Store));
	RowList		list = {0, 8, NULL};
	Snapshot	snapshot;
	int			i;

	new_store->context = CurrentMemoryContext;

	/*
	 * The latest snapshot also under REPEATABLE READ: settings are what holds
	 * now, like a GUC, and an older state would not be invalidated again.
	 */
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	list.rows = palloc(sizeof(SettingsRow) * list.max);
	scan_table(settings, snapshot, read_settings_row, &list);
	qsort(list.rows, list.n, sizeof(SettingsRow), compare_names);
	scan_table(templates, snapshot, read_template_row, &list);
	UnregisterSnapshot(snapshot);

	new_store->nconnectors = list.n;
	new_store->by_name = palloc(sizeof(PmConnector *) * Max(list.n, 1));
	for (i = 0; i < list.n; i++)
	{
		SettingsRow *row = &list.rows[i];

		new_store->by_name[i] =
			pm_config_from_parts(row->name, row->number, row->options,
								 row->ntemplates, row->templates);
		new_store->by_name[i]->paused = row->paused;
	}
	new_store->connectors = palloc(sizeof(PmConnector *) * Max(list.n, 1));
	memcpy(new_store->connectors, new_store->by_name,
		   sizeof(PmConnector *) * list.n);
	qsort(new_store->connectors, list.n, sizeof(PmConnector *),
		  compare_numbers);
	return new_store;
}

/*
 * Be done with a store that is not pinned.  One of our functions that is
 * executing SQL may be using it: a trigger that the tables' owner added can
 * change settings, and call us.
 */
static void
drop_store(Store *old)
{
	if (old == NULL || old == pinned)
		return;
	if (pm_owner_context())
		MemoryContextSetParent(old->context, pm_owner_context());
	else
		MemoryContextDelete(old->context);
}

/*
 * Make the store current.  For how long pointers into the old one are good see
 * config_store.h.
 * Errors leave the old one as it is, to be tried again.
 */
static void
refresh_store(void)
{
	static bool callback_registered = false;
	Oid			relid;
	Relation	settings;
	Relation	templates;
	MemoryContext context;
	MemoryContext old_context;
	Store	   *new_store;
	uint64		seen;

	Assert(IsTransactionState());

	/*
	 * A transaction that locks no new table would otherwise not hear of
	 * changes.  With none, this is a look at one flag.
	 */
	AcceptInvalidationMessages();
	relid = pm_object(PM_SETTINGS);
	if (store && store_relid == relid && store_invalidations == invalidations)
		return;

	if (!callback_registered)
	{
		CacheRegisterRelcacheCallback(settings_changed, (Datum) 0);
		callback_registered = true;
	}

	/* From now on invalidations of this relation are counted. */
	if (store_relid != relid)
	{
		store_relid = relid;
		invalidations++;
	}
	settings = table_open(relid, AccessShareLock);
	templates = table_open(pm_object(PM_TEMPLATES), AccessShareLock);
	pm_check_table(PM_SETTINGS);
	pm_check_table(PM_TEMPLATES);
	seen = invalidations;

	/* It joins the long-lived contexts only when it is complete. */
	context = AllocSetContextCreate(CurrentMemoryContext,
									"postmark_connector settings",
									ALLOCSET_DEFAULT_SIZES);
	old_context = MemoryContextSwitchTo(context);
	new_store = read_store(settings, templates);
	MemoryContextSwitchTo(old_context);

	table_close(templates, AccessShareLock);
	table_close(settings, AccessShareLock);

	MemoryContextSetParent(context, CacheMemoryContext);
	last_found = NULL;
	drop_store(store);
	store = new_store;
	store_invalidations = seen;
}

/* ----------
 * Connectors
 * ----------
 */

static int
compare_with_name(const void *name, const void *element)
{
	return strcmp(name, (*(PmConnector *const *) element)->name);
}

static const PmConnector *
find_by_name(const char *name)
{
	PmConnector **found = bsearch(name, store->by_name, store->nconnectors,
								  sizeof(PmConnector *), compare_with_name);

	return found ? *found : NULL;
}

/*
 * Raise PM001 for a name, which can be a connector's, but is not.
 */
void
pm_raise_not_configured(const char *name)
{
	ereport(ERROR,
			(errcode(PM_ERRCODE_NOT_CONFIGURED),
			 errmsg("connector \"%s\" is not configured", name),
			 errhint("Configure it with postmark_configure."),
			 errhidestmt(true)));
}

/*
 * The stored connector of that name.  PM001 if there is none, unless
 * missing_ok: then NULL; PM001 also, and always, if what is stored is invalid.
 * For how long the result is good see config_store.h.  Fast when called again with
 * the same name.
 */
const PmConnector *
pm_connector(const char *name, bool missing_ok)
{
	refresh_store();

	if (last_found == NULL || name == NULL ||
		strcmp(last_found->name, name) != 0)
		last_found = name ? find_by_name(name) : NULL;

	if (last_found == NULL)
	{
		if (missing_ok)
			return NULL;
		pm_check_connector_name(name);
		pm_raise_not_configured(name);
	}
	if (last_found->invalid)
		ereport(ERROR,
				(errcode(PM_ERRCODE_NOT_CONFIGURED),
				 errmsg("stored configuration of connector \"%s\" is invalid",
						last_found->name),
				 errdetail_internal("%s", last_found->invalid),
				 errhint("Configure it again with postmark_configure."),
				 errhidestmt(true)));
	return last_found;
}

/*
 * The stored connector of that name, for a role to use it.  PM001 as
 * pm_connector, insufficient_privilege if the role may not.
 */
const PmConnector *
pm_use_connector(const char *name, Oid role)
{
	const PmConnector *connector = pm_connector(name, false);

	pm_require_use(connector, role);
	return connector;
}

/*
 * The stored connector of that name, NULL if there is none.  Its field
 * "invalid" may be set.
 */
const PmConnector *
pm_find_connector(const char *name)
{
	refresh_store();
	return find_by_name(name);
}

/*
 * The stored connector with that number, NULL if there is none.  Its field
 * "invalid" may be set.
 */
const PmConnector *
pm_connector_by_number(int number)
{
	int			i;

	refresh_store();
	for (i = 0; i < store->nconnectors; i++)
		if (store->connectors[i]->number == number)
			return store->connectors[i];
	return NULL;
}

/*
 * The stored connector with the lowest number above "number", 0 for the first;
 * NULL past the end.  Its field "invalid" may be set.  For loops in which
 * settings may be read anew.
 */
const PmConnector *
pm_next_connector(int number)
{
	int			i;

	refresh_store();
	for (i = 0; i < store->nconnectors; i++)
		if (store->connectors[i]->number > number)
			return store->connectors[i];
	return NULL;
}

/*
 * The stored connectors one after another, from index 0 on, ordered by
 * number; NULL past the end.  The field "invalid" may be set.  Only index 0
 * reads settings that changed, so that a loop goes through one state of them:
 * it asks for each index once, and does nothing that reads settings.
 */
const PmConnector *
pm_connectors(int index)
{
	if (index == 0 || store == NULL)
		refresh_store();
	return index < store->nconnectors ? store->connectors[index] : NULL;
}

/*
 * pm_config_forget
 *		Read the settings anew at the next use.
 *
 * For the worker, which a commit wakes before its invalidation messages are
 * sent: at that moment the new settings can be seen, but nothing says yet that
 * the old ones are stale.
 */
void
pm_config_forget(void)
{
	invalidations++;
}

/*
 * Keep all connectors as they were read last, until this is called again: for
 * a process that works with them across transactions.  Reads nothing anew.
 */
void
pm_config_pin(void)
{
	if (pinned && pinned != store)
		MemoryContextDelete(pinned->context);
	pinned = store;
}

/*
 * The token that is stored for a connector's name, palloc'd, NULL if none is;
 * the connector itself need not exist.  Never to be shown.
 *
 * It is read for whoever uses it and not kept: few sessions use one.
 */
char *
pm_stored_token(const char *name)
{
	Relation	secrets = table_open(pm_object(PM_SECRETS), AccessShareLock);
	Datum		wanted = CStringGetTextDatum(name);
	Snapshot	snapshot;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	Oid			index;
	char	   *token = NULL;

	pm_check_table(PM_SECRETS);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	list_free(RelationGetIndexList(secrets));
	index = secrets->rd_pkindex;
	ScanKeyInit(&key, SECRETS_CONNECTOR, BTEqualStrategyNumber, F_TEXTEQ,
				wanted);
	scan = systable_beginscan(secrets, index, OidIsValid(index), snapshot, 1,
							  &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		bool		isnull;
		Datum		value = heap_getattr(tuple, SECRETS_TOKEN,
										 RelationGetDescr(secrets), &isnull);

		token = isnull ? NULL : TextDatumGetCString(value);
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(secrets, AccessShareLock);
	return token;
}
