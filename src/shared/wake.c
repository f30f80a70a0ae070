/*-------------------------------------------------------------------------
 *
 * wake.c
 *		Telling the worker of this database, at COMMIT, what there is to do.
 *
 * A transaction that queues notes what it queued in static memory of its
 * backend; one transaction callback, registered once a backend, hands that
 * over to shared memory when the transaction has committed, and forgets it
 * when it has not; so it does with what a subtransaction noted.  The callback runs where an error would be a PANIC: it
 * raises none and allocates nothing.  NOTIFY would do the same at a third of
 * the commit rate, since it takes a lock that is global to the server.
 *
 * Exact ranges of ids are handed over, not only the lowest: a transaction that
 * commits late, after millions of messages above its own were sent, is then
 * found without a walk over their remains.
 *
 * src/shared/wake.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/memutils.h"

#include "shared/slots.h"
#include "shared/wake.h"
#include "shared/wakeup.h"

/* What the current transaction has done, as far as it is to be known */
typedef struct Noted
{
	uint32		reasons;		/* PM_WAKE_* */
	int			resumed;		/* see PmWakeup */
	bool		messages;
	bool		cancel;
	bool		databases;
} Noted;

/* What was noted when a subtransaction noted something for the first time */
typedef struct Mark
{
	int			level;			/* the subtransaction's */
	Noted		before;
} Mark;

static Noted noted;
static Mark *marks = NULL;		/* of those that are open, outermost first */
static int	nmarks = 0;
static int	max_marks = 0;

/*
 * Ids and lanes, of subtransactions that were rolled back as well: too many
 * cost the worker a look.
 */
static PmWakeup wakeup;
static bool lanes_noted = false;
static bool callbacks_registered = false;

/*
 * Ask the launcher to look into a database, InvalidOid: to see which databases
 * there are.  The one does not stand for the other.
 */
static void
wake_launcher_for(Oid database)
{
	PmShared   *shared = pm_shared();

	if (shared == NULL)
		return;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	if (!OidIsValid(database))
		shared->list_databases = true;
	else if (shared->nprobes < PM_MAX_PROBES)
		shared->probes[shared->nprobes++] = database;
	else
		shared->probe_all = true;
	if (shared->launcher)
		SetLatch(&shared->launcher->procLatch);
	LWLockRelease(shared->lock);
}

static void
forget(void)
{
	if (lanes_noted)
		memset(&wakeup, 0, sizeof(wakeup));
	lanes_noted = false;
	memset(&noted, 0, sizeof(noted));
	nmarks = 0;
}

static void
at_transaction_end(XactEvent event, void *arg)
{
	PmSlot	   *slot;

	switch (event)
	{
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PARALLEL_COMMIT:
			if (noted.reasons && (slot = pm_find_slot(MyDatabaseId)) != NULL)
			{
				wakeup.reasons = noted.reasons;
				wakeup.resumed = noted.resumed;
				pm_slot_wake(slot, &wakeup);
			}
			if (noted.reasons & PM_WAKE_CATALOG)
				wake_launcher_for(MyDatabaseId);
			if (noted.databases)
				wake_launcher_for(InvalidOid);
			forget();
			break;

		case XACT_EVENT_PRE_PREPARE:

			/*
			 * A cancel holds its promise through a lock on the row that the
			 * worker skips; nobody would be told if the prepared transaction
			 * were rolled back.
			 */
			if (noted.cancel)
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("cannot PREPARE a transaction that has called postmark_cancel"),
						 errhint("Call postmark_cancel in a transaction of its own.")));
			break;

		case XACT_EVENT_PREPARE:
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PARALLEL_ABORT:
			forget();
			break;

		default:
			break;
	}
}

/*
 * A subtransaction that noted something has ended: what it noted is its
 * parent's, or was never so.
 */
static void
at_subtransaction_end(SubXactEvent event, SubTransactionId id,
					  SubTransactionId parent, void *arg)
{
	int			level = GetCurrentTransactionNestLevel();
	Mark	   *mark;

	if (nmarks == 0 || marks[nmarks - 1].level < level)
		return;
	mark = &marks[nmarks - 1];
	if (event == SUBXACT_EVENT_ABORT_SUB)
	{
		noted = mark->before;
		nmarks--;
	}
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
	{
		/* Unless that has one, or is the whole, for which there is none */
		if (level == 2 || (nmarks > 1 && mark[-1].level == level - 1))
			nmarks--;
		else
			mark->level = level - 1;
	}
}

/* To be called before anything is noted. */
static void
begin_note(void)
{
	int			level = GetCurrentTransactionNestLevel();

	if (!callbacks_registered)
	{
		RegisterXactCallback(at_transaction_end, NULL);
		RegisterSubXactCallback(at_subtransaction_end, NULL);
		callbacks_registered = true;
	}
	if (level == 1 || (nmarks > 0 && marks[nmarks - 1].level == level))
		return;
	if (nmarks == max_marks)
	{
		int			more = Max(8, max_marks * 2);

		marks = marks ? repalloc(marks, sizeof(Mark) * more) :
			MemoryContextAlloc(TopMemoryContext, sizeof(Mark) * more);
		max_marks = more;
	}
	marks[nmarks].level = level;
	marks[nmarks++].before = noted;
}

static void
note_lane(int32 lane, uint32 reason)
{
	uint32		bit = PM_WAKE_LANE_BIT(lane);

	begin_note();
	noted.reasons |= reason;
	noted.messages = true;
	wakeup.lanes[bit / 64] |= UINT64CONST(1) << (bit % 64);
	lanes_noted = true;
}

/* The transaction put message "id" into "lane" of the hot table. */
void
pm_note_message(int32 lane, int64 id)
{
	note_lane(lane, PM_WAKE_MESSAGES);
	pm_ranges_add(&wakeup.ranges, id, id);
}

/* The transaction put a message into "lane" of postmark_deferred. */
void
pm_note_deferred(int32 lane)
{
	note_lane(lane, PM_WAKE_DEFERRED);
}

/* The transaction did something else that the worker is to know of. */
void
pm_note(uint32 reasons)
{
	begin_note();
	noted.reasons |= reasons;
}

/* The transaction has a connector go on, whatever closed its channel. */
void
pm_note_resume(int number)
{
	pm_note(PM_WAKE_RESUME);
	pm_resumed_add(&noted.resumed, number);
}

/* The transaction makes or changes databases. */
void
pm_note_databases(void)
{
	begin_note();
	noted.databases = true;
}

/* The transaction promises that a message will not be sent. */
void
pm_note_cancel(void)
{
	begin_note();
	noted.cancel = true;
}

/* Whether the current transaction has queued a message. */
bool
pm_transaction_queued(void)
{
	return noted.messages;
}

/* Wake the worker of a database now, whatever becomes of this transaction. */
void
pm_wake_database(Oid database, uint32 reasons)
{
	PmSlot	   *slot = pm_find_slot(database);
	PmWakeup	now;

	if (slot == NULL)
	{
		/* A copy has no worker; it gets one for as long as it takes */
		if (reasons & PM_WAKE_ATTEMPTS)
			wake_launcher_for(database);
		return;
	}
	memset(&now, 0, sizeof(now));
	now.reasons = reasons;
	pm_slot_wake(slot, &now);
}

/* Have the launcher see now which databases there are, and which are held. */
void
pm_wake_launcher(void)
{
	wake_launcher_for(InvalidOid);
}
