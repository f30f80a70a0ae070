/*-------------------------------------------------------------------------
 *
 * api.h
 *		Postmark's HTTP API: endpoints, field names, and what its answers
 *		mean.
 *
 * Everything here works on strings, starts HTTP requests and reads their
 * results, and needs no transaction; but for pm_api_message, where the
 * database's encoding is neither UTF8 nor SQL_ASCII: see pm_to_utf8.
 *
 * src/postmark/api.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_API_H
#define PM_API_H

#include "base/uuid_text.h"
#include "postmark/http.h"
#include "settings/config.h"

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
} PmVerdict;

/* One message to send. */
typedef struct PmApiMessage
{
	const char *to;				/* one checked address */
	const char *template_alias;
	const char *code;			/* or NULL */
	Jsonb	   *payload;		/* an object, or NULL */
	const char *metadata_id;	/* postmark_id, or NULL for no Metadata */
	const char *metadata_batch; /* postmark_batch, or NULL */
	bool		no_track_links; /* TrackLinks None whatever the connector says */
} PmApiMessage;

/* What a search found */
typedef struct PmFound
{
	char	   *metadata_id;	/* postmark_id */
	pg_uuid_t	message_id;
} PmFound;

/* A template or a message stream, as the lists of Postmark show it. */
typedef struct PmListed
{
	const char *name;			/* alias of a template, ID of a stream */
	const char *problem;		/* why nothing can be sent with it, in plain
								 * words; NULL if it can */
} PmListed;

#define PM_SEARCH_PAGE 500

/* A secret shorter than this is not searched for: it would be everywhere. */
#define PM_MASK_MIN 3

/* Requests.  A body belongs to the caller until the request is released. */
extern void pm_api_message(StringInfo buf, const PmConnector *connector,
						   const PmApiMessage *message);
extern void pm_api_batch_begin(StringInfo buf);
extern void pm_api_batch_add(StringInfo buf, const PmConnector *connector,
							 const PmApiMessage *message);
extern void pm_api_batch_end(StringInfo buf);
extern PmHttpRequest *pm_api_start_send(const PmConnector *connector,
										const char *token, StringInfo body,
										void *owner);
extern PmHttpRequest *pm_api_start_batch(const PmConnector *connector,
										 const char *token, StringInfo body,
										 void *owner);
extern PmHttpRequest *pm_api_start_server(const PmConnector *connector,
										  const char *token, void *owner);
extern PmHttpRequest *pm_api_start_search(const PmConnector *connector,
										  const char *token, const char *batch,
										  int offset, void *owner);
extern PmHttpRequest *pm_api_start_recent(const PmConnector *connector,
										  const char *token, int offset,
										  void *owner);
extern PmHttpRequest *pm_api_start_templates(const PmConnector *connector,
											 const char *token, int offset,
											 void *owner);
extern PmHttpRequest *pm_api_start_streams(const PmConnector *connector,
										   const char *token, void *owner);

/* Answers.  Memory is of the current context. */
extern void pm_api_read_send(const PmHttpResult *result, PmVerdict *verdict);
extern bool pm_api_read_batch(const PmHttpResult *result, int nmessages,
							  PmVerdict *whole, PmVerdict *items);
extern void pm_api_read_plain(const PmHttpResult *result, PmVerdict *verdict);
extern bool pm_api_read_search(const PmHttpResult *result, PmVerdict *verdict,
							   int64 *total, int *nread, PmFound **found,
							   int *nfound);
extern bool pm_api_read_templates(const PmHttpResult *result,
								  PmVerdict *verdict, int64 *total,
								  int *nread, PmListed **templates,
								  int *ntemplates);
extern bool pm_api_read_streams(const PmHttpResult *result,
								PmVerdict *verdict, PmListed **streams,
								int *nstreams);

/* Postmark's ErrorCodes, and verdicts in words (api_errors.c) */
extern bool pm_api_error_outcome(int error_code, PmOutcome *outcome);
extern char *pm_api_detail(const PmVerdict *verdict);
extern const char *pm_api_hint(const PmVerdict *verdict);
extern void pm_api_mask(char *text, const char *secret);
extern void pm_api_mask_payload(char *text, Jsonb *payload);
extern void pm_api_raise(const PmVerdict *verdict,
						 const PmConnector *connector, const char *usage_type,
						 const char *alias) pg_attribute_noreturn();

#endif							/* PM_API_H */
