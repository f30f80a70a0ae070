/*-------------------------------------------------------------------------
 *
 * worker.c
 *		The background worker of one database.
 *
 * It sleeps in one wait set on its latch, the postmaster and libcurl's
 * sockets, and on nothing else: an idle worker has no timer, opens no
 * transaction and writes no WAL.  All that it knows can be found out anew, so
 * any error that escapes a turn ends the process, and the launcher starts
 * another.
 *
 * src/worker/worker.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "libpq/pqsignal.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/procsignal.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/guc_tables.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/ps_status.h"
#include "utils/timestamp.h"

#include "base/catalog.h"
#include "base/clock.h"
#include "base/compat.h"
#include "base/wait_event.h"
#include "codes/attempts.h"
#include "postmark/http.h"
#include "settings/guc.h"
#include "shared/slots.h"
#include "shared/wakeup.h"
#include "worker/channel.h"
#include "worker/delivery.h"
#include "worker/housekeeping.h"
#include "worker/inquiry.h"
#include "worker/pulse.h"
#include "worker/queue_vacuum.h"
#include "worker/worker.h"

/* Before a sleep longer than this, ms, statistics are handed over. */
#define LONG_SLEEP 1000

static PmSlot *slot = NULL;
static PmWorkerArgs args;
static PmWorkerExit exit_reason = PM_EXIT_UNKNOWN;
static uint64 changes = 0;		/* so many were announced, see slots.h */
static uint64 answered = 0;

/*
 * Settings of the session that nothing may weaken: not the configuration file,
 * not ALTER DATABASE, not ALTER ROLE.  Not every server has all of them.
 */
static const struct
{
	const char *name;
	const char *value;
}			pinned[] = {
	{"search_path", "pg_catalog"},
	{"default_transaction_isolation", "read committed"},
	{"default_transaction_read_only", "off"},
	{"default_transaction_deferrable", "off"},
	{"session_replication_role", "origin"},
	{"row_security", "off"},
	{"lock_timeout", "50ms"},
	{"jit", "off"},
	{"enable_seqscan", "off"},
	{"enable_indexscan", "on"},
	{"enable_tidscan", "on"},
	{"enable_nestloop", "on"},
	{"plan_cache_mode", "force_generic_plan"},
	{"max_parallel_workers_per_gather", "0"},
	{"log_parameter_max_length_on_error", "0"},
	{"log_statement", "none"},
	{"log_min_duration_statement", "-1"},
	{"log_min_duration_sample", "-1"},
	{"exit_on_error", "off"},
	{"debug_print_parse", "off"},
	{"debug_print_raw_parse", "off"},
	{"debug_print_rewritten", "off"},
	{"debug_print_plan", "off"},
	{"debug_parallel_query", "off"},
	{"force_parallel_mode", "off"},
	{"bytea_output", "hex"},
	{"application_name", "postmark_connector"}
};

/*
 * An application's asynchronous commit becomes durable with our first commit
 * after it, before its mail leaves; so ours must not be asynchronous.  Which of
 * the others it is, "local" or "remote_apply", is for the administrator to say.
 */
static void
pin_synchronous_commit(void)
{
	if (synchronous_commit == SYNCHRONOUS_COMMIT_OFF)
		SetConfigOption("synchronous_commit", "on", PGC_SUSET, PGC_S_OVERRIDE);
}

/*
 * A session's time-outs, as this server has them: any of them could end each
 * of our transactions, or us.
 */
static void
pin_timeouts(void)
{
	static const char suffix[] = "_timeout";
	int			nsettings;
	struct config_generic **settings = get_guc_variables(&nsettings);
	int			i;

	for (i = 0; i < nsettings; i++)
	{
		const char *name = settings[i]->name;
		size_t		len = strlen(name);

		if (settings[i]->context == PGC_USERSET &&
			(settings[i]->flags & GUC_UNIT_TIME) != 0 &&
			strchr(name, '.') == NULL && len > strlen(suffix) &&
			strcmp(name + len - strlen(suffix), suffix) == 0)
			SetConfigOption(name, "0", PGC_SUSET, PGC_S_OVERRIDE);
	}
}

