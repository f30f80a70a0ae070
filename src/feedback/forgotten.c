/*-------------------------------------------------------------------------
 *
 * forgotten.c
 *		Persons who are to be forgotten, and stay so.
 *
 * Postmark may tell again what it told before.  So that old news of somebody
 * who was erased does not bring the address back, a hash of it stays, under a
 * key that is not part of a dump: it tells nobody the address, and whoever
 * knows the address only whether it was erased.
 *
 * All of it with SPI and the owner's rights.
 *
 * src/feedback/forgotten.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/bytes.h"
#include "base/owner.h"
#include "base/random.h"
#include "codes/code_secret.h"
#include "feedback/forgotten.h"
#include "settings/code_key.h"

static PmStatement read_key = {
	"SELECT forget_key FROM @.postmark_instance WHERE forget_key IS NOT NULL",
	0, {0}
};
static PmStatement put_key = {
	"UPDATE @.postmark_instance SET forget_key = $1 WHERE forget_key IS NULL",
	1, {BYTEAOID}
};
static PmStatement put_forgotten = {
	"INSERT INTO @.postmark_forgotten AS f (address_hash, forgotten_at)"
	" VALUES ($1, $2) ON CONFLICT (address_hash) DO UPDATE"
	" SET forgotten_at = GREATEST(f.forgotten_at, EXCLUDED.forgotten_at)",
	2, {BYTEAOID, TIMESTAMPTZOID}
};
static PmStatement find_forgotten = {
	"SELECT 1 FROM @.postmark_forgotten WHERE address_hash" PM_EQ "$1"
	" AND forgotten_at" PM_GE "$2",
	2, {BYTEAOID, TIMESTAMPTZOID}
};

/* The key, PM_CODE_KEY bytes; false if there is none. */
static bool
get_key(unsigned char *key)
{
	bool		isnull;
	bytea	   *value;

	pm_execute_now(&read_key, NULL, true);
	if (SPI_processed == 0)
		return false;
	value = DatumGetByteaPP(SPI_getbinval(SPI_tuptable->vals[0],
										  SPI_tuptable->tupdesc, 1, &isnull));
	if (VARSIZE_ANY_EXHDR(value) != PM_CODE_KEY)
		return false;
	memcpy(key, VARDATA_ANY(value), PM_CODE_KEY);
	return true;
}

static Datum
hash_address(const unsigned char *key, const char *address)
{
	unsigned char hmac[PM_CODE_HMAC];

	pm_address_hmac(key, "", address, hmac);
	return pm_bytes_datum(hmac, PM_CODE_HMAC);
}

/* From now on nothing older than now counts of an address, which is folded. */
void
pm_forgotten_put(const char *address)
{
	unsigned char key[PM_CODE_KEY];
	Datum		values[2];

	if (!get_key(key))
	{
		/* Two sessions may do so at once: the first one's stands */
		pm_random_bytes(key, PM_CODE_KEY);
		values[0] = pm_bytes_datum(key, PM_CODE_KEY);
		pm_execute_now(&put_key, values, false);
		if (!get_key(key))
			elog(ERROR, "table postmark_instance has no usable forget_key");
	}
	values[0] = hash_address(key, address);
	values[1] = TimestampTzGetDatum(GetCurrentTimestamp());
	pm_execute_now(&put_forgotten, values, false);
	explicit_bzero(key, sizeof(key));
}

/* Whether an address, which is folded, was erased at that time or later. */
bool
pm_forgotten_since(const char *address, TimestampTz at)
{
	unsigned char key[PM_CODE_KEY];
	Datum		values[2];

	if (!get_key(key))
		return false;
	values[0] = hash_address(key, address);
	values[1] = TimestampTzGetDatum(at);
	pm_execute_now(&find_forgotten, values, true);
	explicit_bzero(key, sizeof(key));
	return SPI_processed > 0;
}
