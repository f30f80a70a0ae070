/*-------------------------------------------------------------------------
 *
 * message_id.c
 *		The ids of messages.
 *
 * They come from a sequence, but not by nextval: after it lastval() of whoever
 * queued would be that of our sequence, and applications ask it for the id of
 * their own row.  setval leaves it alone.  So the sequence is set to the end of
 * a block of ids, and the block is given out from shared memory, id by id.  As
 * with nextval, the change of the sequence is in the WAL before any commit of a
 * transaction that has one of the ids.
 *
 * The sequence can be set back: by setval, by a replicated sequence, by a
 * restore.  An id that the history has already would be sent and have no
 * record.  So a block begins behind all ids that shared memory knows to be
 * given.  Where there is no worker, which tells, the tables are asked, and each
 * id is reserved by itself.
 *
 * Databases that replicate to each other, or whose messages end in one place,
 * can be told apart by their ids: each is a node, with a range of ids of its
 * own, which are the bounds of its sequence.  Ids only grow, so that whoever
 * divides messages by their ids may go on doing so; a node can only become one
 * with higher ids.
 *
 * src/queue/message_id.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/sequence.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#include "base/catalog.h"
#include "base/errors.h"
#include "base/owner.h"
#include "queue/message_id.h"
#include "queue/queue_session.h"
#include "shared/slots.h"

/*
 * A node has so many ids, a number that a reader sees the node by.  With the
 * last node they are still exact where numbers are floating point, as in
 * JavaScript.
 */
#define NODE_IDS	INT64CONST(1000000000000)
#define LAST_NODE	9000

PG_FUNCTION_INFO_V1(postmark_set_node);

static int64 session_id = 0;	/* that this session was given last */

