/*-------------------------------------------------------------------------
 *
 * slots.c
 *		What launcher, workers and sessions share.
 *
 * What is shared here are hints only: which ids were committed, which
 * databases to look at.  Losing them all, as a crash does, costs a scan of the
 * queue at the worker's start and never a message.
 *
 * src/shared/slots.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "shared/slots.h"
#include "shared/wakeup.h"

/* So long after the server's start, ms, the launcher is there. */
#define LAUNCHER_STARTS 5000

static PmShared *shared = NULL;

/* The slot of this process's own, if it is a worker */
static PmSlot *our_slot = NULL;

/* A slot for each process that could be a worker, and what is before them */
static Size
slots_alone(void)
{
	return MAXALIGN(add_size(offsetof(PmShared, slots),
							 mul_size(max_worker_processes, sizeof(PmSlot))));
}

/* See PmSharedPart. */
Size
pm_slots_size(void)
{
	return add_size(slots_alone(), mul_size(MaxBackends, sizeof(PmHold)));
}

/* See PmSharedPart. */
void
pm_slots_init(void *place, LWLock *lock, bool found)
{
	int			i;

	shared = place;
	if (found)
		return;
	memset(shared, 0, pm_slots_size());
	shared->lock = lock;
	ConditionVariableInit(&shared->changed);
	shared->nholds = MaxBackends;
	shared->holds = (PmHold *) ((char *) place + slots_alone());
	shared->nslots = max_worker_processes;
	for (i = 0; i < shared->nslots; i++)
	{
		SpinLockInit(&shared->slots[i].mutex);
		pg_atomic_init_u32(&shared->slots[i].commit_waits, 0);
		pg_atomic_init_u32(&shared->slots[i].stop, 0);
		pg_atomic_init_u64(&shared->slots[i].free_ids, 0);
		pg_atomic_init_u64(&shared->slots[i].suppressions, 0);
		ConditionVariableInit(&shared->slots[i].finished);
	}
}

/* The shared memory, NULL if the library was not preloaded. */
PmShared *
pm_shared(void)
{
	return shared;
}

/*
 * The slot of a database, NULL if it has none.  Called without the lock it is
 * a guess, good enough to leave hints in: a slot that changes hands meanwhile
 * gives its new worker a rescan more, and a new worker scans all anyway.
 */
PmSlot *
pm_find_slot(Oid database)
{
	int			i;

	if (shared == NULL)
		return NULL;
	for (i = 0; i < shared->nslots; i++)
		if (shared->slots[i].database == database)
			return &shared->slots[i];
	return NULL;
}

/*
 * Take a free slot for a database.  The launcher's alone.  NULL if there is
 * none.
 */
PmSlot *
pm_take_slot(Oid database)
{
	PmSlot	   *slot;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	slot = pm_find_slot(InvalidOid);
	if (slot)
	{
		slot->proc = NULL;
		slot->pid = 0;
		slot->ready = false;
		slot->exit = PM_EXIT_UNKNOWN;
		slot->generation++;
		pg_atomic_write_u32(&slot->commit_waits, 0);
		pg_atomic_write_u32(&slot->stop, 0);
		pg_atomic_write_u64(&slot->free_ids, 0);
		SpinLockAcquire(&slot->mutex);
		memset(&slot->pending, 0, sizeof(slot->pending));
		memset(slot->quiet, 0, sizeof(slot->quiet));
		slot->announced = false;
		slot->answered = slot->changes;
		memset(&slot->health, 0, sizeof(slot->health));
		slot->health.woken_at = pm_common_us();
		SpinLockRelease(&slot->mutex);
		slot->database = database;
	}
	LWLockRelease(shared->lock);
	return slot;
}

/* Give a slot back.  The launcher's alone. */
void
pm_free_slot(PmSlot *slot)
{
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	slot->database = InvalidOid;
	slot->proc = NULL;
	slot->pid = 0;
	slot->ready = false;
	LWLockRelease(shared->lock);
	ConditionVariableBroadcast(&slot->finished);
}

/* Whether what is pending can wait.  The caller has the slot's mutex. */
static bool
can_wait(const PmSlot *slot)
{
	int			i;

	if (slot->pending.reasons & ~(PM_WAKE_MESSAGES | PM_WAKE_SUPPRESSED))
		return false;
	for (i = 0; i < PM_WAKE_LANE_WORDS; i++)
		if (slot->pending.lanes[i] & ~slot->quiet[i])
			return false;
	return true;
}

