/*-------------------------------------------------------------------------
 *
 * channel.h
 *		The worker's view of a connector: whether it flows, and what of its
 *		lanes is still to be read.
 *
 * src/worker/channel.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_CHANNEL_H
#define PM_CHANNEL_H

#include "base/clock.h"
#include "feedback/event.h"
#include "postmark/api_errors.h"
#include "postmark/http.h"
#include "queue/queue.h"
#include "settings/connector.h"
#include "shared/stats.h"
#include "shared/wakeup.h"
#include "worker/lane.h"

typedef enum PmChannelState
{
	PM_OPEN,
	PM_BACKING_OFF,				/* Postmark is not to be had at the moment */
	PM_BLOCKED,					/* Postmark refuses the configuration */
	PM_NO_TOKEN					/* there is no server token */
} PmChannelState;

/* How soon a new message of a channel that does not flow is looked at, ms */
#define PM_SWEEP_DELAY 10000

/* The owner of a request: what is to be done when it is finished */
typedef struct PmAsker
{
	void		(*found) (void *arg, PmHttpRequest *request);
	void	   *arg;
} PmAsker;

/* A walk over a channel's lanes for what has expired, see sweep.c */
typedef struct PmSweep
{
	bool		walking;
	int			number;			/* the channel's */
	int			part;			/* lane and table that it is at */
	PmDeferredPosition position;	/* in the hot table by the id alone */
	TimestampTz next;			/* earliest expiry seen; DT_NOEND: none */
	int64		took;			/* us */
} PmSweep;

/* Asking about an address, see inquiry.c */
typedef struct PmInquiry
{
	PmMoment	at;				/* when to see what there is to ask */
	bool		asked;			/* a request is under way, about: */
	char	   *stream;
	char	   *address;
	PmAsker		asker;
} PmInquiry;

/* An event that Postmark told when it was asked */
typedef struct PmPolled
{
	PmEvent		event;
	int64		bounce;			/* Postmark's id of it, 0: none */
	pg_uuid_t	message_id;		/* of the mail that bounced */
	bool		final;			/* Postmark would say the same again */
} PmPolled;

/* What is being asked for */
typedef enum PmPollPart
{
	PM_POLL_NOTHING,
	PM_POLL_BOUNCES,
	PM_POLL_SUPPRESSIONS
} PmPollPart;

/* Asking what became of mail, see poll.c */
typedef struct PmPoll
{
	bool		reload;			/* the settings may be others */
	PmMoment	at;				/* when to go on */
	bool		asked;			/* a request is under way */
	PmAsker		asker;
	int			failures;		/* in a row, of requests */
	int			store_failures; /* in a row, of steps */

	/* How far was asked, as it is stored, and how far this time */
	char		stream[NAMEDATALEN];
	TimestampTz bounces_until;
	TimestampTz suppressions_until;
	TimestampTz until;

	/* What is asked about now, in whole seconds, ends included */
	PmPollPart	part;
	TimestampTz from;
	TimestampTz to;
	int			offset;			/* bounces that were read of it */
	bool		more;			/* there are more of it */
	bool		few;			/* there was little of it */
	bool		cut;			/* there is more than can be read */
	TimestampTz given_up;		/* latest second that could not be read */

	/* What was answered; NULL: all of it is stored */
	MemoryContext context;
	PmPolled   *events;
	int			nevents;
	int			resolved;		/* so many of them: which message it is is
								 * known */
	int			stored;			/* and so many of them */

	/* Bounces that were stored of late, the oldest first from "next_seen" on */
	int64	   *seen;			/* NULL: none yet */
	int			nseen;
	int			next_seen;
} PmPoll;

