/*-------------------------------------------------------------------------
 *
 * code_store.c
 *		The tables of verification codes: all SQL that reads and writes them.
 *
 * Whoever issues a code, and whoever is about to use one up, holds a lock on
 * the address until the end of the transaction (pm_code_lock).  What such a
 * session reads and deletes under the latest snapshot is therefore what holds,
 * also under REPEATABLE READ, where the transaction's own snapshot would show
 * a code that is used or superseded.
 *
 * src/codes/code_store.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/catalog.h"
#include "base/owner.h"
#include "codes/attempts.h"
#include "codes/code_secret.h"
#include "codes/code_store.h"
#include "settings/code_key.h"

/* Class of our advisory locks; PostgreSQL's own functions use 1 and 2. */
#define LOCK_CLASS 0x504D

#define CODE_COLUMNS "id, address, usage_type, email, hmac, created_at, expires_at"

static PmStatement find_code = {
	"SELECT " CODE_COLUMNS " FROM @.postmark_codes WHERE connector" PM_EQ "$1"
	" AND address" PM_EQ "$2 AND usage_type" PM_EQ "$3"
	" AND token" PM_EQ "false",
	3, {TEXTOID, TEXTOID, TEXTOID}
};
static PmStatement find_token = {
	"SELECT " CODE_COLUMNS " FROM @.postmark_codes WHERE hmac" PM_EQ "$1"
	" AND token",
	1, {BYTEAOID}
};
static PmStatement supersede = {
	"DELETE FROM @.postmark_codes WHERE connector" PM_EQ "$1"
	" AND address" PM_EQ "$2 AND usage_type" PM_EQ "$3 AND token" PM_EQ "$4",
	4, {TEXTOID, TEXTOID, TEXTOID, BOOLOID}
};
static PmStatement insert_code = {
	"INSERT INTO @.postmark_codes (id, connector, address, usage_type, token,"
	" email, hmac, created_at, expires_at)"
	" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
	9, {INT8OID, TEXTOID, TEXTOID, TEXTOID, BOOLOID, TEXTOID, BYTEAOID,
	TIMESTAMPTZOID, TIMESTAMPTZOID}
};
static PmStatement delete_code = {
	"DELETE FROM @.postmark_codes WHERE id" PM_EQ "$1", 1, {INT8OID}
};

/*
 * Messages that were never sent do not count.  A suppressed one does: nothing
 * arrives there, and asking again does not help.
 */
#define SENT \
	"COALESCE((SELECT h.status FROM @.postmark_history AS h WHERE h.id" PM_EQ \
	"s.id), 'queued')" PM_NE "ALL (ARRAY['failed', 'expired', 'cancelled'])"

static PmStatement nth_send = {
	"SELECT s.sent_at FROM @.postmark_sends AS s WHERE s.connector" PM_EQ "$1"
	" AND s.address" PM_EQ "$2 AND s.sent_at" PM_GT "$3 AND " SENT
	" ORDER BY s.sent_at DESC OFFSET $4 LIMIT 1",
	4, {TEXTOID, TEXTOID, TIMESTAMPTZOID, INT8OID}
};
static PmStatement last_send = {
	"SELECT s.sent_at FROM @.postmark_sends AS s WHERE s.connector" PM_EQ "$1"
	" AND s.address" PM_EQ "$2 AND s.sent_at" PM_GT "$3"
	" AND s.usage_type" PM_EQ "$4 AND " SENT
	" ORDER BY s.sent_at DESC LIMIT 1",
	4, {TEXTOID, TEXTOID, TIMESTAMPTZOID, TEXTOID}
};
static PmStatement insert_send = {
	"INSERT INTO @.postmark_sends (connector, address, sent_at, id, usage_type,"
	" until) VALUES ($1, $2, $3, $4, $5, $6)",
	6, {TEXTOID, TEXTOID, TIMESTAMPTZOID, INT8OID, TEXTOID, TIMESTAMPTZOID}
};
static PmStatement load_counters = {
	"SELECT counter, attempts, since FROM @.postmark_attempts"
	" WHERE counter" PM_EQ "ANY ($1)",
	1, {BYTEAARRAYOID}
};

