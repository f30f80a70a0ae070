/*-------------------------------------------------------------------------
 *
 * batch.h
 *		Messages, and what is to become of them.
 *
 * src/queue/batch.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_BATCH_H
#define PM_BATCH_H

#include "datatype/timestamp.h"
#include "storage/itemptr.h"
#include "utils/jsonb.h"

#include "base/uuid_text.h"

/* What is to be done with a message of a batch once its outcome is known */
typedef enum PmDisposal
{
	PM_KEEP,					/* not known yet: stays in the intent */
	PM_RELEASE,					/* not sent: back to where it was */
	PM_DEFER,					/* not sent: to postmark_deferred */
	PM_FINISH,					/* to postmark_history */
	PM_STORED					/* done with */
} PmDisposal;

/* Postmark takes no message of more bytes */
#define PM_MESSAGE_MAX		(10 * 1024 * 1024)

typedef struct PmMessage
{
	int64		id;
	ItemPointerData tid;
	bool		touched;		/* somebody has, or had, its row locked */
	bool		locked;			/* we have, or need not; see pm_queue_lock */
	TimestampTz created_at;
	TimestampTz due_at;
	TimestampTz expires_at;
	char	   *email;
	char	   *usage_type;
	char	   *code;			/* or NULL */
	Jsonb	   *payload;		/* or NULL */
	char	   *locale;			/* or NULL */
	char	   *connector;
	Oid			queued_by;		/* role, InvalidOid if it is not known */
	char	   *dedup_key;		/* or NULL; not read by the worker */
	bool		no_track;		/* its links are never tracked */
	int			attempts;
	int			ndoubts;		/* how often it was in doubt */
	pg_uuid_t  *doubts;			/* in these batches, the nil uuid for one that
								 * is not known */
	Size		size;			/* bytes of it in a request, roughly; not
								 * counted beyond PM_MESSAGE_MAX */

	/* What became of it */
	PmDisposal	disposal;
	const char *status;			/* PM_FINISH: a constant */
	char	   *template_alias;
	const pg_uuid_t *message_id;	/* Postmark's, or NULL; of a captured one, our
									 * own */
	int			error_code;		/* -1: none */
	char	   *last_error;
	bool		captured;		/* PM_FINISH: kept instead of being sent */
	TimestampTz retry_at;		/* PM_DEFER */
} PmMessage;

/* Messages that share a request, or a transaction. */
typedef struct PmBatch
{
	pg_uuid_t	uuid;
	char		uuid_text[PM_UUID_TEXT];
	int32		lane;
	bool		deferred;		/* from postmark_deferred */
	bool		has_intent;
	TimestampTz created_at;
	int			nmessages;
	PmMessage  *messages;
	MemoryContext context;		/* holds all of it */
} PmBatch;

extern PmBatch *pm_batch_create(MemoryContext parent, int32 lane,
								bool deferred, int capacity);
extern void pm_batch_new_uuid(PmBatch *batch);
extern void pm_batch_copy_message(PmBatch *batch, const PmMessage *message);
extern void pm_batch_dispose(PmBatch *batch, PmDisposal disposal);
extern void pm_message_finish(PmMessage *message, const char *status,
							  const char *error);
extern void pm_message_capture(PmBatch *batch, PmMessage *message);
extern void pm_message_doubted(PmBatch *batch, PmMessage *message);

/* A message's postmark_id, and room for it with its NUL */
#define PM_METADATA_ID 48
extern void pm_metadata_id(const PmMessage *message, char *text);

#endif							/* PM_BATCH_H */
