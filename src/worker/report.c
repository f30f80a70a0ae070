/*-------------------------------------------------------------------------
 *
 * report.c
 *		A line in the server's log where a connector's state changes.
 *
 * The state is what postmark_status shows, found out in the same way, and only
 * where something happened that may have changed it.
 *
 * src/worker/report.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/lsyscache.h"

#include "base/compat.h"
#include "queue/state.h"
#include "shared/transaction.h"
#include "worker/channel.h"
#include "worker/report.h"

static void
report(PmChannel *channel)
{
	PmState		state;

	pm_connector_state(channel->connector, &state);
	if (strcmp(state.state, channel->reported) == 0)
		return;

	/* That all is well from the start is no news */
	if (channel->reported[0] != '\0' || strcmp(state.state, "running") != 0)
		ereport(state.act ? WARNING : LOG,
				(errmsg("postmark_connector: connector \"%s\" of database \"%s\" is %s",
						channel->name, get_database_name(MyDatabaseId),
						state.state),
				 state.detail ? errdetail_internal("%s", state.detail) : 0,
				 state.hint ? errhint("%s", state.hint) : 0));
	strlcpy(channel->reported, state.state, sizeof(channel->reported));
}

static void
report_body(void *arg)
{
	int			i;

	for (i = 0; i < pm_channel_count(); i++)
	{
		PmChannel  *channel = pm_channel(i);

		if (channel->report && channel->connector)
			report(channel);
	}
}

/*
 * Say in the log which connectors' states have changed, where that may be.  To
 * be called when what is to be stored of their troubles is stored.
 */
void
pm_report_states(void)
{
	bool		wanted = false;
	int			sqlstate;
	int			i;

	for (i = 0; i < pm_channel_count(); i++)
		wanted = wanted || pm_channel(i)->report;
	if (!wanted)
		return;

	/* What keeps this from being done is logged by itself */
	(void) pm_run_transaction("find out the states of connectors", report_body,
							  NULL, &sqlstate);
	for (i = 0; i < pm_channel_count(); i++)
		pm_channel(i)->report = false;
}
