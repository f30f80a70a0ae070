/*-------------------------------------------------------------------------
 *
 * api_errors.h
 *		What Postmark's answers mean: verdicts, ErrorCodes, and both in words.
 *
 * src/postmark/api_errors.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_API_ERRORS_H
#define PM_API_ERRORS_H

#include "utils/uuid.h"
#include "utils/jsonb.h"

#include "base/compat.h"
#include "settings/connector.h"

/* What an answer means for a message, or for a request as a whole. */
typedef enum PmOutcome
{
	PM_ACCEPTED,				/* Postmark has it */
	PM_SUPPRESSED,				/* inactive recipient: final */
	PM_REFUSED,					/* refused for good: final */
	PM_POISONED,				/* the request was refused whole: find out
								 * which message it is; alone: final */
	PM_NO_TEMPLATE,				/* Postmark does not know the alias: trouble
								 * with the configuration of a usage type */
	PM_MISCONFIGURED,			/* token, sender, account, stream: trouble
								 * with the connector */
	PM_UNAVAILABLE,				/* certainly not accepted, try again later */
	PM_RATE_LIMITED,			/* the same, because of too many requests */
	PM_IN_DOUBT					/* may have been accepted */
} PmOutcome;

typedef struct PmVerdict
{
	PmOutcome	outcome;
	int			http_status;	/* 0: no answer */
	int			error_code;		/* Postmark's ErrorCode, -1: none */
	char	   *text;			/* cleaned, at most PM_NETWORK_TEXT_MAX bytes;
								 * NULL if accepted */
	pg_uuid_t  *message_id;		/* palloc'd, or NULL */
	long		retry_after_ms; /* -1: not said */
	bool		foreign;		/* the answer cannot be Postmark's */
} PmVerdict;

/* A secret shorter than this is not searched for: it would be everywhere. */
#define PM_MASK_MIN 3

extern bool pm_api_error_outcome(int error_code, PmOutcome *outcome);
extern bool pm_api_blames_stream(const PmVerdict *verdict);
extern char *pm_api_detail(const PmVerdict *verdict);
extern const char *pm_api_hint(const PmVerdict *verdict);
extern void pm_api_mask(char *text, const char *secret);
extern void pm_api_mask_payload(char *text, Jsonb *payload);
pg_noreturn extern void pm_api_raise(const PmVerdict *verdict,
									 const PmConnector *connector,
									 const char *usage_type,
									 const char *alias);
pg_noreturn extern void pm_api_raise_template(const PmVerdict *verdict,
											  const PmConnector *connector,
											  const char *alias, int done);

#endif							/* PM_API_ERRORS_H */
