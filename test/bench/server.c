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

#define READ_SIZE	(256 * 1024)
#define MAX_WAITING	16

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
		free(c->request.in.data);
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
	if (!c->answering)
		return;					/* that was "100 Continue" */
	end_flight(c);
	if (c->request.close_after)
	{
		drop(c);
		return;
	}
	c->answering = false;
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
	const char *found = strstr(c->request.path, name);

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
	const char *what = c->request.path + strlen("/_bench/");

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
	return strncmp(c->request.path, "/_bench/", 8) == 0;
}

/* ----------------------------------------------------------------
 *		Requests
 * ----------------------------------------------------------------
 */

/* All of the request is there. */
static void
handle(Connection *c)
{
	HttpRequest *r = &c->request;
	int64_t		received = now_ns();

	c->answering = true;
	c->out.len = c->sent = 0;
	if (!is_control(c))
	{
		if (strcmp(r->method, "POST") == 0)
		{
			if (c->counted != resets)
				counts.connections++;
			c->counted = resets;
			reply_post(&c->out, r->path, r->in.data + r->head, r->body,
					   c->begun, received);
		}
		else if (strcmp(r->method, "GET") == 0)
			reply_get(&c->out, r->path);
		else
			reply_status(&c->out, "405 Method Not Allowed");
	}
	http_next(r);
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

static void
handle_head(Connection *c)
{
	if (!is_control(c))
	{
		c->in_flight = true;
		if (++counts.in_flight > counts.max_in_flight)
			counts.max_in_flight = counts.in_flight;
	}
	if (c->request.expects && c->request.in.len == c->request.head)
	{
		append(&c->out, "HTTP/1.1 100 Continue\r\n\r\n", 25);
		send_reply(c);
	}
}

/* Go as far as what was read allows. */
static void
proceed(Connection *c)
{
	while (!c->closed && !c->answering)
	{
		switch (http_proceed(&c->request))
		{
			case HTTP_HEAD:
				handle_head(c);
				break;
			case HTTP_COMPLETE:
				handle(c);
				break;
			case HTTP_BAD:
				drop(c);
				return;
			case HTTP_MORE:
				return;
		}
	}
}

static void
read_some(Connection *c)
{
	Buffer	   *in = &c->request.in;
	ssize_t		n;

	reserve(in, READ_SIZE);
	n = recv(c->fd, in->data + in->len, in->size - in->len, 0);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0)
	{
		drop(c);
		return;
	}
	if (in->len == 0)
		c->begun = now_ns();
	in->len += n;
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
			else if (c->answering)
				drop(c);		/* gone before its reply */
			else
				read_some(c);
		}
		free_closed();
	}
}
