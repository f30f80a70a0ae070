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

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/bytes.h"
#include "base/catalog.h"
#include "base/errors.h"
#include "base/outdated.h"
#include "base/owner.h"
#include "base/subtransaction.h"
#include "codes/attempts.h"
#include "codes/code_secret.h"
#include "codes/code_store.h"
#include "settings/code_key.h"
#include "shared/wake.h"
#include "shared/wakeup.h"

/* Class of our advisory locks; PostgreSQL's own functions use 1 and 2. */
#define LOCK_CLASS 0x504D

/* How long to wait for one, ms */
#define LOCK_WAIT		5000
#define LOCK_WAIT_TEXT	CppAsString2(LOCK_WAIT)

#define CODE_COLUMNS \
	"id, address, usage_type, email, hmac, created_at, expires_at, xmin"
#define OF_RECIPIENT \
	" WHERE connector" PM_EQ "$1 AND address" PM_EQ "$2" \
	" AND usage_type" PM_EQ "$3 AND token" PM_EQ "$4"

/* Newest first: they are made one after another, under a lock. */
static PmStatement find_codes = {
	"SELECT " CODE_COLUMNS ", seal FROM @.postmark_codes" OF_RECIPIENT
	" ORDER BY created_at DESC, id DESC",
	4, {TEXTOID, TEXTOID, TEXTOID, BOOLOID},
	"SELECT " CODE_COLUMNS ", NULL FROM @.postmark_codes" OF_RECIPIENT
};
static PmStatement find_token = {
	"SELECT " CODE_COLUMNS ", seal FROM @.postmark_codes"
	" WHERE hmac" PM_EQ "$1 AND token",
	1, {BYTEAOID},
	"SELECT " CODE_COLUMNS ", NULL FROM @.postmark_codes"
	" WHERE hmac" PM_EQ "$1 AND token"
};

/* Messages that left, or may have */
static PmStatement find_mailed = {
	"SELECT id FROM @.postmark_history WHERE id" PM_EQ "ANY ($1)"
	" AND status" PM_NE
	"ALL (ARRAY['failed', 'expired', 'cancelled', 'suppressed'])",
	1, {INT8ARRAYOID}
};
static PmStatement insert_code = {
	"INSERT INTO @.postmark_codes (id, connector, address, usage_type, token,"
	" email, hmac, created_at, expires_at, seal)"
	" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
	10, {INT8OID, TEXTOID, TEXTOID, TEXTOID, BOOLOID, TEXTOID, BYTEAOID,
	TIMESTAMPTZOID, TIMESTAMPTZOID, BYTEAOID},
	"INSERT INTO @.postmark_codes (id, connector, address, usage_type, token,"
	" email, hmac, created_at, expires_at)"
	" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)"
};
static PmStatement delete_codes = {
	"DELETE FROM @.postmark_codes WHERE id" PM_EQ "ANY ($1)",
	1, {INT8ARRAYOID}
};
static PmStatement take_codes = {
	"DELETE FROM @.postmark_codes" OF_RECIPIENT " RETURNING id",
	4, {TEXTOID, TEXTOID, TEXTOID, BOOLOID}
};

/* Codes of a recipient and usage type that may wait to be mailed */
#define CODES_WAITING 3

/*
 * Messages that expired or were cancelled do not count.  Those do that Postmark
 * did not take: asking again does not help, and the payload of whoever asks may
 * be why.
 */
