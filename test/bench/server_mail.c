/*-------------------------------------------------------------------------
 *
 * server_mail.c
 *		Messages, counts and replies of the benchmark's local Postmark.
 *
 * A body is not parsed but searched: for each "To" there is one result in the
 * reply.  What tells two messages apart is the "postmark_id" of its metadata,
 * or where there is none, its "To".
 *
 * test/bench/server_mail.c
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE
#include "server.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define TO			"\"To\":"
#define POSTMARK_ID "\"postmark_id\":"

/* Suppressions there are, how far apart, s, and on one list at most */
#define SUPPRESSED			200000
#define SUPPRESSED_EVERY	600
#define SUPPRESSED_MAX		6000

#define SHOWN_TO	80			/* bytes kept of a request's first "To" */

/* One line of /_bench/requests */
typedef struct Request
{
	int64_t		begun;
	int64_t		received;
	long		messages;
	char		first_to[SHOWN_TO];
} Request;

/* A value between its quotes, in the body */
typedef struct Value
{
	const char *text;
	size_t		len;
	const char *end;			/* where to go on */
} Value;

Counts		counts;

static Request *requests;
static size_t requests_size;

/* Hashes of what was seen; open addressing, 0 is free */
static uint64_t *seen;
static size_t seen_size;
static size_t nseen;

/* ----------------------------------------------------------------
 *		Memory
 * ----------------------------------------------------------------
 */

void *
grow(void *memory, size_t size)
{
	memory = realloc(memory, size);
	if (memory == NULL)
	{
		perror("realloc");
		exit(1);
	}
	return memory;
}

/* Make room for so many bytes after those there are. */
void
reserve(Buffer *b, size_t more)
{
	if (b->size - b->len >= more)
		return;
	b->size = (b->len + more) * 2;
	b->data = grow(b->data, b->size);
}

void
append(Buffer *b, const char *text, size_t len)
{
	reserve(b, len);
	memcpy(b->data + b->len, text, len);
	b->len += len;
}

static void
append_text(Buffer *b, const char *text)
{
	append(b, text, strlen(text));
}

/* ----------------------------------------------------------------
 *		What was seen before
 * ----------------------------------------------------------------
 */

static uint64_t
hash(const char *text, size_t len)
{
	uint64_t	h = len * UINT64_C(0x9e3779b97f4a7c15);

	while (len > 0)
	{
		uint64_t	word = 0;
		size_t		n = len < 8 ? len : 8;

		memcpy(&word, text, n);
		h = (h ^ word) * UINT64_C(0xff51afd7ed558ccd);
		h ^= h >> 32;
		text += n;
		len -= n;
	}
	return h ? h : 1;
}

/* Returns whether it was there. */
static bool
put(uint64_t h)
{
	size_t		i = h & (seen_size - 1);

	while (seen[i] && seen[i] != h)
		i = (i + 1) & (seen_size - 1);
	if (seen[i])
		return true;
	seen[i] = h;
	nseen++;
	return false;
}

static bool
seen_before(const Value *value)
{
	if (nseen * 2 >= seen_size)
	{
		uint64_t   *old = seen;
		size_t		old_size = seen_size;

		seen_size = old_size ? old_size * 4 : 65536;
		seen = calloc(seen_size, sizeof(uint64_t));
		if (seen == NULL)
		{
			perror("calloc");
			exit(1);
		}
		nseen = 0;
		for (size_t i = 0; i < old_size; i++)
			if (old[i])
				put(old[i]);
		free(old);
	}
	return put(hash(value->text, value->len));
}

/* What is in flight stays so. */
void
forget_counts(void)
{
	long		in_flight = counts.in_flight;

	memset(&counts, 0, sizeof(counts));
	counts.in_flight = counts.max_in_flight = in_flight;
	free(seen);
	seen = NULL;
	seen_size = nseen = 0;
}

/* ----------------------------------------------------------------
 *		Replies
 * ----------------------------------------------------------------
 */

/* Where the length of the body is to be written, once it is known */
#define LENGTH_WIDTH 10

/* Returns the mark that end_reply wants. */
static size_t
begin_reply(Buffer *out, const char *status)
{
	append_text(out, "HTTP/1.1 ");
	append_text(out, status);
	append_text(out, "\r\nContent-Type: application/json\r\nContent-Length: ");
	append(out, "          ", LENGTH_WIDTH);
	append_text(out, "\r\n\r\n");
	return out->len;
}

