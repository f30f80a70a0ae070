/*-------------------------------------------------------------------------
 *
 * feedback_store.c
 *		The tables of what became of messages and addresses.
 *
 * News comes twice, late, and in any order, and before the worker has stored
 * that the message was sent.  So it is kept beside the messages, a row a
 * message, and merged such that the order does not matter: of the times of
 * delivery the latest, and of all else what stands highest, then what is
 * latest.  What the status becomes is not stored; the view postmark_outcomes
 * says it.
 *
 * The same for addresses: the latest news counts, and stays when it is that an
 * address is suppressed no more, so that an old event cannot bring it back.
 *
 * src/feedback/feedback_store.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/catalog.h"
#include "base/owner.h"
#include "feedback/event.h"
#include "feedback/feedback_store.h"
#include "feedback/forgotten.h"
#include "queue/history.h"
#include "settings/connector.h"
#include "settings/recipient_policy.h"
#include "shared/stats.h"

/* Addresses of a connector that Postmark is still to be asked about, at most */
#define INQUIRIES_MAX 1000

/* A message that may have been mailed: nearly always it is in the history */
static PmStatement find_finished = {
	"SELECT email FROM @.postmark_history WHERE id" PM_EQ "$1"
	" AND created_at" PM_EQ "$2 AND connector" PM_EQ "$3"
	" AND status" PM_NE "'cancelled' AND status" PM_NE "'suppressed'",
	3, {INT8OID, TIMESTAMPTZOID, TEXTOID}
};

/* As find_finished; looked for in all three at once, since it may move */
static PmStatement find_message = {
	"SELECT email FROM @.postmark_history WHERE id" PM_EQ "$1"
	" AND created_at" PM_EQ "$2 AND connector" PM_EQ "$3"
	" AND status" PM_NE "'cancelled' AND status" PM_NE "'suppressed'"
	" UNION ALL SELECT email FROM @.postmark_deferred WHERE id" PM_EQ "$1"
	" AND created_at" PM_EQ "$2 AND connector" PM_EQ "$3"
	" UNION ALL SELECT email FROM @.postmark_queue"
	" WHERE lane" PM_EQ "ANY ($4) AND id" PM_EQ "$1"
	" AND created_at" PM_EQ "$2 AND connector" PM_EQ "$3",
	4, {INT8OID, TIMESTAMPTZOID, TEXTOID, INT4ARRAYOID}
};

#define NEWER \
	"ROW(EXCLUDED.standing, EXCLUDED.event_at, EXCLUDED.feedback)" PM_GT \
	"ROW(f.standing, f.event_at, f.feedback)"
#define LATER \
	"GREATEST(f.delivered_at, EXCLUDED.delivered_at)"

static PmStatement put_feedback = {
	"INSERT INTO @.postmark_feedback AS f"
	" (id, created_at, delivered_at, standing, event_at, feedback)"
	" VALUES ($1, $2, $3, $4, $5, $6)"
	" ON CONFLICT (id, created_at) DO UPDATE SET"
	" delivered_at = " LATER ","
	" standing = CASE WHEN " NEWER " THEN EXCLUDED.standing ELSE f.standing END,"
	" event_at = CASE WHEN " NEWER " THEN EXCLUDED.event_at ELSE f.event_at END,"
	" feedback = CASE WHEN " NEWER " THEN EXCLUDED.feedback ELSE f.feedback END"
	" WHERE " NEWER " OR f.delivered_at IS NULL AND EXCLUDED.delivered_at IS NOT NULL"
	" OR EXCLUDED.delivered_at" PM_GT "f.delivered_at",
	6, {INT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT2OID, TIMESTAMPTZOID, TEXTOID}
};

static PmStatement lock_feedback = {
	"SELECT 1 FROM @.postmark_feedback WHERE id" PM_EQ "$1"
	" AND created_at" PM_EQ "$2 FOR UPDATE",
	2, {INT8OID, TIMESTAMPTZOID}
};
static PmStatement read_status = {
	"SELECT status FROM @.postmark_outcomes WHERE id" PM_EQ "$1"
	" AND created_at" PM_EQ "$2",
	2, {INT8OID, TIMESTAMPTZOID}
};

