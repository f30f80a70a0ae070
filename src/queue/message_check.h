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

#include "utils/jsonb.h"

/* Bytes; code, usage type and locale are short texts */
#define PM_SHORT_TEXT_MAX	64
#define PM_PAYLOAD_MAX		(256 * 1024)

extern void pm_check_message(const char *email, const char *usage_type,
							 const char *code, Jsonb *payload,
							 const char *locale);

#endif							/* PM_MESSAGE_CHECK_H */