/* The worker's */
static PmStatement store_counters = {
	"INSERT INTO @.postmark_attempts (counter, attempts, since, until)"
	" SELECT * FROM unnest($1, $2, $3, $4)"
	" ON CONFLICT (counter) DO UPDATE SET attempts = EXCLUDED.attempts,"
	" since = EXCLUDED.since, until = EXCLUDED.until",
	4, {BYTEAARRAYOID, INT4ARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID}
};
static PmStatement forget_codes = {
	"DELETE FROM @.postmark_codes WHERE id IN (SELECT id"
	" FROM @.postmark_codes WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2"
	" FOR UPDATE SKIP LOCKED)",
	2, {TIMESTAMPTZOID, INT8OID}
};
static PmStatement forget_sends = {
	"DELETE FROM @.postmark_sends WHERE id IN (SELECT id"
	" FROM @.postmark_sends WHERE until <= $1 ORDER BY until LIMIT $2"
	" FOR UPDATE SKIP LOCKED)",
	2, {TIMESTAMPTZOID, INT8OID}
};
static PmStatement forget_attempts = {
	"DELETE FROM @.postmark_attempts WHERE counter IN (SELECT counter"
	" FROM @.postmark_attempts WHERE until <= $1 ORDER BY until LIMIT $2"
	" FOR UPDATE SKIP LOCKED)",
	2, {TIMESTAMPTZOID, INT8OID}
};
static PmStatement next_code = {
	"SELECT expires_at FROM @.postmark_codes ORDER BY expires_at LIMIT 1",
	0, {0}
};
static PmStatement next_send = {
	"SELECT until FROM @.postmark_sends ORDER BY until LIMIT 1", 0, {0}
};
static PmStatement next_attempts = {
	"SELECT until FROM @.postmark_attempts ORDER BY until LIMIT 1", 0, {0}
};

static Datum
bytes_datum(const unsigned char *bytes, int len)
{
	bytea	   *result = palloc(VARHDRSZ + len);

	SET_VARSIZE(result, VARHDRSZ + len);
	memcpy(VARDATA(result), bytes, len);
	return PointerGetDatum(result);
}

/* Copy a bytea of exactly that length; false for another or NULL. */
static bool
get_bytes(HeapTuple tuple, TupleDesc desc, int column, unsigned char *bytes,
		  int len)
{
	bool		isnull;
	Datum		value = SPI_getbinval(tuple, desc, column, &isnull);
	bytea	   *source;

	if (isnull)
		return false;
	source = DatumGetByteaPP(value);
	if (VARSIZE_ANY_EXHDR(source) != len)
		return false;
	memcpy(bytes, VARDATA_ANY(source), len);
	return true;
}

static TimestampTz
get_time(HeapTuple tuple, TupleDesc desc, int column)
{
	bool		isnull;

	return DatumGetTimestampTz(SPI_getbinval(tuple, desc, column, &isnull));
}

/*
 * Lock what the first eight bytes of a name stand for until the end of the
 * transaction.  Names are HMACs, so nobody can make two that collide.
 */
void
pm_code_lock(const unsigned char *name)
{
	LOCKTAG		tag;
	uint32		key[2];

	memcpy(key, name, sizeof(key));
	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, key[0], key[1], LOCK_CLASS);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
}

/*
 * Keep the keys from being replaced until the end of the transaction, so that
 * what is stored under one is not void from the start.  It is the lock that
 * storing a code takes anyway.
 */
void
pm_code_key_hold(void)
{
	LockRelationOid(pm_object(PM_CODES), RowExclusiveLock);
}

/*
 * Read a connector's key into key, PM_CODE_KEY bytes.  Where there is none it
 * is made, or, without "create", the result false.
 */
bool
pm_code_key(const char *connector, bool create, unsigned char *key)
{
	PmOwnerScope scope;
	bool		found;

	pm_connect_owner(&scope);
	found = pm_code_key_read(connector, key);
	if (!found && create)
	{
		pm_code_key_make(connector);
		found = pm_code_key_read(connector, key);
	}
	pm_disconnect_owner(&scope);
	if (!found && create)
		elog(ERROR, "connector \"%s\" has no key for its codes", connector);
	return found;
}

/* The row of CODE_COLUMNS that was found, if any; text in "context". */
static bool
read_code(PmCode *code, MemoryContext context)
{
	HeapTuple	tuple;
	TupleDesc	desc;
	bool		isnull;

	if (SPI_processed == 0)
		return false;
	tuple = SPI_tuptable->vals[0];
	desc = SPI_tuptable->tupdesc;
	code->id = DatumGetInt64(SPI_getbinval(tuple, desc, 1, &isnull));
	code->address = MemoryContextStrdup(context, SPI_getvalue(tuple, desc, 2));
	code->usage_type = MemoryContextStrdup(context,
										   SPI_getvalue(tuple, desc, 3));
	code->email = MemoryContextStrdup(context, SPI_getvalue(tuple, desc, 4));
	code->created_at = get_time(tuple, desc, 6);
	code->expires_at = get_time(tuple, desc, 7);
	return get_bytes(tuple, desc, 5, code->hmac, PM_CODE_HMAC);
}