/* The same news, or what stands above it */
static PmStatement known_feedback = {
	"SELECT 1 FROM @.postmark_feedback AS f"
	" WHERE f.id" PM_EQ "$1 AND f.created_at" PM_EQ "$2"
	" AND ROW(f.standing, f.event_at, f.feedback)" PM_GE "ROW($3, $4, $5)",
	5, {INT8OID, TIMESTAMPTZOID, INT2OID, TIMESTAMPTZOID, TEXTOID}
};

static PmStatement put_suppression = {
	"INSERT INTO @.postmark_suppressed AS s"
	" (connector, message_stream, address, email, reason, origin, since, lifted)"
	" VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
	" ON CONFLICT (connector, message_stream, address) DO UPDATE SET"
	" email = EXCLUDED.email, reason = EXCLUDED.reason,"
	" origin = EXCLUDED.origin, since = EXCLUDED.since,"
	" lifted = EXCLUDED.lifted"
	" WHERE ROW(EXCLUDED.since, s.lifted)" PM_GT "ROW(s.since, EXCLUDED.lifted)",
	8, {TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TIMESTAMPTZOID,
	BOOLOID}
};

static PmStatement put_inquiry = {
	"INSERT INTO @.postmark_inquiries (connector, message_stream, address, noted_at)"
	" SELECT $1, $2, $3, pg_catalog.clock_timestamp()"
	" WHERE (SELECT pg_catalog.count(*) FROM (SELECT 1"
	" FROM @.postmark_inquiries WHERE connector" PM_EQ "$1 LIMIT $4) AS i)" PM_LT "$4"
	" ON CONFLICT DO NOTHING",
	4, {TEXTOID, TEXTOID, TEXTOID, INT8OID}
};

static PmStatement next_inquiry = {
	"SELECT message_stream, address FROM @.postmark_inquiries"
	" WHERE connector" PM_EQ "$1 ORDER BY noted_at LIMIT 1",
	1, {TEXTOID}
};
static PmStatement put_off_inquiry = {
	"UPDATE @.postmark_inquiries SET noted_at = pg_catalog.clock_timestamp()"
	" WHERE connector" PM_EQ "$1 AND message_stream" PM_EQ "$2"
	" AND address" PM_EQ "$3",
	3, {TEXTOID, TEXTOID, TEXTOID}
};
static PmStatement delete_inquiry = {
	"DELETE FROM @.postmark_inquiries WHERE connector" PM_EQ "$1"
	" AND message_stream" PM_EQ "$2 AND address" PM_EQ "$3",
	3, {TEXTOID, TEXTOID, TEXTOID}
};
static PmStatement known_suppressed = {
	"SELECT 1 FROM @.postmark_suppressed WHERE connector" PM_EQ "$1"
	" AND message_stream" PM_EQ "$2 AND address" PM_EQ "$3 AND NOT lifted",
	3, {TEXTOID, TEXTOID, TEXTOID}
};

/* The same news, or later news */
static PmStatement known_suppression = {
	"SELECT 1 FROM @.postmark_suppressed AS s WHERE s.connector" PM_EQ "$1"
	" AND s.message_stream" PM_EQ "$2 AND s.address" PM_EQ "$3"
	" AND ROW(s.since, false)" PM_GE "ROW($4, s.lifted)",
	4, {TEXTOID, TEXTOID, TEXTOID, TIMESTAMPTZOID}
};

