/*-------------------------------------------------------------------------
 *
 * trigger_row.h
 *		What the triggers for signup tables read from a row.
 *
 * src/queue/trigger_row.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_TRIGGER_ROW_H
#define PM_TRIGGER_ROW_H

#include "commands/trigger.h"
#include "utils/jsonb.h"

/* What the value of a "name=value" argument is */
typedef enum PmTriggerArgKind
{
	PM_TRIGGER_VALUE,			/* itself: char * */
	PM_TRIGGER_COLUMN,			/* a column with a text: char * */
	PM_TRIGGER_PAYLOAD			/* a column with a payload: Jsonb * */
} PmTriggerArgKind;

/* A "name=value" argument that a trigger may have */
typedef struct PmTriggerArg
{
	const char *name;
	PmTriggerArgKind kind;
	void	   *result;			/* where to put it, untouched if it is not
								 * given */
} PmTriggerArg;

extern HeapTuple pm_trigger_row(FunctionCallInfo fcinfo, const char *function,
								const char *arguments_hint);
extern Oid	pm_trigger_role(const TriggerData *trigger);
extern char *pm_trigger_email(const TriggerData *trigger, HeapTuple row);
extern char *pm_trigger_column(const TriggerData *trigger, HeapTuple row,
							   const char *column);
extern void pm_trigger_args(const TriggerData *trigger, HeapTuple row,
							int from, const PmTriggerArg *known, int nknown,
							const char *function, const char *before);

#endif							/* PM_TRIGGER_ROW_H */