/* Find the code of a folded address; false if there is none. */
bool
pm_code_find(const char *connector, const char *address,
			 const char *usage_type, PmCode *code)
{
	MemoryContext context = CurrentMemoryContext;
	PmOwnerScope scope;
	Datum		values[3];
	bool		found;

	pm_connect_owner(&scope);
	values[0] = CStringGetTextDatum(connector);
	values[1] = CStringGetTextDatum(address);
	values[2] = CStringGetTextDatum(usage_type);
	pm_execute_now(&find_code, values, true);
	memset(code, 0, sizeof(*code));
	code->connector = connector;
	found = read_code(code, context);
	pm_disconnect_owner(&scope);
	return found;
}

/* Find a token by its HMAC; false if there is none. */
bool
pm_token_find(const unsigned char *hmac, PmCode *code)
{
	MemoryContext context = CurrentMemoryContext;
	PmOwnerScope scope;
	Datum		values[1];
	bool		found;

	pm_connect_owner(&scope);
	values[0] = bytes_datum(hmac, PM_CODE_HMAC);
	pm_execute_now(&find_token, values, true);
	memset(code, 0, sizeof(*code));
	code->token = true;
	found = read_code(code, context);
	pm_disconnect_owner(&scope);
	return found;
}

/* Store a code in place of the one that address and usage type had. */
void
pm_code_put(const PmCode *code)
{
	PmOwnerScope scope;
	Datum		values[9];

	pm_connect_owner(&scope);
	values[0] = CStringGetTextDatum(code->connector);
	values[1] = CStringGetTextDatum(code->address);
	values[2] = CStringGetTextDatum(code->usage_type);
	values[3] = BoolGetDatum(code->token);
	pm_execute_now(&supersede, values, false);

	values[0] = Int64GetDatum(code->id);
	values[1] = CStringGetTextDatum(code->connector);
	values[2] = CStringGetTextDatum(code->address);
	values[3] = CStringGetTextDatum(code->usage_type);
	values[4] = BoolGetDatum(code->token);
	values[5] = CStringGetTextDatum(code->email);
	values[6] = bytes_datum(code->hmac, PM_CODE_HMAC);
	values[7] = TimestampTzGetDatum(code->created_at);
	values[8] = TimestampTzGetDatum(code->expires_at);
	pm_execute_now(&insert_code, values, false);
	pm_disconnect_owner(&scope);
}

/* Use a code up; false if it is there no more. */
bool
pm_code_take(int64 id)
{
	PmOwnerScope scope;
	Datum		values[1];
	bool		taken;

	pm_connect_owner(&scope);
	values[0] = Int64GetDatum(id);
	pm_execute_now(&delete_code, values, false);
	taken = SPI_processed == 1;
	pm_disconnect_owner(&scope);
	return taken;
}

/* Seconds until "when" and "seconds" more are over, at least 1. */
static int
seconds_left(TimestampTz when, int seconds, TimestampTz now)
{
	int64		left = when + seconds * USECS_PER_SEC - now;

	return (int) Max(1, (left + USECS_PER_SEC - 1) / USECS_PER_SEC);
}

/*
 * How many seconds somebody has to wait for the next code, 0: none.  *resend
 * becomes whether that is because the last one of the usage type is too
 * recent.  Caller holds the lock on the address.
 */
int
pm_send_wait(const char *connector, const char *address,
			 const char *usage_type, const PmSendLimits *limits,
			 TimestampTz now, bool *resend)
{
	PmOwnerScope scope;
	Datum		values[4];
	int			wait = 0;

	*resend = false;
	pm_connect_owner(&scope);
	values[0] = CStringGetTextDatum(connector);
	values[1] = CStringGetTextDatum(address);
	if (limits->limit > 0)
	{
		values[2] = TimestampTzGetDatum(now - limits->window * USECS_PER_SEC);
		values[3] = Int64GetDatum(limits->limit - 1);
		pm_execute_now(&nth_send, values, true);
		if (SPI_processed > 0)
			wait = seconds_left(get_time(SPI_tuptable->vals[0],
										 SPI_tuptable->tupdesc, 1),
								limits->window, now);
	}
	if (limits->interval > 0)
	{
		values[2] = TimestampTzGetDatum(now - limits->interval * USECS_PER_SEC);
		values[3] = CStringGetTextDatum(usage_type);
		pm_execute_now(&last_send, values, true);
		if (SPI_processed > 0)
		{
			int			left = seconds_left(get_time(SPI_tuptable->vals[0],
													 SPI_tuptable->tupdesc, 1),
											limits->interval, now);

			*resend = left > wait;
			wait = Max(wait, left);
		}
	}
	pm_disconnect_owner(&scope);
	return wait;
}

