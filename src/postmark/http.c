/*-------------------------------------------------------------------------
 *
 * http.c
 *		HTTP over libcurl for one process, driven by PostgreSQL's wait loop.
 *
 * The one idea: nothing here ever blocks but one WaitEventSet.  libcurl tells
 * us which sockets and which timer it wants watched; the sockets go into an
 * epoll descriptor of our own (a WaitEventSet of PostgreSQL 15 cannot drop a
 * socket again), and we sleep on three things: our latch, the postmaster's
 * death, that descriptor.  So a cancel, a termination or a wake-up is served
 * at once, whatever the network or the name server does.
 *
 * Three rules follow from libcurl living inside a backend:
 *
 * - No longjmp may pass through libcurl's frames, so callbacks never raise:
 *	 they take memory with MCXT_ALLOC_NO_OOM and make the transfer fail.
 *
 * - libcurl resolves names in threads, which inherit the signal mask.  A
 *	 signal handler of PostgreSQL must not run in one, so all signals are
 *	 blocked around every call that may start a thread.
 *
 * - What libcurl allocates belongs to a memory context all the same: each
 *	 request has a context of its own, child of the caller's, whose reset
 *	 callback takes the transfer out of libcurl.  An ERROR needs no PG_TRY.
 *
 * And two from what we send.  A mail must not go out twice.  libcurl repeats a
 * request by itself when a kept-alive connection turns out dead, so the body
 * is handed out piece by piece by a callback that remembers that it has begun;
 * after that no rewind and no second attempt is allowed.  The same memory
 * tells the caller whether a failed request may have had an effect.
 *
 * An answer to another request must not be taken for this one's.  So a kept
 * connection is looked at before it is written to: if there is anything to be
 * read, be it an end or an answer that nobody waits for, the request goes out
 * on a fresh one.  libcurl looks as well, but not each time and not at what
 * TLS has not opened yet.
 *
 * This is the only file that calls libcurl.  Its sockets are opened, watched and
 * judged in sockets.c.
 *
 * src/postmark/http.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#ifndef HAVE_SYS_EPOLL_H
#error "postmark_connector needs epoll, which Linux has"
#endif

#include <curl/curl.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "base/compat.h"
#include "base/wait_event.h"
#include "postmark/http.h"
#include "postmark/sockets.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/latch.h"
#include "base/clock.h"
#include "base/text.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

/*
 * Before 7.87 there is no CURLOPT_QUICK_EXIT: taking a transfer out while its
 * name is being looked up waits for the look-up, seconds long.
 */
#define PM_CURL_MIN 0x075700
#define PM_CURL_MIN_TEXT "7.87.0"

#if LIBCURL_VERSION_NUM < PM_CURL_MIN
#error "postmark_connector needs libcurl 7.87.0 or later"
#endif

#define PM_USER_AGENT "postmark_connector/" PM_VERSION

/* Connections kept open, and easy handles kept for the next request. */
#define PM_KEPT_CONNECTIONS 128
#define PM_KEPT_HANDLES 64

/* libcurl's own, which it takes for names that it has looked up, seconds */
#define PM_NAME_AGE_S 60

/*
 * libcurl ends a request at its time-out.  One of whose timer it has lost track,
 * as it does where memory runs out, is given up so much later, ms.
 */
#define PM_TIMER_GRACE_MS 1000

/* What a reply may spend on its header, 1xx replies and trailers included. */
#define PM_HEADER_MAX_BYTES (64 * 1024)
#define PM_HEADER_MAX_LINES 200

#define PM_REPLY_FIRST_CHUNK 4096

/* A server that asks for more patience than a day is not taken at its word. */
#define PM_RETRY_AFTER_MAX_S 86400L

/* A replaced file of authorities is noticed after this many seconds. */
#define PM_CA_CACHE_S 300

typedef enum PmHttpState
{
	PM_STATE_NEW,				/* not in the multi handle yet */
	PM_STATE_ACTIVE,			/* in it, and in active_requests */
	PM_STATE_DONE,				/* out of it, in done_requests */
	PM_STATE_TAKEN				/* out of it, given to its owner */
} PmHttpState;

static const char too_long[] = "the reply is longer than allowed";

struct PmHttpRequest
{
	dlist_node	node;			/* in active_requests or done_requests */
	MemoryContext context;		/* holds this struct and all it points to */
	MemoryContextCallback reset;
	void	   *owner;
	PmHttpState state;
	PmMoment	give_up_at;		/* see PM_TIMER_GRACE_MS */

	/* libcurl's, released by request_reset */
	CURL	   *easy;
	struct curl_slist *headers;

	/* the request */
	char	   *secret_header;	/* or NULL */
	const char *body;			/* the caller's */
	size_t		body_len;
	size_t		body_read;		/* handed to libcurl so far */
	bool		went_out;		/* libcurl began to send, headers at least */
	bool		reused;			/* on a connection that has served before */
	bool		stale;			/* which turned out not to be fit for it */
	bool		shortage;		/* this process had no socket for it */
	bool		early;			/* the reply began before all was handed out */

	/* the reply */
	char	   *reply;			/* NUL-terminated, or NULL */
	size_t		reply_len;
	size_t		reply_size;		/* allocated */
	size_t		reply_max;
	size_t		header_bytes;
	int			header_lines;
	long		retry_after_ms;

	/* the outcome, valid from PM_STATE_DONE on */
	CURLcode	code;
	long		status;
	const char *problem;		/* our words (static) in place of libcurl's */
	char		error_buffer[CURL_ERROR_SIZE];
};

/* All of it made at first use, in the process that uses it. */
static bool ready = false;
static bool global_done = false;
static bool broken = false;		/* the multi handle must be made anew */
static bool system_bundle = false;	/* the system's authorities are in a file */
static CURLM *multi = NULL;
static int	epoll_fd = -1;
static WaitEventSet *wait_set = NULL;
static CURL *kept_handles[PM_KEPT_HANDLES];
static int	n_kept_handles = 0;

