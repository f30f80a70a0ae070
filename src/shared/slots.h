/*-------------------------------------------------------------------------
 *
 * slots.h
 *		What launcher, workers and sessions share.
 *
 * src/shared/slots.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_SLOTS_H
#define PM_SLOTS_H

#include "storage/condition_variable.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/spin.h"

#include "shared/wakeup.h"

/* Databases to be looked at that the launcher can be told by name. */
#define PM_MAX_PROBES 32

/*
 * Ids are reserved in blocks of so many, of which the first begins with 1.  A
 * divisor of a power of ten, so that one sees it.
 */
#define PM_ID_BLOCK	INT64CONST(100)

/* Databases that began to queue before their worker looked at them. */
#define PM_MAX_FIRST 32

/* How a worker ended; the launcher decides by it what to do next. */
typedef enum PmWorkerExit
{
	PM_EXIT_UNKNOWN,			/* an error, or not yet ended */
	PM_EXIT_NO_EXTENSION,		/* nothing to do in this database */
	PM_EXIT_COPIED,				/* the queue is another database's */
	PM_EXIT_STOPPED				/* was told to stop */
} PmWorkerExit;

/* Longest text of PmHealth, with its end */
#define PM_HEALTH_TEXT	256

/*
 * How the transactions of a database's worker fare; times are as those of
 * pm_common_us, 0 for never or none.
 */
typedef struct PmHealth
{
	int64		woken_at;		/* first of what it was woken for last */
	int64		busy_since;		/* it is in a transaction */
	uint32		waits_for;		/* meanwhile: a wait event, 0: none */
	int64		failing_since;	/* none that does what this one did committed */
	int64		failed_at;		/* the last one that failed */
	char		what[64];		/* that was to do */
	char		error[PM_HEALTH_TEXT];	/* why it failed, fit to be shown */
} PmHealth;

/* What a worker is told by the launcher, in bgw_extra */
typedef struct PmWorkerArgs
{
	uint64		generation;		/* of its slot */
	bool		known_copy;		/* it was said that the database is a copy */
} PmWorkerArgs;

/*
 * A database with a worker, or one that is being looked at.  The launcher
 * alone takes and gives back slots, under the LWLock.
 */
typedef struct PmSlot
{
	/* protected by PmShared.lock */
	Oid			database;		/* InvalidOid: free */
	PGPROC	   *proc;			/* NULL: no worker attached */
	pid_t		pid;
	bool		ready;			/* the worker found the extension */
	PmWorkerExit exit;
	uint64		generation;		/* counts who had the slot */

	slock_t		mutex;			/* protects what follows, up to "stop" */
	PmWakeup	pending;
	bool		announced;		/* the latch was set for it */
	uint64		quiet[PM_WAKE_LANE_WORDS];	/* lanes whose messages need not
											 * wake the worker, see
											 * pm_slot_may_sleep */
	uint64		changes;		/* of settings, and resumes, so far */
	uint64		answered;		/* of these it is known what came of them */
	PmHealth	health;
	pg_atomic_uint32 commit_waits;	/* for long, for a synchronous standby */
	pg_atomic_uint32 stop;		/* the worker is to end */
	pg_atomic_uint64 free_ids;	/* from it on no id was given to a message,
								 * and those before the next block are
								 * reserved; 0: not known yet */
	pg_atomic_uint64 suppressions;	/* counts when suppressions changed, or may
									 * have */
	ConditionVariable finished; /* messages were finished, or states changed */
} PmSlot;

/* A database that somebody keeps free of workers. */
typedef struct PmHold
{
	Oid			database;		/* InvalidOid: free */
	pid_t		pid;			/* the backend that holds it */
} PmHold;

typedef struct PmShared
{
	LWLock	   *lock;

	/* protected by lock */
	TransactionId first_xid;	/* no earlier one was given by this server
								 * since its last recovery */
	PGPROC	   *launcher;
	pid_t		launcher_pid;
	bool		launcher_seen;	/* there was one since the server's start */
	bool		no_worker_slot; /* max_worker_processes is too low */
	bool		list_databases; /* some were made, changed or dropped */
	int			nprobes;		/* in these the extension was made or dropped */
	Oid			probes[PM_MAX_PROBES];
	bool		probe_all;		/* in more of them than there is room for */
	int			nfirst;			/* copies that began to queue on their own */
	Oid			first[PM_MAX_FIRST];
	int			nholds;
	PmHold	   *holds;			/* each backend may have one */

	ConditionVariable changed;	/* a worker attached or ended */
	int			nslots;
	PmSlot		slots[FLEXIBLE_ARRAY_MEMBER];
} PmShared;

extern uint64 pm_suppression_changes(void);
extern Size pm_slots_size(void);
extern void pm_slots_init(void *place, LWLock *lock, bool found);
extern PmShared *pm_shared(void);
extern PmSlot *pm_find_slot(Oid database);
extern PmSlot *pm_take_slot(Oid database);
extern void pm_free_slot(PmSlot *slot);
extern void pm_slot_wake(PmSlot *slot, const PmWakeup *wakeup);
extern bool pm_slot_collect(PmSlot *slot, PmWakeup *wakeup);
extern void pm_slot_answer(PmSlot *slot, uint64 changes);
extern uint64 pm_slot_changes(PmSlot *slot);
extern bool pm_slot_answered(PmSlot *slot, uint64 changes);
extern bool pm_slot_may_sleep(PmSlot *slot, const uint64 *quiet);
extern bool pm_settings_pending(void);
extern void pm_slot_is_ours(PmSlot *slot);
extern void pm_health_begin(void);
extern void pm_health_end(const char *what, const char *error);
extern void pm_health_mended(const char *what);
extern void pm_commit_waits(bool waits);
extern bool pm_health(PmHealth *health);
extern void pm_note_first(Oid database);
extern bool pm_noted_first(Oid database);
extern void pm_forget_first(Oid database);
extern int64 pm_free_ids(void);
extern int64 pm_block_from(int64 id);
extern int64 pm_take_id(void);
extern bool pm_take_block(int64 known, int64 first);
extern void pm_ids_given(int64 upto);
extern pid_t pm_worker_pid(Oid database);
extern bool pm_database_held(Oid database);
extern bool pm_no_process_left(void);

#endif							/* PM_SLOTS_H */