static PmStatement begin_progress = {
	"INSERT INTO @.postmark_feedback_progress VALUES ($1, $2, $3, $3)"
	" ON CONFLICT DO NOTHING",
	3, {TEXTOID, TEXTOID, TIMESTAMPTZOID}
};
static PmStatement read_progress = {
	"SELECT bounces_until, suppressions_until"
	" FROM @.postmark_feedback_progress"
	" WHERE connector" PM_EQ "$1 AND message_stream" PM_EQ "$2",
	2, {TEXTOID, TEXTOID}
};
static PmStatement put_progress = {
	"UPDATE @.postmark_feedback_progress"
	" SET bounces_until = $3, suppressions_until = $4"
	" WHERE connector" PM_EQ "$1 AND message_stream" PM_EQ "$2",
	4, {TEXTOID, TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID}
};

static PmStatement forget_suppressed = {
	"DELETE FROM @.postmark_suppressed WHERE connector" PM_EQ "$1"
	" AND message_stream" PM_EQ "$2 AND address" PM_EQ "$3",
	3, {TEXTOID, TEXTOID, TEXTOID}
};

/* The stream that an event is about; one that says none means ours. */
static Datum
stream_of(const PmConnector *connector, const PmEvent *event)
{
	return CStringGetTextDatum(event->message_stream ? event->message_stream
							   : connector->message_stream);
}

/*
 * Whether an event is about a message of this connector, mailed to the address
 * that it names.  As all functions here: in the caller's transaction, whatever
 * its isolation level and search_path, with SPI and the owner's rights.
 */
bool
pm_feedback_is_ours(const PmConnector *connector, const PmEvent *event)
{
	Datum		values[4];
	uint64		i;

	if (event->id == 0)
		return false;
	values[0] = Int64GetDatum(event->id);
	values[1] = TimestampTzGetDatum(event->created_at);
	values[2] = CStringGetTextDatum(connector->name);
	pm_execute_now(&find_finished, values, true);
	if (SPI_processed == 0)
	{
		Datum		lanes[PM_PRIORITIES];

		for (i = 0; i < PM_PRIORITIES; i++)
			lanes[i] = Int32GetDatum(PM_LANE(connector->number, (int) i));
		values[3] = PointerGetDatum(construct_array(lanes, PM_PRIORITIES,
													INT4OID, sizeof(int32),
													true, TYPALIGN_INT));
		pm_execute_now(&find_message, values, true);
	}
	for (i = 0; i < SPI_processed; i++)
	{
		char	   *address = SPI_getvalue(SPI_tuptable->vals[i],
										   SPI_tuptable->tupdesc, 1);

		if (address == NULL)
			continue;
		pm_fold_address(address);
		if (strcmp(address, event->address) == 0)
			return true;
	}
	return false;
}

/* Count what an event says of its message, if that is what ends a message. */
static void
count(const PmConnector *connector, const PmEvent *event)
{
	PmMetric	metric;

	if (event->delivered)
		metric = PM_COUNT_DELIVERED;
	else if (event->standing == PM_STANDING_COMPLAINT)
		metric = PM_COUNT_COMPLAINED;
	else if (event->standing >= PM_STANDING_SOFT)
		metric = PM_COUNT_BOUNCED;
	else
		return;
	pm_stats_note(connector->number, connector->name, metric, 1);
}

/*
 * The status that is known of an event's message, as news of it has it; NULL if
 * there is none.  Whoever else brings news of it waits until this transaction
 * ends.
 */
static char *
lock_status(const PmEvent *event)
{
	Datum		values[2];

	values[0] = Int64GetDatum(event->id);
	values[1] = TimestampTzGetDatum(event->created_at);
	pm_execute_now(&lock_feedback, values, false);
	pm_execute_now(&read_status, values, true);
	return SPI_processed == 0 ? NULL :
		SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
}

