/*-------------------------------------------------------------------------
 *
 * housekeeping.c
 *		What the worker does by the clock: keys that are missing, codes, keys of
 *		messages and captured messages that outlived their use, failed attempts
 *		to be stored.
 *
 * Each of these knows when it is next needed, to the second, from what it saw
 * the last time and from what was stored since; with nothing to wait for the
 * worker sleeps without a timer.
 *
 * src/worker/housekeeping.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "storage/lmgr.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/catalog.h"
#include "base/clock.h"
#include "base/times.h"
#include "codes/attempts.h"
#include "codes/code_store.h"
#include "queue/batch.h"
#include "queue/capture.h"
#include "queue/dedup.h"
#include "queue/history.h"
#include "queue/queue.h"
#include "settings/code_key.h"
#include "settings/config_store.h"
#include "settings/connector.h"
#include "settings/guc.h"
#include "shared/transaction.h"
#include "shared/wakeup.h"
#include "worker/channel.h"
#include "worker/housekeeping.h"
#include "worker/jobs.h"
#include "worker/purge.h"

/* Rows that one transaction stores or finishes */
#define HOUSEKEEPING_ROWS	1000

/* Rows that one forgets, while messages may wait */
#define STEP_ROWS			200

/* Shortest time between two of the same kind, ms */
#define HOUSEKEEPING_DELAY	1000

/* Until a subscription is looked at again that has yet to bring keys, ms */
#define KEYS_DELAY			5000

static PmMoment keys_at;		/* make keys that connectors lack */
static PmMoment content_at;		/* forget codes of failed messages */
static PmMoment codes_at;		/* forget expired codes, what belongs to
								 * them, and keys of messages */
static PmMoment captures_at;	/* forget captured messages that are old */
static PmMoment attempts_at;	/* store failed attempts */
static PmMoment attempts_stored_at;
static int	keys_failures;		/* in a row */
static int	content_failures;
static int	codes_failures;
static int	captures_failures;

/* Begin: look at everything once. */
void
pm_house_start(void)
{
	keys_at = content_at = codes_at = attempts_at = captures_at = PM_AT_ONCE;
	pm_purge_start();
}

/* history_retention may be another one, or there is another connector. */
void
pm_house_reload(void)
{
	keys_at = captures_at = PM_AT_ONCE;
	pm_purge_start();
}

/* A message was captured. */
static void
captured(void)
{
	if (pm_history_retention > 0)
		captures_at = Min(captures_at, pm_moment() + pm_retention());
}

/* A message was stored in the history. */
void
pm_house_finished(const PmMessage *message)
{
	if (strcmp(message->status, "failed") == 0)
		content_at = Min(content_at, pm_moment_of(message->expires_at));
	if (message->captured)
		captured();
	pm_purge_finished();
}

/*
 * Codes were issued, attempts failed, or messages were captured.  A code has
 * nothing to clean up before its shortest life is over; attempts are stored at
 * once if that is not more often than it should be, or if room gets short.
 */
void
pm_house_codes(uint32 reasons)
{
	PmMoment	now = pm_moment();

	if (reasons & PM_WAKE_CODES)
		codes_at = Min(codes_at,
					   pm_later(now, PM_CODES_CLEANUP_AFTER * 1000L));
	if (reasons & PM_WAKE_CAPTURED)
		captured();
	if (reasons & PM_WAKE_ATTEMPTS)
		attempts_at = pm_attempts_pressing() ? now
			: Min(attempts_at,
				  Max(now, pm_later(attempts_stored_at, HOUSEKEEPING_DELAY)));
}

/*
 * Settings that came from a dump or another server have no keys with them.  One
 * made for a connector that is being removed would stay behind, so as with a
 * message this takes a lock before it looks at which there are.
 */
static void
keys_body(void *arg)
{
	const PmConnector *connector;
	int			i;

	if (pm_code_keys_to_come())
	{
		keys_at = pm_later(pm_moment(), KEYS_DELAY);
		return;
	}
	LockRelationOid(pm_object(PM_QUEUE), RowExclusiveLock);
	for (i = 0; (connector = pm_connectors(i)) != NULL; i++)
		pm_code_key_make(connector->name);
	keys_at = PM_NEVER;
}