static void
end_reply(Buffer *out, size_t begin)
{
	char		length[LENGTH_WIDTH + 1];

	snprintf(length, sizeof(length), "%*zu", LENGTH_WIDTH, out->len - begin);
	memcpy(out->data + begin - 4 - LENGTH_WIDTH, length, LENGTH_WIDTH);
}

/* A reply that has nothing to say but its status. */
void
reply_status(Buffer *out, const char *status)
{
	size_t		begin = begin_reply(out, status);

	append_text(out, "{\"ErrorCode\":0,\"Message\":\"");
	append_text(out, status);
	append_text(out, "\"}");
	end_reply(out, begin);
}

/* A time of a query, in seconds; 0 if it is not there */
static int64_t
query_time(const char *path, const char *name)
{
	const char *text = strstr(path, name);
	struct tm	tm = {0};

	if (text == NULL ||
		sscanf(text + strlen(name), "=%d-%d-%dT%d%%3A%d%%3A%d-04", &tm.tm_year,
			   &tm.tm_mon, &tm.tm_mday, &tm.tm_hour, &tm.tm_min, &tm.tm_sec) != 6)
		return 0;
	tm.tm_year -= 1900;
	tm.tm_mon--;
	return timegm(&tm) + 4 * 3600;
}

/*
 * A dump of suppressions: one every few minutes, as if there always had been
 * some.  One that is longer than anybody reads need not be whole.
 */
static void
append_dump(Buffer *out, const char *path)
{
	int64_t		from = query_time(path, "fromdate") / SUPPRESSED_EVERY;
	int64_t		to = query_time(path, "todate") / SUPPRESSED_EVERY;
	char		text[256];

	/* None is older than some years */
	if (from < time(NULL) / SUPPRESSED_EVERY - SUPPRESSED)
		from = time(NULL) / SUPPRESSED_EVERY - SUPPRESSED;
	append_text(out, "{\"Suppressions\":[");
	for (int64_t n = from; n <= to && n < from + SUPPRESSED_MAX; n++)
	{
		time_t		at = n * SUPPRESSED_EVERY;
		struct tm	tm;

		gmtime_r(&at, &tm);
		snprintf(text, sizeof(text),
				 "%s{\"EmailAddress\":\"listed-%" PRId64 "@example.com\","
				 "\"SuppressionReason\":\"HardBounce\",\"Origin\":\"Recipient\",\"CreatedAt\":\"",
				 n > from ? "," : "", n);
		append_text(out, text);
		strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ\"}", &tm);
		append_text(out, text);
	}
	append_text(out, "]}");
}

/* What is asked for by GET: an index that lags, a server, and suppressions. */
void
reply_get(Buffer *out, const char *path)
{
	size_t		begin = begin_reply(out, "200 OK");

	if (strncmp(path, "/messages/outbound", 18) == 0)
		append_text(out, "{\"TotalCount\":0,\"Messages\":[]}");
	else if (strncmp(path, "/templates", 10) == 0)
		append_text(out, "{\"TotalCount\":0,\"Templates\":[]}");
	else if (strncmp(path, "/bounces", 8) == 0)
		append_text(out, "{\"TotalCount\":0,\"Bounces\":[]}");
	else if (strstr(path, "/suppressions/dump"))
		append_dump(out, path);
	else if (strncmp(path, "/message-streams", 16) == 0)
		append_text(out, "{\"TotalCount\":0,\"MessageStreams\":[]}");
	else
		append_text(out, "{\"ID\":1,\"Name\":\"bench\",\"DeliveryType\":\"Live\"}");
	end_reply(out, begin);
}

void
reply_stats(Buffer *out)
{
	size_t		begin = begin_reply(out, "200 OK");
	char		text[512];

	snprintf(text, sizeof(text),
			 "{\"requests\":%ld,\"messages\":%ld,\"bytes\":%ld,"
			 "\"connections\":%ld,\"in_flight\":%ld,\"max_in_flight\":%ld,"
			 "\"duplicates\":%ld,\"first_ns\":%" PRId64 ",\"last_ns\":%" PRId64 "}",
			 counts.requests, counts.messages, counts.bytes,
			 counts.connections, counts.in_flight, counts.max_in_flight,
			 counts.duplicates, counts.first_ns, counts.last_ns);
	append_text(out, text);
	end_reply(out, begin);
}

void
reply_requests(Buffer *out)
{
	size_t		begin = begin_reply(out, "200 OK");
	char		text[256];

	append_text(out, "[");
	for (long i = 0; i < counts.requests; i++)
	{
		Request    *r = &requests[i];

		snprintf(text, sizeof(text),
				 "%s{\"begun_ns\":%" PRId64 ",\"received_ns\":%" PRId64
				 ",\"messages\":%ld,\"first_to\":\"",
				 i ? "," : "", r->begun, r->received, r->messages);
		append_text(out, text);
		append_text(out, r->first_to);
		append_text(out, "\"}");
	}
	append_text(out, "]");
	end_reply(out, begin);
}

