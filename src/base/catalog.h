/*-------------------------------------------------------------------------
 *
 * catalog.h
 *		Where this database keeps the extension's objects, and acting as
 *		their owner.
 *
 * src/base/catalog.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_CATALOG_H
#define PM_CATALOG_H

#include "executor/spi.h"

#define PM_EXTENSION "postmark_connector"

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

/* Versions of the SQL objects, see pm_sql_version */
#define PM_SQL_1_0	100
#define PM_SQL_1_1	101

typedef enum PmObject
{
	PM_SETTINGS,
	PM_TEMPLATES,
	PM_SECRETS,
	PM_QUEUE,
	PM_DEFERRED,
	PM_INTENTS,
	PM_HISTORY,
	PM_TROUBLE,
	PM_INSTANCE,
	PM_CODES,
	PM_SENDS,
	PM_ATTEMPTS,
	PM_FEEDBACK,
	PM_SUPPRESSED_ADDRESSES,
	PM_SUPPRESSED_KEY,			/* an index */
	PM_INQUIRIES,
	PM_FORGOTTEN,
	PM_MESSAGE_ID_SEQ,
	PM_OBJECTS
} PmObject;

/*
 * An SQL statement in which "@" stands for the extension's schema, and its
 * saved plan.
 */
typedef struct PmStatement
{
	const char *sql;
	int			nargs;
	Oid			types[18];
	const char *sql_1_0;		/* for the objects of version 1.0; NULL: the
								 * same.  Takes the same arguments. */
	SPIPlanPtr	plan;			/* NULL: to be made */
	uint64		generation;		/* of the objects that it was made for */
} PmStatement;

/* The rights that pm_enter_owner left. */
typedef struct PmOwnerScope
{
	Oid			save_user;
	int			save_context;
} PmOwnerScope;

extern Oid	pm_extension_oid(void);
extern bool pm_extension_present(void);
extern Oid	pm_object(PmObject which);
extern const char *pm_object_name(PmObject which);
extern const char *pm_schema(void);
extern int	pm_sql_version(void);
extern Oid	pm_owner(void);
extern void pm_enter_owner(PmOwnerScope *scope);
extern void pm_leave_owner(const PmOwnerScope *scope);
extern void pm_connect_owner(PmOwnerScope *scope);
extern void pm_disconnect_owner(const PmOwnerScope *scope);
extern uint64 pm_catalog_generation(void);
extern uint64 pm_catalog_changes(void);
extern int	pm_execute(PmStatement *statement, Datum *values,
					   const char *nulls, long limit);
extern void pm_execute_snapshot(PmStatement *statement, Datum *values,
								Snapshot snapshot, bool read_only, long limit);
extern void pm_execute_now(PmStatement *statement, Datum *values,
						   bool read_only);
extern SPIPlanPtr pm_plan(PmStatement *statement);

#endif							/* PM_CATALOG_H */