/*
 * Tell a slot's worker what there is to do.  Raises no error and allocates
 * nothing, for it runs in a commit.  Only the first to leave something sets
 * the latch; the worker takes all there is.
 */
void
pm_slot_wake(PmSlot *slot, const PmWakeup *wakeup)
{
	bool		announce;
	int			i;

	if (wakeup->reasons & (PM_WAKE_SUPPRESSED | PM_WAKE_RESCAN))
		pg_atomic_fetch_add_u64(&slot->suppressions, 1);
	SpinLockAcquire(&slot->mutex);
	if (slot->pending.reasons == 0)
		slot->health.woken_at = pm_common_us();
	slot->pending.reasons |= wakeup->reasons;
	if (wakeup->reasons & (PM_WAKE_SETTINGS | PM_WAKE_RESUME))
		slot->changes++;
	if (wakeup->resumed != 0)
		pm_resumed_add(&slot->pending.resumed, wakeup->resumed);
	for (i = 0; i < wakeup->ranges.n; i++)
		pm_ranges_add(&slot->pending.ranges, wakeup->ranges.range[i].low,
					  wakeup->ranges.range[i].high);
	for (i = 0; i < PM_WAKE_LANE_WORDS; i++)
		slot->pending.lanes[i] |= wakeup->lanes[i];
	announce = !slot->announced && !can_wait(slot);
	if (announce)
		slot->announced = true;
	SpinLockRelease(&slot->mutex);

	if (announce)
	{
		/* Under the lock, so that the worker cannot end meanwhile */
		LWLockAcquire(shared->lock, LW_SHARED);
		if (slot->proc)
			SetLatch(&slot->proc->procLatch);
		LWLockRelease(shared->lock);
	}
}

/*
 * How often this database's suppressions have changed, or may have: the same
 * number means the same suppressions.  0: nobody counts.
 */
uint64
pm_suppression_changes(void)
{
	PmSlot	   *slot = pm_find_slot(MyDatabaseId);

	return slot ? pg_atomic_read_u64(&slot->suppressions) + 1 : 0;
}

/*
 * Take what was left for the worker.  To be called before the snapshot of the
 * scan that acts on it.  False if there was nothing.
 *
 * wakeup->changes is what pm_slot_answer is to be called with once it is known
 * what came of the changes that were announced.
 */
bool
pm_slot_collect(PmSlot *slot, PmWakeup *wakeup)
{
	SpinLockAcquire(&slot->mutex);
	*wakeup = slot->pending;
	wakeup->changes = slot->changes;
	memset(&slot->pending, 0, sizeof(slot->pending));
	slot->announced = false;
	SpinLockRelease(&slot->mutex);
	return wakeup->reasons != 0;
}

/*
 * Each of so many changes of settings, or resumes, has had its effect: what the
 * database says of the connectors' troubles is how it is with them.
 */
void
pm_slot_answer(PmSlot *slot, uint64 changes)
{
	SpinLockAcquire(&slot->mutex);
	slot->answered = changes;
	SpinLockRelease(&slot->mutex);
	ConditionVariableBroadcast(&slot->finished);
}

/* How many changes have been committed so far, for pm_slot_answered. */
uint64
pm_slot_changes(PmSlot *slot)
{
	uint64		changes;

	SpinLockAcquire(&slot->mutex);
	changes = slot->changes;
	SpinLockRelease(&slot->mutex);
	return changes;
}

/* Whether all of them have had their effect, or were another worker's. */
bool
pm_slot_answered(PmSlot *slot, uint64 changes)
{
	bool		answered;

	SpinLockAcquire(&slot->mutex);
	answered = slot->answered >= changes;
	SpinLockRelease(&slot->mutex);
	return answered;
}

/*
 * Whether this worker may sleep: nothing is pending but messages of quiet
 * lanes, with which it would do nothing, since their connector is paused, say;
 * until it asks again they do not wake it.
 *
 * To be called before each sleep, whatever the latch says: the server's own
 * waits, for a lock or for a standby in the middle of a commit, reset it as
 * well, and whoever announced something did that once.
 *
 * quiet: PM_WAKE_LANE_WORDS words of PM_WAKE_LANE_BIT bits
 */