/* When libcurl wants to be called. */
static PmMoment timer_due = PM_NEVER;

/*
 * What was kept before this moment is not used again: connections, authorities,
 * addresses of names.
 */
static PmMoment forgotten_at = PM_AT_ONCE;
static TimestampTz reload_seen = 0;

static dlist_head active_requests = DLIST_STATIC_INIT(active_requests);
static dlist_head done_requests = DLIST_STATIC_INIT(done_requests);
static int	finished = 0;		/* since pm_http_wait returned last */
static int	n_active = 0;

static void http_setup(void);
static void http_teardown(void);
static void request_reset(void *arg);
static void request_options(PmHttpRequest *request, const PmHttpSpec *spec);
static void freshness_options(CURL *easy);
static void add_header(PmHttpRequest *request, const char *line);
static bool restart(PmHttpRequest *request);
static void request_finish(PmHttpRequest *request, CURLcode code);
static void fail_all(CURLMcode code);
static void drive(bool kick);
static void collect(void);
static long timer_left_ms(void);
static PmMoment next_give_up(void);

static int	on_socket(CURL *easy, curl_socket_t fd, int what, void *arg,
					  void *socket_arg);
static int	on_timer(CURLM *handle, long timeout_ms, void *arg);
static curl_socket_t on_open_socket(void *arg, curlsocktype purpose,
									struct curl_sockaddr *address);
static int	on_close_socket(void *arg, curl_socket_t fd);
static int	on_before_send(void *arg, char *primary_ip, char *local_ip,
						   int primary_port, int local_port);
static size_t on_read_body(char *buffer, size_t size, size_t n, void *arg);
static int	on_seek_body(void *arg, curl_off_t offset, int origin);
static size_t on_reply(char *data, size_t size, size_t n, void *arg);
static size_t on_header(char *data, size_t size, size_t n, void *arg);

/*
 * Set an option or raise: an option that silently does not take (a libcurl
 * built without it) could cost verification or the limits.  No value is shown.
 */
