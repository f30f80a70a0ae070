/*-------------------------------------------------------------------------
 *
 * batch.c
 *		Messages, and what is to become of them.
 *
 * A batch is what the worker's parts hand to each other.  Who reads messages
 * makes one; who finds out about a message notes in it what is to become of
 * it, its disposal; and who stores the batch does no more than what the
 * disposals say.  What its messages point to is in the batch's own memory
 * context, or lives longer than that.
 *
 * src/queue/batch.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "base/compat.h"
#include "base/random.h"
#include "base/uuid_text.h"
#include "queue/batch.h"

/*
 * An empty batch with room for "capacity" messages, in a context of its own
 * under "parent", which the caller deletes.
 */
PmBatch *
pm_batch_create(MemoryContext parent, int32 lane, bool deferred, int capacity)
{
	MemoryContext context = AllocSetContextCreate(parent, "postmark batch",
												  ALLOCSET_DEFAULT_SIZES);
	PmBatch    *batch = MemoryContextAllocZero(context, sizeof(PmBatch));

	batch->context = context;
	batch->lane = lane;
	batch->deferred = deferred;
	batch->messages = MemoryContextAlloc(context,
										 mul_size(Max(capacity, 1),
												  sizeof(PmMessage)));
	return batch;
}

/* Give a batch a fresh random (version 4) uuid; error if there is none. */
void
pm_batch_new_uuid(PmBatch *batch)
{
	pm_random_uuid(&batch->uuid);
	pm_format_uuid(&batch->uuid, batch->uuid_text);
}

/*
 * Append a copy of a message to a batch, which must have room for it and owns
 * the copy.
 */
void
pm_batch_copy_message(PmBatch *batch, const PmMessage *message)
{
	MemoryContext old = MemoryContextSwitchTo(batch->context);
	PmMessage  *m = &batch->messages[batch->nmessages++];

	*m = *message;
	m->email = pstrdup(message->email);
	m->usage_type = pstrdup(message->usage_type);
	m->connector = pstrdup(message->connector);
	if (message->code)
		m->code = pstrdup(message->code);
	if (message->locale)
		m->locale = pstrdup(message->locale);
	if (message->template_alias)
		m->template_alias = pstrdup(message->template_alias);
	if (message->last_error)
		m->last_error = pstrdup(message->last_error);
	if (message->ndoubts > 0)
	{
		m->doubts = palloc(sizeof(pg_uuid_t) * message->ndoubts);
		memcpy(m->doubts, message->doubts,
			   sizeof(pg_uuid_t) * message->ndoubts);
	}
	if (message->payload)
	{
		m->payload = palloc(VARSIZE(message->payload));
		memcpy(m->payload, message->payload, VARSIZE(message->payload));
	}
	MemoryContextSwitchTo(old);
}

/* All messages of a batch share a disposal. */
void
pm_batch_dispose(PmBatch *batch, PmDisposal disposal)
{
	int			i;

	for (i = 0; i < batch->nmessages; i++)
		batch->messages[i].disposal = disposal;
}

/*
 * A message is finished.
 *
 * status: a constant, as postmark_messages shows it
 * error:  why, or NULL; of the batch's memory, or constant
 */
void
pm_message_finish(PmMessage *message, const char *status, const char *error)
{
	message->disposal = PM_FINISH;
	message->status = status;
	if (error)
		message->last_error = unconstify(char *, error);
}

/*
 * A message of the batch is kept instead of being sent, and is finished as if
 * Postmark had accepted it; pm_batch_store puts it where it is kept.
 */
void
pm_message_capture(PmBatch *batch, PmMessage *message)
{
	pg_uuid_t  *message_id = MemoryContextAlloc(batch->context,
												sizeof(pg_uuid_t));

	pm_random_uuid(message_id);
	message->captured = true;
	message->attempts++;
	message->message_id = message_id;
	message->error_code = -1;
	message->last_error = NULL;
	pm_message_finish(message, "sent", NULL);
}

/* A message of the batch was in doubt in it, and goes on without it. */
void
pm_message_doubted(PmBatch *batch, PmMessage *message)
{
	pg_uuid_t  *doubts = MemoryContextAlloc(batch->context,
											sizeof(pg_uuid_t) *
											(message->ndoubts + 1));

	if (message->ndoubts > 0)
		memcpy(doubts, message->doubts, sizeof(pg_uuid_t) * message->ndoubts);
	doubts[message->ndoubts++] = batch->uuid;
	message->doubts = doubts;
}

/*
 * What Postmark is to know a message by, in PM_METADATA_ID bytes: unique
 * beyond this server's life, for a sequence can issue an id twice.
 */
void
pm_metadata_id(const PmMessage *message, char *text)
{
	snprintf(text, PM_METADATA_ID, INT64_FORMAT "-" INT64_FORMAT, message->id,
			 message->created_at);
}
