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

#include "base/compat.h"
#include "codes/attempts.h"
#include "queue/trigger_grant.h"
#include "settings/guc.h"
#include "shared/shmem.h"
#include "shared/slots.h"
#include "shared/stats.h"
#include "worker/databases.h"
#include "worker/launcher.h"

PG_MODULE_MAGIC_EXT(
					.name = "postmark_connector",
					.version = PM_VERSION
);

/* What is in shared memory */
static const PmSharedPart shared_parts[] = {
	{"postmark_connector workers", pm_slots_size, NULL, pm_slots_init},
	{"postmark_connector statistics", pm_stats_size, NULL, pm_stats_init},
	{"postmark_connector attempts", pm_attempts_size, pm_attempts_table_size,
	pm_attempts_init},
};

extern PGDLLEXPORT void _PG_init(void);

/* Module load callback */
void
_PG_init(void)
{
	pm_define_gucs();

	/* pg_upgrade starts nothing */
	if (!process_shared_preload_libraries_in_progress || IsBinaryUpgrade)
		return;
	pm_shmem_install_hooks(shared_parts, lengthof(shared_parts));
	pm_install_database_hooks();
	pm_install_trigger_hook();
	pm_register_launcher();
}
