/*-------------------------------------------------------------------------
 *
 * message_check.h
 *		What a message must be like, whichever way it is sent.
 *
 * src/queue/message_check.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_MESSAGE_CHECK_H
#define PM_MESSAGE_CHECK_H

#include "queue/batch.h"

/* Bytes; code, usage type and locale are short texts */
#define PM_SHORT_TEXT_MAX	64

/* Longest key of a message, bytes */
#define PM_DEDUP_KEY_MAX	255

/* Bytes of a payload as it is sent */
#define PM_PAYLOAD_MAX		(256 * 1024)

/* Longest life of a message, and longest wait before it is sent */
#define PM_LIFE_DAYS		30

extern void pm_check_message(PmMessage *m);
extern char *pm_folded_address(const char *email);
extern Size pm_rendered_size(Jsonb *payload, Size enough);

#endif							/* PM_MESSAGE_CHECK_H */
