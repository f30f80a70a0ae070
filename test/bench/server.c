/*-------------------------------------------------------------------------
 *
 * server.c
 *		The benchmark's local Postmark: accepts every message, at once or
 *		after a delay that is the same for each request.
 *
 * It must never be what limits a measure.  So it is one thread around epoll
 * that holds any number of requests at a time (server_connection.c), and looks
 * at no more of a request than it has to (server_http.c, server_mail.c).
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
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_SIZE	(256 * 1024)
#define MAX_WAITING	16

static int	epoll_fd;
static int	listen_fd;
static int64_t delay;			/* ns */
static unsigned resets = 1;
static Connection *waiting[MAX_WAITING];

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

		if (c && !c->closed && counts.messages >= c->wait_messages)
		{
			waiting[i] = NULL;
			reply_stats(&c->out);
			connection_reply(c);
		}
	}
}

/* Those who have given up waiting */
static void
forget_closed(void)
{
	for (int i = 0; i < MAX_WAITING; i++)
		if (waiting[i] && waiting[i]->closed)
			waiting[i] = NULL;
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
			connection_drop(waiting[i]);
		c->wait_messages = (long) parameter(c, "messages=");
		waiting[i] = c;
		connection_rest(c);
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
	connection_reply(c);
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
			connection_reply_at(c, received + delay);
		else
			connection_reply(c);
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
		connection_reply(c);
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
				connection_drop(c);
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
		connection_drop(c);
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
	Connection *c;

	while ((c = connection_due()) != NULL)
	{
		connection_reply(c);
		proceed(c);
	}
}

/* ----------------------------------------------------------------
 *		The loop
 * ----------------------------------------------------------------
 */

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
	connections_begin(epoll_fd);
	event.data.ptr = &listen_fd;
	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listen_fd, &event) < 0)
		die("epoll_ctl");
	event.data.ptr = &delay;	/* stands for the timer */
	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, connections_timer(), &event) < 0)
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
				connection_accept(listen_fd);
			else if (events[i].data.ptr == &delay)
				send_due();
			else if (c->closed)
				continue;
			else if (events[i].events & EPOLLOUT)
			{
				connection_reply(c);
				proceed(c);
			}
			else if (c->answering)
				connection_drop(c);	/* gone before its reply */
			else
				read_some(c);
		}
		forget_closed();
		connections_free();
	}
}
