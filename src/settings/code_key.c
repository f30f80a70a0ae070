/*-------------------------------------------------------------------------
 *
 * code_key.c
 *		The keys under which verification codes are kept.
 *
 * A connector's key is made when the connector is configured.  Made when the
 * first code is issued, it would hold up every other code until that
 * transaction ends.  No dump has it, so where settings come without it, in a
 * restored database or to a subscriber, the worker makes it.
 *
 * src/settings/code_key.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"

#include "base/catalog.h"
#include "base/owner.h"
#include "base/random.h"
#include "settings/code_key.h"

static PmStatement read_key = {
	"SELECT code_key FROM @.postmark_secrets WHERE connector" PM_EQ "$1",
	1, {TEXTOID}
};

/* One that another session has made meanwhile stays. */
static PmStatement make_key = {
	"INSERT INTO @.postmark_secrets AS s (connector, code_key)"
	" VALUES ($1, $2) ON CONFLICT (connector)"
	" DO UPDATE SET code_key = EXCLUDED.code_key"
	" WHERE COALESCE(pg_catalog.octet_length(s.code_key), 0)" PM_NE
	"pg_catalog.octet_length(EXCLUDED.code_key)",
	2, {TEXTOID, BYTEAOID}
};
static PmStatement replace_key = {
	"INSERT INTO @.postmark_secrets (connector, code_key)"
	" VALUES ($1, $2) ON CONFLICT (connector)"
	" DO UPDATE SET code_key = EXCLUDED.code_key",
	2, {TEXTOID, BYTEAOID}
};

/* Ready, or about to be: what its table had when the copy began is here. */
static PmStatement find_copy = {
	"SELECT FROM pg_catalog.pg_subscription_rel WHERE srrelid" PM_EQ "$1"
	" AND srsubstate" PM_NE "'r' AND srsubstate" PM_NE "'s'",
	1, {OIDOID}
};

static void
put_key(PmStatement *statement, const char *connector)
{
	bytea	   *key = palloc(VARHDRSZ + PM_CODE_KEY);
	Datum		values[2];

	SET_VARSIZE(key, VARHDRSZ + PM_CODE_KEY);
	pm_random_bytes((unsigned char *) VARDATA(key), PM_CODE_KEY);
	values[0] = CStringGetTextDatum(connector);
	values[1] = PointerGetDatum(key);
	pm_execute_now(statement, values, false);
	explicit_bzero(VARDATA(key), PM_CODE_KEY);
}

/*
 * Read a connector's key as it is by now, whatever the transaction's snapshot.
 *
 * key: room for PM_CODE_KEY bytes
 *
 * False if it has none.
 */
bool
pm_code_key_read(const char *connector, unsigned char *key)
{
	Datum		values[1];
	bytea	   *stored;
	bool		isnull;

	values[0] = CStringGetTextDatum(connector);
	pm_execute_now(&read_key, values, true);
	if (SPI_processed != 1)
		return false;
	values[0] = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1,
							  &isnull);
	if (isnull)
		return false;
	stored = DatumGetByteaPP(values[0]);
	if (VARSIZE_ANY_EXHDR(stored) != PM_CODE_KEY)
		return false;
	memcpy(key, VARDATA_ANY(stored), PM_CODE_KEY);
	return true;
}

/*
 * Whether a subscription has yet to copy the keys of another server.  It could
 * not, for good, where a key has been made meanwhile.
 */
bool
pm_code_keys_to_come(void)
{
	Datum		values[1];

	values[0] = ObjectIdGetDatum(pm_object(PM_SECRETS));
	pm_execute_now(&find_copy, values, true);
	return SPI_processed > 0;
}

/* See to it that a connector has a key. */
void
pm_code_key_make(const char *connector)
{
	unsigned char key[PM_CODE_KEY];

	/* Looked for first: a conflict would lock the row, and announce it */
	if (!pm_code_key_read(connector, key))
		put_key(&make_key, connector);
	explicit_bzero(key, sizeof(key));
}

/*
 * Give a connector another key.  What was made with the old one is void, which
 * the caller sees to.
 */
void
pm_code_key_replace(const char *connector)
{
	put_key(&replace_key, connector);
}
