/*-------------------------------------------------------------------------
 *
 * sockets.c
 *		The sockets under HTTP: opened, watched, and judged before they are
 *		used again.
 *
 * An answer to another request must not be taken for this one's, and a
 * connection that is dead already must not cost a request an attempt.  So each
 * socket is known here from its opening on, and one that was kept is looked at
 * before it is written to.
 *
 * All of this is called from libcurl's callbacks: nothing but the set-up raises
 * or allocates.
 *
 * src/postmark/sockets.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "postmark/sockets.h"
#include "storage/fd.h"
#include "utils/memutils.h"

/*
 * A connection serves for so many seconds at most, else one under steady
 * traffic would never learn of another address of the server's.
 */
#define PM_CONNECTION_AGE_S 60

/*
 * A peer may be gone without a word, as behind a router that has forgotten the
 * connection.  The kernel asks after an idle one, and gives up what has not
 * been acknowledged for so long: seconds, seconds, times, ms.
 */
#define PM_KEEPALIVE_IDLE_S 15
#define PM_KEEPALIVE_INTERVAL_S 5
#define PM_KEEPALIVE_COUNT 3
#define PM_UNACKNOWLEDGED_MS 10000

/*
 * What the kernel may take of a request and not send yet, bytes: what was
 * handed out is to be nearly what is on its way.
 */
#define PM_UNSENT_BYTES (64 * 1024)

/* One that is in use or kept */
typedef struct PmSocket
{
	int			fd;
	int			local_port;		/* 0: not asked for yet */
	bool		used;			/* has carried a request */
	PmMoment	opened_at;
} PmSocket;

/* At most as many as the server lets us have */
static PmSocket *sockets = NULL;
static int	n_sockets = 0;
static int	max_sockets = 0;

/*
 * pm_sockets_setup
 *		Make room for as many sockets as this process can have.  Raises for lack
 *		of memory.
 */
void
pm_sockets_setup(void)
{
	if (sockets != NULL)
		return;

	/* As many as AcquireExternalFD gives, at most */
	max_sockets = max_safe_fds / 3 + 1;
	sockets = MemoryContextAlloc(TopMemoryContext,
								 sizeof(PmSocket) * max_sockets);
}

/*
 * Find out that a peer is gone, which says nothing, and how far it has come
 * with a request.  Not to be able to is no reason not to connect.
 */
static void
watch_peer(int fd)
{
	static const struct
	{
		int			level;
		int			name;
		int			value;
	}			options[] = {
		{SOL_SOCKET, SO_KEEPALIVE, 1},
		{IPPROTO_TCP, TCP_KEEPIDLE, PM_KEEPALIVE_IDLE_S},
		{IPPROTO_TCP, TCP_KEEPINTVL, PM_KEEPALIVE_INTERVAL_S},
		{IPPROTO_TCP, TCP_KEEPCNT, PM_KEEPALIVE_COUNT},
		{IPPROTO_TCP, TCP_USER_TIMEOUT, PM_UNACKNOWLEDGED_MS},
		{IPPROTO_TCP, TCP_NOTSENT_LOWAT, PM_UNSENT_BYTES},
	};

	for (int i = 0; i < lengthof(options); i++)
		(void) setsockopt(fd, options[i].level, options[i].name,
						  &options[i].value, sizeof(options[i].value));
}

/*
 * pm_socket_open
 *		A new socket, which counts against the descriptors that the server lets
 *		us have.
 *
 * Returns its descriptor, to be closed by pm_socket_close, or -1; *shortage is
 * then set to whether this process had none left.  Raises nothing.
 */
int
pm_socket_open(int family, int type, int protocol, bool *shortage)
{
	int			fd;

	if (n_sockets == max_sockets || !AcquireExternalFD())
	{
		*shortage = true;
		return -1;
	}
	fd = socket(family, type | SOCK_CLOEXEC, protocol);
	if (fd < 0)
	{
		*shortage = (errno == EMFILE || errno == ENFILE);
		ReleaseExternalFD();
		return -1;
	}
	watch_peer(fd);
	sockets[n_sockets].fd = fd;
	sockets[n_sockets].local_port = 0;
	sockets[n_sockets].opened_at = pm_moment();
	sockets[n_sockets++].used = false;
	return fd;
}

/*
 * pm_socket_close
 *		Close it.  Returns what close() does; raises nothing.
 */
int
pm_socket_close(int fd)
{
	int			result = close(fd);

	ReleaseExternalFD();
	for (int i = 0; i < n_sockets; i++)
	{
		if (sockets[i].fd == fd)
		{
			sockets[i] = sockets[--n_sockets];
			break;
		}
	}
	return result;
}

/* Local port of a connected socket, 0 if there is none. */
static int
port_of(PmSocket *entry)
{
	struct sockaddr_storage address;
	socklen_t	len = sizeof(address);

	if (entry->local_port != 0 ||
		getsockname(entry->fd, (struct sockaddr *) &address, &len) < 0)
		return entry->local_port;
	if (address.ss_family == AF_INET)
		entry->local_port = ntohs(((struct sockaddr_in *) &address)->sin_port);
	else if (address.ss_family == AF_INET6)
		entry->local_port = ntohs(((struct sockaddr_in6 *) &address)->sin6_port);
	return entry->local_port;
}

/*
 * May a connection that was kept carry another request?  Not one from before
 * forgotten_at.
 */
static bool
is_fit(const PmSocket *entry, PmMoment forgotten_at)
{
	char		byte;

	if (entry->opened_at <= forgotten_at ||
		pm_later(entry->opened_at, PM_CONNECTION_AGE_S * 1000) <= pm_moment())
		return false;

	/* The only good news is that there is nothing to be read. */
	return recv(entry->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 &&
		(errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR);
}

/*
 * pm_socket_take
 *		The connection from the local port `port` is about to carry a request.
 *
 * Returns whether it has carried one before; *fit is whether it may carry
 * another: one from before forgotten_at may not.  libcurl tells no more than
 * the port, which two connections to different addresses may share: then both
 * are looked at.  Raises nothing.
 */
bool
pm_socket_take(int port, PmMoment forgotten_at, bool *fit)
{
	bool		reused = false;

	*fit = true;
	for (int i = 0; i < n_sockets; i++)
	{
		PmSocket   *entry = &sockets[i];

		if (port_of(entry) != port)
			continue;
		if (entry->used)
		{
			reused = true;
			if (!is_fit(entry, forgotten_at))
				*fit = false;
		}
		entry->used = true;
	}
	return reused;
}
