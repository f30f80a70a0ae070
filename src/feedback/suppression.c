/*-------------------------------------------------------------------------
 *
 * suppression.c
 *		Addresses to which nothing is sent.
 *
 * Postmark would refuse such a message, and each one costs the sender some of
 * its reputation.  Who is suppressed is read from the table whenever something
 * is to be sent, so that what was just committed counts.
 *
 * src/feedback/suppression.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "storage/bufmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/catalog.h"
#include "feedback/event.h"
#include "feedback/feedback_store.h"
#include "feedback/suppression.h"
#include "queue/batch.h"
#include "settings/connector.h"
#include "settings/recipient_policy.h"

/* Postmark's ErrorCode for a recipient that is suppressed */
#define INACTIVE_RECIPIENT 406

static PmStatement find_suppressed = {
	"SELECT address, reason FROM @.postmark_suppressed"
	" WHERE connector" PM_EQ "$1 AND message_stream" PM_EQ "$2"
	" AND address" PM_EQ "ANY ($3) AND NOT lifted",
	3, {TEXTOID, TEXTOID, TEXTARRAYOID}
};

/* Whether anything was ever suppressed, as far as the table's size tells. */
static bool
any_suppressed(void)
{
	Relation	rel;
	BlockNumber blocks;

	if (pm_sql_version() < PM_SQL_1_1)
		return false;
	rel = table_open(pm_object(PM_SUPPRESSED_ADDRESSES), AccessShareLock);
	blocks = RelationGetNumberOfBlocks(rel);
	table_close(rel, AccessShareLock);
	return blocks > 0;
}

/* Look folded addresses up; what is found is in SPI's result. */
static void
find(const PmConnector *connector, Datum *addresses, int n)
{
	Datum		values[3];

	values[0] = CStringGetTextDatum(connector->name);
	values[1] = CStringGetTextDatum(connector->message_stream);
	values[2] = PointerGetDatum(construct_array(addresses, n, TEXTOID, -1,
												false, TYPALIGN_INT));
	pm_execute_now(&find_suppressed, values, true);
}

static char *
explain(uint64 row)
{
	char	   *reason = SPI_getvalue(SPI_tuptable->vals[row],
									  SPI_tuptable->tupdesc, 2);

	return psprintf("The address is suppressed: %s.",
					reason ? reason : "unknown reason");
}

/*
 * Why nothing may be sent to an address, a whole sentence in the current memory
 * context; NULL: it may.  Needs a transaction, and writes nothing.
 */
char *
pm_suppressed(const PmConnector *connector, const char *email)
{
	MemoryContext context = CurrentMemoryContext;
	PmOwnerScope scope;
	char	   *address;
	Datum		addresses[1];
	char	   *why = NULL;

	if (!any_suppressed())
		return NULL;
	pm_connect_owner(&scope);
	address = pstrdup(email);
	pm_fold_address(address);
	addresses[0] = CStringGetTextDatum(address);
	find(connector, addresses, 1);
	if (SPI_processed > 0)
		why = MemoryContextStrdup(context, explain(0));
	pm_disconnect_owner(&scope);
	return why;
}

static int
compare_addresses(const void *a, const void *b)
{
	return strcmp(*(char *const *) a, *(char *const *) b);
}

/*
 * Finish those of a batch's messages, from "first" on, whose address is
 * suppressed: their disposal becomes PM_FINISH.  Returns how many.  For the
 * worker's transactions.
 */
int
pm_suppressed_messages(const PmConnector *connector, PmBatch *batch, int first)
{
	int			n = batch->nmessages - first;
	Datum	   *addresses;
	char	  **found;
	char	  **reasons;
	uint64		nfound;
	int			count = 0;
	uint64		k;
	int			i;

	if (n <= 0 || !any_suppressed())
		return 0;
	addresses = palloc(sizeof(Datum) * n);
	for (i = 0; i < n; i++)
	{
		char	   *address = pstrdup(batch->messages[first + i].email);

		pm_fold_address(address);
		addresses[i] = CStringGetTextDatum(address);
	}
	find(connector, addresses, n);
	nfound = SPI_processed;
	if (nfound == 0)
		return 0;

	/* Pairs of an address and why, sorted by the address */
	found = palloc(sizeof(char *) * 2 * nfound);
	for (k = 0; k < nfound; k++)
	{
		found[2 * k] = SPI_getvalue(SPI_tuptable->vals[k],
									SPI_tuptable->tupdesc, 1);
		found[2 * k + 1] = explain(k);
	}
	qsort(found, nfound, sizeof(char *) * 2, compare_addresses);
	for (i = 0; i < n; i++)
	{
		PmMessage  *m = &batch->messages[first + i];
		char	   *address = TextDatumGetCString(addresses[i]);

		reasons = bsearch(&address, found, nfound, sizeof(char *) * 2,
						  compare_addresses);
		if (reasons == NULL)
			continue;
		pm_message_finish(m, "suppressed",
						  MemoryContextStrdup(batch->context, reasons[1]));
		count++;
	}
	return count;
}

/*
 * Note the addresses of those finished messages of a batch that Postmark did
 * not take since their recipient is inactive.  For the worker's transactions.
 */
void
pm_suppressions_learn(const PmConnector *connector, const PmBatch *batch)
{
	int			i;

	if (pm_sql_version() < PM_SQL_1_1)
		return;
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
	}
}
