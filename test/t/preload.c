/*-------------------------------------------------------------------------
 *
 * preload.c
 *		What befalls a server, for tests: memory that is refused, clocks that
 *		are set.  To be loaded by LD_PRELOAD; see PostmarkPreload.pm.
 *
 * The file that POSTMARK_PRELOAD names is shared by all processes, and written
 * by the test.
 *
 * test/t/preload.c
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

typedef struct Control
{
	int32_t		pid;			/* whose memory; 0: nobody's */
	int32_t		left;			/* so many allocations succeed, less one */
	int32_t		refused;		/* how many were */
	int32_t		lasting;		/* all that follow are refused, too */
	int64_t		clock_us;		/* the wall clock is so much ahead */
	int64_t		steady_us;		/* and the clock that nobody sets */
} Control;

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *old, size_t size);

static volatile Control *control = NULL;

__attribute__((constructor))
static void
begin(void)
{
	const char *path = getenv("POSTMARK_PRELOAD");
	int			fd = path ? open(path, O_RDWR) : -1;
	void	   *shared;

	if (fd < 0)
		return;
	shared = mmap(NULL, sizeof(Control), PROT_READ | PROT_WRITE, MAP_SHARED,
				  fd, 0);
	close(fd);
	if (shared != MAP_FAILED)
		control = shared;
}

static int
refuse(void)
{
	if (control == NULL || control->pid == 0 || control->pid != getpid())
		return 0;
	if (control->left > 1)
	{
		control->left--;
		return 0;
	}
	if (control->left < 1)
		return 0;
	if (!control->lasting)
		control->left = 0;
	control->refused++;
	errno = ENOMEM;
	return 1;
}

void *
malloc(size_t size)
{
	return refuse() ? NULL : __libc_malloc(size);
}

void *
calloc(size_t n, size_t size)
{
	return refuse() ? NULL : __libc_calloc(n, size);
}

void *
realloc(void *old, size_t size)
{
	return refuse() ? NULL : __libc_realloc(old, size);
}

int
clock_gettime(clockid_t clock, struct timespec *time)
{
	int			result = syscall(SYS_clock_gettime, clock, time);

	if (result == 0 && control &&
		(clock == CLOCK_REALTIME || clock == CLOCK_MONOTONIC))
	{
		int64_t		us = time->tv_sec * INT64_C(1000000) +
			time->tv_nsec / 1000 + (clock == CLOCK_REALTIME ?
									control->clock_us : control->steady_us);

		time->tv_sec = us / 1000000;
		time->tv_nsec = us % 1000000 * 1000;
	}
	return result;
}

int
gettimeofday(struct timeval *restrict tv, void *restrict zone)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	tv->tv_sec = now.tv_sec;
	tv->tv_usec = now.tv_nsec / 1000;
	return 0;
}

time_t
time(time_t *result)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	if (result)
		*result = now.tv_sec;
	return now.tv_sec;
}