typedef struct PmChannel
{
	int			number;			/* of the connector; hash key */
	char		name[64];
	const PmConnector *connector;	/* NULL: removed */
	char	   *token;			/* the stored one, or NULL */
	uint64		peer;			/* fingerprints, to see what changed: whom it
								 * talks to, see peer_fingerprint */
	uint64		settings;		/* and the rest of its settings */
	char	  **streams;		/* that it has sent in since the worker began: */
	int			nstreams;		/* the present one, and earlier ones */

	PmChannelState state;
	PmMoment	retry_at;		/* PM_BACKING_OFF, PM_BLOCKED */
	PmMoment	retry_shown;	/* postmark_status says so; PM_NEVER: nothing */
	int			failures;		/* in a row */
	bool		trial;			/* one message at a time until one succeeds */
	bool		good_news;		/* one succeeded since it was closed */
	bool		probing;		/* a GET /server is under way */
	PmAsker		asker;			/* of that, or of a page, see below */

	/* Looking for what others may have sent, see failover.c */
	bool		recent_wanted;	/* ask what was accepted lately first */
	bool		recent_asked;	/* a page is under way */
	bool		recent_stale;	/* which nobody wants any more */
	int			recent_offset;
	TimestampTz recent_since;	/* that far back; DT_NOEND: nothing to ask */
	TimestampTz recent_until;	/* beginning there, DT_NOEND: now */
	PmMoment	recent_at;		/* when to ask */
	int			recent_failures;	/* in a row */
	PmMoment	expiry_at;		/* when to look for what cannot wait */
	char	   *recent_trouble; /* why it cannot be told, or NULL */

	int			refusals;		/* messages refused for good in a row, */
	int			refusal_status; /* all with this HTTP status */
	int			refusal_code;	/* and this ErrorCode */

	PmStats    *stats;			/* its counters, or NULL */
	PmInquiry	inquiry;
	PmPoll		poll;
	int			in_flight;		/* requests that send */
	int			doubtful_in_flight; /* of these, with messages that were in
									 * doubt */
	PmMoment	doubtful_at;	/* when the next one of these may begin */
	int			doubtful_failures;	/* of these in a row */
	int			asking;			/* requests that ask, as of the turn's
								 * beginning */
	Size		body_bytes;		/* of requests that send, and of messages that */
	Size		claimed_bytes;	/* are to be sent, as of then too */
	int			answered;		/* of this turn: requests whose results are
								 * still to be stored */
	int			unstored;		/* results that could not be stored yet */
	double		allowance;		/* requests, see maxRequestsPerSecond */
	PmMoment	allowance_at;

	bool		trouble_shown;	/* there is a row in postmark_trouble */
	bool		trouble_dirty;	/* the row is to be written or taken away */
	char	   *trouble;		/* what it is to say, NULL: nothing */
	char	   *trouble_hint;
	bool		report;			/* its state may have changed */
	char		reported[16];	/* the state that the log says, or "" */
	char	   *damage;			/* a table that cannot be used, NULL: none */

	PmMoment	sweep_at;		/* when to look for expired messages while it
								 * does not flow */
	bool		sweep_news;		/* some came in since the walk began */
	PmSweep		sweep;
	PmLane	   *lanes[PM_PRIORITIES];
} PmChannel;

extern void pm_channels_load(void);
extern PmChannel *pm_channel_by_number(int number);
extern int	pm_channel_count(void);
extern PmChannel *pm_channel(int index);
extern PmLane *pm_channel_lane(PmChannel *channel, int32 lane);
extern void pm_channels_wake(const PmWakeup *wakeup);
extern void pm_channels_quiet(uint64 *quiet);
extern void pm_channels_reopen(int resumed);

extern char *pm_channel_token(PmChannel *channel);
extern bool pm_channel_captures(const PmChannel *channel);
extern bool pm_channel_flows(PmChannel *channel);
extern bool pm_channel_on_trial(PmChannel *channel, PmMoment now);
extern int	pm_channel_room(PmChannel *channel, bool doubtful,
							PmMoment now);
extern void pm_channel_spend(PmChannel *channel, bool doubtful);
extern void pm_channel_ended(PmChannel *channel, bool doubtful);
extern int	pm_channel_batch_size(const PmChannel *channel);
extern void pm_channel_succeeded(PmChannel *channel);
extern void pm_channel_accepted(PmChannel *channel);
extern bool pm_channel_refused(PmChannel *channel, const PmVerdict *verdict);
extern void pm_channel_brake(PmChannel *channel, const PmVerdict *verdict);
extern void pm_channel_back_off(PmChannel *channel, const PmVerdict *verdict);
extern void pm_channel_doubted(PmChannel *channel);
extern void pm_channel_block(PmChannel *channel, const PmVerdict *verdict);
extern void pm_channel_search_failed(PmChannel *channel,
									 const PmVerdict *verdict);
extern void pm_channel_no_token(PmChannel *channel);
extern void pm_channel_damaged(PmChannel *channel, const char *what);
extern void pm_channels_mended(void);
extern void pm_channels_show(void);
extern void pm_channel_rested(PmChannel *channel, PmMoment now);
extern void pm_channel_tick(PmChannel *channel, PmMoment now);
extern bool pm_channel_can_claim(PmChannel *channel, PmMoment now);
extern PmMoment pm_channel_next(PmChannel *channel, PmMoment now);

#endif							/* PM_CHANNEL_H */
