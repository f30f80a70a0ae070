/*-------------------------------------------------------------------------
 *
 * delivery.h
 *		The worker's work: claiming messages, sending them, storing what came
 *		of it, and finding out what is in doubt.
 *
 * src/worker/delivery.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_DELIVERY_H
#define PM_DELIVERY_H

#include "worker/channel.h"
#include "lib/ilist.h"
#include "queue/queue.h"
#include "shared/shmem.h"
#include "shared/transaction.h"

typedef enum PmJobState
{
	PM_JOB_READY,				/* intent committed, to be sent */
	PM_JOB_SENDING,
	PM_JOB_SPLIT,				/* refused whole: to be halved */
	PM_JOB_STORE,				/* outcome known, to be stored */
	PM_JOB_DOUBT,				/* may have been accepted, to be looked up */
	PM_JOB_SEARCHING			/* is being looked up */
} PmJobState;

/* A batch of messages on its way. */
typedef struct PmJob
{
	dlist_node	node;
	PmJobState	state;
	PmChannel  *channel;
	PmBatch    *batch;			/* its context is a child of ours */
	MemoryContext context;
	PmHttpRequest *request;		/* or NULL */
	StringInfoData body;
	TimestampTz act_at;			/* PM_JOB_DOUBT: when to look; PM_JOB_STORE:
								 * when to try again */
	int			search_offset;
	int			failures;		/* of searches */
	int			store_failures;
	bool		storing;		/* in the turn's transaction */
	bool		known;			/* remembered before it was committed */
	bool		by_row;			/* stored by itself, not with the others */
} PmJob;

/*
 * A message whose template is missing, here or in Postmark, is tried again
 * after, ms
 */
#define PM_NO_TEMPLATE_DELAY	60000

/*
 * The files, from the one that calls to those that are called: none of them
 * uses what stands above it.
 */

/* Turns (delivery.c) */
extern void pm_delivery_start(PmSlot *slot);
extern void pm_delivery_reload(void);
extern void pm_delivery_rescan(void);
extern void pm_delivery_wake(const PmWakeup *wakeup);
extern TimestampTz pm_delivery_turn(void);

/* What there is in the database (scan.c) */
extern void pm_scan_reload(void);
extern void pm_scan_rescan(void);
extern bool pm_scan(TimestampTz now);
extern bool pm_scan_loaded(void);
extern bool pm_scan_copied(void);
extern void pm_scan_active(void);
extern TimestampTz pm_scan_next(void);

/* Claiming (claim.c) */
extern bool pm_claim_has_room(void);
extern bool pm_claim_wanted(TimestampTz now);
extern void pm_claim(TimestampTz now, TimestampTz until, bool careful);

/* Storing (store.c) */
extern bool pm_store_wanted(TimestampTz now);
extern void pm_store(TimestampTz now, TimestampTz until, bool careful);
extern bool pm_store_committed(void);
extern void pm_store_failed(bool together);
extern void pm_store_again(PmJob *job, TimestampTz now);

/* By the clock (housekeeping.c) */
extern void pm_house_start(void);
extern void pm_house_reload(void);
extern void pm_house_codes(uint32 reasons);
extern void pm_house_finished(const PmMessage *message);
extern bool pm_house_keep(TimestampTz now);
extern TimestampTz pm_house_next(void);

/* What goes back if a turn's transaction fails (undo.c) */
extern void pm_undo_begin(void);
extern void pm_undo_note_job(PmJob *job);
extern void pm_undo_note_lane(PmLane *lane);
extern int	pm_undo_njobs(void);
extern int	pm_undo_nlanes(void);
extern void pm_undo_committed(void);
extern void pm_undo_failed(void);

/* Whether a refused configuration is mended (probe.c) */
extern bool pm_probe_ask(PmChannel *channel, TimestampTz now);
extern void pm_probe_found(PmChannel *channel, PmHttpRequest *request);

/* After a failover (failover.c) */
extern void pm_failover_timeline(int timeline);
extern void pm_failover_begin(void);
extern void pm_failover_ask(PmChannel *channel, TimestampTz now);
extern void pm_failover_found(PmChannel *channel, PmHttpRequest *request);
extern void pm_failover_end(void);

/* What is in doubt (doubt.c) */
extern void pm_doubt_load(PmIntent *intents, int nintents);
extern void pm_doubt_look(PmJob *job, TimestampTz now);
extern void pm_doubt_found(PmJob *job);

/* The jobs (jobs.c) */
extern PmJob *pm_job_create(PmChannel *channel, PmBatch *batch,
							PmJobState state);
extern void pm_job_remember(PmJob *job);
extern void pm_job_drop(PmJob *job);
extern void pm_job_doubt(PmJob *job);
extern void pm_job_returned(PmJob *job, const PmMessage *m);
extern void pm_job_settle(PmJob *job);
extern bool pm_in_flight(int64 id);
extern dlist_head *pm_jobs(void);
extern Size pm_jobs_bytes(void);
extern bool pm_job_start(PmJob *job);
extern void pm_job_sent(PmJob *job);

#endif							/* PM_DELIVERY_H */
