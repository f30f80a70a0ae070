/*-------------------------------------------------------------------------
 *
 * server_http.c
 *		HTTP/1.1 requests of the benchmark's local Postmark, as they come in.
 *
 * A request is read piece by piece into one buffer, of which its body is a
 * part; chunks are moved together there.
 *
 * test/bench/server_http.c
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE
#include "server.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define MAX_HEAD	(64 * 1024)
#define MAX_BODY	(64 * 1024 * 1024)

/* The value of a header field, or NULL; head ends in a NUL. */
static const char *
field(const char *head, const char *name)
{
	const char *line = head;

	while ((line = strstr(line, "\r\n")) != NULL)
	{
		line += 2;
		if (strncasecmp(line, name, strlen(name)) == 0)
			return line + strlen(name) + strspn(line + strlen(name), " ");
	}
	return NULL;
}

static bool
field_is(const char *head, const char *name, const char *value)
{
	const char *found = field(head, name);

	return found && strncasecmp(found, value, strlen(value)) == 0;
}

static HttpProgress
take_head(HttpRequest *r)
{
	char	   *end = memmem(r->in.data, r->in.len, "\r\n\r\n", 4);
	const char *length;

	if (end == NULL)
		return r->in.len > MAX_HEAD ? HTTP_BAD : HTTP_MORE;
	end[2] = '\0';				/* the last field keeps its end of line */
	r->head = end + 4 - r->in.data;
	if (sscanf(r->in.data, "%7s %255s", r->method, r->path) != 2)
		return HTTP_BAD;
	length = field(r->in.data, "Content-Length:");
	r->chunked = field_is(r->in.data, "Transfer-Encoding:", "chunked");
	r->close_after = field_is(r->in.data, "Connection:", "close");
	r->expects = field_is(r->in.data, "Expect:", "100-continue");
	r->chunk = r->head;
	r->body = length && !r->chunked ? strtoul(length, NULL, 10) : 0;
	return r->body > MAX_BODY ? HTTP_BAD : HTTP_HEAD;
}

/* Move the chunks that are there to where the body is. */
static HttpProgress
take_chunks(HttpRequest *r)
{
	for (;;)
	{
		char	   *chunk = r->in.data + r->chunk;
		size_t		there = r->in.len - r->chunk;
		char	   *line_end = memmem(chunk, there, "\r\n", 2);
		size_t		size;
		size_t		whole;

		if (line_end == NULL)
			return HTTP_MORE;
		size = strtoul(chunk, NULL, 16);
		if (size > MAX_BODY || r->body > MAX_BODY)
			return HTTP_BAD;
		whole = (line_end + 2 - chunk) + size + 2;
		if (there < whole)
			return HTTP_MORE;
		memmove(r->in.data + r->head + r->body, line_end + 2, size);
		r->body += size;
		r->chunk += whole;		/* without trailers the last ends like all */
		if (size == 0)
			return HTTP_COMPLETE;
	}
}

/*
 * Go on with what was read.  Says HTTP_HEAD once, when method and path are
 * known; is then to be called again at once.
 */
HttpProgress
http_proceed(HttpRequest *r)
{
	if (r->in.len == 0)
		return HTTP_MORE;
	if (r->head == 0)
		return take_head(r);
	if (r->chunked)
		return take_chunks(r);
	return r->in.len < r->head + r->body ? HTTP_MORE : HTTP_COMPLETE;
}

/* The request was dealt with; keep what followed it. */
void
http_next(HttpRequest *r)
{
	size_t		used = r->chunked ? r->chunk : r->head + r->body;

	memmove(r->in.data, r->in.data + used, r->in.len - used);
	r->in.len -= used;
	r->head = 0;
}