/* Store what an event says of its message, which must be the connector's. */
static void
feedback_put(const PmConnector *connector, const PmEvent *event)
{
	Datum		values[6];
	char		nulls[6] = {' ', ' ', ' ', ' ', ' ', ' '};
	bool		news = event->standing > PM_STANDING_NONE;
	bool		tell = connector->notify_channel != NULL;
	char	   *before = NULL;
	char	   *after;

	if (!news && !event->delivered)
		return;
	if (tell)
		before = lock_status(event);
	values[0] = Int64GetDatum(event->id);
	values[1] = TimestampTzGetDatum(event->created_at);
	PM_NULLABLE(values, nulls, 2, !event->delivered,
				TimestampTzGetDatum(event->at));
	values[3] = Int16GetDatum(event->standing);
	values[4] = TimestampTzGetDatum(news ? event->at : DT_NOBEGIN);
	values[5] = CStringGetTextDatum(news ? event->feedback : "");
	pm_execute(&put_feedback, values, nulls, 0);
	if (SPI_processed == 0)
		return;
	count(connector, event);
	if (!tell)
		return;
	after = lock_status(event);
	if (after && (before == NULL || strcmp(before, after) != 0))
		pm_notify_status(connector, event->id, after);
}

/*
 * Whether an event says anything of its address that may be kept: not about
 * somebody who was erased since.
 */
static bool
concerns_address(const PmEvent *event)
{
	return event->suppressing != PM_SUPPRESS_UNCHANGED &&
		!pm_forgotten_since(event->address, event->at);
}

/*
 * Store what an event says of an address, unless something newer is known.
 * Whoever calls this trusts the event.
 */
void
pm_suppression_put(const PmConnector *connector, const PmEvent *event)
{
	Datum		values[8];
	char		nulls[8] = {' ', ' ', ' ', ' ', ' ', ' ', ' ', ' '};

	if (!concerns_address(event))
		return;
	values[0] = CStringGetTextDatum(connector->name);
	values[1] = stream_of(connector, event);
	values[2] = CStringGetTextDatum(event->address);
	values[3] = CStringGetTextDatum(event->email);
	PM_NULLABLE_TEXT(values, nulls, 4, event->reason);
	PM_NULLABLE_TEXT(values, nulls, 5, event->origin);
	values[6] = TimestampTzGetDatum(event->at);
	values[7] = BoolGetDatum(event->suppressing == PM_SUPPRESS_LIFTED);
	pm_execute(&put_suppression, values, nulls, 0);
}

/*
 * Store what an event says of its message, which must be the connector's, and
 * of its address.
 */
void
pm_feedback_take(const PmConnector *connector, const PmEvent *event)
{
	feedback_put(connector, event);
	pm_suppression_put(connector, event);
}

/*
 * The same of an event that Postmark told when it was asked, and which may be
 * about no message of ours.  It may have told it before, and then nothing is
 * written, not even a lock.
 */
void
pm_feedback_learn(const PmConnector *connector, const PmEvent *event)
{
	Datum		values[5];

	if (!pm_feedback_is_ours(connector, event))
		return;
	values[0] = Int64GetDatum(event->id);
	values[1] = TimestampTzGetDatum(event->created_at);
	values[2] = Int16GetDatum(event->standing);
	values[3] = TimestampTzGetDatum(event->at);
	values[4] = CStringGetTextDatum(event->feedback);
	pm_execute(&known_feedback, values, NULL, 1);
	if (SPI_processed == 0)
		feedback_put(connector, event);
	pm_suppression_learn(connector, event);
}

/* The same of an address that nothing is delivered to. */
void
pm_suppression_learn(const PmConnector *connector, const PmEvent *event)
{
	Datum		values[4];

	if (event->suppressing == PM_SUPPRESS_UNCHANGED)
		return;
	values[0] = CStringGetTextDatum(connector->name);
	values[1] = stream_of(connector, event);
	values[2] = CStringGetTextDatum(event->address);
	values[3] = TimestampTzGetDatum(event->at);
	pm_execute(&known_suppression, values, NULL, 1);
	if (SPI_processed == 0)
		pm_suppression_put(connector, event);
}

/*
 * Up to which times Postmark has been asked for the connector's bounces and
 * suppressions, DT_NOBEGIN: never.  False if this database has no place for
 * that.  For the worker's transactions.
 */