#define CHECK_SETOPT(easy, option, value) \
	do { \
		CURLcode	setopt_code_ = curl_easy_setopt((easy), option, (value)); \
		if (setopt_code_ != CURLE_OK) \
			ereport(ERROR, \
					(errcode(setopt_code_ == CURLE_OUT_OF_MEMORY ? \
							 ERRCODE_OUT_OF_MEMORY : ERRCODE_INTERNAL_ERROR), \
					 errmsg("could not set libcurl option %s: %s", \
							#option, curl_easy_strerror(setopt_code_)))); \
	} while (0)

#define CHECK_MSETOPT(option, value) \
	do { \
		CURLMcode	setopt_code_ = curl_multi_setopt(multi, option, (value)); \
		if (setopt_code_ != CURLM_OK) \
			ereport(ERROR, \
					(errcode(ERRCODE_INTERNAL_ERROR), \
					 errmsg("could not set libcurl option %s: %s", \
							#option, curl_multi_strerror(setopt_code_)))); \
	} while (0)

/* Threads made from here to unblock_signals are born with all blocked. */
static void
block_signals(sigset_t *saved)
{
	sigset_t	all;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, saved);
}

static void
unblock_signals(const sigset_t *saved)
{
	sigprocmask(SIG_SETMASK, saved, NULL);
}

/* ----------------------------------------------------------------
 *		Requests
 * ----------------------------------------------------------------
 */

/*
 * pm_http_start
 *		Begin a request and send what the sockets take at once.
 *
 * Returns the request, which lives in a child of CurrentMemoryContext: it is
 * released by pm_http_release or with that context, whichever comes first; a
 * request not finished by then is broken off.  Strings in the spec are copied,
 * the body is not and must outlive the request.  Time-outs are in
 * milliseconds from now.
 *
 * Raises 0A000 if this libcurl cannot be used, and errors of memory or
 * descriptors; in all these cases nothing was sent.  Once this function
 * returns, whatever goes wrong comes as a PmHttpResult.
 */
PmHttpRequest *
pm_http_start(const PmHttpSpec *spec)
{
	MemoryContext context;
	PmHttpRequest *request;
	CURLMcode	code;
	sigset_t	saved;

	http_setup();

	/* Whoever reloads the configuration may have replaced a file it names. */
	if (reload_seen != PgReloadTime)
	{
		reload_seen = PgReloadTime;
		pm_http_forget();
	}

	context = AllocSetContextCreate(CurrentMemoryContext,
									"postmark HTTP request",
									ALLOCSET_DEFAULT_SIZES);
	request = MemoryContextAllocZero(context, sizeof(PmHttpRequest));
	request->context = context;
	request->owner = spec->owner;
	request->state = PM_STATE_NEW;
	if (spec->secret_header)
		request->secret_header = MemoryContextStrdup(context,
													 spec->secret_header);
	request->body = spec->body;
	request->body_len = spec->body ? spec->body_len : 0;
	request->reply_max = spec->max_reply;
	request->retry_after_ms = -1;

	/* From here on an ERROR gives everything back. */
	request->reset.func = request_reset;
	request->reset.arg = request;
	MemoryContextRegisterResetCallback(context, &request->reset);

	if (n_kept_handles > 0)
		request->easy = kept_handles[--n_kept_handles];
	else
		request->easy = curl_easy_init();
	if (request->easy == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("could not make a libcurl handle")));
	request_options(request, spec);

	block_signals(&saved);
	code = curl_multi_add_handle(multi, request->easy);
	unblock_signals(&saved);
	if (code != CURLM_OK)
		ereport(ERROR,
				(errcode(code == CURLM_OUT_OF_MEMORY ?
						 ERRCODE_OUT_OF_MEMORY : ERRCODE_INTERNAL_ERROR),
				 errmsg("could not start an HTTP request: %s",
						curl_multi_strerror(code))));

	request->state = PM_STATE_ACTIVE;
	request->give_up_at =
		pm_later(pm_moment(), spec->request_timeout_ms + PM_TIMER_GRACE_MS);
	dlist_push_tail(&active_requests, &request->node);
	n_active++;

	/*
	 * Don't leave the first step to the event loop: on a kept-alive
	 * connection it sends the whole of a small request.
	 */
	drive(true);

	return request;
}

/*
 * pm_http_forget
 *		Begin afresh: use no connection again that there is now, no
 *		authorities that were read, no address that was looked up.
 *
 * Requests under way go on.  A reload of the configuration does this by
 * itself.  Raises nothing.
 */
void
pm_http_forget(void)
{
	forgotten_at = pm_moment();
}

/*
 * pm_http_capacity
 *		How many requests this process may have under way at a time: as many
 *		as are certain to get a socket.
 *
 * The server lets us have a share of its descriptors.  To connect may take two
 * of them, one for each family of addresses, and connections are kept.
 */
int
pm_http_capacity(void)
{
	return Max(max_safe_fds / 3 / 2, 1);
}

/*
 * pm_http_owner
 *		The `owner` of the spec the request was started with.
 */
void *
pm_http_owner(PmHttpRequest *request)
{
	return request->owner;
}

/*
 * pm_http_next_done
 *		Take the request that finished first out of the list of finished ones;
 *		NULL if there is none.
 *
 * The caller reads it with pm_http_result and must release it.  Call this
 * until it returns NULL before sleeping in pm_http_wait, which does not wake
 * a second time for the same request.  Raises nothing.
 */
PmHttpRequest *
pm_http_next_done(void)
{
	PmHttpRequest *request;

	collect();
	if (dlist_is_empty(&done_requests))
		return NULL;

	request = dlist_container(PmHttpRequest, node,
							  dlist_pop_head_node(&done_requests));
	request->state = PM_STATE_TAKEN;
	return request;
}

/*
 * pm_http_result
 *		Fill *result with what came of a finished request.
 *
 * The strings in it belong to the request.  The phase never promises more than
 * is known: PM_HTTP_NOT_SENT means that no byte of the body left libcurl (of a
 * request without a body: that nothing was sent at all).  Raises only for lack
 * of memory, or if the request is not finished.
 */
void
pm_http_result(PmHttpRequest *request, PmHttpResult *result)
{
	MemoryContext old;
	const char *text;
	char	   *type = NULL;

	if (request->state != PM_STATE_DONE && request->state != PM_STATE_TAKEN)
		elog(ERROR, "HTTP request is not finished");

	memset(result, 0, sizeof(*result));
	result->status = request->status;
	result->reply = request->reply ? request->reply : "";
	result->reply_len = request->reply_len;
	result->retry_after_ms = request->retry_after_ms;
	(void) curl_easy_getinfo(request->easy, CURLINFO_CONTENT_TYPE, &type);
	if (type)
	{
		old = MemoryContextSwitchTo(request->context);
		result->media_type = pm_network_text(type, strlen(type));
		MemoryContextSwitchTo(old);
	}
	result->secret_header = request->secret_header;
	result->sent_len = request->body_len;
	result->early = request->early;
	result->shortage = request->shortage;
	result->timed_out = (request->code == CURLE_OPERATION_TIMEDOUT);
	result->too_long = (request->problem == too_long);

	if (request->code == CURLE_OK)
	{
		result->phase = PM_HTTP_REPLIED;
		return;
	}

	if (request->body_len > 0 ? request->body_read > 0 : request->went_out)
		result->phase = PM_HTTP_MAYBE_SENT;
	else
		result->phase = PM_HTTP_NOT_SENT;

	if (request->problem)
		text = request->problem;
	else if (request->error_buffer[0] != '\0')
		text = request->error_buffer;
	else
		text = curl_easy_strerror(request->code);

	old = MemoryContextSwitchTo(request->context);
	result->error = pm_network_text(text, strlen(text));
	MemoryContextSwitchTo(old);
}

/*
 * pm_http_release
 *		Free the request and all that pm_http_result gave out of it.
 *
 * A request that is still under way is broken off, its connection closed;
 * that does not wait for anything.  Raises nothing.
 */
void
pm_http_release(PmHttpRequest *request)
{
	MemoryContextDelete(request->context);
}

/*
 * pm_http_perform
 *		See one request through: wait until it is finished, then fill *result.
 *
 * Other requests of the process go on meanwhile; those that finish stay for
 * pm_http_next_done.  The request stays the caller's to release.  Raises
 * 57014 and the like from CHECK_FOR_INTERRUPTS within milliseconds of the
 * signal; the request is then broken off with its memory context.
 */
void
pm_http_perform(PmHttpRequest *request, PmHttpResult *result)
{
	collect();
	while (request->state == PM_STATE_ACTIVE)
	{
		pm_http_wait(-1, pm_wait_event(PM_WAIT_REPLY));
		CHECK_FOR_INTERRUPTS();
	}

	if (request->state == PM_STATE_DONE)
	{
		dlist_delete(&request->node);
		request->state = PM_STATE_TAKEN;
	}
	pm_http_result(request, result);
}

/*
 * pm_http_wait
 *		Sleep until the latch is set, a request finishes or moves, or
 *		timeout_ms milliseconds have passed (-1: no limit).
 *
 * Works without any request too, as a plain wait for the latch.  The latch is
 * reset: the caller then does CHECK_FOR_INTERRUPTS and looks for its own work,
 * and may be woken for no reason.  Exits the process if the postmaster dies.
 * Raises nothing of the network's; that comes as a PmHttpResult.
 */
void
pm_http_wait(long timeout_ms, uint32 wait_event_info)
{
	WaitEvent	events[3];
	int			n_events;
	PmMoment	due;

	/* A request may have finished within pm_http_start, or failed there. */
	collect();
	if (finished > 0)
	{
		finished = 0;
		return;
	}

	/* Of a multi handle that has failed nothing is left to be seen to. */
	if (!ready || broken)
	{
		int			wake = WL_LATCH_SET;

		if (IsUnderPostmaster)
			wake |= WL_EXIT_ON_PM_DEATH;
		if (timeout_ms >= 0)
			wake |= WL_TIMEOUT;
		if (WaitLatch(MyLatch, wake, timeout_ms, wait_event_info) & WL_LATCH_SET)
			ResetLatch(MyLatch);
		return;
	}

	due = Min(timer_due, next_give_up());
	if (due != PM_NEVER)
	{
		long		due_ms = pm_ms_until(due);

		if (timeout_ms < 0 || due_ms < timeout_ms)
			timeout_ms = due_ms;
	}

	n_events = WaitEventSetWait(wait_set, timeout_ms, events, lengthof(events),
								wait_event_info);
	for (int i = 0; i < n_events; i++)
	{
		if (events[i].events & WL_LATCH_SET)
			ResetLatch(MyLatch);
	}

	/*
	 * Look at the sockets whatever woke us: a latch that is set already hides
	 * them from WaitEventSetWait, and a busy one must not starve them.  There
	 * may be some without a request: newer versions of libcurl wait for a TLS
	 * peer to take its leave, too.
	 */
	drive(false);
	collect();
	finished = 0;
}

/*
 * pm_http_escape
 *		Append text to buf with every byte but RFC 3986's unreserved ones
 *		percent-encoded.
 *
 * Our own, because curl_easy_escape would hand out memory that an ERROR of
 * the StringInfo leaks.  "." and ".." come out as they are: the caller must
 * not accept them where a path segment goes.
 */
void
pm_http_escape(StringInfo buf, const char *text)
{
	static const char hex[] = "0123456789ABCDEF";

	for (const char *p = text; *p != '\0'; p++)
	{
		unsigned char c = (unsigned char) *p;

		if ((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
			(c >= '0' && c <= '9') ||
			c == '-' || c == '.' || c == '_' || c == '~')
			appendStringInfoChar(buf, (char) c);
		else
		{
			appendStringInfoChar(buf, '%');
			appendStringInfoChar(buf, hex[c >> 4]);
			appendStringInfoChar(buf, hex[c & 0x0F]);
		}
	}
}

/*
 * Called when the request's context goes, at any point of its life and during
 * an abort too: must not raise, must not wait.
 */
static void
request_reset(void *arg)
{
	PmHttpRequest *request = (PmHttpRequest *) arg;

	if (request->state == PM_STATE_ACTIVE)
	{
		/* CURLOPT_QUICK_EXIT: does not wait for a name being looked up */
		curl_multi_remove_handle(multi, request->easy);
		n_active--;
	}
	if (request->state == PM_STATE_ACTIVE || request->state == PM_STATE_DONE)
		dlist_delete(&request->node);

	if (request->easy != NULL)
	{
		/*
		 * Only a handle that did its work is used again: some versions keep
		 * the traces of a failed rewind across curl_easy_reset (curl issue
		 * 18206).
		 */
		if (request->state >= PM_STATE_DONE && request->code == CURLE_OK &&
			n_kept_handles < PM_KEPT_HANDLES)
		{
			curl_easy_reset(request->easy);
			kept_handles[n_kept_handles++] = request->easy;
		}
		else
			curl_easy_cleanup(request->easy);
		request->easy = NULL;
	}

	curl_slist_free_all(request->headers);
	request->headers = NULL;
	if (request->secret_header)
		explicit_bzero(request->secret_header, strlen(request->secret_header));
	request->state = PM_STATE_TAKEN;
}

/* Every option of the transfer.  May raise: libcurl is not on the stack. */
static void
request_options(PmHttpRequest *request, const PmHttpSpec *spec)
{
	CURL	   *easy = request->easy;
	bool		has_ca_file = spec->ca_file && spec->ca_file[0] != '\0';

	CHECK_SETOPT(easy, CURLOPT_PRIVATE, (void *) request);
	CHECK_SETOPT(easy, CURLOPT_ERRORBUFFER, request->error_buffer);
	CHECK_SETOPT(easy, CURLOPT_VERBOSE, 0L);
	CHECK_SETOPT(easy, CURLOPT_NOPROGRESS, 1L);

	/* no SIGALRM, and no waiting for a resolver thread */
	CHECK_SETOPT(easy, CURLOPT_NOSIGNAL, 1L);
	CHECK_SETOPT(easy, CURLOPT_QUICK_EXIT, 1L);

	/* where to, and by no other way: a redirect would take the token along */
	CHECK_SETOPT(easy, CURLOPT_PROTOCOLS_STR, "http,https");
	CHECK_SETOPT(easy, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
	CHECK_SETOPT(easy, CURLOPT_URL, spec->url);
	CHECK_SETOPT(easy, CURLOPT_PATH_AS_IS, 1L);
	CHECK_SETOPT(easy, CURLOPT_DISALLOW_USERNAME_IN_URL, 1L);
	CHECK_SETOPT(easy, CURLOPT_FOLLOWLOCATION, 0L);
	CHECK_SETOPT(easy, CURLOPT_MAXREDIRS, 0L);
	CHECK_SETOPT(easy, CURLOPT_NETRC, (long) CURL_NETRC_IGNORED);

	/* explicitly empty, else the server's environment decides */
	CHECK_SETOPT(easy, CURLOPT_PROXY, spec->proxy ? spec->proxy : "");
	CHECK_SETOPT(easy, CURLOPT_NOPROXY, "");
	CHECK_SETOPT(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);

	CHECK_SETOPT(easy, CURLOPT_SSLVERSION, (long) CURL_SSLVERSION_TLSv1_2);
	CHECK_SETOPT(easy, CURLOPT_SSL_VERIFYPEER, 1L);
	CHECK_SETOPT(easy, CURLOPT_SSL_VERIFYHOST, 2L);
	if (has_ca_file)
		CHECK_SETOPT(easy, CURLOPT_CAINFO, spec->ca_file);

	/*
	 * No directory beside the file.  Beside the caller's it would let in all
	 * of the system's authorities; beside the system's own it adds nothing,
	 * but libcurl keeps a parsed file for the next connection only without
	 * one, and parsing blocks the loop for some 18 ms.
	 */
	if (has_ca_file || system_bundle)
		CHECK_SETOPT(easy, CURLOPT_CAPATH, (char *) NULL);

	/* A session that is taken up again is not verified again. */
	CHECK_SETOPT(easy, CURLOPT_SSL_SESSIONID_CACHE, 0L);
	freshness_options(easy);

	/*
	 * HTTP/1.1: each request in flight has a connection of its own, so that a
	 * slow one delays no other.
	 */
	CHECK_SETOPT(easy, CURLOPT_HTTP_VERSION, (long) CURL_HTTP_VERSION_1_1);
	CHECK_SETOPT(easy, CURLOPT_TCP_NODELAY, 1L);
	CHECK_SETOPT(easy, CURLOPT_CONNECTTIMEOUT_MS,
				 (long) Max(spec->connect_timeout_ms, 1));
	CHECK_SETOPT(easy, CURLOPT_TIMEOUT_MS,
				 (long) Max(spec->request_timeout_ms, 1));
	CHECK_SETOPT(easy, CURLOPT_OPENSOCKETFUNCTION, on_open_socket);
	CHECK_SETOPT(easy, CURLOPT_OPENSOCKETDATA, request);
	CHECK_SETOPT(easy, CURLOPT_CLOSESOCKETFUNCTION, on_close_socket);

	/* "Expect:" so that no large body waits a second for a 100 Continue */
	add_header(request, "Accept: application/json");
	add_header(request, "Expect:");
	if (request->body_len > 0)
		add_header(request, "Content-Type: application/json");
	if (spec->secret_header)
	{
		if (strpbrk(spec->secret_header, "\r\n") != NULL)
			elog(ERROR, "HTTP header contains a line break");
		add_header(request, spec->secret_header);
	}
	CHECK_SETOPT(easy, CURLOPT_HTTPHEADER, request->headers);
	CHECK_SETOPT(easy, CURLOPT_HEADEROPT, (long) CURLHEADER_SEPARATE);
	CHECK_SETOPT(easy, CURLOPT_USERAGENT, PM_USER_AGENT);

	/*
	 * POSTFIELDS would be simpler for the body, but then libcurl could repeat
	 * it, and nobody would know how far it got.
	 */
	CHECK_SETOPT(easy, CURLOPT_PREREQFUNCTION, on_before_send);
	CHECK_SETOPT(easy, CURLOPT_PREREQDATA, request);
	if (strcmp(spec->method, "GET") == 0)
	{
		Assert(request->body_len == 0);
		CHECK_SETOPT(easy, CURLOPT_HTTPGET, 1L);
	}
	else
	{
		CHECK_SETOPT(easy, CURLOPT_POST, 1L);
		if (strcmp(spec->method, "POST") != 0)
			CHECK_SETOPT(easy, CURLOPT_CUSTOMREQUEST, spec->method);
		if (request->body_len > 0)
		{
			CHECK_SETOPT(easy, CURLOPT_POSTFIELDSIZE_LARGE,
						 (curl_off_t) request->body_len);
			CHECK_SETOPT(easy, CURLOPT_READFUNCTION, on_read_body);
			CHECK_SETOPT(easy, CURLOPT_READDATA, request);
			CHECK_SETOPT(easy, CURLOPT_SEEKFUNCTION, on_seek_body);
			CHECK_SETOPT(easy, CURLOPT_SEEKDATA, request);
		}
		else
		{
			CHECK_SETOPT(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t) 0);
			CHECK_SETOPT(easy, CURLOPT_POSTFIELDS, "");
		}
	}

	/* MAXFILESIZE sees only what Content-Length announces; on_reply the rest */
	CHECK_SETOPT(easy, CURLOPT_MAXFILESIZE_LARGE,
				 (curl_off_t) request->reply_max);
	CHECK_SETOPT(easy, CURLOPT_WRITEFUNCTION, on_reply);
	CHECK_SETOPT(easy, CURLOPT_WRITEDATA, request);
	CHECK_SETOPT(easy, CURLOPT_HEADERFUNCTION, on_header);
	CHECK_SETOPT(easy, CURLOPT_HEADERDATA, request);
}

/*
 * How old may be what libcurl has read and looked up: as old as such things
 * get, but not from before forgotten_at.  It counts whole seconds, so that for
 * a moment it keeps nothing at all, which is what zero means.
 */
static void
freshness_options(CURL *easy)
{
	long		since = PM_CA_CACHE_S;

	if (forgotten_at != PM_AT_ONCE)
		since = (long) Min((pm_moment() - forgotten_at) / 1000000,
						   (int64) PM_CA_CACHE_S);
	CHECK_SETOPT(easy, CURLOPT_CA_CACHE_TIMEOUT, since);
	CHECK_SETOPT(easy, CURLOPT_DNS_CACHE_TIMEOUT,
				 Min(since, (long) PM_NAME_AGE_S));
}

/* Append a header line; libcurl copies it.  The list is never half-owned. */
static void
add_header(PmHttpRequest *request, const char *line)
{
	struct curl_slist *longer = curl_slist_append(request->headers, line);

	if (longer == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory"),
				 errdetail("Failed while building an HTTP header.")));
	request->headers = longer;
}

/*
 * Begin a request anew, on a connection of its own, that was given a kept one
 * which was not fit for it.  Nothing of it has gone out.  False if libcurl will
 * not have it; it is then out of the multi handle.
 */
static bool
restart(PmHttpRequest *request)
{
	sigset_t	saved;
	bool		ok;

	Assert(request->body_read == 0 && !request->went_out);

	request->stale = false;
	request->problem = NULL;
	request->error_buffer[0] = '\0';
	block_signals(&saved);
	curl_multi_remove_handle(multi, request->easy);
	ok = curl_easy_setopt(request->easy, CURLOPT_FRESH_CONNECT, 1L) == CURLE_OK &&
		curl_multi_add_handle(multi, request->easy) == CURLM_OK;
	unblock_signals(&saved);
	return ok;
}

/* Move an active request to the finished ones, with libcurl's verdict. */
static void
request_finish(PmHttpRequest *request, CURLcode code)
{
	long		status = 0;

	Assert(request->state == PM_STATE_ACTIVE);

	/*
	 * What befell a connection that was kept may have befallen the others:
	 * nobody should wait for each of them.
	 */
	if (code != CURLE_OK && request->reused)
		pm_http_forget();

	request->code = code;
	if (curl_easy_getinfo(request->easy, CURLINFO_RESPONSE_CODE,
						  &status) == CURLE_OK)
		request->status = status;

	/* Our words where libcurl's would only puzzle. */
	if (request->problem == NULL)
	{
		if (code == CURLE_SEND_FAIL_REWIND)
			request->problem = "the server closed the connection without a reply";
		else if (code == CURLE_FILESIZE_EXCEEDED)
			request->problem = too_long;
		else if (code == CURLE_OUT_OF_MEMORY && status != 0)
			/* what libcurl says of a header line beyond its own limit */
			request->problem = "the header of the reply is longer than allowed, or memory ran out";
		else if (code != CURLE_OK && request->shortage)
			request->problem = "this process has no descriptor left for a connection";
	}

	/* Hands the connection back to the pool, or closes it after a failure. */
	curl_multi_remove_handle(multi, request->easy);

	dlist_delete(&request->node);
	dlist_push_tail(&done_requests, &request->node);
	request->state = PM_STATE_DONE;
	n_active--;
	finished++;
}

/*
 * The multi handle itself has failed (memory, an internal error).  Finish what
 * is under way, each with its honest phase, and start afresh next time: an
 * ERROR here would hide from the caller what may have been sent.
 */
static void
fail_all(CURLMcode code)
{
	dlist_mutable_iter iter;

	broken = true;
	dlist_foreach_modify(iter, &active_requests)
	{
		PmHttpRequest *request = dlist_container(PmHttpRequest, node, iter.cur);

		if (request->problem == NULL)
			request->problem = curl_multi_strerror(code);
		request_finish(request, CURLE_FAILED_INIT);
	}
}

/* ----------------------------------------------------------------
 *		The event loop
 * ----------------------------------------------------------------
 */

/*
 * Make the multi handle, the epoll descriptor and the wait set, once.  If it
 * fails half-way it raises, and the next call begins anew.
 */
static void
http_setup(void)
{
	curl_version_info_data *info;

	if (ready && !broken)
		return;

	/* inherited by fork, libcurl's and OpenSSL's state would be shared */
	if (!IsUnderPostmaster && IsPostmasterEnvironment)
		elog(ERROR, "HTTP cannot be used in the postmaster");

	http_teardown();

	reload_seen = PgReloadTime;

	/* The one we were compiled with need not be the one we run with. */
	info = curl_version_info(CURLVERSION_NOW);
	if (info->version_num < PM_CURL_MIN)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("libcurl %s is too old", info->version),
				 errhint("Install libcurl %s or later and restart the server.",
						 PM_CURL_MIN_TEXT)));
	if ((info->features & CURL_VERSION_ASYNCHDNS) == 0 ||
		(info->features & CURL_VERSION_SSL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("libcurl %s lacks TLS or asynchronous name resolution",
						info->version),
				 errhint("Install a libcurl built with both and restart the server.")));

	if (!global_done)
	{
		sigset_t	saved;
		CURLcode	code;

		block_signals(&saved);
		code = curl_global_init(CURL_GLOBAL_DEFAULT);
		unblock_signals(&saved);
		if (code != CURLE_OK)
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("could not initialize libcurl: %s",
							curl_easy_strerror(code))));
		global_done = true;
	}

	/* cainfo is there from CURLVERSION_SEVENTH on, libcurl 7.70 */
	system_bundle = info->cainfo != NULL && access(info->cainfo, R_OK) == 0;

	multi = curl_multi_init();
	if (multi == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("could not make a libcurl multi handle")));
	CHECK_MSETOPT(CURLMOPT_SOCKETFUNCTION, on_socket);
	CHECK_MSETOPT(CURLMOPT_TIMERFUNCTION, on_timer);
	CHECK_MSETOPT(CURLMOPT_MAXCONNECTS,
				  (long) Max(Min(PM_KEPT_CONNECTIONS, max_safe_fds / 3 / 4), 1));
	CHECK_MSETOPT(CURLMOPT_PIPELINING, (long) CURLPIPE_NOTHING);

	pm_sockets_setup();
	if (!AcquireExternalFD())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("too many open files"),
				 errhint("Raise the operating system's limit of open files.")));
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (epoll_fd < 0)
	{
		ReleaseExternalFD();
		ereport(ERROR,
				(errcode_for_socket_access(),
				 errmsg("could not make an epoll descriptor: %m")));
	}

	wait_set = CreateWaitEventSet(NULL, 3);
	AddWaitEventToSet(wait_set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	if (IsUnderPostmaster)
		AddWaitEventToSet(wait_set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET,
						  NULL, NULL);
	AddWaitEventToSet(wait_set, WL_SOCKET_READABLE, epoll_fd, NULL, NULL);

	ready = true;
}

