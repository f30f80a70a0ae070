/*-------------------------------------------------------------------------
 *
 * shmem.c
 *		The extension's shared memory, put together of parts.
 *
 * As in PostgreSQL itself, each part says how much it needs and how it begins,
 * and nobody but its owner knows what is in it.
 *
 * src/shared/shmem.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/shmem.h"

#include "shared/shmem.h"

#define TRANCHE "postmark_connector"

static const PmSharedPart *parts = NULL;
static int	nparts = 0;
static shmem_request_hook_type prev_shmem_request_hook = NULL;
static shmem_startup_hook_type prev_shmem_startup_hook = NULL;

static void
request_shmem(void)
{
	int			i;

	if (prev_shmem_request_hook)
		prev_shmem_request_hook();
	for (i = 0; i < nparts; i++)
	{
		RequestAddinShmemSpace(parts[i].size());
		if (parts[i].table_size)
			RequestAddinShmemSpace(parts[i].table_size());
	}
	RequestNamedLWLockTranche(TRANCHE, nparts);
}

static void
startup_shmem(void)
{
	LWLockPadded *locks;
	int			i;

	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	locks = GetNamedLWLockTranche(TRANCHE);
	for (i = 0; i < nparts; i++)
	{
		bool		found;
		void	   *place = ShmemInitStruct(parts[i].name, parts[i].size(),
											&found);

		parts[i].init(place, &locks[i].lock, found);
	}
	LWLockRelease(AddinShmemInitLock);
}

/*
 * Reserve the shared memory; to be called while libraries are preloaded.
 *
 * all: the parts, which must stay where they are
 */
void
pm_shmem_install_hooks(const PmSharedPart *all, int nall)
{
	parts = all;
	nparts = nall;
	prev_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = request_shmem;
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = startup_shmem;
}
