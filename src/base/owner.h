/*-------------------------------------------------------------------------
 *
 * owner.h
 *		Working with the rights of the owner of the extension's tables.
 *
 * src/base/owner.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_OWNER_H
#define PM_OWNER_H

#include "executor/spi.h"

#include "base/catalog.h"

/*
 * Operators for SQL that runs in somebody's session, whose search_path may
 * have others of that name.
 */
#define PM_EQ	" OPERATOR(pg_catalog.=) "
#define PM_NE	" OPERATOR(pg_catalog.<>) "
#define PM_LE	" OPERATOR(pg_catalog.<=) "
#define PM_GE	" OPERATOR(pg_catalog.>=) "
#define PM_GT	" OPERATOR(pg_catalog.>) "
#define PM_LT	" OPERATOR(pg_catalog.<) "

/*
 * An SQL statement in which "@" stands for the extension's schema, and its
 * saved plan.
 */
typedef struct PmStatement
{
	const char *sql;
	int			nargs;
	Oid			types[20];
	const char *sql_1_0;		/* for the objects of version 1.0; NULL: the
								 * same.  Takes the same arguments. */
	SPIPlanPtr	plan;			/* NULL: to be made */
	uint64		generation;		/* of the objects that it was made for */
} PmStatement;

/*
 * Argument "i" of a statement that may be null: its value, and the mark that
 * SPI takes.  The value is not evaluated where it is null.
 */
#define PM_NULLABLE(values, nulls, i, isnull, value) \
	((nulls)[i] = (isnull) ? 'n' : ' ', \
	 (values)[i] = (isnull) ? (Datum) 0 : (value))
#define PM_NULLABLE_TEXT(values, nulls, i, text) \
	PM_NULLABLE(values, nulls, i, (text) == NULL, CStringGetTextDatum(text))

/* The rights and settings that pm_enter_owner left. */
typedef struct PmOwnerScope
{
	Oid			save_user;
	int			save_context;
	int			guc_level;
	ErrorContextCallback mask;
} PmOwnerScope;

extern void pm_enter_owner(PmOwnerScope *scope);
extern void pm_leave_owner(const PmOwnerScope *scope);
extern void pm_connect_owner(PmOwnerScope *scope);
extern MemoryContext pm_owner_context(void);
extern void pm_disconnect_owner(const PmOwnerScope *scope);
extern int	pm_execute(PmStatement *statement, Datum *values,
					   const char *nulls, long limit);
extern void pm_execute_snapshot(PmStatement *statement, Datum *values,
								Snapshot snapshot, bool read_only, long limit);
extern void pm_execute_now(PmStatement *statement, Datum *values,
						   bool read_only);
extern SPIPlanPtr pm_plan(PmStatement *statement);

#endif							/* PM_OWNER_H */