static void
content_body(void *arg)
{
	TimestampTz next = DT_NOEND;

	if (pm_history_forget_content(GetCurrentTimestamp(), STEP_ROWS, &next))
		content_at = PM_AT_ONCE;
	else
		content_at = pm_moment_of(next);
}

static void
codes_body(void *arg)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz next = DT_NOEND;
	bool		more;

	more = pm_codes_cleanup(now, STEP_ROWS, &next);
	more |= pm_dedup_cleanup(now, STEP_ROWS, &next);
	if (more)
		codes_at = PM_AT_ONCE;
	else
		codes_at = pm_moment_of(next);
}

static void
captures_body(void *arg)
{
	TimestampTz before = pm_time_plus(GetCurrentTimestamp(), -pm_retention());
	TimestampTz next = DT_NOEND;

	if (pm_history_retention == 0)
		captures_at = PM_NEVER;
	else if (pm_captures_purge(before, STEP_ROWS, &next))
		captures_at = PM_AT_ONCE;
	else
		captures_at = pm_moment_of(pm_time_plus(next, pm_retention()));
}

typedef struct AttemptsToStore
{
	PmAttempts *attempts;
	int			n;
} AttemptsToStore;

static void
attempts_body(void *arg)
{
	AttemptsToStore *to_store = arg;

	pm_attempts_store(to_store->attempts, to_store->n);
}

/*
 * Store the failed attempts that shared memory has.  Only what has been
 * committed may be taken away there.  If there are more than fit into one
 * transaction the next follows at once: where there is no room for a counter,
 * no code is answered.
 */
static void
store_attempts(PmMoment now)
{
	PmMoment	soon = pm_later(now, HOUSEKEEPING_DELAY);
	AttemptsToStore some;
	int			sqlstate;

	if (attempts_at > now)
		return;
	attempts_stored_at = now;
	attempts_at = PM_NEVER;
	some.attempts = palloc(sizeof(PmAttempts) * HOUSEKEEPING_ROWS);
	some.n = pm_attempts_collect(some.attempts, HOUSEKEEPING_ROWS);
	if (some.n == 0)
		return;
	if (!pm_run_transaction("store failed attempts", attempts_body, &some,
							&sqlstate))
	{
		attempts_at = soon;
		return;
	}
	if (!pm_attempts_stored(some.attempts, some.n))
		attempts_at = soon;
	if (some.n == HOUSEKEEPING_ROWS)
		attempts_at = now;
	pm_house_codes(PM_WAKE_CODES);
}

/*
 * Run one of the others when it is due, not more often than it should; where
 * there is more than one transaction does, with as long a pause behind it.
 */
static void
keep_house(const char *what, PmTransactionBody body, PmMoment *at,
		   int *failures, PmMoment now)
{
	PmMoment	end;
	int			sqlstate;

	if (*at > now)
		return;
	if (!pm_run_transaction(what, body, NULL, &sqlstate))
	{
		*at = pm_later(now, pm_failure_delay((*failures)++));
		return;
	}
	*failures = 0;
	end = pm_moment();
	*at = Max(*at, *at == PM_AT_ONCE ? end + Max(end - now, 1000) :
			  pm_later(now, HOUSEKEEPING_DELAY));
}

/*
 * What is done in a copy of another database, too, which sends nothing but
 * may verify: forget what was captured and codes that expired, store failed
 * attempts.
 */
void
pm_house_keep_codes(PmMoment now)
{
	keep_house("forget expired codes", codes_body, &codes_at, &codes_failures,
			   now);
	keep_house("forget captured messages", captures_body, &captures_at,
			   &captures_failures, now);
	store_attempts(now);
}

/* When something of that is next due, PM_NEVER for never. */
PmMoment
pm_house_next_codes(void)
{
	return Min(Min(codes_at, captures_at), attempts_at);
}

/* Do what is due. */
void
pm_house_keep(PmMoment now)
{
	keep_house("make keys for codes", keys_body, &keys_at, &keys_failures, now);
	keep_house("forget the codes of failed messages", content_body,
			   &content_at, &content_failures, now);
	pm_house_keep_codes(now);
	pm_purge_keep(now);
}

/*
 * When something of it is next due, PM_NEVER for never.
 */
PmMoment
pm_house_next(void)
{
	return Min(Min(keys_at, pm_house_next_codes()),
			   Min(content_at, pm_purge_next()));
}