#define SENT \
	"COALESCE((SELECT h.status FROM @.postmark_history AS h WHERE h.id" PM_EQ \
	"s.id), 'queued')" PM_NE "ALL (ARRAY['expired', 'cancelled'])"

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
static PmStatement take_back_sends = {
	"UPDATE @.postmark_sends SET sent_at = clock_timestamp()"
	" WHERE sent_at > clock_timestamp() + interval '1 s'",
	0, {0}
};
static PmStatement take_back_attempts = {
	"UPDATE @.postmark_attempts SET since = clock_timestamp()"
	" WHERE since > clock_timestamp() + interval '1 s'",
	0, {0}
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

/* See wait_for_lock. */
static bool
lock_within_limit(void *tag)
{
	int			level = NewGUCNestLevel();

	(void) set_config_option("lock_timeout", LOCK_WAIT_TEXT, PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	(void) LockAcquire(tag, ExclusiveLock, false, false);
	AtEOXact_GUC(false, level);
	return true;
}

static bool
is_timeout(int sqlstate)
{
	return sqlstate == ERRCODE_LOCK_NOT_AVAILABLE;
}

/*
 * Wait for a lock, not longer than LOCK_WAIT; false if it was in vain.  A
 * lock_timeout of the session that is shorter holds, and is an error as ever.
 */
static bool
wait_for_lock(const LOCKTAG *tag)
{
	if (LockTimeout > 0 && LockTimeout <= LOCK_WAIT)
	{
		(void) LockAcquire(tag, ExclusiveLock, false, false);
		return true;
	}
	return pm_run_subtransaction(lock_within_limit, unconstify(LOCKTAG *, tag),
								 is_timeout);
}

/*
 * Lock what the first eight bytes of a name stand for until the end of the
 * transaction.  Names are HMACs, so nobody can make two that collide.
 *
 * Who has the lock may be a transaction that somebody forgot, or a prepared
 * one; so the wait is bounded, and in vain it is PM007.
 */
void
pm_code_lock(const unsigned char *name)
{
	LOCKTAG		tag;
	uint32		key[2];

	memcpy(key, name, sizeof(key));
	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, key[0], key[1], LOCK_CLASS);
	if (LockAcquire(&tag, ExclusiveLock, false, true) == LOCKACQUIRE_NOT_AVAIL &&
		!wait_for_lock(&tag))
		ereport(ERROR,
				(errcode(PM_ERRCODE_TOO_MANY),
				 errmsg("another transaction issues or uses a code of this recipient"),
				 errdetail("It has not ended within %d seconds.",
						   LOCK_WAIT / 1000),
				 errhint("Look for sessions that are idle in transaction in pg_stat_activity, and for transactions in pg_prepared_xacts."),
				 errhidestmt(true)));
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

/*
 * Read a row of CODE_COLUMNS and seal; text is palloc'd in "context".  Returns
 * whether a transaction made it that has ended: until then a code can't be
 * known to whom it is for, and guesses would be free for whoever rolls it back.
 */
static bool
read_code(HeapTuple tuple, TupleDesc desc, PmCode *code, MemoryContext context)
{
	bool		isnull;
	Datum		xmin;

	code->id = DatumGetInt64(SPI_getbinval(tuple, desc, 1, &isnull));
	code->address = MemoryContextStrdup(context, SPI_getvalue(tuple, desc, 2));
	code->usage_type = MemoryContextStrdup(context,
										   SPI_getvalue(tuple, desc, 3));
	code->email = MemoryContextStrdup(context, SPI_getvalue(tuple, desc, 4));
	if (!get_bytes(tuple, desc, 5, code->hmac, PM_CODE_HMAC))
		memset(code->hmac, 0, PM_CODE_HMAC);
	code->created_at = get_time(tuple, desc, 6);
	code->expires_at = get_time(tuple, desc, 7);
	xmin = SPI_getbinval(tuple, desc, 8, &isnull);
	code->sealed = get_bytes(tuple, desc, 9, code->seal, PM_CODE_HMAC);
	return !TransactionIdIsCurrentTransactionId(DatumGetTransactionId(xmin));
}

static Datum
id_array(const PmCode *codes, int n)
{
	Datum	   *elements = palloc(sizeof(Datum) * n);
	int			i;

	for (i = 0; i < n; i++)
		elements[i] = Int64GetDatum(codes[i].id);
	return PointerGetDatum(construct_array(elements, n, INT8OID, sizeof(int64),
										   FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

/*
 * How many of somebody's codes, newest first, are good: up to the first whose
 * mail has left.  *mailed becomes whether there is such a one.
 */
static int
count_good(const PmCode *codes, int n, bool *mailed)
{
	Datum		values[1];
	int			good;

	*mailed = false;
	if (n == 0)
		return 0;
	values[0] = id_array(codes, n);
	pm_execute_now(&find_mailed, values, true);
	for (good = 0; good < n && !*mailed; good++)
	{
		uint64		row;
		bool		isnull;

		for (row = 0; row < SPI_processed; row++)
			if (DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[row],
											SPI_tuptable->tupdesc, 1,
											&isnull)) == codes[good].id)
				*mailed = true;
	}
	return good;
}

static void
recipient_values(const PmCode *of, Datum *values)
{
	values[0] = CStringGetTextDatum(of->connector);
	values[1] = CStringGetTextDatum(of->address);
	values[2] = CStringGetTextDatum(of->usage_type);
	values[3] = BoolGetDatum(of->token);
}

/*
 * All codes of a recipient, usage type and kind, newest first, with those of
 * open transactions where "own" is true.  Returns an array, palloc'd in
 * "context", and its length in *n.
 */
static PmCode *
read_codes(const PmCode *of, bool own, MemoryContext context, int *n)
{
	Datum		values[4];
	PmCode	   *codes;
	uint64		row;

	recipient_values(of, values);
	pm_execute_now(&find_codes, values, true);
	codes = MemoryContextAllocZero(context,
								   sizeof(PmCode) * Max(SPI_processed, 1));
	*n = 0;
	for (row = 0; row < SPI_processed; row++)
	{
		PmCode	   *code = &codes[*n];

		code->connector = of->connector;
		code->token = of->token;
		if (read_code(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, code,
					  context) || own)
			(*n)++;
	}
	return codes;
}

/*
 * Find the codes that are good, or tokens: the one that was mailed last, and
 * those whose mail has not left yet, newest first.
 *
 * of: connector, address (folded), usage_type and token count
 *
 * Returns an array, palloc'd, and its length in *n.
 */
PmCode *
pm_codes_find(const PmCode *of, int *n)
{
	MemoryContext context = CurrentMemoryContext;
	PmOwnerScope scope;
	PmCode	   *codes;
	bool		mailed;

	pm_connect_owner(&scope);
	codes = read_codes(of, false, context, n);
	if (*n > 1)
		*n = count_good(codes, *n, &mailed);
	pm_disconnect_owner(&scope);
	return codes;
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
	values[0] = pm_bytes_datum(hmac, PM_CODE_HMAC);
	pm_execute_now(&find_token, values, true);
	memset(code, 0, sizeof(*code));
	code->token = true;
	found = SPI_processed == 1 &&
		read_code(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, code, context);
	pm_disconnect_owner(&scope);
	return found;
}

/*
 * Delete the codes that the next one of the recipient supersedes.  That which
 * was mailed last stays good until the mail of a newer one leaves; of those
 * that wait to leave the newest stay.
 */
static void
supersede(const PmCode *by)
{
	Datum		values[1];
	PmCode	   *codes;
	PmCode	   *superseded;
	int			nsuperseded = 0;
	int			good = 0;
	bool		mailed = false;
	int			n;
	int			i;

	codes = read_codes(by, true, CurrentMemoryContext, &n);
	if (n == 0)
		return;

	/* 1.0 has room for one */
	if (pm_sql_version() > PM_SQL_1_0)
		good = count_good(codes, n, &mailed);
	superseded = palloc(sizeof(PmCode) * n);
	for (i = 0; i < n; i++)
	{
		bool		last_mailed = mailed && i == good - 1;

		if (i >= good || (i >= CODES_WAITING && !last_mailed))
			superseded[nsuperseded++] = codes[i];
	}
	if (nsuperseded == 0)
		return;
	values[0] = id_array(superseded, nsuperseded);
	pm_execute_now(&delete_codes, values, false);
}

/* Store a code in place of those that it supersedes. */
void
pm_code_put(const PmCode *code)
{
	PmOwnerScope scope;
	Datum		values[10];
	char		nulls[] = "          ";

	pm_connect_owner(&scope);
	supersede(code);
	values[0] = Int64GetDatum(code->id);
	values[1] = CStringGetTextDatum(code->connector);
	values[2] = CStringGetTextDatum(code->address);
	values[3] = CStringGetTextDatum(code->usage_type);
	values[4] = BoolGetDatum(code->token);
	values[5] = CStringGetTextDatum(code->email);
	values[6] = pm_bytes_datum(code->hmac, PM_CODE_HMAC);
	values[7] = TimestampTzGetDatum(code->created_at);
	values[8] = TimestampTzGetDatum(code->expires_at);
	PM_NULLABLE(values, nulls, 9, !code->sealed,
				pm_bytes_datum(code->seal, PM_CODE_HMAC));
	pm_execute(&insert_code, values, nulls, 0);
	pm_disconnect_owner(&scope);
}

/*
 * Use a code up, and with it all others of its recipient, usage type and kind;
 * false if it is there no more.
 */
bool
pm_code_take(const PmCode *code)
{
	PmOwnerScope scope;
	Datum		values[4];
	bool		taken = false;
	uint64		row;
	bool		isnull;

	pm_connect_owner(&scope);
	recipient_values(code, values);
	pm_execute_now(&take_codes, values, false);
	for (row = 0; row < SPI_processed; row++)
		if (DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[row],
										SPI_tuptable->tupdesc, 1,
										&isnull)) == code->id)
			taken = true;
	pm_disconnect_owner(&scope);
	return taken;
}

/*
 * Seconds until "when" and "seconds" more are over, at least 1.  A time that
 * lies ahead is one of a clock that was set back since, and counts as now; the
 * worker sees to it that it does not so for ever.
 */
static int
seconds_left(TimestampTz when, int seconds, TimestampTz now)
{
	int64		left = Min(when, now) + seconds * USECS_PER_SEC - now;

	if (when > now + USECS_PER_SEC)
		pm_wake_database(MyDatabaseId, PM_WAKE_CLOCK);

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
		names[i] = pm_bytes_datum(counters[i].name, PM_COUNTER_NAME);
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
		columns[0][i] = pm_bytes_datum(attempts[i].name, PM_COUNTER_NAME);
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
 * Forget codes that expired some time ago, at most "limit", and as many of
 * the sends and the attempts that count for nothing any more.
 *
 * Returns whether there is more to do at once; *next becomes no later than
 * when there will be.
 */
bool
pm_codes_cleanup(TimestampTz now, int limit, TimestampTz *next)
{
	bool		more = false;

	more |= pm_forget_outdated(&forget_codes, &next_code, PM_CODES_GRACE, now,
							   limit, next);
	more |= pm_forget_outdated(&forget_sends, &next_send, 0, now, limit, next);
	more |= pm_forget_outdated(&forget_attempts, &next_attempts, 0, now, limit,
							   next);
	return more;
}

/*
 * What was sent, and tried in vain, at times that lie ahead counts from now on.
 * In the worker's transaction; errors of SPI.
 */
void
pm_codes_take_back(void)
{
	pm_execute(&take_back_sends, NULL, NULL, 0);
	pm_execute(&take_back_attempts, NULL, NULL, 0);
}