/* Undo http_setup, complete or not.  Never called at exit: it may take time. */
static void
http_teardown(void)
{
	Assert(n_active == 0);

	ready = false;
	broken = false;
	timer_due = PM_NEVER;
	if (multi)
	{
		curl_multi_cleanup(multi);	/* closes the pool's connections */
		multi = NULL;
	}
	if (wait_set)
	{
		FreeWaitEventSet(wait_set);
		wait_set = NULL;
	}
	if (epoll_fd >= 0)
	{
		close(epoll_fd);
		epoll_fd = -1;
		ReleaseExternalFD();
	}
}

/*
 * Let libcurl work on every socket that is ready and on a timer that is due;
 * kick: whether or not it is due.  Never sleeps, never raises.
 */
static void
drive(bool kick)
{
	struct epoll_event events[64];
	sigset_t	saved;
	CURLMcode	code = CURLM_OK;
	int			running;
	int			n = 0;

	block_signals(&saved);

	if (!kick)
		n = epoll_wait(epoll_fd, events, lengthof(events), 0);
	for (int i = 0; i < n && code == CURLM_OK; i++)
	{
		int			ready_for = 0;

		if (events[i].events & EPOLLIN)
			ready_for |= CURL_CSELECT_IN;
		if (events[i].events & EPOLLOUT)
			ready_for |= CURL_CSELECT_OUT;

		/*
		 * An error alone: let libcurl run into it, so that it finds a reply
		 * that came before it and the reason.
		 */
		if (ready_for == 0)
			ready_for = CURL_CSELECT_IN | CURL_CSELECT_OUT;

		/*
		 * A socket closed since, by an earlier one of this round, does no
		 * harm: libcurl ignores numbers it does not know, and tries a new
		 * socket of that number in vain.
		 */
		code = curl_multi_socket_action(multi, events[i].data.fd, ready_for,
										&running);
	}

	if (code == CURLM_OK && (kick || timer_left_ms() == 0))
	{
		timer_due = PM_NEVER;	/* it fires once; libcurl sets the next */
		code = curl_multi_socket_action(multi, CURL_SOCKET_TIMEOUT, 0,
										&running);
	}

	unblock_signals(&saved);

	if (code != CURLM_OK)
		fail_all(code);
}

