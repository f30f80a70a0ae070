/*-------------------------------------------------------------------------
 *
 * module.c
 *		Loading of the library.
 *
 * Preloaded, it brings the launcher, the shared memory and the hooks.  Loaded
 * into one session only, the functions that talk to Postmark themselves work,
 * and messages can be queued.
 *
 * src/module.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"

#include "settings/guc.h"
#include "shared/shmem.h"
#include "worker/worker.h"

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);

/* Module load callback */
void
_PG_init(void)
{
	pm_define_gucs();

	/* pg_upgrade starts nothing */
	if (!process_shared_preload_libraries_in_progress || IsBinaryUpgrade)
		return;
	pm_shmem_install_hooks();
	pm_install_database_hooks();
	pm_register_launcher();
}
