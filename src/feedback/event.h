/*-------------------------------------------------------------------------
 *
 * event.h
 *		News of a message or an address, as Postmark tells it.
 *
 * src/feedback/event.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_EVENT_H
#define PM_EVENT_H

#include "datatype/timestamp.h"
#include "utils/jsonb.h"

#include "postmark/api.h"

/*
 * How much a piece of news says about a message: what stands higher is not
 * undone by what stands lower.  postmark_feedback stores these numbers.
 */
typedef enum PmStanding
{
	PM_STANDING_NONE,			/* nothing but that it was delivered */
	PM_STANDING_NOTE,			/* ended nothing: a delay, an automatic reply */
	PM_STANDING_SOFT,			/* ended delivery; a later one may succeed */
	PM_STANDING_HARD,			/* ended delivery */
	PM_STANDING_COMPLAINT		/* the recipient calls it spam */
} PmStanding;

/* What becomes of an address by an event */
typedef enum PmSuppressing
{
	PM_SUPPRESS_UNCHANGED,
	PM_SUPPRESS_ADDED,
	PM_SUPPRESS_LIFTED
} PmSuppressing;

typedef struct PmEvent
{
	bool		delivered;
	PmStanding	standing;
	char	   *feedback;		/* type and description, "" for none */
	PmSuppressing suppressing;
	const char *reason;			/* of PM_SUPPRESS_ADDED, as Postmark names it */
	const char *origin;
	char	   *email;			/* whom it is about, as it was given */
	char	   *address;		/* the same, folded */
	char	   *message_stream; /* or NULL */
	TimestampTz at;				/* when it happened, not in the future */

	/* The message that it is about, by what postmark_id said; id 0: none */
	int64		id;
	TimestampTz created_at;
} PmEvent;

extern bool pm_event_read(Jsonb *json, PmEvent *event);
extern void pm_event_name_message(PmEvent *event, const char *name);
extern bool pm_event_of_bounce(const PmBounce *bounce, PmEvent *event);
extern bool pm_event_of_suppression(const PmSuppression *suppression,
									const char *stream, PmEvent *event);

#endif							/* PM_EVENT_H */