bool
pm_progress_begin(const PmConnector *connector, TimestampTz *bounces_until,
				  TimestampTz *suppressions_until)
{
	Datum		values[3];
	bool		isnull;

	if (pm_sql_version() < PM_SQL_1_1)
		return false;
	values[0] = CStringGetTextDatum(connector->name);
	values[1] = CStringGetTextDatum(connector->message_stream);
	values[2] = TimestampTzGetDatum(DT_NOBEGIN);
	*bounces_until = *suppressions_until = DT_NOBEGIN;
	pm_execute(&read_progress, values, NULL, 1);
	if (SPI_processed == 0)
	{
		pm_execute(&begin_progress, values, NULL, 0);
		return true;
	}
	*bounces_until =
		DatumGetTimestampTz(SPI_getbinval(SPI_tuptable->vals[0],
										  SPI_tuptable->tupdesc, 1, &isnull));
	*suppressions_until =
		DatumGetTimestampTz(SPI_getbinval(SPI_tuptable->vals[0],
										  SPI_tuptable->tupdesc, 2, &isnull));
	return true;
}

/*
 * Note it, unless it is to be asked anew since then: the row was deleted.
 */
void
pm_progress_put(const PmConnector *connector, const char *stream,
				TimestampTz bounces_until, TimestampTz suppressions_until)
{
	Datum		values[4];

	values[0] = CStringGetTextDatum(connector->name);
	values[1] = CStringGetTextDatum(stream);
	values[2] = TimestampTzGetDatum(bounces_until);
	values[3] = TimestampTzGetDatum(suppressions_until);
	pm_execute(&put_progress, values, NULL, 0);
}

/*
 * Have the worker ask Postmark about the address of an event that is not
 * trusted.  Where it has many to ask about already, nothing happens.
 */
void
pm_inquiry_put(const PmConnector *connector, const PmEvent *event)
{
	Datum		values[4];

	if (!concerns_address(event))
		return;
	values[0] = CStringGetTextDatum(connector->name);
	values[1] = stream_of(connector, event);
	values[2] = CStringGetTextDatum(event->address);
	values[3] = Int64GetDatum(INQUIRIES_MAX);
	pm_execute(&put_inquiry, values, NULL, 0);
}

/*
 * The address of a connector that Postmark is to be asked about first, palloc'd;
 * false if there is none.  For the worker's transactions, as all below.
 */
bool
pm_inquiry_next(const char *connector, char **stream, char **address)
{
	Datum		values[1];

	if (pm_sql_version() < PM_SQL_1_1)
		return false;
	values[0] = CStringGetTextDatum(connector);
	pm_execute(&next_inquiry, values, NULL, 1);
	if (SPI_processed == 0)
		return false;
	*stream = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	*address = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2);
	return true;
}

/* Postmark did not answer: ask about all others first. */
void
pm_inquiry_put_off(const char *connector, const char *stream,
				   const char *address)
{
	Datum		values[3];

	values[0] = CStringGetTextDatum(connector);
	values[1] = CStringGetTextDatum(stream);
	values[2] = CStringGetTextDatum(address);
	pm_execute(&put_off_inquiry, values, NULL, 0);
}

/*
 * Postmark was asked about an address.
 *
 * event: what it said; NULL: nothing that would be different next time
 */
void
pm_inquiry_answered(const PmConnector *connector, const char *stream,
					const char *address, const PmEvent *event)
{
	Datum		values[3];

	values[0] = CStringGetTextDatum(connector->name);
	values[1] = CStringGetTextDatum(stream);
	values[2] = CStringGetTextDatum(address);
	pm_execute(&delete_inquiry, values, NULL, 0);
	if (event == NULL)
		return;

	/* No news of an address that was never suppressed */
	if (event->suppressing == PM_SUPPRESS_LIFTED)
		pm_execute(&known_suppressed, values, NULL, 1);

	/* It knows since when, which may be before we heard of it */
	else
		pm_execute(&forget_suppressed, values, NULL, 0);
	if (event->suppressing == PM_SUPPRESS_LIFTED && SPI_processed == 0)
		return;
	pm_suppression_put(connector, event);
}
