/*-------------------------------------------------------------------------
 *
 * trigger_row.c
 *		What the triggers for signup tables read from a row.
 *
 * src/queue/trigger_row.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "base/citus.h"
#include "base/errors.h"
#include "queue/trigger_row.h"

/* Number of a column that a trigger argument names; error if there is none. */
static int
column_number(const TriggerData *trigger, const char *column)
{
	int			number = SPI_fnumber(RelationGetDescr(trigger->tg_relation),
									 column);
	char		generated;

	if (number <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" of relation \"%s\" does not exist",
						column, RelationGetRelationName(trigger->tg_relation)),
				 errdetail("Trigger \"%s\" names it in its arguments.",
						   trigger->tg_trigger->tgname),
				 errhint("Correct the arguments of the trigger.")));

	/* One that is computed when it is read has no value in the row */
	generated = TupleDescAttr(RelationGetDescr(trigger->tg_relation),
							  number - 1)->attgenerated;
	if (generated != '\0' && generated != ATTRIBUTE_GENERATED_STORED)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("column \"%s\" of relation \"%s\" is a virtual generated column",
						column, RelationGetRelationName(trigger->tg_relation)),
				 errdetail("Trigger \"%s\" names it in its arguments.",
						   trigger->tg_trigger->tgname),
				 errhint("Make it a STORED one.")));
	return number;
}

/*
 * A column's value by its type's output function, NULL if it is null.  No cast
 * is looked up: one that the table's owner made would run with somebody else's
 * rights.  undefined_column if there is no such column.
 */
char *
pm_trigger_column(const TriggerData *trigger, HeapTuple row, const char *column)
{
	return SPI_getvalue(row, RelationGetDescr(trigger->tg_relation),
						column_number(trigger, column));
}

/*
 * A payload column as jsonb, NULL if it is null.  PM003 for what is not JSON:
 * its text must not come out in an error.
 */
static Jsonb *
payload_column(const TriggerData *trigger, HeapTuple row, const char *column)
{
	TupleDesc	desc = RelationGetDescr(trigger->tg_relation);
	int			number = column_number(trigger, column);
	MemoryContext context = CurrentMemoryContext;
	char	   *volatile text = NULL;
	Jsonb	   *volatile result = NULL;

	if (SPI_gettypeid(desc, number) == JSONBOID)
	{
		bool		isnull;
		Datum		value = SPI_getbinval(row, desc, number, &isnull);

		return isnull ? NULL : DatumGetJsonbP(value);
	}

	text = SPI_getvalue(row, desc, number);
	if (text == NULL)
		return NULL;
	PG_TRY();
	{
		result = DatumGetJsonbP(DirectFunctionCall1(jsonb_in,
													CStringGetDatum(text)));
	}
	PG_CATCH();
	{
		int			sqlstate = geterrcode();

		/* What does not depend on the text is not its fault */
		if (ERRCODE_TO_CATEGORY(sqlstate) != ERRCODE_DATA_EXCEPTION &&
			ERRCODE_TO_CATEGORY(sqlstate) != ERRCODE_PROGRAM_LIMIT_EXCEEDED)
			PG_RE_THROW();
		MemoryContextSwitchTo(context);
		FlushErrorState();
	}
	PG_END_TRY();
	if (result == NULL)
		ereport(ERROR,
				(errcode(PM_ERRCODE_INVALID),
				 errmsg("payload is not valid JSON"),
				 errdetail("Trigger \"%s\" takes it from column \"%s\".",
						   trigger->tg_trigger->tgname, column),
				 errhint("Keep the payload in a column of type jsonb."),
				 errhidestmt(true)));
	return result;
}

/*
 * The row that a trigger for a signup table was fired for, once it is certain
 * that it was fired as it should be, with an email column and a usage type.
 *
 * function:       its name, for the errors
 * arguments_hint: how its arguments should be
 */
HeapTuple
pm_trigger_row(FunctionCallInfo fcinfo, const char *function,
			   const char *arguments_hint)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_FOR_ROW(trigger->tg_event) ||
		TRIGGER_FIRED_BY_DELETE(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("%s must be fired FOR EACH ROW on INSERT or UPDATE",
						function),
				 errhint("Use CREATE TRIGGER ... AFTER INSERT ... FOR EACH ROW.")));
	if (TRIGGER_FIRED_BEFORE(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("%s must be fired AFTER the row was stored", function),
				 errdetail("A row that a BEFORE trigger sees may still be dropped, by ON CONFLICT DO NOTHING or another trigger, and its generated columns have no value yet."),
				 errhint("Use CREATE TRIGGER ... AFTER INSERT ... FOR EACH ROW.")));
	if (trigger->tg_trigger->tgnargs < 2)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("%s needs at least two arguments", function),
				 errhint("%s", arguments_hint)));
	pm_citus_check(trigger);
	return TRIGGER_FIRED_BY_UPDATE(trigger->tg_event)
		? trigger->tg_newtuple : trigger->tg_trigtuple;
}

/*
 * The role that uses a connector where such a trigger is fired: the owner of
 * the table, who named the connector, not whoever happens to write a row.
 */
Oid
pm_trigger_role(const TriggerData *trigger)
{
	return trigger->tg_relation->rd_rel->relowner;
}

/*
 * The address of the row: the column that the first argument names.  NULL:
 * nothing is to be sent, as there is none, or the row is not a new one.
 */
char *
pm_trigger_email(const TriggerData *trigger, HeapTuple row)
{
	if (pm_citus_copies(trigger))
		return NULL;
	return pm_trigger_column(trigger, row, trigger->tg_trigger->tgargs[0]);
}

/* The names of arguments, for an error */
static char *
names_of(const PmTriggerArg *known, int nknown)
{
	StringInfoData names;
	int			i;

	initStringInfo(&names);
	for (i = 0; i < nknown; i++)
		appendStringInfo(&names, "%s%s", i > 0 ? ", " : "", known[i].name);
	return names.data;
}

/*
 * Read the "name=value" arguments of a trigger for a signup table.
 *
 * from:     the first argument that is one, from 0
 * known:    those that it may have
 * function: its name, for the error about another one
 * before:   what else may come before them, for that error's hint, or ""
 *
 * Errors as those of the columns that are read.
 */
void
pm_trigger_args(const TriggerData *trigger, HeapTuple row, int from,
				const PmTriggerArg *known, int nknown, const char *function,
				const char *before)
{
	int			i;

	for (i = from; i < trigger->tg_trigger->tgnargs; i++)
	{
		char	   *arg = trigger->tg_trigger->tgargs[i];
		char	   *value = strchr(arg, '=');
		const PmTriggerArg *found = NULL;
		int			k;

		for (k = 0; value && k < nknown; k++)
			if (strlen(known[k].name) == value - arg &&
				strncmp(known[k].name, arg, value - arg) == 0)
				found = &known[k];
		if (found == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
					 errmsg("invalid argument \"%s\" of %s", arg, function),
					 errhint("After the email column and the usage type come %sname=value with the names %s.",
							 before, names_of(known, nknown))));
		value++;
		switch (found->kind)
		{
			case PM_TRIGGER_VALUE:
				*(char **) found->result = value;
				break;
			case PM_TRIGGER_COLUMN:
				*(char **) found->result = pm_trigger_column(trigger, row,
															 value);
				break;
			case PM_TRIGGER_PAYLOAD:
				*(Jsonb **) found->result = payload_column(trigger, row,
														   value);
				break;
		}
	}
}