/* When the first of the requests under way is to be given up. */
static PmMoment
next_give_up(void)
{
	PmMoment	next = PM_NEVER;
	dlist_iter	iter;

	dlist_foreach(iter, &active_requests)
	{
		PmHttpRequest *request = dlist_container(PmHttpRequest, node, iter.cur);

		next = Min(next, request->give_up_at);
	}
	return next;
}

/* Finish those that libcurl should have ended long ago. */
static void
give_up_overdue(void)
{
	PmMoment	now = pm_moment();
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &active_requests)
	{
		PmHttpRequest *request = dlist_container(PmHttpRequest, node, iter.cur);

		if (request->give_up_at > now)
			continue;
		request->problem = "there was no answer within the time-out";
		request_finish(request, CURLE_OPERATION_TIMEDOUT);
	}
}

/* Move what libcurl has finished to done_requests. */
static void
collect(void)
{
	int			left;
	CURLMsg    *message;

	if (n_active == 0)
		return;

	give_up_overdue();
	while ((message = curl_multi_info_read(multi, &left)) != NULL)
	{
		PmHttpRequest *request = NULL;
		CURLcode	code;

		if (message->msg != CURLMSG_DONE)
			continue;

		/* the message dies when its handle is removed */
		code = message->data.result;
		if (curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE,
							  (char **) &request) != CURLE_OK ||
			request == NULL)
			continue;
		if (request->stale && restart(request))
			continue;
		request_finish(request, code);
	}
}

