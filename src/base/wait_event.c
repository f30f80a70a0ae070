/*-------------------------------------------------------------------------
 *
 * wait_event.c
 *		What a process of ours waits for, by name.
 *
 * pg_stat_activity shows it as wait_event, of the type "Extension".  Before
 * PostgreSQL 17 the waits of all extensions are called just that.
 *
 * src/base/wait_event.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/wait_event.h"

#include "base/compat.h"
#include "base/wait_event.h"

static const char *const names[PM_WAITS] = {
	[PM_WAIT_LAUNCHER_MAIN] = "PostmarkLauncherMain",
	[PM_WAIT_WORKER_MAIN] = "PostmarkWorkerMain",
	[PM_WAIT_WORKER_END] = "PostmarkWorkerEnd",
	[PM_WAIT_REPLY] = "PostmarkReply",
	[PM_WAIT_DELIVERY] = "PostmarkDelivery",
};

/*
 * The wait_event_info of a wait, for the server's functions that sleep.
 * Needs shared memory.  Error if the extensions of this server have used up
 * its room for names.
 */
uint32
pm_wait_event(PmWait wait)
{
	static uint32 known[PM_WAITS];	/* 0: not looked up yet */

	if (known[wait] == 0)
		known[wait] = WaitEventExtensionNew(names[wait]);
	return known[wait];
}
