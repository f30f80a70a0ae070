/*-------------------------------------------------------------------------
 *
 * server.c
 *		The benchmark's local Postmark: accepts every message, at once or
 *		after a delay that is the same for each request.
 *
 * It must never be what limits a measure.  So it is one thread around epoll
 * that holds any number of requests at a time, and reads no more of a request
 * than it has to (server_mail.c).
 *
 *		server --port-file FILE
 *
 * listens on a port of 127.0.0.1 that the kernel picks, and writes it there.
 * Beside Postmark's paths it has
 *
 *   POST /_bench/reset?delay_ms=N   forget all counts; from now on answer a
 *                                   request N ms (fractions allowed) after
 *                                   all of it was received
 *   GET /_bench/stats               the counts since then
 *   GET /_bench/wait?messages=N     the same, once there are N messages
 *   GET /_bench/requests            a line on each request
 *
 * Times are of CLOCK_MONOTONIC, in ns.
 *
 * test/bench/server.c
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE
#include "server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define MAX_HEAD	(64 * 1024)
#define MAX_BODY	(64 * 1024 * 1024)
#define READ_SIZE	(256 * 1024)
#define MAX_WAITING	16

typedef enum State
{
	READING_HEAD,
	READING_BODY,
	READING_CHUNKS,
	ANSWERING					/* the reply is due later, or being sent */
} State;

typedef struct Connection
{
	int			fd;
	bool		closed;
	struct Connection *next_closed;
	uint32_t	events;			/* that epoll looks for */
	State		state;
	Buffer		in;
	Buffer		out;
	size_t		sent;			/* of out */

	/* the request being read; its body begins at in.data + head */
	char		method[8];
	char		path[256];
	int64_t		begun;
	size_t		head;
	size_t		body;			/* its length; of chunks, what is decoded yet */
	size_t		raw;			/* chunks: offset of the next one */
	bool		close_after;

	bool		delayed;		/* is in the list below */
	int64_t		due;
	struct Connection *previous;
	struct Connection *next;

	bool		in_flight;
	unsigned	counted;		/* number of the reset it was last counted in */
	long		wait_messages;
} Connection;

static int	epoll_fd;
static int	listen_fd;
static int	timer_fd;
static int64_t delay;			/* ns */
static unsigned resets = 1;
static Connection *first_delayed;	/* in order of due */
static Connection *last_delayed;
static Connection *waiting[MAX_WAITING];
static Connection *closed_ones; /* freed once no event can name them */

static void
die(const char *what)
{
	perror(what);
	exit(1);
}

static int64_t
now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

/* ----------------------------------------------------------------
 *		Connections and their replies
 * ----------------------------------------------------------------
 */

static void
watch(Connection *c, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.ptr = c};

	if (c->events != events &&
		epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &event) < 0)
		die("epoll_ctl");
	c->events = events;
}

static void
set_timer(void)
{
	struct itimerspec when = {0};

	if (first_delayed)
	{
		when.it_value.tv_sec = first_delayed->due / 1000000000;
		when.it_value.tv_nsec = first_delayed->due % 1000000000;
	}
	if (timerfd_settime(timer_fd, TFD_TIMER_ABSTIME, &when, NULL) < 0)
		die("timerfd_settime");
}

/* The delay is the same for all, but for those from before a reset. */
static void
delay_reply(Connection *c, int64_t due)
{
	Connection *before = last_delayed;

	while (before && before->due > due)
		before = before->previous;
	c->delayed = true;
	c->due = due;
	c->previous = before;
	c->next = before ? before->next : first_delayed;
	*(c->next ? &c->next->previous : &last_delayed) = c;
	*(before ? &before->next : &first_delayed) = c;
	watch(c, EPOLLRDHUP);
	if (first_delayed == c)
		set_timer();
}

static void
end_delay(Connection *c)
{
	if (!c->delayed)
		return;
	c->delayed = false;
	*(c->previous ? &c->previous->next : &first_delayed) = c->next;
	*(c->next ? &c->next->previous : &last_delayed) = c->previous;
}

static void
end_flight(Connection *c)
{
	if (c->in_flight)
		counts.in_flight--;
	c->in_flight = false;
}

static void
drop(Connection *c)
{
	end_delay(c);
	end_flight(c);
	for (int i = 0; i < MAX_WAITING; i++)
		if (waiting[i] == c)
			waiting[i] = NULL;
	close(c->fd);
	c->closed = true;
	c->next_closed = closed_ones;
	closed_ones = c;
}

static void
free_closed(void)
{
	while (closed_ones)
	{
		Connection *c = closed_ones;

		closed_ones = c->next_closed;
		free(c->in.data);
		free(c->out.data);
		free(c);
	}
}

