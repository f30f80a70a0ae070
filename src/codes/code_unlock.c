/*-------------------------------------------------------------------------
 *
 * code_unlock.c
 *		Taking failed attempts back.
 *
 * A counter lies in shared memory, in the table, or in both.  It is taken away
 * from both, while the worker is kept from storing it again.
 *
 * src/codes/code_unlock.c
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
#include "base/catalog.h"
#include "base/owner.h"
#include "codes/attempts.h"
#include "codes/code_secret.h"
#include "codes/code_store.h"
#include "codes/code_unlock.h"
#include "queue/message_check.h"
#include "settings/code_key.h"
#include "settings/config_store.h"

PG_FUNCTION_INFO_V1(postmark_unlock);

static PmStatement lock_attempts = {
	"LOCK TABLE @.postmark_attempts IN SHARE ROW EXCLUSIVE MODE",
};
static PmStatement delete_counter = {
	"DELETE FROM @.postmark_attempts WHERE counter" PM_EQ "$1",
	1, {BYTEAOID}
};
static PmStatement find_codes = {
	"SELECT hmac FROM @.postmark_codes WHERE connector" PM_EQ "$1"
	" AND address" PM_EQ "$2",
	2, {TEXTOID, TEXTOID}
};

/*
 * Keep the worker from storing counters until the transaction ends.  As all
 * here, with SPI and the owner's rights.
 */
void
pm_counters_lock(void)
{
	pm_execute(&lock_attempts, NULL, NULL, 0);
}

/*
 * Take a counter away, where it is counted and where it is stored.  Returns the
 * number of rows; *counted becomes true if it was there at all.
 *
 * hmac: of what is counted, PM_CODE_HMAC bytes
 */
int
pm_counter_forget(char kind, const unsigned char *hmac, bool *counted)
{
	bytea	   *name = palloc(VARHDRSZ + PM_COUNTER_NAME);
	Datum		values[1];

	SET_VARSIZE(name, VARHDRSZ + PM_COUNTER_NAME);
	*VARDATA(name) = kind;
	memcpy(VARDATA(name) + 1, hmac, PM_COUNTER_NAME - 1);
	if (pm_attempts_remove((unsigned char *) VARDATA(name)))
		*counted = true;
	values[0] = PointerGetDatum(name);
	pm_execute_now(&delete_counter, values, false);
	if (SPI_processed > 0)
		*counted = true;
	return (int) SPI_processed;
}

/* The same for the counter of an address, which is folded, in a connector. */
int
pm_address_counter_forget(const char *connector, const char *address,
						  bool *counted)
{
	unsigned char key[PM_CODE_KEY];
	unsigned char hmac[PM_CODE_HMAC];

	if (!pm_code_key(connector, false, key))
		return 0;
	pm_address_hmac(key, connector, address, hmac);
	explicit_bzero(key, sizeof(key));
	return pm_counter_forget(PM_COUNTER_ADDRESS, hmac, counted);
}

/* And for those of the codes that it was sent. */
static void
forget_code_counters(const char *connector, const char *address, bool *counted)
{
	Datum		values[2];
	SPITupleTable *codes;
	uint64		n;
	uint64		i;

	values[0] = CStringGetTextDatum(connector);
	values[1] = CStringGetTextDatum(address);
	pm_execute_now(&find_codes, values, true);
	codes = SPI_tuptable;
	n = SPI_processed;
	for (i = 0; i < n; i++)
	{
		bool		isnull;
		bytea	   *hmac = DatumGetByteaPP(SPI_getbinval(codes->vals[i],
														 codes->tupdesc, 1,
														 &isnull));

		if (VARSIZE_ANY_EXHDR(hmac) == PM_CODE_HMAC)
			(void) pm_counter_forget(PM_COUNTER_CODE,
									 (unsigned char *) VARDATA_ANY(hmac),
									 counted);
	}
}

/*
 * postmark_unlock(email text, connector text) returns boolean
 *
 * Takes back the failed attempts of an address, over all its codes.  True if
 * there were any.  What shared memory counted goes at once, whatever becomes of
 * the transaction.  PM001 if there is no such connector, PM003 for what is no
 * address.
 */
Datum
postmark_unlock(PG_FUNCTION_ARGS)
{
	PmOwnerScope scope;
	char	   *address;
	char	   *connector = pm_text_arg(fcinfo, 1);
	bool		counted = false;

	PreventCommandIfReadOnly("postmark_unlock()");
	address = pm_folded_address(pm_text_arg(fcinfo, 0));
	(void) pm_use_connector(connector, GetUserId());

	pm_connect_owner(&scope);
	pm_counters_lock();
	(void) pm_address_counter_forget(connector, address, &counted);
	forget_code_counters(connector, address, &counted);
	pm_disconnect_owner(&scope);
	PG_RETURN_BOOL(counted);
}
