/*-------------------------------------------------------------------------
 *
 * message.c
 *		postmark_cancel, postmark_requeue, postmark_wait and postmark_flush.
 *
 * src/queue/message.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/errors.h"
#include "base/times.h"
#include "base/wait_event.h"
#include "queue/message_id.h"
#include "queue/queue_session.h"
#include "queue/state.h"
#include "settings/config_store.h"
#include "settings/connector.h"
#include "settings/connector_roles.h"
#include "shared/slots.h"
#include "shared/wake.h"

/*
 * Longest sleep between two looks, ms: the worker's broadcast is what wakes
 * us, but a worker may have been replaced meanwhile.
 */
#define LOOK_AGAIN 500

PG_FUNCTION_INFO_V1(postmark_cancel);
PG_FUNCTION_INFO_V1(postmark_requeue);
PG_FUNCTION_INFO_V1(postmark_wait);
PG_FUNCTION_INFO_V1(postmark_message_status);
PG_FUNCTION_INFO_V1(postmark_last_id);
PG_FUNCTION_INFO_V1(postmark_flush);

/* postmark_cancel(id) returns boolean */
Datum
postmark_cancel(PG_FUNCTION_ARGS)
{
	PreventCommandIfReadOnly("postmark_cancel()");
	PG_RETURN_BOOL(pm_message_cancel(PG_GETARG_INT64(0), GetUserId()));
}

/* postmark_requeue(id) returns boolean */
Datum
postmark_requeue(PG_FUNCTION_ARGS)
{
	PreventCommandIfReadOnly("postmark_requeue()");
	PG_RETURN_BOOL(pm_message_requeue(PG_GETARG_INT64(0), GetUserId()));
}

/* When to give up; error for a negative time-out. */
static PmMoment
deadline(const Interval *timeout)
{
	static const Interval none = {0};
	static const Interval longest = {.month = 100 * MONTHS_PER_YEAR};

	if (pm_interval_compare(timeout, &none) < 0)
		ereport(ERROR,
				(errcode(PM_ERRCODE_INVALID),
				 errmsg("timeout must not be negative"),
				 errhint("Give an interval such as '30 s', or 0 to look only once.")));
	if (pm_interval_compare(timeout, &longest) > 0)
		timeout = &longest;
	return pm_moment_of(DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
																TimestampTzGetDatum(GetCurrentTimestamp()),
																IntervalPGetDatum(timeout))));
}

/*
 * Begin to listen to the worker, so that what it does between a look at the
 * tables and the sleep is not missed.  NULL if there is none.
 */
static PmSlot *
hear_worker(void)
{
	PmSlot	   *slot = pm_find_slot(MyDatabaseId);

	if (slot)
		ConditionVariablePrepareToSleep(&slot->finished);
	return slot;
}

/* Sleep until the worker has done something, or for a while. */
static void
sleep_until(PmSlot *slot, PmMoment end)
{
	long		ms = Max(Min(pm_ms_until(end), LOOK_AGAIN), 1);

	if (slot)
		ConditionVariableTimedSleep(&slot->finished, ms,
									pm_wait_event(PM_WAIT_DELIVERY));
	else
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 ms, pm_wait_event(PM_WAIT_DELIVERY));
		ResetLatch(MyLatch);
	}
	CHECK_FOR_INTERRUPTS();
}

static bool
is_final(const char *status)
{
	return strcmp(status, "queued") != 0 && strcmp(status, "deferred") != 0;
}

/* postmark_wait(id, timeout) returns text */
Datum
postmark_wait(PG_FUNCTION_ARGS)
{
	int64		id = PG_GETARG_INT64(0);
	PmMoment	end = deadline(PG_GETARG_INTERVAL_P(1));
	char	   *status;

	for (;;)
	{
		PmSlot	   *slot = hear_worker();
		bool		own;

		status = pm_message_status(id, GetUserId(), &own);
		if (own)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("message " INT64_FORMAT " was queued by this transaction", id),
					 errdetail("It is sent when the transaction commits, so waiting for it here would never end."),
					 errhint("Commit first, then wait.")));
		if (status == NULL || is_final(status) || pm_moment() >= end)
			break;
		sleep_until(slot, end);
	}
	ConditionVariableCancelSleep();

	if (status == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(status));
}