/* Note for pm_send_wait that a code was sent. */
void
pm_send_note(const PmCode *code, const PmSendLimits *limits)
{
	int			seconds = Max(limits->limit > 0 ? limits->window : 0,
							  limits->interval);
	PmOwnerScope scope;
	Datum		values[6];

	if (seconds == 0)
		return;
	pm_connect_owner(&scope);
	values[0] = CStringGetTextDatum(code->connector);
	values[1] = CStringGetTextDatum(code->address);
	values[2] = TimestampTzGetDatum(code->created_at);
	values[3] = Int64GetDatum(code->id);
	values[4] = CStringGetTextDatum(code->usage_type);
	values[5] = TimestampTzGetDatum(code->created_at + seconds * USECS_PER_SEC);
	pm_execute_now(&insert_send, values, false);
	pm_disconnect_owner(&scope);
}

static Datum
counter_array(Datum *elements, int n)
{
	return PointerGetDatum(construct_array(elements, n, BYTEAOID, -1, false,
										   TYPALIGN_INT));
}

/* Read what is stored of the counters. */
void
pm_counters_load(PmCounter *counters, int n)
{
	PmOwnerScope scope;
	Datum		values[1];
	Datum	   *names = palloc(sizeof(Datum) * n);
	uint64		row;
	int			i;

	for (i = 0; i < n; i++)
	{
		counters[i].stored = 0;
		names[i] = bytes_datum(counters[i].name, PM_COUNTER_NAME);
	}
	pm_connect_owner(&scope);
	values[0] = counter_array(names, n);
	pm_execute_now(&load_counters, values, true);
	for (row = 0; row < SPI_processed; row++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[row];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		unsigned char name[PM_COUNTER_NAME];
		bool		isnull;

		if (!get_bytes(tuple, desc, 1, name, PM_COUNTER_NAME))
			continue;
		for (i = 0; i < n; i++)
		{
			if (memcmp(counters[i].name, name, PM_COUNTER_NAME) != 0)
				continue;
			counters[i].stored = DatumGetInt32(SPI_getbinval(tuple, desc, 2,
															 &isnull));
			counters[i].stored_since = get_time(tuple, desc, 3);
		}
	}
	pm_disconnect_owner(&scope);
}

/* Store counters that sessions keep in shared memory. */
void
pm_attempts_store(const PmAttempts *attempts, int n)
{
	Datum	   *columns[4];
	Datum		values[4];
	int			i;

	for (i = 0; i < 4; i++)
		columns[i] = palloc(sizeof(Datum) * n);
	for (i = 0; i < n; i++)
	{
		columns[0][i] = bytes_datum(attempts[i].name, PM_COUNTER_NAME);
		columns[1][i] = Int32GetDatum(attempts[i].count);
		columns[2][i] = TimestampTzGetDatum(attempts[i].since);
		columns[3][i] = TimestampTzGetDatum(attempts[i].until);
	}
	values[0] = counter_array(columns[0], n);
	values[1] = PointerGetDatum(construct_array(columns[1], n, INT4OID,
												sizeof(int32), true,
												TYPALIGN_INT));
	for (i = 2; i < 4; i++)
		values[i] = PointerGetDatum(construct_array(columns[i], n,
													TIMESTAMPTZOID,
													sizeof(int64),
													FLOAT8PASSBYVAL,
													TYPALIGN_DOUBLE));
	pm_execute(&store_counters, values, NULL, 0);
}

/*
 * Delete rows that are out of date by "now", at most "limit".  *next becomes
 * no later than when the next one will be, "grace" seconds being added.
 * Returns whether there may be more at once.
 */
static bool
forget(PmStatement *statement, PmStatement *next_statement, int grace,
	   TimestampTz now, int limit, TimestampTz *next)
{
	Datum		values[2];
	bool		more;

	values[0] = TimestampTzGetDatum(now - grace * USECS_PER_SEC);
	values[1] = Int64GetDatum(limit);
	pm_execute(statement, values, NULL, 0);
	more = SPI_processed >= limit;
	pm_execute(next_statement, NULL, NULL, 1);
	if (SPI_processed > 0)
		*next = Min(*next, get_time(SPI_tuptable->vals[0],
									SPI_tuptable->tupdesc, 1) +
					grace * USECS_PER_SEC);
	return more;
}

/*
 * Forget codes that expired some time ago, at most "limit", and as many of
 * the sends and the attempts that count for nothing any more.
 *
 * Returns whether there is more to do at once; if not, *next becomes the time
 * when there will be, DT_NOEND for never.
 */
bool
pm_codes_cleanup(TimestampTz now, int limit, TimestampTz *next)
{
	bool		more = false;

	*next = DT_NOEND;
	more |= forget(&forget_codes, &next_code, PM_CODES_GRACE, now, limit, next);
	more |= forget(&forget_sends, &next_send, 0, now, limit, next);
	more |= forget(&forget_attempts, &next_attempts, 0, now, limit, next);
	return more;
}
