/*-------------------------------------------------------------------------
 *
 * shmem.h
 *		The extension's shared memory, put together of parts.
 *
 * src/shared/shmem.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_SHMEM_H
#define PM_SHMEM_H

#include "storage/lwlock.h"

/*
 * A part of the shared memory.  Whoever owns it knows its layout; here only
 * its size is known.
 */
typedef struct PmSharedPart
{
	const char *name;

	/* Bytes; asked in the postmaster, once max_worker_processes is known */
	Size		(*size) (void);

	/* Bytes of a hash table that init makes besides; NULL: none */
	Size		(*table_size) (void);

	/*
	 * Called at the start of the server, and of each process where those are
	 * not forked: this is the part's place, and a lock of its own.  Not found:
	 * it is to be filled.  AddinShmemInitLock is held.
	 */
	void		(*init) (void *place, LWLock *lock, bool found);
} PmSharedPart;

extern void pm_shmem_install_hooks(const PmSharedPart *parts, int nparts);

#endif							/* PM_SHMEM_H */