static void
pin_settings(void)
{
	int			i;

	pin_timeouts();
	for (i = 0; i < lengthof(pinned); i++)
		if (GetConfigOption(pinned[i].name, true, false) != NULL)
			SetConfigOption(pinned[i].name, pinned[i].value, PGC_SUSET,
							PGC_S_OVERRIDE);
	pin_synchronous_commit();
}

/*
 * Request bodies are made outside of transactions, where no conversion can be
 * looked up; that of the client encoding is kept ready.  For a database's
 * encoding that has none, MULE_INTERNAL, only ASCII can be sent.
 */
static void
cache_conversion(void)
{
	StartTransactionCommand();
	if (PrepareClientEncoding(PG_UTF8) == 0)
		SetConfigOption("client_encoding", "UTF8", PGC_USERSET, PGC_S_OVERRIDE);
	CommitTransactionCommand();
}

/* Tell the launcher, and whoever waits, that this worker is gone. */
static void
detach(int code, Datum arg)
{
	PmShared   *shared = pm_shared();

	pm_vacuum_end(false);
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	slot->proc = NULL;
	slot->pid = 0;
	slot->ready = false;
	slot->exit = exit_reason;
	if (shared->launcher)
		SetLatch(&shared->launcher->procLatch);
	LWLockRelease(shared->lock);
	ConditionVariableBroadcast(&shared->changed);
	ConditionVariableBroadcast(&slot->finished);
}

static void
attach(int index)
{
	PmShared   *shared = pm_shared();

	memcpy(&args, MyBgworkerEntry->bgw_extra, sizeof(args));
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	slot = &shared->slots[index];
	if (slot->generation != args.generation || !OidIsValid(slot->database))
	{
		/* The launcher that took it for us has died, and the next gave it up */
		LWLockRelease(shared->lock);
		proc_exit(0);
	}
	pm_slot_is_ours(slot);
	slot->proc = MyProc;
	slot->pid = MyProcPid;
	LWLockRelease(shared->lock);
	before_shmem_exit(detach, (Datum) 0);
}

/* Whether the extension is still what it was at the start. */
static bool
extension_present(Oid *extension)
{
	Oid			found;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	found = pm_extension_oid();
	CommitTransactionCommand();
	if (!OidIsValid(*extension))
		*extension = found;
	return OidIsValid(found) && found == *extension;
}

/* End; the launcher, not the postmaster, starts a worker again. */
static void
leave(PmWorkerExit reason)
{
	exit_reason = reason;
	pm_vacuum_end(true);
	proc_exit(0);
}

/*
 * The database is a copy of another one, whose messages it does not send: end,
 * so that it holds no process, until it is resumed.
 */
static void
leave_copy(void)
{
	if (!args.known_copy)
	{
		StartTransactionCommand();
		ereport(LOG,
				(errmsg("postmark_connector sends nothing from database \"%s\": it is a copy of another one",
						get_database_name(MyDatabaseId)),
				 errhint("Use postmark_resume if its messages are its own to send.")));
		CommitTransactionCommand();
	}
	leave(PM_EXIT_COPIED);
}

/* The process's title names the database; the postmaster knew its number. */
static void
show_title(void)
{
	char	   *name;
	char		title[BGW_MAXLEN + NAMEDATALEN];

	StartTransactionCommand();
	name = get_database_name(MyDatabaseId);
	snprintf(title, sizeof(title), "%s for database %s",
			 MyBgworkerEntry->bgw_type, name ? name : "?");
	CommitTransactionCommand();
	init_ps_display(title);
}

/*
 * Say in pg_stat_activity what this worker does while it sleeps.  What it does
 * in its transactions, these say themselves.
 */
static void
report_activity(void)
{
	char		text[256];

	pm_delivery_activity(text, sizeof(text));
	if (text[0] != '\0')
		pgstat_report_activity(STATE_RUNNING, text);
	else
		pgstat_report_activity(STATE_IDLE, "waiting for messages");
}

