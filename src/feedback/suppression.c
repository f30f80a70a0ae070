/*-------------------------------------------------------------------------
 *
 * suppression.c
 *		Addresses to which nothing is sent.
 *
 * Postmark would refuse such a message, and each one costs the sender some of
 * its reputation.  Who is suppressed is read from the table whenever something
 * is to be sent, so that what was just committed counts.
 *
 * For every message of a long queue that would be a descent into an index which
 * nearly always finds nothing, and that took a quarter of the worker's time.  So
 * after many of them a Bloom filter is made of the whole table, and only what
 * the filter does not rule out is looked up.  Whoever changes a row has that
 * counted in shared memory at COMMIT, by a trigger, and then the filter is no
 * good any more.
 *
 * src/feedback/suppression.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "lib/bloomfilter.h"
#include "lib/stringinfo.h"
#include "storage/bufmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/catalog.h"
#include "base/row_trigger.h"
#include "base/tables.h"
#include "feedback/event.h"
#include "feedback/feedback_store.h"
#include "feedback/suppression.h"
#include "queue/batch.h"
#include "settings/connector.h"
#include "settings/recipient_policy.h"
#include "shared/slots.h"
#include "shared/wake.h"
#include "shared/wakeup.h"

/* Postmark's ErrorCode for a recipient that is suppressed */
#define INACTIVE_RECIPIENT 406

/* Rows that a block of the table has, roughly */
#define ROWS_PER_BLOCK 70

/*
 * A filter is made when so many addresses were looked up without a change for
 * each block of the table, and so many at all; its size in memory, kB.
 */
#define LOOKUPS_PER_BLOCK	10
#define LOOKUPS_MIN			2000
#define FILTER_MEMORY		16384

/* Columns of postmark_suppressed, counted as the server does */
enum
{
	COL_NONE, PM_SUPPRESSED_COLUMNS(PM_COLUMN_ENUM)
};

/* An address that is looked up, and what was found */
typedef struct Lookup
{
	int64		key;
	const char *email;
	PmMessage  *message;		/* that goes there; pm_suppressed has none */
	char	   *why;			/* a whole sentence; NULL: may be sent to */
} Lookup;

/* What the table holds, as far as it has not changed */
static struct
{
	uint64		changes;		/* counted when this was begun */
	double		lookups;		/* since then */
	MemoryContext context;		/* of the filter, or NULL */
	bloom_filter *keys;			/* of all its rows, or NULL */
}			filter;

PG_FUNCTION_INFO_V1(postmark_suppressed_changed);

/*
 * postmark_suppressed_changed() RETURNS trigger
 *		BEFORE ROW trigger of postmark_suppressed: once the transaction commits,
 *		the table is not as it was.
 */
Datum
postmark_suppressed_changed(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = pm_before_row(fcinfo, "postmark_suppressed_changed");

	pm_note(PM_WAKE_SUPPRESSED);
	return pm_row_as_it_is(trigger);
}

/* The key of an address, as the table's column of that name has it */
static int64
key_of(const PmConnector *connector, const char *email, StringInfo buf)
{
	int			begin;

	resetStringInfo(buf);
	appendStringInfo(buf, "%s %s ", connector->name, connector->message_stream);
	begin = buf->len;
	appendStringInfoString(buf, email);
	pm_fold_address(buf->data + begin);
	return (int64) DatumGetUInt64(hash_any_extended((unsigned char *) buf->data,
													buf->len, 0));
}

static int
compare_keys(const void *a, const void *b)
{
	const Lookup *s = a;
	const Lookup *t = b;

	return s->key < t->key ? -1 : s->key > t->key;
}

/* Whether a column holds a text, letter case of ASCII aside */
static bool
holds(HeapTuple row, TupleDesc desc, int attno, const char *wanted)
{
	bool		isnull;
	Datum		value = heap_getattr(row, attno, desc, &isnull);

	return !isnull && pg_strcasecmp(TextDatumGetCString(value), wanted) == 0;
}

