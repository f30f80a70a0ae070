/*-------------------------------------------------------------------------
 *
 * attempts.h
 *		Counting failed attempts where no rollback reaches them.
 *
 * src/codes/attempts.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_ATTEMPTS_H
#define PM_ATTEMPTS_H

#include "datatype/timestamp.h"
#include "storage/lwlock.h"

/*
 * Counters that a database may have in shared memory, about 100 bytes each.
 * One is there from a failed attempt until the worker has stored it, a second
 * or two, or less where there are many.
 */
#define PM_ATTEMPTS_SHARE 2048

/* Length of a counter's name */
#define PM_COUNTER_NAME 17

/*
 * A code's counter, or an address's: its name begins with one of these.  The
 * third kind is taken for the time it takes, and never stored.
 */
#define PM_COUNTER_CODE		'c'
#define PM_COUNTER_ADDRESS	'a'
#define PM_COUNTER_NONE		'n'

/* What is counted, as one attempt sees it */
typedef struct PmCounter
{
	unsigned char name[PM_COUNTER_NAME];
	int			limit;			/* 0: none */
	int64		window;			/* us from the first attempt, after which it
								 * begins anew; 0: "until" says how long it
								 * counts */
	TimestampTz until;

	/* What postmark_attempts says, once somebody has looked */
	int			stored;
	TimestampTz stored_since;
} PmCounter;

typedef enum PmReservation
{
	PM_RESERVED,				/* counted: the guess may be answered */
	PM_LIMIT_REACHED,			/* not counted, and not to be answered */
	PM_NOT_LOADED				/* read what is stored, and call again */
} PmReservation;

/* A counter to be stored */
typedef struct PmAttempts
{
	unsigned char name[PM_COUNTER_NAME];
	int			count;
	TimestampTz since;
	TimestampTz until;
} PmAttempts;

extern Size pm_attempts_size(void);
extern Size pm_attempts_table_size(void);
extern void pm_attempts_init(void *place, LWLock *lock, bool found);

/* For sessions */
extern uint64 pm_attempts_epoch(void);
extern PmReservation pm_attempts_reserve(PmCounter *counters, int n,
										 uint64 *epoch);
extern bool pm_attempts_give_back(PmCounter *counters, int n);

/* For the worker */
extern bool pm_attempts_pressing(void);
extern int	pm_attempts_collect(PmAttempts *attempts, int max);
extern bool pm_attempts_stored(const PmAttempts *attempts, int n);

/* For whoever deletes what is stored of a counter */
extern bool pm_attempts_remove(const unsigned char *name);

/* For whoever knows that a database, or its extension, is gone */
extern void pm_attempts_forget(Oid database);

#endif							/* PM_ATTEMPTS_H */
