/*-------------------------------------------------------------------------
 *
 * sockets.h
 *		The sockets under HTTP.
 *
 * src/postmark/sockets.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_SOCKETS_H
#define PM_SOCKETS_H

#include "base/clock.h"

extern void pm_sockets_setup(void);
extern int	pm_socket_open(int family, int type, int protocol, bool *shortage);
extern int	pm_socket_close(int fd);
extern bool pm_socket_take(int port, PmMoment forgotten_at, bool *fit);

#endif							/* PM_SOCKETS_H */
