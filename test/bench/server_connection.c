/*-------------------------------------------------------------------------
 *
 * server_connection.c
 *		Connections of the benchmark's local Postmark, and when they reply.
 *
 * test/bench/server_connection.c
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE
#include "server.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

static int	epoll_fd;
static int	timer_fd;			/* of the first delayed reply */
static Connection *first_delayed;	/* in order of due */
static Connection *last_delayed;
static Connection *closed_ones; /* freed once no event can name them */

void
die(const char *what)
{
	perror(what);
	exit(1);
}

int64_t
now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

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

/* There is nothing to read or to write until the reply. */
void
connection_rest(Connection *c)
{
	watch(c, EPOLLRDHUP);
}

/*
 * Reply later.  The delay is the same for all, but for those from before a
 * reset, so the place in the list is mostly its end.
 */
void
connection_reply_at(Connection *c, int64_t due)
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
	connection_rest(c);
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

/* Close; what names the connection may still do so until connections_free. */
void
connection_drop(Connection *c)
{
	end_delay(c);
	end_flight(c);
	close(c->fd);
	c->closed = true;
	c->next_closed = closed_ones;
	closed_ones = c;
}

/* No event names a closed connection any more. */
void
connections_free(void)
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
void
connection_reply(Connection *c)
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
			connection_drop(c);
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
		connection_drop(c);
		return;
	}
	c->answering = false;
	watch(c, EPOLLIN);
}

/* The next connection whose reply is due, or NULL and the timer is set. */
Connection *
connection_due(void)
{
	Connection *c = first_delayed;
	uint64_t	expired;

	if (c && c->due <= now_ns())
	{
		end_delay(c);
		return c;
	}
	if (read(timer_fd, &expired, sizeof(expired)) < 0 && errno != EAGAIN)
		die("timerfd");
	set_timer();
	return NULL;
}

void
connection_accept(int listen_fd)
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

/* The descriptor that is readable when a reply is due */
int
connections_timer(void)
{
	return timer_fd;
}

void
connections_begin(int epoll)
{
	epoll_fd = epoll;
	timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	if (timer_fd < 0)
		die("timerfd_create");
}