bool
pm_slot_may_sleep(PmSlot *slot, const uint64 *quiet)
{
	bool		may;

	SpinLockAcquire(&slot->mutex);
	memcpy(slot->quiet, quiet, sizeof(slot->quiet));
	may = can_wait(slot);
	slot->announced = !may;
	SpinLockRelease(&slot->mutex);
	return may;
}

/*
 * Whether this worker has not collected yet that settings changed, or that a
 * connector is to go on.  Asked after a snapshot was taken, "no" means: whoever
 * queued what it shows had been told of no newer settings than the worker.
 */
bool
pm_settings_pending(void)
{
	bool		pending;

	if (our_slot == NULL)
		return false;
	SpinLockAcquire(&our_slot->mutex);
	pending = (our_slot->pending.reasons &
			   (PM_WAKE_SETTINGS | PM_WAKE_RESUME)) != 0;
	SpinLockRelease(&our_slot->mutex);
	return pending;
}

/* This process is the worker of the slot. */
void
pm_slot_is_ours(PmSlot *slot)
{
	our_slot = slot;
}

/* The worker begins a transaction. */
void
pm_health_begin(void)
{
	if (our_slot == NULL)
		return;
	SpinLockAcquire(&our_slot->mutex);
	our_slot->health.busy_since = pm_common_us();
	SpinLockRelease(&our_slot->mutex);
}

/*
 * The worker has ended a transaction.
 *
 * what:  what it was to do, NULL if that is of no interest
 * error: why it failed, fit to be shown; NULL if it committed
 */
void
pm_health_end(const char *what, const char *error)
{
	PmHealth   *health;

	if (our_slot == NULL)
		return;
	health = &our_slot->health;
	SpinLockAcquire(&our_slot->mutex);
	health->busy_since = 0;
	if (what && error)
	{
		health->failed_at = pm_common_us();
		if (health->failing_since == 0)
			health->failing_since = health->failed_at;
		strlcpy(health->what, what, sizeof(health->what));
		strlcpy(health->error, error, sizeof(health->error));
	}
	else if (what && strcmp(what, health->what) == 0)
		health->failing_since = 0;
	SpinLockRelease(&our_slot->mutex);
}

/*
 * Nothing is left of what transactions of some kinds failed with, all whose
 * names begin like that: it was done by one of another kind.
 */
void
pm_health_mended(const char *what)
{
	PmHealth   *health;

	if (our_slot == NULL || our_slot->health.failing_since == 0)
		return;
	health = &our_slot->health;
	SpinLockAcquire(&our_slot->mutex);
	if (strncmp(health->what, what, strlen(what)) == 0)
		health->failing_since = 0;
	SpinLockRelease(&our_slot->mutex);
}

/*
 * The worker's commit has waited for long for a synchronous standby, or does so
 * no more: tell the launcher, which can say so meanwhile.  Safe in a signal
 * handler: a launcher that has just ended costs somebody else a look around.
 */
void
pm_commit_waits(bool waits)
{
	PGPROC	   *launcher = shared ? shared->launcher : NULL;

	if (our_slot == NULL)
		return;
	pg_atomic_write_u32(&our_slot->commit_waits, waits ? 1 : 0);
	if (launcher)
		SetLatch(&launcher->procLatch);
}

/* How the worker of this database fares; false if there is none. */
bool
pm_health(PmHealth *health)
{
	PmSlot	   *slot;

	if (shared == NULL)
		return false;
	LWLockAcquire(shared->lock, LW_SHARED);
	slot = pm_find_slot(MyDatabaseId);
	if (slot && slot->proc == NULL)
		slot = NULL;
	if (slot)
	{
		SpinLockAcquire(&slot->mutex);
		*health = slot->health;
		SpinLockRelease(&slot->mutex);
		health->waits_for = slot->proc->wait_event_info;
	}
	LWLockRelease(shared->lock);
	return slot != NULL;
}

/* From where on no message of this database has an id; 0: not known. */
int64
pm_free_ids(void)
{
	PmSlot	   *slot = pm_find_slot(MyDatabaseId);

	return slot ? (int64) pg_atomic_read_u64(&slot->free_ids) : 0;
}

/* Whether an id is the first of a block. */
static bool
begins_block(uint64 id)
{
	return id % PM_ID_BLOCK == 1;
}

