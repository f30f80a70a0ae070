/*-------------------------------------------------------------------------
 *
 * origin.c
 *		Whether the queue is this database's own, or came with a copy.
 *
 * postmark_instance has the OID of the database that the messages belong to; a
 * copy made by CREATE DATABASE ... TEMPLATE has another one, and sends nothing.
 * But where the original never gave a message an id there is nothing that could
 * be sent twice, and a database made from such a template is one of its own.
 *
 * That is settled by the worker, which begins a moment after the database was
 * made.  Whoever queues before that takes an id, after which a copy that never
 * had a message looks like one that had; so he notes it in shared memory first.
 *
 * src/queue/origin.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"

#include "base/owner.h"
#include "queue/message_id.h"
#include "queue/origin.h"
#include "shared/slots.h"

static PmStatement find_instance = {
	"SELECT 1 FROM @.postmark_instance WHERE database" PM_EQ "$1",
	1, {OIDOID}
};
static PmStatement adopt = {
	"UPDATE @.postmark_instance SET database = $1", 1, {OIDOID}
};

/* Whether postmark_instance names this database. */
static bool
is_named(void)
{
	Datum		values[1];

	values[0] = ObjectIdGetDatum(MyDatabaseId);
	pm_execute(&find_instance, values, NULL, 1);
	return SPI_processed > 0;
}

/* Whether no message ever was, here or where this was copied from. */
static bool
is_fresh(void)
{
	return (pm_shared() && pm_noted_first(MyDatabaseId)) ||
		!pm_message_id_given();
}

/* Whether the queue is this database's own.  Needs SPI and its owner's rights. */
bool
pm_queue_is_own(void)
{
	return is_named() || is_fresh();
}

/*
 * To be called before a session takes an id for a message for the first time.
 * Returns whether the queue is this database's own.
 */
bool
pm_begin_queue(void)
{
	PmOwnerScope scope;
	bool		own;

	pm_connect_owner(&scope);
	own = is_named();
	if (!own && is_fresh())
	{
		own = true;
		if (pm_shared())
			pm_note_first(MyDatabaseId);
	}
	pm_disconnect_owner(&scope);
	return own;
}

/*
 * Make a copy in which no message ever was a database of its own; false if it
 * is another one's.  Needs a transaction, see queue.h.
 */
bool
pm_adopt_database(void)
{
	Datum		values[1];

	if (!is_fresh())
		return false;
	values[0] = ObjectIdGetDatum(MyDatabaseId);
	pm_execute(&adopt, values, NULL, 0);
	return true;
}