/* Send what there is of the reply; then the next request may come. */
static void
send_reply(Connection *c)
{
	while (c->sent < c->out.len)
	{
		ssize_t		n = send(c->fd, c->out.data + c->sent,
							 c->out.len - c->sent, MSG_NOSIGNAL);

		if (n < 0 && errno == EAGAIN)
		{
			watch(c, EPOLLOUT);
			return;
		}
		if (n < 0 && errno != EINTR)
		{
			drop(c);
			return;
		}
		if (n > 0)
			c->sent += n;
	}
	c->out.len = c->sent = 0;
	if (c->state != ANSWERING)
		return;					/* that was "100 Continue" */
	end_flight(c);
	if (c->close_after)
	{
		drop(c);
		return;
	}
	c->state = READING_HEAD;
	watch(c, EPOLLIN);
}

/* ----------------------------------------------------------------
 *		The paths of our own
 * ----------------------------------------------------------------
 */

/* A number of the query string, or 0. */
static double
parameter(const Connection *c, const char *name)
{
	const char *found = strstr(c->path, name);

	return found ? strtod(found + strlen(name), NULL) : 0;
}

/* Answer those whose number of messages has come. */
static void
answer_waiting(void)
{
	for (int i = 0; i < MAX_WAITING; i++)
	{
		Connection *c = waiting[i];

		if (c && counts.messages >= c->wait_messages)
		{
			waiting[i] = NULL;
			reply_stats(&c->out);
			send_reply(c);
		}
	}
}

static void
control(Connection *c)
{
	const char *what = c->path + strlen("/_bench/");

	if (strncmp(what, "wait?", 5) == 0)
	{
		int			i = 0;

		while (i < MAX_WAITING - 1 && waiting[i])
			i++;
		if (waiting[i])
			drop(waiting[i]);
		c->wait_messages = (long) parameter(c, "messages=");
		waiting[i] = c;
		watch(c, EPOLLRDHUP);
		answer_waiting();
		return;
	}
	if (strncmp(what, "reset", 5) == 0)
	{
		delay = (int64_t) (parameter(c, "delay_ms=") * 1e6);
		resets++;
		forget_counts();
		reply_stats(&c->out);
	}
	else if (strcmp(what, "stats") == 0)
		reply_stats(&c->out);
	else if (strcmp(what, "requests") == 0)
		reply_requests(&c->out);
	else
		reply_status(&c->out, "404 Not Found");
	send_reply(c);
}

static bool
is_control(const Connection *c)
{
	return strncmp(c->path, "/_bench/", 8) == 0;
}

/* ----------------------------------------------------------------
 *		Requests
 * ----------------------------------------------------------------
 */

/* All of the request is there; of in, so much was it. */
static void
handle(Connection *c, size_t used)
{
	int64_t		received = now_ns();

	c->state = ANSWERING;
	c->out.len = c->sent = 0;
	if (!is_control(c))
	{
		if (strcmp(c->method, "POST") == 0)
		{
			if (c->counted != resets)
				counts.connections++;
			c->counted = resets;
			reply_post(&c->out, c->path, c->in.data + c->head, c->body,
					   c->begun, received);
		}
		else if (strcmp(c->method, "GET") == 0)
			reply_get(&c->out, c->path);
		else
			reply_status(&c->out, "405 Method Not Allowed");
	}
	memmove(c->in.data, c->in.data + used, c->in.len - used);
	c->in.len -= used;
	c->begun = received;		/* of what follows without a pause, if it does */

	if (is_control(c))
		control(c);
	else
	{
		if (delay > 0)
			delay_reply(c, received + delay);
		else
			send_reply(c);
		answer_waiting();
	}
}

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

/* Read the head if all of it is there.  Returns false if not. */
static bool
take_head(Connection *c)
{
	char	   *end = memmem(c->in.data, c->in.len, "\r\n\r\n", 4);
	const char *length;

	if (end == NULL)
	{
		if (c->in.len > MAX_HEAD)
			drop(c);
		return false;
	}
	end[2] = '\0';				/* the last line keeps its end */
	c->head = end + 4 - c->in.data;
	c->body = 0;
	if (sscanf(c->in.data, "%7s %255s", c->method, c->path) != 2)
	{
		drop(c);
		return false;
	}
	length = field(c->in.data, "Content-Length:");
	c->close_after = field_is(c->in.data, "Connection:", "close");
	if (field_is(c->in.data, "Transfer-Encoding:", "chunked"))
	{
		c->state = READING_CHUNKS;
		c->raw = c->head;
	}
	else
	{
		c->state = READING_BODY;
		c->body = length ? strtoul(length, NULL, 10) : 0;
	}
	if (c->body > MAX_BODY)
	{
		drop(c);
		return false;
	}
	if (!is_control(c))
	{
		c->in_flight = true;
		if (++counts.in_flight > counts.max_in_flight)
			counts.max_in_flight = counts.in_flight;
	}
	if (field_is(c->in.data, "Expect:", "100-continue") &&
		c->in.len == c->head)
	{
		append(&c->out, "HTTP/1.1 100 Continue\r\n\r\n", 25);
		send_reply(c);
	}
	return !c->closed;
}