/* The first id of the block behind the one that has "id". */
static uint64
next_block(uint64 id)
{
	return id + PM_ID_BLOCK - (id + PM_ID_BLOCK - 1) % PM_ID_BLOCK;
}

/* The first id of the first whole block from "id" on, which is above 0. */
int64
pm_block_from(int64 id)
{
	return (int64) next_block((uint64) id - 1);
}

/*
 * Take an id for a message of this database.  0 if it is not known which are
 * free, or the free ones begin with a block, which is to be reserved first.
 */
int64
pm_take_id(void)
{
	PmSlot	   *slot = pm_find_slot(MyDatabaseId);
	uint64		id = slot ? pg_atomic_read_u64(&slot->free_ids) : 0;

	while (id != 0 && !begins_block(id))
		if (pg_atomic_compare_exchange_u64(&slot->free_ids, &id, id + 1))
			return (int64) id;
	return 0;
}

/*
 * Take the first id of a block, which the caller has reserved, when the free
 * ids began with "known".  False if they do not any more: then the block is
 * nobody's.
 */
bool
pm_take_block(int64 known, int64 first)
{
	PmSlot	   *slot = pm_find_slot(MyDatabaseId);
	uint64		expected = (uint64) known;

	Assert(begins_block((uint64) first));
	return slot && pg_atomic_compare_exchange_u64(&slot->free_ids, &expected,
												  (uint64) first + 1);
}

/*
 * No id up to "upto" is to be given to a message of this database, not even
 * one of a block that is reserved.
 */
void
pm_ids_given(int64 upto)
{
	PmSlot	   *slot = pm_find_slot(MyDatabaseId);
	uint64		known = slot ? pg_atomic_read_u64(&slot->free_ids) : 0;

	/* 0 ends a block, so that without messages the ids begin with 1 */
	while (slot && (known == 0 || (uint64) upto >= known) &&
		   !pg_atomic_compare_exchange_u64(&slot->free_ids, &known,
										   next_block((uint64) upto)))
		;
}

/* PID of the worker of a database, 0 if it has none that is ready. */
pid_t
pm_worker_pid(Oid database)
{
	PmSlot	   *slot;
	pid_t		pid = 0;

	if (shared == NULL)
		return 0;
	LWLockAcquire(shared->lock, LW_SHARED);
	slot = pm_find_slot(database);
	if (slot && slot->ready)
		pid = slot->pid;
	LWLockRelease(shared->lock);
	return pid;
}

/* Whether somebody keeps a database free of workers.  Caller has the lock. */
bool
pm_database_held(Oid database)
{
	int			i;

	for (i = 0; i < shared->nholds; i++)
		if (shared->holds[i].pid != 0 && shared->holds[i].database == database)
			return true;
	return false;
}

/*
 * Whether max_worker_processes is too low for the worker of each database, or
 * for the launcher, which the postmaster does not start then, without a word
 * but in its log.
 */
bool
pm_no_process_left(void)
{
	return shared->no_worker_slot ||
		(!shared->launcher_seen &&
		 TimestampDifferenceExceeds(PgStartTime, GetCurrentTimestamp(),
									LAUNCHER_STARTS));
}

/*
 * A database in which no message ever was is about to have its first, and is
 * not known to be one of its own yet: see pm_adopt_database.  If there is no
 * room for it, it will be taken for a copy.
 */
void
pm_note_first(Oid database)
{
	int			i;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (i = 0; i < shared->nfirst; i++)
		if (shared->first[i] == database)
			break;
	if (i == shared->nfirst && i < PM_MAX_FIRST)
		shared->first[shared->nfirst++] = database;
	LWLockRelease(shared->lock);
}

/* Whether that was noted of a database. */
bool
pm_noted_first(Oid database)
{
	bool		noted = false;
	int			i;

	LWLockAcquire(shared->lock, LW_SHARED);
	for (i = 0; i < shared->nfirst; i++)
		noted = noted || shared->first[i] == database;
	LWLockRelease(shared->lock);
	return noted;
}

/* The database is known to be its own now, or is gone. */
void
pm_forget_first(Oid database)
{
	int			i;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (i = 0; i < shared->nfirst; i++)
		if (shared->first[i] == database)
			shared->first[i--] = shared->first[--shared->nfirst];
	LWLockRelease(shared->lock);
}