/*
 * postmark_message_status(id) returns text
 *
 * What became so far of a message that the caller's role queued, or one whose
 * rights it has; NULL for all others, so that nobody learns of them.
 */
Datum
postmark_message_status(PG_FUNCTION_ARGS)
{
	char	   *status = pm_own_message_status(PG_GETARG_INT64(0), GetUserId());

	if (status == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(status));
}

/*
 * postmark_last_id() returns bigint
 *
 * The id of the message that this session queued last, by whatever means; NULL
 * if it has queued none.
 */
Datum
postmark_last_id(PG_FUNCTION_ARGS)
{
	int64		id = pm_session_message_id();

	if (id == 0)
		PG_RETURN_NULL();
	PG_RETURN_INT64(id);
}

/*
 * Whether anything up to "upto" is unfinished, of the connectors that the
 * current user may use.  *stuck becomes the number of a
 * connector that has such messages and does not flow, 0 if there is none; *slow
 * that of one which flows, but with something wrong.  *state becomes the state of the
 * former, or else of the latter; "changes" is as for pm_slot_answered.
 */
static bool
unfinished(int64 upto, TimestampTz due, uint64 changes, int *stuck,
		   int *slow, PmState *state)
{
	PmState		found;
	bool		result = false;
	const PmConnector *connector;
	int			number = 0;

	*stuck = *slow = 0;
	while (*stuck == 0 && (connector = pm_next_connector(number)) != NULL)
	{
		PmSlot	   *slot;
		bool		answered;

		number = connector->number;
		if (!pm_may_use(connector, GetUserId()) ||
			!pm_connector_unfinished(number, upto, due))
			continue;
		result = true;
		connector = pm_connector_by_number(number);
		if (connector == NULL)
			continue;

		/* In this order: what is answered then is in the state */
		slot = pm_find_slot(MyDatabaseId);
		answered = slot == NULL || pm_slot_answered(slot, changes);
		pm_connector_state(connector, &found);
		if (!found.flows && (answered || !found.found_out))
			*stuck = number;
		else if (*slow == 0 && !found.well)
			*slow = number;
		else
			continue;
		*state = found;
	}
	return result;
}

/* Say why a flush gives up. */
static void
say_stuck(int number, const PmState *state)
{
	const PmConnector *connector = pm_connector_by_number(number);

	if (connector)
		ereport(NOTICE,
				(errmsg("connector \"%s\" does not send: its state is %s",
						connector->name, state->state),
				 state->detail ? errdetail_internal("%s", state->detail) : 0,
				 state->hint ? errhint("%s", state->hint) : 0));
}

/*
 * postmark_flush(timeout) returns boolean
 *
 * A change of settings, or a resume, that is committed may mend what keeps a
 * connector from sending.  So before it gives up for what the worker found out
 * it waits until the worker has found out anew.
 */
Datum
postmark_flush(PG_FUNCTION_ARGS)
{
	PmMoment	end = deadline(PG_GETARG_INTERVAL_P(0));
	TimestampTz due = GetCurrentTimestamp();
	PmSlot	   *slot = pm_find_slot(MyDatabaseId);
	uint64		changes = slot ? pm_slot_changes(slot) : 0;
	PmState		state = {0};
	int			stuck;
	int64		upto;
	bool		done;
	int			slow;

	if (pm_transaction_queued())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot flush in a transaction that has queued messages"),
				 errdetail("They are sent when the transaction commits, so waiting for them here would never end."),
				 errhint("Commit first, then flush.")));

	upto = pm_last_message_id();
	for (;;)
	{
		slot = hear_worker();
		done = !unfinished(upto, due, changes, &stuck, &slow, &state);
		if (done || stuck != 0 || pm_moment() >= end)
			break;
		sleep_until(slot, end);
	}
	ConditionVariableCancelSleep();
	if (!done && (stuck != 0 || slow != 0))
		say_stuck(stuck != 0 ? stuck : slow, &state);
	PG_RETURN_BOOL(done);
}