/*
 * A UUID that no other message of this process has, and as far from the one
 * before as Postmark's are: whoever keeps an index of them pays for that.
 */
static void
append_uuid(Buffer *out)
{
	static const char digits[] = "0123456789abcdef";
	static const unsigned char places[] = {
		0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 32, 33, 34, 35
	};
	static uint64_t number;
	char		uuid[] = "00000000-0000-4c6e-8f21-000000000000";
	uint64_t	n = ++number;

	/* Each step can be undone: no two numbers become one */
	n = (n ^ (n >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	n = (n ^ (n >> 27)) * UINT64_C(0x94d049bb133111eb);
	n ^= n >> 31;
	for (size_t i = 0; i < sizeof(places); i++, n >>= 4)
		uuid[places[i]] = digits[n & 15];
	append(out, uuid, 36);
}

static void
append_result(Buffer *out, const Value *to)
{
	static time_t at;
	static char rest[64];
	time_t		now = time(NULL);

	if (now != at)
	{
		at = now;
		strftime(rest, sizeof(rest),
				 "\",\"SubmittedAt\":\"%Y-%m-%dT%H:%M:%SZ\",\"MessageID\":\"",
				 gmtime(&at));
	}
	append_text(out, "{\"To\":\"");
	append(out, to->text, to->len);
	append_text(out, rest);
	append_uuid(out);
	append_text(out, "\",\"ErrorCode\":0,\"Message\":\"OK\"}");
}

/* ----------------------------------------------------------------
 *		Messages
 * ----------------------------------------------------------------
 */

/* Find the next member of this name whose value is a string. */
static bool
find_value(const char *from, const char *end, const char *name,
		   size_t name_len, Value *value)
{
	const char *found = from;
	const char *quote;

	while ((found = memmem(found, end - found, name, name_len)) != NULL)
	{
		found += name_len;
		while (found < end && *found == ' ')
			found++;
		if (found == end || *found != '"')
			continue;
		value->text = ++found;
		quote = memchr(found, '"', end - found);
		if (quote == NULL)
			return false;
		value->len = quote - found;
		value->end = quote + 1;
		return true;
	}
	return false;
}

/* Answer each message of a body, comma between; returns how many there are. */
static long
take_messages(Buffer *out, const char *body, const char *end,
			  char *first_to)
{
	Value		to;
	bool		more = find_value(body, end, TO, strlen(TO), &to);
	long		messages = 0;

	while (more)
	{
		Value		id;
		Value		next;
		const char *until;

		more = find_value(to.end, end, TO, strlen(TO), &next);
		until = more ? next.text : end;
		if (!find_value(to.end, until, POSTMARK_ID, strlen(POSTMARK_ID), &id))
			id = to;
		if (seen_before(&id))
			counts.duplicates++;
		if (messages == 0)
			snprintf(first_to, SHOWN_TO, "%.*s", (int) to.len, to.text);
		else
			append(out, ",", 1);
		append_result(out, &to);
		messages++;
		to = next;
	}
	return messages;
}

/*
 * Accept what is posted: /email/batchWithTemplates and /email/batch have an
 * array for an answer, /email/withTemplate and /email the one result.
 */
void
reply_post(Buffer *out, const char *path, const char *body, size_t len,
		   int64_t begun, int64_t received)
{
	bool		batch = strncmp(path, "/email/batch", 12) == 0;
	size_t		begin;
	Request    *request;

	if (strncmp(path, "/email", 6) != 0)
	{
		reply_status(out, "404 Not Found");
		return;
	}

	if ((size_t) counts.requests == requests_size)
	{
		requests_size = requests_size ? requests_size * 2 : 1024;
		requests = grow(requests, requests_size * sizeof(Request));
	}
	request = &requests[counts.requests++];
	request->begun = begun;
	request->received = received;
	request->first_to[0] = '\0';

	begin = begin_reply(out, "200 OK");
	if (batch)
		append(out, "[", 1);
	request->messages = take_messages(out, body, body + len, request->first_to);
	if (batch)
		append(out, "]", 1);
	end_reply(out, begin);

	counts.messages += request->messages;
	counts.bytes += len;
	if (counts.requests == 1)
		counts.first_ns = received;
	counts.last_ns = received;
}