static PmStatement last_reserved = {
	"SELECT CASE WHEN is_called THEN last_value"
	" ELSE last_value OPERATOR(pg_catalog.-) 1 END"
	" FROM @.postmark_message_id_seq",
	0, {0}
};
static PmStatement count_called = {
	"SELECT pg_catalog.count(*) FROM @.postmark_message_id_seq WHERE is_called",
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

/*
 * An id that no message's is above, as far as is known without a look at the
 * tables; those up to it may be taken, reserved or passed over.
 */
int64
pm_last_message_id(void)
{
	int64		free_ids = pm_free_ids();

	return free_ids > 0 ? free_ids - 1 : read_int8(&last_reserved);
}

/* The highest id that a message has, 0 if there is none. */
int64
pm_highest_message_id(void)
{
	return read_int8(&highest_id);
}

/* The sequence's ids up to "last" are reserved; nextval would give the next. */
static void
set_sequence(int64 last)
{
	PmOwnerScope scope;

	pm_enter_owner(&scope);
	(void) DirectFunctionCall2(setval_oid,
							   ObjectIdGetDatum(pm_object(PM_MESSAGE_ID_SEQ)),
							   Int64GetDatum(last));
	pm_leave_owner(&scope);
}

/* Whether the sequence ever gave an id, to whatever became of it. */
bool
pm_message_id_given(void)
{
	return read_int8(&count_called) > 0;
}

/* Whether there is a message with that id already. */
static bool
is_taken(int64 id)
{
	bool		own;

	return pm_message_status(id, InvalidOid, &own) != NULL;
}

/* The id that this session was given last, 0 if it was given none. */
int64
pm_session_message_id(void)
{
	return session_id;
}

/* The session queued a message that was there already. */
void
pm_set_session_message_id(int64 id)
{
	session_id = id;
}

/*
 * Reserve ids, a block if there is a worker that says which are free.  Returns
 * the caller's, 0 if the free ones have become others meanwhile.
 */
static int64
reserve_ids(void)
{
	Oid			sequence = pm_object(PM_MESSAGE_ID_SEQ);
	int64		id;

	/* One at a time: setval's own lock keeps nobody out, and stays for long */
	LockRelationOid(sequence, ShareUpdateExclusiveLock);
	id = pm_take_id();			/* others may have reserved some meanwhile */
	if (id == 0)
	{
		int64		known = pm_free_ids();

		id = read_int8(&last_reserved) + 1;
		if (known == 0)
		{
			if (is_taken(id))
				id = Max(id, pm_highest_message_id() + 1);
			set_sequence(id);
		}
		else
		{
			id = pm_block_from(Max(known, id));
			set_sequence(id + PM_ID_BLOCK - 1);
			if (!pm_take_block(known, id))
				id = 0;
		}
	}
	UnlockRelationOid(sequence, ShareUpdateExclusiveLock);
	return id;
}

/*
 * An id for a message, which no other one has.  May read settings anew, as
 * pm_connectors does.
 */
int64
pm_next_message_id(void)
{
	int64		id;

	/* An id is for a row, which would be refused */
	PreventCommandIfReadOnly("INSERT");

	do
	{
		CHECK_FOR_INTERRUPTS();
		id = pm_take_id();
		if (id == 0)
			id = reserve_ids();
	} while (id == 0);
	return session_id = id;
}

/* Give the sequence the ids from "first" on, for a node. */
static void
restart_sequence(int64 first)
{
	PmOwnerScope scope;
	bool		used = pm_message_id_given();
	char	   *name = quote_qualified_identifier(pm_schema(),
												  pm_object_name(PM_MESSAGE_ID_SEQ));
	char	   *command = psprintf("ALTER SEQUENCE %s MINVALUE " INT64_FORMAT
								   " MAXVALUE " INT64_FORMAT
								   " START " INT64_FORMAT
								   " RESTART " INT64_FORMAT,
								   name, first, first + NODE_IDS - 1,
								   first + 1, first + 1);
	int			result;

	pm_connect_owner(&scope);
	result = SPI_execute(command, false, 0);
	if (result < 0)
		elog(ERROR, "could not alter a sequence: %s",
			 SPI_result_code_string(result));
	pm_disconnect_owner(&scope);

	/* A database that had messages is not to pass for a fresh one */
	if (used)
		set_sequence(first);
}

/*
 * postmark_set_node(node integer) returns void
 *		From now on the ids of messages are those of a node.
 */
Datum
postmark_set_node(PG_FUNCTION_ARGS)
{
	int32		node = PG_ARGISNULL(0) ? 0 : PG_GETARG_INT32(0);
	int64		first = node * NODE_IDS;
	int64		highest;

	if (node < 1 || node > LAST_NODE)
		ereport(ERROR,
				(errcode(PM_ERRCODE_INVALID),
				 errmsg("node must be between %d and %d", 1, LAST_NODE),
				 errhint("Give each database a number of its own; one that was given none has ids from 1.")));

	/*
	 * An id that was given is never free again; the sequence would go back
	 * with the transaction.
	 */
	PreventInTransactionBlock(true, "postmark_set_node");
	PreventCommandIfReadOnly("postmark_set_node");

	/* The one that ALTER SEQUENCE takes: nobody reserves ids meanwhile */
	LockRelationOid(pm_object(PM_MESSAGE_ID_SEQ), ShareRowExclusiveLock);
	highest = Max(pm_last_message_id(), pm_highest_message_id());
	if (highest >= first + NODE_IDS)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this database has messages with ids of a higher node"),
				 errdetail("Its highest id is " INT64_FORMAT ", and those of node %d end before " INT64_FORMAT ".",
						   highest, node, first + NODE_IDS),
				 errhint("Ids only grow: choose node " INT64_FORMAT " or a higher one.",
						 highest / NODE_IDS)));
	if (highest < first)
	{
		/*
		 * What is left of a block is given to nobody, so that who needs ids has
		 * to reserve some, and waits for the lock.
		 */
		if (pm_free_ids() != 0)
			pm_ids_given(pm_free_ids());
		restart_sequence(first);
	}
	PG_RETURN_VOID();
}
