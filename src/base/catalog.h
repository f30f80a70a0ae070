/*-------------------------------------------------------------------------
 *
 * catalog.h
 *		Where this database keeps the extension's objects.
 *
 * src/base/catalog.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_CATALOG_H
#define PM_CATALOG_H

#define PM_EXTENSION "postmark_connector"

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
	PM_PROGRESS,
	PM_FORGOTTEN,
	PM_CAPTURES,
	PM_DEDUP_KEYS,
	PM_MESSAGE_ID_SEQ,
	PM_OBJECTS
} PmObject;

extern Oid	pm_extension_oid(void);
extern bool pm_extension_present(void);
extern const char *pm_missing_object(void);
extern Oid	pm_object(PmObject which);
extern const char *pm_object_name(PmObject which);
extern const char *pm_schema(void);
extern int	pm_sql_version(void);
extern Oid	pm_owner(void);
extern uint64 pm_catalog_generation(void);
extern uint64 pm_object_changes(PmObject which);
extern uint64 pm_catalog_changes(void);

#endif							/* PM_CATALOG_H */
