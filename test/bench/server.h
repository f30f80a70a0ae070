/*-------------------------------------------------------------------------
 *
 * server.h
 *		What the parts of the benchmark's local Postmark share.
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

/* server_mail.c; each reply is a whole one, status line to body */
extern void forget_counts(void);
extern void reply_post(Buffer *out, const char *path, const char *body,
					   size_t len, int64_t begun, int64_t received);
extern void reply_get(Buffer *out, const char *path);
extern void reply_stats(Buffer *out);
extern void reply_requests(Buffer *out);
extern void reply_status(Buffer *out, const char *status);

typedef struct Connection
{
	int			fd;
	bool		closed;
	struct Connection *next_closed;
	uint32_t	events;			/* that epoll looks for */
	HttpRequest request;
	int64_t		begun;			/* when the first byte of it came */
	bool		answering;		/* the reply is due later, or being sent */
	Buffer		out;
	size_t		sent;			/* of out */

	bool		delayed;		/* is in the list below */
	int64_t		due;
	struct Connection *previous;
	struct Connection *next;

	bool		in_flight;
	unsigned	counted;		/* number of the reset it was last counted in */
	long		wait_messages;	/* of GET /_bench/wait */
} Connection;

/* server_connection.c */
extern void connections_begin(int epoll);
extern void connection_accept(int listen_fd);
extern void connection_drop(Connection *c);
extern void connections_free(void);
extern void connection_rest(Connection *c);
extern void connection_reply(Connection *c);
extern void connection_reply_at(Connection *c, int64_t due);
extern int	connections_timer(void);
extern Connection *connection_due(void);
extern int64_t now_ns(void);
extern void die(const char *what);

#endif							/* SERVER_H */
