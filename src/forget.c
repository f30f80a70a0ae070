/*-------------------------------------------------------------------------
 *
 * forget.c
 *		postmark_forget: erasing a person.
 *
 * What is unsent is cancelled as postmark_cancel does it, which keeps the
 * worker's promise to whoever is told that nothing more will be sent; then all
 * that names the address goes.  A message that is on its way can't be taken
 * back, and its row has to stay until the worker knows what became of it; the
 * caller is told so.
 *
 * src/forget.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "base/args.h"
#include "base/owner.h"
#include "base/text.h"
#include "codes/attempts.h"
#include "codes/code_secret.h"
#include "codes/code_unlock.h"
#include "feedback/forgotten.h"
#include "queue/message_check.h"
#include "queue/queue_session.h"
#include "settings/config_store.h"

PG_FUNCTION_INFO_V1(postmark_forget);

/* A stored email, folded as pm_fold_address does */
#define FOLDED \
	"pg_catalog.translate(email, '" PM_UPPER "', '" PM_LOWER "')"

static PmStatement find_unsent = {
	"SELECT id FROM @.postmark_queue WHERE " FOLDED PM_EQ "$1"
	" UNION ALL SELECT id FROM @.postmark_deferred WHERE " FOLDED PM_EQ "$1",
	1, {TEXTOID}
};

/* Each counts what it took away */
static PmStatement forget_history = {
	"WITH gone AS (DELETE FROM @.postmark_history WHERE " FOLDED PM_EQ "$1"
	" RETURNING id, created_at),"
	" news AS (DELETE FROM @.postmark_feedback AS f USING gone AS g"
	" WHERE f.id" PM_EQ "g.id AND f.created_at" PM_EQ "g.created_at RETURNING 1)"
	" SELECT (SELECT pg_catalog.count(*) FROM gone)"
	" OPERATOR(pg_catalog.+) (SELECT pg_catalog.count(*) FROM news)",
	1, {TEXTOID}
};
static PmStatement forget_codes = {
	"DELETE FROM @.postmark_codes WHERE address" PM_EQ "$1 RETURNING hmac",
	1, {TEXTOID}
};

#define DELETED(table) \
	"WITH gone AS (DELETE FROM @." table " WHERE address" PM_EQ "$1 RETURNING 1)" \
	" SELECT pg_catalog.count(*) FROM gone"

static PmStatement forget_sends = {DELETED("postmark_sends"), 1, {TEXTOID}};
static PmStatement forget_suppressed = {DELETED("postmark_suppressed"), 1, {TEXTOID}};
static PmStatement forget_inquiries = {DELETED("postmark_inquiries"), 1, {TEXTOID}};

static PmStatement forget_captures = {
	"WITH gone AS (DELETE FROM @.postmark_captures WHERE " FOLDED PM_EQ "$1"
	" RETURNING 1) SELECT pg_catalog.count(*) FROM gone",
	1, {TEXTOID}
};
static PmStatement forget_dedup_keys = {DELETED("postmark_dedup_keys"), 1, {TEXTOID}};

/* Run one of the above, whatever the transaction's snapshot. */
static int64
run(PmStatement *statement, Datum argument)
{
	Datum		values[1];
	bool		isnull;

	values[0] = argument;
	pm_execute_now(statement, values, false);
	return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0],
									   SPI_tuptable->tupdesc, 1, &isnull));
}

/* Cancel what is unsent.  Returns how many could not be taken back. */
static int64
cancel_unsent(const char *address)
{
	Datum		values[1];
	int64	   *ids;
	uint64		n;
	int64		left = 0;
	uint64		i;

	values[0] = CStringGetTextDatum(address);
	ids = pm_collect_ids(&find_unsent, values, &n);
	for (i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (!pm_message_cancel(ids[i], InvalidOid))
			left++;
	}
	pfree(ids);
	return left;
}

/* The codes of an address, and the counters of failed attempts at them. */
static int64
forget_codes_of(const char *address)
{
	Datum		values[1];
	SPITupleTable *codes;
	uint64		ncodes;
	int64		n;
	uint64		i;
	bool		counted;

	values[0] = CStringGetTextDatum(address);
	pm_execute_now(&forget_codes, values, false);
	codes = SPI_tuptable;
	n = ncodes = SPI_processed;
	for (i = 0; i < ncodes; i++)
	{
		bool		isnull;
		bytea	   *hmac = DatumGetByteaPP(SPI_getbinval(codes->vals[i],
														 codes->tupdesc, 1,
														 &isnull));

		if (VARSIZE_ANY_EXHDR(hmac) == PM_CODE_HMAC)
			n += pm_counter_forget(PM_COUNTER_CODE,
								   (unsigned char *) VARDATA_ANY(hmac),
								   &counted);
	}
	return n;
}

/* The counters of failed attempts of an address, in every connector. */
static int64
forget_counters(const char *address)
{
	const PmConnector *connector;
	int			number = 0;
	int64		n = 0;
	bool		counted;

	while ((connector = pm_next_connector(number)) != NULL)
	{
		number = connector->number;
		n += pm_address_counter_forget(connector->name, address, &counted);
	}
	return n;
}

/*
 * postmark_forget(email text) returns bigint
 *
 * Erases a person from all connectors of this database.  Returns the number of
 * rows.  PM003 for what is no address.
 */
Datum
postmark_forget(PG_FUNCTION_ARGS)
{
	PmOwnerScope scope;
	char	   *address;
	Datum		argument;
	int64		left;
	int64		n;

	PreventCommandIfReadOnly("postmark_forget()");
	address = pm_folded_address(pm_text_arg(fcinfo, 0));

	left = cancel_unsent(address);
	pm_connect_owner(&scope);
	argument = CStringGetTextDatum(address);
	n = run(&forget_history, argument);
	pm_counters_lock();
	n += forget_counters(address);
	n += forget_codes_of(address);
	n += run(&forget_sends, argument);
	n += run(&forget_suppressed, argument);
	n += run(&forget_inquiries, argument);
	n += run(&forget_captures, argument);
	n += run(&forget_dedup_keys, argument);
	pm_forgotten_put(address);
	pm_disconnect_owner(&scope);

	if (left > 0)
		ereport(WARNING,
				(errmsg_plural("%lld message to this address is on its way and is not forgotten",
							   "%lld messages to this address are on their way and are not forgotten",
							   (unsigned long) left, (long long) left),
				 errhint("Call postmark_forget again once it is finished, which postmark_flush waits for.")));
	PG_RETURN_INT64(n);
}
