/*-------------------------------------------------------------------------
 *
 * state.h
 *		Whether a connector flows, and if not, why.
 *
 * src/queue/state.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_STATE_H
#define PM_STATE_H

#include "datatype/timestamp.h"

#include "settings/connector.h"
#include "shared/stats.h"

typedef struct PmState
{
	const char *state;			/* as postmark_status names it */
	char	   *detail;			/* NULL if there is nothing to say */
	char	   *hint;
	int			worker_pid;		/* 0: none */
	bool		flows;			/* messages are sent, or will be shortly
								 * without anybody doing anything */
	bool		well;			/* nothing is wrong: running, or capturing */
	bool		act;			/* somebody has to do something */
	bool		found_out;		/* the worker found that out, and may find
								 * otherwise after a change of settings */
	TimestampTz since;			/* it has been in this state */
	TimestampTz next_attempt;	/* to send what did not go out yet; DT_NOEND:
								 * none, or not before something changes */
	PmStats    *stats;			/* the connector's, or NULL */
} PmState;

extern bool pm_tables_state(PmState *state);
extern void pm_no_connector_state(PmState *state);
extern char *pm_account_problem(const PmConnector *connector);
extern void pm_connector_state(const PmConnector *connector, PmState *state);

#endif							/* PM_STATE_H */
