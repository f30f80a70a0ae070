/*-------------------------------------------------------------------------
 *
 * server.h
 *		What server.c (connections), server_http.c (requests) and
 *		server_mail.c (messages, counts, replies) share.
 *
 * test/bench/server.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef SERVER_H
#define SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes that grow; empty when zeroed */
typedef struct Buffer
{
	char	   *data;
	size_t		len;
	size_t		size;
} Buffer;

/* server_mail.c */
extern void *grow(void *memory, size_t size);
extern void reserve(Buffer *b, size_t more);
extern void append(Buffer *b, const char *text, size_t len);

/* A request as far as it was read */
typedef struct HttpRequest
{
	Buffer		in;
	size_t		head;			/* length of the head; 0: not all there */
	size_t		body;			/* length of the body, which follows; of
								 * chunks, what there is of it */
	size_t		chunk;			/* offset of the next chunk */
	char		method[8];
	char		path[256];
	bool		chunked;
	bool		expects;		/* "100 Continue" */
	bool		close_after;
} HttpRequest;

typedef enum HttpProgress
{
	HTTP_MORE,					/* has to be read */
	HTTP_HEAD,					/* is there */
	HTTP_COMPLETE,
	HTTP_BAD
} HttpProgress;

/* server_http.c */
extern HttpProgress http_proceed(HttpRequest *r);
extern void http_next(HttpRequest *r);

/* What was seen since the last reset */
typedef struct Counts
{
	long		requests;
	long		messages;
	long		bytes;			/* of bodies */
	long		connections;	/* that carried a request */
	long		in_flight;		/* head read, reply not sent */
	long		max_in_flight;
	long		duplicates;
	int64_t		first_ns;		/* when the first request was complete */
	int64_t		last_ns;
} Counts;

extern Counts counts;

/* Each reply is a whole one, status line to body */
extern void forget_counts(void);
extern void reply_post(Buffer *out, const char *path, const char *body,
					   size_t len, int64_t begun, int64_t received);
extern void reply_get(Buffer *out, const char *path);
extern void reply_stats(Buffer *out);
extern void reply_requests(Buffer *out);
extern void reply_status(Buffer *out, const char *status);

#endif							/* SERVER_H */