/* Move the chunks that are there to where the body is.  True: all are. */
static bool
take_chunks(Connection *c)
{
	for (;;)
	{
		char	   *chunk = c->in.data + c->raw;
		size_t		there = c->in.len - c->raw;
		char	   *line_end = memmem(chunk, there, "\r\n", 2);
		size_t		size;
		size_t		whole;

		if (line_end == NULL)
			return false;
		size = strtoul(chunk, NULL, 16);
		whole = (line_end + 2 - chunk) + size + 2;
		if (size > MAX_BODY || c->body > MAX_BODY)
		{
			drop(c);
			return false;
		}
		if (there < whole)
			return false;
		memmove(c->in.data + c->head + c->body, line_end + 2, size);
		c->body += size;
		c->raw += whole;		/* no trailers, so the last one ends alike */
		if (size == 0)
			return true;
	}
}

/* Go as far as what was read allows. */
static void
proceed(Connection *c)
{
	while (!c->closed && c->state != ANSWERING)
	{
		if (c->state == READING_HEAD)
		{
			if (c->in.len == 0 || !take_head(c))
				return;
		}
		if (c->state == READING_CHUNKS)
		{
			if (!take_chunks(c))
				return;
			handle(c, c->raw);
		}
		else if (c->in.len < c->head + c->body)
			return;
		else
			handle(c, c->head + c->body);
	}
}

static void
read_some(Connection *c)
{
	ssize_t		n;

	reserve(&c->in, READ_SIZE);
	n = recv(c->fd, c->in.data + c->in.len, c->in.size - c->in.len, 0);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0)
	{
		drop(c);
		return;
	}
	if (c->in.len == 0)
		c->begun = now_ns();
	c->in.len += n;
	proceed(c);
}

static void
send_due(void)
{
	uint64_t	expired;

	if (read(timer_fd, &expired, sizeof(expired)) < 0 && errno != EAGAIN)
		die("timerfd");
	while (first_delayed && first_delayed->due <= now_ns())
	{
		Connection *c = first_delayed;

		end_delay(c);
		send_reply(c);
		proceed(c);
	}
	set_timer();
}

/* ----------------------------------------------------------------
 *		The loop
 * ----------------------------------------------------------------
 */

static void
accept_connection(void)
{
	int			on = 1;
	int			fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct epoll_event event = {.events = EPOLLIN};
	Connection *c;

	if (fd < 0)
		return;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	c = grow(NULL, sizeof(*c));
	memset(c, 0, sizeof(*c));
	c->fd = fd;
	c->events = event.events;
	event.data.ptr = c;
	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
		die("epoll_ctl");
}

/* Listen, and let the port be known once it is there, all of it. */
static void
start(const char *port_file)
{
	struct sockaddr_in address = {.sin_family = AF_INET};
	socklen_t	len = sizeof(address);
	struct epoll_event event = {.events = EPOLLIN};
	char		temporary[4096];
	FILE	   *file;

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (listen_fd < 0 ||
		bind(listen_fd, (struct sockaddr *) &address, len) < 0 ||
		listen(listen_fd, 1024) < 0 ||
		getsockname(listen_fd, (struct sockaddr *) &address, &len) < 0)
		die("listen");

	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	event.data.ptr = &listen_fd;
	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listen_fd, &event) < 0)
		die("epoll_ctl");
	event.data.ptr = &timer_fd;
	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, timer_fd, &event) < 0)
		die("epoll_ctl");

	snprintf(temporary, sizeof(temporary), "%s.new", port_file);
	file = fopen(temporary, "w");
	if (file == NULL || fprintf(file, "%d\n", ntohs(address.sin_port)) < 0 ||
		fclose(file) != 0 || rename(temporary, port_file) != 0)
		die(port_file);
}

int
main(int argc, char **argv)
{
	struct epoll_event events[256];

	if (argc != 3 || strcmp(argv[1], "--port-file") != 0)
	{
		fprintf(stderr, "usage: %s --port-file FILE\n", argv[0]);
		return 2;
	}
	start(argv[2]);
	for (;;)
	{
		int			n = epoll_wait(epoll_fd, events, 256, -1);

		if (n < 0 && errno != EINTR)
			die("epoll_wait");
		for (int i = 0; i < n; i++)
		{
			Connection *c = events[i].data.ptr;

			if (events[i].data.ptr == &listen_fd)
				accept_connection();
			else if (events[i].data.ptr == &timer_fd)
				send_due();
			else if (c->closed)
				continue;
			else if (events[i].events & EPOLLOUT)
			{
				send_reply(c);
				proceed(c);
			}
			else if (c->state == ANSWERING)
				drop(c);		/* gone before its reply */
			else
				read_some(c);
		}
		free_closed();
	}
}
