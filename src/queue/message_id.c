/*-------------------------------------------------------------------------
 *
 * message_id.c
 *		The ids of messages.
 *
 * They come from a sequence, which can be set back: by setval, by a replicated
 * sequence, by a restore.  An id that the history has already would be sent and
 * have no record.  So an id is compared with the highest that was given, which
 * shared memory knows; one that is not above it is not used, and the sequence is
 * moved on if it has to be.  Where there is no worker, which tells, the tables
 * are asked.
 *
 * src/queue/message_id.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_class.h"
#include "commands/sequence.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/fmgrprotos.h"

#include "base/catalog.h"
#include "base/owner.h"
#include "queue/message_id.h"
#include "queue/queue_session.h"
#include "shared/slots.h"

static int64 session_id = 0;	/* that this session was given last */

static PmStatement last_id = {
	"SELECT CASE WHEN is_called THEN last_value ELSE 0 END"
	" FROM @.postmark_message_id_seq",
	0, {0}
};
static PmStatement highest_id = {
	"SELECT GREATEST((SELECT id FROM @.postmark_history ORDER BY id DESC LIMIT 1),"
	" (SELECT id FROM @.postmark_deferred ORDER BY id DESC LIMIT 1),"
	" (SELECT pg_catalog.max(q.id) FROM @.postmark_settings AS s,"
	" pg_catalog.generate_series(0, 9) AS p(priority),"
	" LATERAL (SELECT id FROM @.postmark_queue"
	" WHERE lane" PM_EQ
	"(s.number OPERATOR(pg_catalog.*) 10 OPERATOR(pg_catalog.+) p.priority)"
	" ORDER BY lane DESC, id DESC LIMIT 1) AS q))",
	0, {0}
};

/* An int8 that a query returns as of now, 0 for null. */
static int64
read_int8(PmStatement *query)
{
	PmOwnerScope scope;
	Datum		value;
	bool		isnull;

	pm_connect_owner(&scope);
	pm_execute_now(query, NULL, true);
	value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1,
						  &isnull);
	pm_disconnect_owner(&scope);
	return isnull ? 0 : DatumGetInt64(value);
}

/* The last id that the sequence gave, 0 if none. */
int64
pm_last_message_id(void)
{
	return read_int8(&last_id);
}

/* The highest id that a message has, 0 if there is none. */
int64
pm_highest_message_id(void)
{
	return read_int8(&highest_id);
}

/*
 * If the sequence was set back, move it on to behind all ids that were given.
 * One session at a time, and never back, so that no id is given twice.
 */
static void
move_sequence(void)
{
	Oid			sequence = pm_object(PM_MESSAGE_ID_SEQ);
	int64		free_ids = pm_free_ids();
	PmOwnerScope scope;
	LOCKTAG		tag;
	int64		highest;

	/* It was not: others were given ids since ours was, no more */
	if (free_ids > 0 && pm_last_message_id() >= free_ids - 1)
		return;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, RelationRelationId, sequence, 1);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
	highest = Max(pm_highest_message_id(), pm_free_ids() - 1);
	if (pm_last_message_id() < highest)
	{
		pm_enter_owner(&scope);
		(void) DirectFunctionCall2(setval_oid, ObjectIdGetDatum(sequence),
								   Int64GetDatum(highest));
		pm_leave_owner(&scope);
	}
	(void) LockRelease(&tag, ExclusiveLock, false);
}

/* Whether there is a message with that id already. */
static bool
is_taken(int64 id)
{
	bool		own;

	return pm_message_status(id, &own) != NULL;
}

/* The id that this session was given last, 0 if it was given none. */
int64
pm_session_message_id(void)
{
	return session_id;
}

/*
 * An id for a message, which no other one has.  May read settings anew, as
 * pm_connectors does.
 */
int64
pm_next_message_id(void)
{
	for (;;)
	{
		int64		id = nextval_internal(pm_object(PM_MESSAGE_ID_SEQ), false);

		if (pm_id_is_free(id) || (pm_free_ids() == 0 && !is_taken(id)))
			return session_id = id;
		move_sequence();
	}
}
