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

#include "datatype/timestamp.h"

#include "postmark/api_errors.h"
#include "postmark/http.h"
#include "postmark/template_text.h"
#include "settings/connector.h"

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

/* A page of a search */
typedef struct PmFoundPage
{
	int64		total;			/* messages on all pages together */
	int			nread;			/* and on this one */
	PmFound    *found;			/* those of this one that carry our metadata */
	int			nfound;
	TimestampTz newest;			/* when Postmark received the first and the */
	TimestampTz oldest;			/* last one; DT_NOBEGIN: not known */
} PmFoundPage;

/* Whether Postmark delivers to an address */
typedef struct PmSuppression
{
	const char *email;			/* as Postmark writes it; NULL: not listed */
	bool		suppressed;
	const char *reason;			/* or NULL */
	const char *origin;			/* or NULL */
	TimestampTz since;
} PmSuppression;

/* A bounce or a complaint, as a webhook is told of it and as the list has it */
typedef struct PmBounce
{
	int64		id;				/* Postmark's, only of the list's; 0: none */
	const char *type;			/* NULL: type_code tells */
	int			type_code;		/* 0: none */
	bool		complaint;
	const char *description;	/* raw text, or NULL */
	const char *email;
	TimestampTz at;
	bool		inactive;		/* nothing is delivered there any more */
	const char *message_stream; /* or NULL */
	bool		has_message_id; /* only of the list's */
	pg_uuid_t	message_id;
} PmBounce;

/* A page of bounces */
typedef struct PmBouncePage
{
	int64		total;			/* on all pages together */
	int			nread;			/* and on this one */
	PmBounce   *bounces;		/* those of this one that can be read */
	int			nbounces;
} PmBouncePage;

/* All suppressions of a time */
typedef struct PmDump
{
	PmSuppression *suppressions;
	int			n;
} PmDump;

#define PM_SEARCH_PAGE 500

/* Bounces on a page: to read one must not keep a message waiting */
#define PM_BOUNCE_PAGE 100

/* Of what was mailed to one address so many are looked through */
#define PM_MAILED_PAGE 50

/* A search shows no more than this, whatever its offset */
#define PM_SEARCH_WINDOW 10000

/* Requests.  A body belongs to the caller until the request is released. */
extern void pm_api_message(StringInfo buf, const PmConnector *connector,
						   const PmApiMessage *message);
extern Jsonb *pm_api_model(const char *code, Jsonb *payload);
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
										  const char *token,
										  const char *stream, bool by_id,
										  const char *value, int offset,
										  void *owner);
extern PmHttpRequest *pm_api_start_recent(const PmConnector *connector,
										  const char *token, TimestampTz until,
										  int offset, void *owner);
extern PmHttpRequest *pm_api_start_templates(const PmConnector *connector,
											 const char *token, int offset,
											 void *owner);
extern void pm_api_template_body(StringInfo buf,
								 const PmTemplateText *template, bool is_new);
extern PmHttpRequest *pm_api_start_template(const PmConnector *connector,
											const char *token,
											const char *alias,
											StringInfo body, void *owner);
extern PmHttpRequest *pm_api_start_streams(const PmConnector *connector,
										   const char *token, void *owner);

extern PmHttpRequest *pm_api_start_suppression(const PmConnector *connector,
											   const char *token,
											   const char *stream,
											   const char *address,
											   void *owner);
extern PmHttpRequest *pm_api_start_bounces(const PmConnector *connector,
										   const char *token,
										   const char *stream,
										   TimestampTz from, TimestampTz until,
										   int offset, void *owner);
extern PmHttpRequest *pm_api_start_mailed(const PmConnector *connector,
										  const char *token,
										  const char *stream,
										  const char *address,
										  TimestampTz until, void *owner);
extern PmHttpRequest *pm_api_start_dump(const PmConnector *connector,
										const char *token, const char *stream,
										TimestampTz from, TimestampTz until,
										bool large, void *owner);
extern PmHttpRequest *pm_api_start_unsuppress(const PmConnector *connector,
											  const char *token,
											  StringInfo body, void *owner);
extern void pm_api_unsuppress_body(StringInfo buf, const char *address);

/* Answers.  Memory is of the current context; no text has the token. */
extern void pm_api_read_send(const PmHttpResult *result, const char *to,
							 PmVerdict *verdict);
extern bool pm_api_read_batch(const PmHttpResult *result, int nmessages,
							  const char *const *to, PmVerdict *whole,
							  PmVerdict *items);
extern void pm_api_read_plain(const PmHttpResult *result, PmVerdict *verdict);
extern bool pm_api_read_search(const PmHttpResult *result, PmVerdict *verdict,
							   PmFoundPage *page);
extern bool pm_api_read_templates(const PmHttpResult *result,
								  PmVerdict *verdict, int64 *total,
								  int *nread, PmListed **templates,
								  int *ntemplates);
extern bool pm_api_read_streams(const PmHttpResult *result,
								PmVerdict *verdict, PmListed **streams,
								int *nstreams);

extern bool pm_api_read_suppression(const PmHttpResult *result,
									const char *address, PmVerdict *verdict,
									PmSuppression *found);
extern bool pm_api_read_bounces(const PmHttpResult *result, PmVerdict *verdict,
								PmBouncePage *page);
extern bool pm_api_read_dump(const PmHttpResult *result, PmVerdict *verdict,
							 PmDump *dump);
extern bool pm_api_read_unsuppress(const PmHttpResult *result,
								   const char *address, PmVerdict *verdict);

#endif							/* PM_API_H */