/* Milliseconds until libcurl's timer, rounded up; 0: due; -1: none. */
static long
timer_left_ms(void)
{
	return timer_due == PM_NEVER ? -1 : pm_ms_until(timer_due);
}

/* ----------------------------------------------------------------
 *		libcurl's callbacks: none may raise
 * ----------------------------------------------------------------
 */

/* libcurl's wishes for a socket go into our epoll descriptor. */
static int
on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket_arg)
{
	struct epoll_event event;

	memset(&event, 0, sizeof(event));
	event.data.fd = fd;

	if (what == CURL_POLL_REMOVE)
	{
		/* ENOENT, EBADF: closed already, and so out of the set by itself */
		(void) epoll_ctl(epoll_fd, EPOLL_CTL_DEL, fd, &event);
		return 0;
	}

	if (what == CURL_POLL_IN || what == CURL_POLL_INOUT)
		event.events |= EPOLLIN;
	if (what == CURL_POLL_OUT || what == CURL_POLL_INOUT)
		event.events |= EPOLLOUT;

	/*
	 * If the kernel cannot watch it, the transfer runs into its time-out.  An
	 * error returned from here would make libcurl give up every other
	 * transfer as well.
	 */
	if (epoll_ctl(epoll_fd, EPOLL_CTL_MOD, fd, &event) < 0 && errno == ENOENT)
		(void) epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event);
	return 0;
}

