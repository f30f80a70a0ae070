/*-------------------------------------------------------------------------
 *
 * jobs.h
 *		Batches of messages on their way.
 *
 * src/worker/jobs.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_JOBS_H
#define PM_JOBS_H

#include "datatype/timestamp.h"
#include "lib/ilist.h"

#include "base/clock.h"
#include "postmark/http.h"
#include "queue/batch.h"
#include "worker/channel.h"

typedef enum PmJobState
{
	PM_JOB_READY,				/* intent committed, to be sent */
	PM_JOB_LATE,				/* the same, but its intent is to be renewed */
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
	PmAsker		asker;			/* its owner */
	MemoryContext sending;		/* of the request and "body", or NULL */
	StringInfoData body;
	Size		size;			/* of the messages together, roughly */
	PmMoment	act_at;			/* PM_JOB_DOUBT: when to look; PM_JOB_STORE,
								 * PM_JOB_READY: when to try again */
	PmMoment	started;		/* its last request that sends */
	bool		renewed;		/* its intent, for it began late */
	bool		inherited;		/* others may have sent its messages, too, see
								 * failover.c */
	PmMoment	rests_until;	/* PM_JOB_DOUBT */
	bool		doubtful;		/* sent with messages that were in doubt */

	/* Looking it up, see doubt.c */
	pg_uuid_t  *batches;		/* to be asked for, or NULL: not known yet */
	int			nbatches;
	int			searched;		/* so many of them */
	int			search_stream;	/* where that is looked for, of channel->streams */
	int			search_offset;
	int			failures;		/* in a row, of searches, or to make the body */
	int			store_failures;
	bool		storing;		/* in the turn's transaction */
	bool		known;			/* remembered: it is among pm_jobs() */
	bool		by_row;			/* stored by itself, not with the others */
} PmJob;

/*
 * A message whose template is missing, here or in Postmark, is tried again
 * after, ms
 */
#define PM_NO_TEMPLATE_DELAY	60000

/*
 * "About to expire": so near its end, us, or in the last quarter of its life,
 * whichever is later.
 */
#define PM_EXPIRES_SOON		(30 * USECS_PER_SEC)

extern PmJob *pm_job_create(PmChannel *channel, PmBatch *batch,
							PmJobState state);
extern void pm_job_remember(PmJob *job);
extern void pm_job_drop(PmJob *job);
extern void pm_job_doubt(PmJob *job, PmMoment ended);
extern PmMoment pm_job_life_ends(const PmBatch *batch);
extern TimestampTz pm_expires_soon_at(const PmMessage *m);
extern void pm_job_returned(PmJob *job, const PmMessage *m);
extern void pm_job_settle(PmJob *job);
extern bool pm_in_flight(int64 id);
extern dlist_head *pm_jobs(void);
extern bool pm_job_start(PmJob *job);

#endif							/* PM_JOBS_H */
