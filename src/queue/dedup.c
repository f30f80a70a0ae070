/*-------------------------------------------------------------------------
 *
 * dedup.c
 *		One message for a key, however often it is queued.
 *
 * Whoever retries a request, or a job, names it with a key, and the message
 * that was queued first holds that key.  It does so when it was sent, too, or
 * a retry that comes late would be a second mail: until its time is over, after
 * which it could not be sent anyway.  One that was cancelled, that expired or
 * whose address is suppressed lets go of it; one that failed does not, since
 * postmark_requeue can still send it.
 *
 * A message leaves the queue's tables when it is finished, and these are
 * inserted into for all those that have no key.  So the keys have a table of
 * their own, whose unique index does what two sessions need that queue with the
 * same key: the second waits for the first to commit or to roll back.
 *
 * src/queue/dedup.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/catalog.h"
#include "base/outdated.h"
#include "base/owner.h"
#include "base/text.h"
#include "queue/dedup.h"
#include "settings/recipient_policy.h"
#include "shared/wake.h"
#include "shared/wakeup.h"

/* Others take or let go of a key meanwhile, but not so often. */
#define TRIES_MAX	100

/* What a key's row says, and whether it still counts */
static PmStatement find_key = {
	"SELECT id, expires_at, expires_at" PM_GT "pg_catalog.clock_timestamp()"
	" AND NOT EXISTS (SELECT 1 FROM @.postmark_history AS h"
	" WHERE h.id" PM_EQ "k.id AND h.status" PM_EQ
	"ANY ('{cancelled,expired,suppressed}'::pg_catalog.text[]))"
	" FROM @.postmark_dedup_keys AS k"
	" WHERE connector" PM_EQ "$1 AND dedup_key" PM_EQ "$2",
	2, {TEXTOID, TEXTOID}
};
static PmStatement insert_key = {
	"INSERT INTO @.postmark_dedup_keys"
	" (connector, dedup_key, id, address, expires_at)"
	" VALUES ($1, $2, $3, $4, $5) ON CONFLICT (connector, dedup_key) DO NOTHING",
	5, {TEXTOID, TEXTOID, INT8OID, TEXTOID, TIMESTAMPTZOID}
};

/* Only if it is as it was when it was found to count no more */
static PmStatement take_key = {
	"UPDATE @.postmark_dedup_keys SET id = $3, address = $4, expires_at = $5"
	" WHERE connector" PM_EQ "$1 AND dedup_key" PM_EQ "$2"
	" AND id" PM_EQ "$6 AND expires_at" PM_EQ "$7",
	7, {TEXTOID, TEXTOID, INT8OID, TEXTOID, TIMESTAMPTZOID, INT8OID,
	TIMESTAMPTZOID}
};
static PmStatement extend_key = {
	"UPDATE @.postmark_dedup_keys SET expires_at = $2 WHERE id" PM_EQ "$1",
	2, {INT8OID, TIMESTAMPTZOID}
};
static PmStatement delete_keys = {
	"DELETE FROM @.postmark_dedup_keys WHERE ctid = ANY (ARRAY(SELECT ctid"
	" FROM @.postmark_dedup_keys WHERE expires_at <= $1"
	" ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED))",
	2, {TIMESTAMPTZOID, INT8OID}
};
static PmStatement first_key = {
	"SELECT expires_at FROM @.postmark_dedup_keys ORDER BY expires_at LIMIT 1",
	0, {0}
};

/* What is known of a key */
typedef struct Key
{
	int64		id;				/* of the message that holds it, or did; 0:
								 * nobody has */
	TimestampTz expires_at;
	bool		held;
} Key;

/*
 * Look for the key of a message, as of now.  With the owner's rights; the first
 * two values become the key, for the statements that take it.
 */
static void
find(const PmMessage *m, Datum *values, Key *key)
{
	HeapTuple	row;
	TupleDesc	desc;
	bool		isnull;

	memset(key, 0, sizeof(*key));
	values[0] = CStringGetTextDatum(m->connector);
	values[1] = CStringGetTextDatum(m->dedup_key);
	pm_execute_now(&find_key, values, true);
	if (SPI_processed == 0)
		return;
	row = SPI_tuptable->vals[0];
	desc = SPI_tuptable->tupdesc;
	key->id = DatumGetInt64(SPI_getbinval(row, desc, 1, &isnull));
	key->expires_at = DatumGetTimestampTz(SPI_getbinval(row, desc, 2, &isnull));
	key->held = DatumGetBool(SPI_getbinval(row, desc, 3, &isnull));
}

/*
 * The id of the message that holds the key of another one, 0 if none does.
 *
 * m: connector, dedup_key
 */
int64
pm_dedup_holder(const PmMessage *m)
{
	PmOwnerScope scope;
	Datum		values[2];
	Key			key;

	pm_connect_owner(&scope);
	find(m, values, &key);
	pm_disconnect_owner(&scope);
	return key.held ? key.id : 0;
}

/*
 * Have a message hold its key.  Waits, as for a unique key, for a transaction
 * that has queued one with the same key and is still open.
 *
 * m: id, connector, dedup_key, email, expires_at
 *
 * False if another message holds the key: then it gets that one's id.  Under
 * REPEATABLE READ a serialization failure if one came to hold it meanwhile.
 */
bool
pm_dedup_claim(PmMessage *m)
{
	PmOwnerScope scope;
	char	   *address = pstrdup(m->email);
	bool		claimed = false;
	Datum		values[7];
	Key			key;
	int			i;

	pm_fold_address(address);
	pm_connect_owner(&scope);
	for (i = 0; i < TRIES_MAX && !claimed; i++)
	{
		CHECK_FOR_INTERRUPTS();
		find(m, values, &key);
		if (key.held)
			break;
		values[2] = Int64GetDatum(m->id);
		values[3] = CStringGetTextDatum(address);
		values[4] = TimestampTzGetDatum(m->expires_at);
		values[5] = Int64GetDatum(key.id);
		values[6] = TimestampTzGetDatum(key.expires_at);
		pm_execute_now(key.id == 0 ? &insert_key : &take_key, values, false);
		claimed = SPI_processed == 1;
	}
	pm_disconnect_owner(&scope);
	if (!claimed && !key.held)
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
				 errmsg("message was not queued"),
				 errdetail("A trigger or rule that was added to postmark_dedup_keys kept its key out."),
				 errhint("Drop it, or let it raise an error that says why."),
				 errhidestmt(true)));
	if (claimed)
		pm_note(PM_WAKE_CODES);
	else
		m->id = key.id;
	return claimed;
}

/*
 * A message gets more time, and holds its key, if it has one, as long.  With
 * the owner's rights, and SPI.
 */
void
pm_dedup_extend(int64 id, TimestampTz expires_at)
{
	Datum		values[2];

	if (pm_sql_version() < PM_SQL_1_1)
		return;
	values[0] = Int64GetDatum(id);
	values[1] = TimestampTzGetDatum(expires_at);
	pm_execute_now(&extend_key, values, false);
}

/*
 * Forget keys of messages whose time is over, at most "limit".
 *
 * Returns whether there is more to do at once; *next becomes no later than when
 * there will be.
 */
bool
pm_dedup_cleanup(TimestampTz now, int limit, TimestampTz *next)
{
	return pm_sql_version() >= PM_SQL_1_1 &&
		pm_forget_outdated(&delete_keys, &first_key, 0, now, limit, next);
}