static int
on_timer(CURLM *handle, long timeout_ms, void *arg)
{
	if (timeout_ms < 0)
		timer_due = PM_NEVER;
	else
		timer_due = pm_later(pm_moment(), timeout_ms);
	return 0;
}

/* Opens what libcurl is about to connect. */
static curl_socket_t
on_open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
	PmHttpRequest *request = (PmHttpRequest *) arg;
	int			fd;

	fd = pm_socket_open(address->family, address->socktype, address->protocol,
						&request->shortage);
	return fd < 0 ? CURL_SOCKET_BAD : fd;
}

/* Also called for a pooled connection, long after its request. */
static int
on_close_socket(void *arg, curl_socket_t fd)
{
	return pm_socket_close(fd);
}

/*
 * Before each attempt to send on an established connection.  A second attempt
 * is welcome while the body is untouched, and refused once libcurl has read of
 * it: libcurl rewinds only what it counts as written, so it would come without
 * the seek below, and without the bytes read already.
 */
static int
on_before_send(void *arg, char *primary_ip, char *local_ip, int primary_port,
			   int local_port)
{
	PmHttpRequest *request = (PmHttpRequest *) arg;
	bool		fit;

	if (request->body_read > 0)
	{
		request->problem = "the server closed the connection without a reply";
		return CURL_PREREQFUNC_ABORT;
	}
	request->reused = pm_socket_take(local_port, forgotten_at, &fit);
	if (!fit)
	{
		request->stale = true;
		return CURL_PREREQFUNC_ABORT;
	}
	request->went_out = true;
	return CURL_PREREQFUNC_OK;
}