/* A row was found: of which of the addresses, sorted by key, if of any? */
static void
take_row(const PmConnector *connector, Lookup *lookups, int n, HeapTuple row,
		 TupleDesc desc)
{
	bool		isnull;
	Lookup		wanted;
	Lookup	   *found;

	if (!holds(row, desc, COL_CONNECTOR, connector->name) ||
		!holds(row, desc, COL_MESSAGE_STREAM, connector->message_stream))
		return;
	wanted.key = DatumGetInt64(heap_getattr(row, COL_KEY, desc, &isnull));
	found = bsearch(&wanted, lookups, n, sizeof(Lookup), compare_keys);
	if (found == NULL)
		return;

	/* The first of that key, then all of them */
	while (found > lookups && found[-1].key == wanted.key)
		found--;
	for (; found < lookups + n && found->key == wanted.key; found++)
	{
		Datum		reason;

		if (found->why || !holds(row, desc, COL_ADDRESS, found->email))
			continue;
		reason = heap_getattr(row, COL_REASON, desc, &isnull);
		found->why = psprintf("The address is suppressed: %s.",
							  isnull ? "unknown reason" :
							  TextDatumGetCString(reason));
	}
}

static void
drop_filter(void)
{
	if (filter.context)
		MemoryContextDelete(filter.context);
	filter.context = NULL;
	filter.keys = NULL;
	filter.lookups = 0;
}

/*
 * Make a filter of all rows of the table.  An error leaves none: half of one
 * would rule out what is there.
 */
static void
make_filter(Relation rel, BlockNumber blocks)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "postmark suppressions",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	bloom_filter *keys = bloom_create((int64) blocks * ROWS_PER_BLOCK,
									  FILTER_MEMORY, 0);
	Snapshot	snapshot;
	SysScanDesc scan;
	HeapTuple	row;

	MemoryContextSwitchTo(old);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	scan = systable_beginscan(rel, InvalidOid, false, snapshot, 0, NULL);
	while ((row = systable_getnext(scan)) != NULL)
	{
		bool		isnull;
		int64		key = DatumGetInt64(heap_getattr(row, COL_KEY,
													 RelationGetDescr(rel),
													 &isnull));

		bloom_add_element(keys, (unsigned char *) &key, sizeof(key));
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);

	MemoryContextSetParent(context, TopMemoryContext);
	filter.context = context;
	filter.keys = keys;
}

/*
 * Leave only those of n keys that may be in the table, which is open.  Returns
 * how many.
 */
static int
filter_keys(Relation rel, BlockNumber blocks, Lookup *lookups, int n)
{
	uint64		changes;
	int			left = 0;
	int			i;

	changes = pm_suppression_changes();
	if (changes == 0)
		return n;
	if (changes != filter.changes)
	{
		drop_filter();
		filter.changes = changes;
	}
	if (filter.keys == NULL)
	{
		/* A session that sends one by one has no use for it */
		filter.lookups += n > 1 ? n : 0;
		if (filter.lookups < Max((double) blocks * LOOKUPS_PER_BLOCK, LOOKUPS_MIN))
			return n;
		make_filter(rel, blocks);
	}
	for (i = 0; i < n; i++)
	{
		if (bloom_lacks_element(filter.keys,
								(unsigned char *) &lookups[i].key,
								sizeof(lookups[i].key)))
			continue;
		if (left < i)
		{
			Lookup		other = lookups[left];

			lookups[left] = lookups[i];
			lookups[i] = other;
		}
		left++;
	}
	return left;
}

/*
 * Look addresses up, whose order changes.  The index is searched directly, in order, for all of
 * them in one scan: it is done for every message that is sent, and must not
 * depend on statistics.
 */
