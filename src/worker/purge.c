/*-------------------------------------------------------------------------
 *
 * purge.c
 *		Forgetting finished messages that are older than history_retention.
 *
 * Messages are forgotten as fast as they come, in the worker, where a message
 * that is queued meanwhile must not wait.  So it is done in steps of a
 * millisecond or two, with as long a pause behind each, and a step has as many
 * rows as can be deleted in that time.
 *
 * A position for each connector says where it goes on, so that no step walks
 * over what others deleted, which an old snapshot may keep in the index for a
 * long time.  What had to be passed over, as somebody had it locked or refers to
 * it, is looked at again after a while.
 *
 * src/worker/purge.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/times.h"
#include "queue/history.h"
#include "settings/guc.h"
#include "shared/transaction.h"
#include "worker/purge.h"

/* A step is to take so long, us */
#define STEP_TIME		2000

/* Rows of a step */
#define STEP_ROWS_MIN	20
#define STEP_ROWS_MAX	2000

/* Shortest pause behind a step, and time between two rounds, ms */
#define STEP_PAUSE		1
#define ROUND_DELAY		1000

/* What was passed over is looked at again after, ms */
#define PASSED_DELAY	600000

/* A connector with finished messages */
typedef struct Walk
{
	PmHistoryPosition position;
	PmMoment	again_at;		/* from the beginning then */
	PmMoment	hold_until;		/* after an error */
	int			failures;		/* in a row */
} Walk;

/* A transaction of ours, and what it found out */
typedef struct PurgeStep
{
	char		connector[NAMEDATALEN]; /* look for the one behind it */
	bool		found;
	PmHistoryPosition position;
	TimestampTz before;
	bool		more;
	TimestampTz next;
} PurgeStep;

static Walk **walks = NULL;
static int	nwalks = 0;
static int	max_walks = 0;

/* A round goes through all connectors */
static bool in_round = false;
static char last_connector[NAMEDATALEN];
static Walk *current = NULL;
static PmMoment round_next;		/* when the next one has something to do */

static bool by_row = false;		/* the step before failed */
static int	rows = STEP_ROWS_MIN;
static int	look_failures = 0;
static PmMoment next_at;

/* How long what is finished is kept, us; 0: for ever. */
int64
pm_retention(void)
{
	return pm_history_retention * INT64CONST(60) * USECS_PER_SEC;
}

/* Begin, or history_retention may be another one: look at everything once. */
void
pm_purge_start(void)
{
	int			i;

	for (i = 0; i < nwalks; i++)
		walks[i]->again_at = PM_AT_ONCE;
	next_at = PM_AT_ONCE;
}

/* A message was stored in the history. */
void
pm_purge_finished(void)
{
	next_at = Min(next_at, pm_moment() + pm_retention());
}

/* What is known of a connector; made when first asked for. */
static Walk *
find_walk(const char *connector)
{
	Walk	   *walk;
	int			i;

	for (i = 0; i < nwalks; i++)
		if (strcmp(walks[i]->position.connector, connector) == 0)
			return walks[i];
	if (nwalks == max_walks)
	{
		int			max = Max(16, max_walks * 2);

		if (walks == NULL)
			walks = MemoryContextAlloc(TopMemoryContext, sizeof(Walk *) * max);
		else
			walks = repalloc(walks, sizeof(Walk *) * max);
		max_walks = max;
	}
	walk = MemoryContextAllocZero(TopMemoryContext, sizeof(Walk));
	strlcpy(walk->position.connector, connector, NAMEDATALEN);
	walk->again_at = PM_AT_ONCE;
	walk->hold_until = PM_AT_ONCE;
	walks[nwalks++] = walk;
	return walk;
}

static void
look_body(void *arg)
{
	PurgeStep  *step = arg;

	step->found = pm_history_next_connector(step->connector);
}

static void
purge_body(void *arg)
{
	PurgeStep  *step = arg;

	step->more = pm_history_purge(&step->position, step->before, rows, by_row,
								  &step->next);
}

/* Go on to the next connector, or end the round. */
static void
next_connector(PmMoment now)
{
	PurgeStep	step;
	int			sqlstate;

	if (!in_round)
	{
		in_round = true;
		last_connector[0] = '\0';
		round_next = PM_NEVER;
	}
	strlcpy(step.connector, last_connector, NAMEDATALEN);
	if (!pm_run_transaction("look for old messages", look_body, &step,
							&sqlstate))
	{
		PmMoment	again = pm_later(now, pm_failure_delay(look_failures++));

		step.found = false;
		round_next = Min(round_next, again);
	}
	else
		look_failures = 0;
	if (!step.found)
	{
		in_round = false;
		next_at = Max(round_next, pm_later(now, ROUND_DELAY));
		return;
	}

	strlcpy(last_connector, step.connector, NAMEDATALEN);
	next_at = pm_later(pm_moment(), STEP_PAUSE);
	current = find_walk(step.connector);
	if (current->again_at <= now)
	{
		current->position.finished_at = DT_NOBEGIN;
		current->position.kept = 0;
		current->position.passed = false;
		current->again_at = pm_later(now, PASSED_DELAY);
	}
	if (current->hold_until > now)
	{
		round_next = Min(round_next, current->hold_until);
		current = NULL;
	}
}

/* A step failed: try it row by row, then leave the connector for a while. */
static void
step_failed(void)
{
	PmMoment	now = pm_moment();

	next_at = pm_later(now, STEP_PAUSE);
	if (!by_row)
	{
		by_row = true;
		rows = STEP_ROWS_MIN;
		return;
	}
	by_row = false;
	current->hold_until = pm_later(now, pm_failure_delay(current->failures++));
	round_next = Min(round_next, current->hold_until);
	current = NULL;
}

/* Do a step, if it is time to. */
void
pm_purge_keep(PmMoment now)
{
	PurgeStep	step;
	PmMoment	end;
	int			sqlstate;

	if (pm_history_retention == 0)
		next_at = PM_NEVER;
	if (next_at > now)
		return;
	if (current == NULL)
	{
		next_connector(now);
		return;
	}

	step.position = current->position;
	step.before = pm_time_plus(GetCurrentTimestamp(), -pm_retention());
	if (!pm_run_transaction("purge its history", purge_body, &step, &sqlstate))
	{
		step_failed();
		return;
	}
	end = pm_moment();
	current->position = step.position;
	current->failures = 0;
	if (!step.more)
	{
		round_next = Min(round_next,
						 pm_moment_of(pm_time_plus(step.next, pm_retention())));
		if (current->position.passed)
			round_next = Min(round_next, current->again_at);
		current = NULL;
	}
	by_row = false;
	if (end - now < STEP_TIME / 2)
		rows = Min(rows * 2, STEP_ROWS_MAX);
	else if (end - now > STEP_TIME)
		rows = Max(rows / 2, STEP_ROWS_MIN);
	next_at = Max(pm_later(end, STEP_PAUSE), end + (end - now));
}

/* When pm_purge_keep is to be called; PM_NEVER for never. */
PmMoment
pm_purge_next(void)
{
	return next_at;
}
