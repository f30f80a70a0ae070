/*-------------------------------------------------------------------------
 *
 * http.h
 *		HTTP over libcurl for one process, driven by PostgreSQL's wait loop.
 *
 * Knows nothing of email.  A session has at most one PmHttp; connections are
 * kept alive in it.
 *
 * src/postmark/http.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_HTTP_H
#define PM_HTTP_H

#include "lib/stringinfo.h"

/* How far a request got, which decides whether it may have had an effect. */
typedef enum PmHttpPhase
{
	PM_HTTP_NOT_SENT,			/* failed before a byte of the body went out */
	PM_HTTP_MAYBE_SENT,			/* upload began, no complete reply */
	PM_HTTP_REPLIED				/* a complete reply is there */
} PmHttpPhase;

typedef struct PmHttpRequest PmHttpRequest;

/* What to ask for.  All strings are copied by pm_http_start but the body. */
typedef struct PmHttpSpec
{
	const char *method;			/* "GET", "POST", "PUT" */
	const char *url;			/* complete, already percent-encoded */
	const char *secret_header;	/* "Name: value", shown to nobody but the
								 * caller; or NULL */
	const char *body;			/* UTF-8, or NULL; must stay until the request
								 * is released */
	size_t		body_len;
	int			connect_timeout_ms;
	int			request_timeout_ms;
	const char *ca_file;		/* NULL or empty: the system's */
	const char *proxy;			/* NULL or empty: none */
	size_t		max_reply;		/* bytes; a longer reply is PM_HTTP_MAYBE_SENT
								 * with an error text */
	void	   *owner;			/* the caller's, see pm_http_owner */
} PmHttpSpec;

/* What came of it. */
typedef struct PmHttpResult
{
	PmHttpPhase phase;
	long		status;			/* HTTP status, 0 if none */
	const char *reply;			/* NUL-terminated, raw bytes as received */
	size_t		reply_len;
	const char *media_type;		/* of the reply, cleaned text; NULL: not said */
	const char *secret_header;	/* as it was sent, to be masked in what the
								 * reply says; or NULL */
	size_t		sent_len;		/* of the body that was to be sent */
	bool		early;			/* the reply began before all of the body was
								 * handed out */
	const char *error;			/* cleaned text (PM_NETWORK_TEXT_MAX), NULL if
								 * PM_HTTP_REPLIED */
	bool		timed_out;
	bool		too_long;		/* the reply was longer than max_reply */
	bool		shortage;		/* this process had no descriptor left for it:
								 * nobody else's fault */
	long		retry_after_ms; /* Retry-After, seconds or date; -1: absent */
} PmHttpResult;

extern PmHttpRequest *pm_http_start(const PmHttpSpec *spec);
extern void *pm_http_owner(PmHttpRequest *request);
extern PmHttpRequest *pm_http_next_done(void);
extern void pm_http_result(PmHttpRequest *request, PmHttpResult *result);
extern void pm_http_release(PmHttpRequest *request);
extern void pm_http_wait(long timeout_ms, uint32 wait_event_info);
extern void pm_http_perform(PmHttpRequest *request, PmHttpResult *result);
extern int	pm_http_capacity(void);
extern void pm_http_forget(void);
extern void pm_http_escape(StringInfo buf, const char *text);

#endif							/* PM_HTTP_H */