static void
look_up(const PmConnector *connector, Lookup *lookups, int n)
{
	Relation	rel;
	Relation	index;
	Snapshot	snapshot;
	StringInfoData buf;
	Datum	   *keys;
	ScanKeyData scan_key;
	SysScanDesc scan;
	HeapTuple	row;
	BlockNumber blocks;
	int			i;

	if (n == 0 || pm_sql_version() < PM_SQL_1_1)
		return;
	rel = table_open(pm_object(PM_SUPPRESSED_ADDRESSES), AccessShareLock);
	pm_check_table(PM_SUPPRESSED_ADDRESSES);
	blocks = RelationGetNumberOfBlocks(rel);
	if (blocks == 0)
	{
		table_close(rel, AccessShareLock);
		return;
	}

	initStringInfo(&buf);
	for (i = 0; i < n; i++)
		lookups[i].key = key_of(connector, lookups[i].email, &buf);
	pfree(buf.data);
	n = filter_keys(rel, blocks, lookups, n);
	if (n == 0)
	{
		table_close(rel, AccessShareLock);
		return;
	}
	index = index_open(pm_object(PM_SUPPRESSED_KEY), AccessShareLock);
	pm_check_table(PM_SUPPRESSED_KEY);
	qsort(lookups, n, sizeof(Lookup), compare_keys);
	keys = palloc(sizeof(Datum) * n);
	for (i = 0; i < n; i++)
		keys[i] = Int64GetDatum(lookups[i].key);

	ScanKeyEntryInitialize(&scan_key, SK_SEARCHARRAY, COL_KEY,
						   BTEqualStrategyNumber, InvalidOid, InvalidOid,
						   F_INT8EQ,
						   PointerGetDatum(construct_array(keys, n, INT8OID,
														   sizeof(int64),
														   FLOAT8PASSBYVAL,
														   TYPALIGN_DOUBLE)));
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	scan = systable_beginscan_ordered(rel, index, snapshot, 1, &scan_key);
	while ((row = systable_getnext_ordered(scan, ForwardScanDirection)) != NULL)
		take_row(connector, lookups, n, row, RelationGetDescr(rel));
	systable_endscan_ordered(scan);
	UnregisterSnapshot(snapshot);
	pfree(keys);
	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);
}

/*
 * Why nothing may be sent to an address, a whole sentence in the current memory
 * context; NULL: it may.  Needs a transaction, and writes nothing.
 */
char *
pm_suppressed(const PmConnector *connector, const char *email)
{
	Lookup		lookup = {0, email, NULL, NULL};

	look_up(connector, &lookup, 1);
	return lookup.why;
}

/*
 * Finish those of a batch's messages, from "first" on, whose address is
 * suppressed: their disposal becomes PM_FINISH.  Returns how many.  Needs a
 * transaction.
 */
int
pm_suppressed_messages(const PmConnector *connector, PmBatch *batch, int first)
{
	int			n = Max(batch->nmessages - first, 0);
	Lookup	   *lookups = palloc(sizeof(Lookup) * Max(n, 1));
	int			count = 0;
	int			i;

	for (i = 0; i < n; i++)
	{
		lookups[i].email = batch->messages[first + i].email;
		lookups[i].message = &batch->messages[first + i];
		lookups[i].why = NULL;
	}
	look_up(connector, lookups, n);
	for (i = 0; i < n; i++)
	{
		if (lookups[i].why == NULL)
			continue;
		pm_message_finish(lookups[i].message, "suppressed",
						  MemoryContextStrdup(batch->context, lookups[i].why));
		count++;
	}
	pfree(lookups);
	return count;
}

/*
 * Note the addresses of those finished messages of a batch that Postmark did
 * not take since their recipient is inactive.  Returns whether there were any,
 * about which Postmark is to be asked then.  For the worker's transactions.
 */
bool
pm_suppressions_learn(const PmConnector *connector, const PmBatch *batch)
{
	bool		learned = false;
	int			i;

	if (pm_sql_version() < PM_SQL_1_1)
		return false;
	for (i = 0; i < batch->nmessages; i++)
	{
		const PmMessage *m = &batch->messages[i];
		PmEvent		event;

		if (m->disposal != PM_FINISH || m->error_code != INACTIVE_RECIPIENT ||
			strcmp(m->status, "suppressed") != 0)
			continue;
		memset(&event, 0, sizeof(event));
		event.suppressing = PM_SUPPRESS_ADDED;
		event.reason = "InactiveRecipient";
		event.email = m->email;
		event.address = pstrdup(m->email);
		pm_fold_address(event.address);
		event.at = GetCurrentTimestamp();
		pm_suppression_put(connector, &event);

		/* Postmark knows since when, and why */
		pm_inquiry_put(connector, &event);
		learned = true;
	}
	return learned;
}
