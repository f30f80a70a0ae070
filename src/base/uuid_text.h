/*-------------------------------------------------------------------------
 *
 * uuid_text.h
 *		UUIDs as text and back.
 *
 * src/base/uuid_text.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_UUID_TEXT_H
#define PM_UUID_TEXT_H

#include "utils/uuid.h"

/* Length of a uuid as text, with its NUL */
#define PM_UUID_TEXT 37

extern void pm_format_uuid(const pg_uuid_t *uuid, char *text);
extern bool pm_parse_uuid(const char *text, pg_uuid_t *uuid);

#endif							/* PM_UUID_TEXT_H */
