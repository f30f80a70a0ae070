/*-------------------------------------------------------------------------
 *
 * config_check.h
 *		What a fault in a connector's settings is, and reading members of
 *		its JSON.
 *
 * src/settings/config_check.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_CONFIG_CHECK_H
#define PM_CONFIG_CHECK_H

#include "utils/jsonb.h"

/* What is wrong with a configuration: whole sentences. */
typedef struct PmFault
{
	char	   *detail;
	char	   *hint;			/* or NULL */
} PmFault;

/* Describing a fault, and reading members of an object */
extern bool pm_fault(PmFault *f, const char *hint, const char *fmt,...) pg_attribute_printf(3, 4);
extern JsonbValue *pm_get_member(JsonbContainer *object, const char *key,
								 JsonbValue *value);
extern bool pm_get_string(JsonbContainer *object, const char *where,
						  const char *key, char **result, PmFault *f);
extern bool pm_get_bool(JsonbContainer *object, const char *where,
						const char *key, bool *result, PmFault *f);
extern bool pm_get_int(JsonbContainer *object, const char *where,
					   const char *key, int min, int max, int *result,
					   PmFault *f);
extern bool pm_get_array(JsonbContainer *object, const char *where,
						 const char *key, JsonbContainer **result, PmFault *f);
extern bool pm_get_object(JsonbContainer *object, const char *where,
						  const char *key, JsonbContainer **result, PmFault *f);
extern int	pm_find_key(const JsonbValue *key, const char *const *known,
						int nknown);
extern bool pm_check_keys(JsonbContainer *object, const char *where,
						  const char *const *known, int nknown, PmFault *f);

#endif							/* PM_CONFIG_CHECK_H */