static size_t
on_read_body(char *buffer, size_t size, size_t n, void *arg)
{
	PmHttpRequest *request = (PmHttpRequest *) arg;
	size_t		chunk = Min(size * n, request->body_len - request->body_read);

	memcpy(buffer, request->body + request->body_read, chunk);
	request->body_read += chunk;
	return chunk;
}

/* libcurl wants to send the body again: only if none of it can be out. */
static int
on_seek_body(void *arg, curl_off_t offset, int origin)
{
	PmHttpRequest *request = (PmHttpRequest *) arg;

	if (request->body_read > 0 || offset != 0 || origin != SEEK_SET)
		return CURL_SEEKFUNC_FAIL;
	return CURL_SEEKFUNC_OK;
}

static size_t
on_reply(char *data, size_t size, size_t n, void *arg)
{
	PmHttpRequest *request = (PmHttpRequest *) arg;
	size_t		len = size * n;

	if (len > request->reply_max - request->reply_len)
	{
		request->problem = too_long;
		return CURL_WRITEFUNC_ERROR;
	}

	if (request->reply_len + len + 1 > request->reply_size)
	{
		size_t		needed = request->reply_len + len + 1;
		size_t		larger = Max(request->reply_size * 2, PM_REPLY_FIRST_CHUNK);
		char	   *copy;

		larger = Max(Min(larger, request->reply_max + 1), needed);

		/* repalloc would raise for lack of memory */
		copy = MemoryContextAllocExtended(request->context, larger,
										  MCXT_ALLOC_HUGE | MCXT_ALLOC_NO_OOM);
		if (copy == NULL)
		{
			request->problem = "out of memory for the reply";
			return CURL_WRITEFUNC_ERROR;
		}
		if (request->reply)
		{
			memcpy(copy, request->reply, request->reply_len);
			pfree(request->reply);
		}
		request->reply = copy;
		request->reply_size = larger;
	}

	memcpy(request->reply + request->reply_len, data, len);
	request->reply_len += len;
	request->reply[request->reply_len] = '\0';
	return len;
}

/*
 * Milliseconds to wait from the value of a Retry-After header, in seconds or
 * as an HTTP date, between 0 and a day; -1 if it is neither.
 */
static long
parse_retry_after(const char *value, size_t len)
{
	char		text[64];
	long		seconds = 0;
	size_t		digits = 0;
	time_t		when;

	while (len > 0 && (value[0] == ' ' || value[0] == '\t'))
		value++, len--;
	while (len > 0 && (value[len - 1] == ' ' || value[len - 1] == '\t' ||
					   value[len - 1] == '\r' || value[len - 1] == '\n'))
		len--;
	if (len == 0)
		return -1;

	while (digits < len && value[digits] >= '0' && value[digits] <= '9')
	{
		seconds = Min(seconds * 10 + (value[digits] - '0'),
					  PM_RETRY_AFTER_MAX_S);
		digits++;
	}
	if (digits < len)
	{
		if (len >= sizeof(text))
			return -1;
		memcpy(text, value, len);
		text[len] = '\0';
		when = curl_getdate(text, NULL);
		if (when == (time_t) -1)
			return -1;
		when -= time(NULL);
		seconds = when < 0 ? 0 :
			when > PM_RETRY_AFTER_MAX_S ? PM_RETRY_AFTER_MAX_S : (long) when;
	}
	return seconds * 1000;
}

/* Bounds the header, and takes from it the one field that matters to us. */
static size_t
on_header(char *data, size_t size, size_t n, void *arg)
{
	static const char name[] = "retry-after:";
	const size_t name_len = sizeof(name) - 1;
	PmHttpRequest *request = (PmHttpRequest *) arg;
	size_t		len = size * n;

	request->header_bytes += len;
	request->header_lines++;
	if (request->header_bytes > PM_HEADER_MAX_BYTES ||
		request->header_lines > PM_HEADER_MAX_LINES)
	{
		request->problem = "the header of the reply is longer than allowed";
		return CURL_WRITEFUNC_ERROR;
	}

	/*
	 * A status line begins a reply: what a 1xx before it said is void.  What
	 * comes of a proxy on the way there is not the reply.
	 */
	if (len >= 5 && memcmp(data, "HTTP/", 5) == 0)
	{
		request->retry_after_ms = -1;
		request->early = (request->went_out &&
						  request->body_read < request->body_len);
	}
	else if (len > name_len && pg_strncasecmp(data, name, name_len) == 0)
		request->retry_after_ms = parse_retry_after(data + name_len,
													len - name_len);
	return len;
}