/* Act on what was left in the slot. */
static void
take_wakeup(Oid *extension)
{
	static PmWakeup wakeup;

	if (!pm_slot_collect(slot, &wakeup))
		return;
	changes = wakeup.changes;
	if ((wakeup.reasons & PM_WAKE_CATALOG) && !extension_present(extension))
	{
		pm_attempts_forget(MyDatabaseId);
		leave(PM_EXIT_NO_EXTENSION);	/* or another one, see launcher.c */
	}
	if (wakeup.reasons & (PM_WAKE_SETTINGS | PM_WAKE_RESUME))
		pm_delivery_reload();
	if (wakeup.reasons & PM_WAKE_RESUME)
	{
		/* Somebody has mended something, which may be the way there */
		pm_http_forget();
		pm_channels_reopen(wakeup.resumed);
	}
	if (wakeup.reasons & PM_WAKE_CLOCK)
		pm_delivery_clock();
	if (wakeup.reasons & PM_WAKE_RESCAN)
		pm_delivery_rescan();
	if (wakeup.reasons & (PM_WAKE_MESSAGES | PM_WAKE_DEFERRED))
		pm_delivery_wake(&wakeup);
	if (wakeup.reasons & PM_WAKE_FEEDBACK)
		pm_inquiries_wake();
	pm_house_codes(wakeup.reasons);
}

/*
 * Entry point; the argument is the number of the slot that the launcher took.
 */
void
postmark_worker_main(Datum arg)
{
	Oid			extension = InvalidOid;
	MemoryContext context;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();

	attach(DatumGetInt32(arg));
	pm_guc_server_only();
	BackgroundWorkerInitializeConnectionByOid(slot->database, InvalidOid, 0);
	pin_settings();
	cache_conversion();
	show_title();
	if (!extension_present(&extension))
		leave(PM_EXIT_NO_EXTENSION);

	LWLockAcquire(pm_shared()->lock, LW_EXCLUSIVE);
	slot->ready = true;
	/* The launcher may wait with others until this one has started */
	if (pm_shared()->launcher)
		SetLatch(&pm_shared()->launcher->procLatch);
	LWLockRelease(pm_shared()->lock);
	ConditionVariableBroadcast(&pm_shared()->changed);
	ConditionVariableBroadcast(&slot->finished);

	context = AllocSetContextCreate(TopMemoryContext, "postmark turn",
									ALLOCSET_DEFAULT_SIZES);
	pm_delivery_start(slot);
	for (;;)
	{
		uint64		quiet[PM_WAKE_LANE_WORDS];
		PmMoment	next;
		long		timeout = -1;

		CHECK_FOR_INTERRUPTS();
		MemoryContextSwitchTo(context);
		MemoryContextReset(context);

		if (pg_atomic_read_u32(&slot->stop))
			leave(PM_EXIT_STOPPED);
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			pin_synchronous_commit();
			pm_delivery_reload();
			if (!pm_worker_enabled)
				leave(PM_EXIT_STOPPED);
		}
		take_wakeup(&extension);
		next = pm_delivery_turn();
		if (answered != changes && pm_delivery_decided())
			pm_slot_answer(slot, answered = changes);
		pm_channels_quiet(quiet);

		/* The latch may have been reset by a wait of the turn's */
		if (!pm_slot_may_sleep(slot, quiet) || ConfigReloadPending ||
			InterruptPending || pg_atomic_read_u32(&slot->stop))
			timeout = 0;
		else if (pm_delivery_is_copy() && next > pm_moment())
			leave_copy();
		else if (next != PM_NEVER)
			timeout = pm_ms_until(next);
		if (timeout < 0 || timeout > LONG_SLEEP)
			pgstat_report_stat(true);
		report_activity();
		pm_pulse_sleep(timeout);
		pm_http_wait(timeout, pm_wait_event(PM_WAIT_WORKER_MAIN));
	}
}
