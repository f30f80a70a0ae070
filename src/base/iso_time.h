/*-------------------------------------------------------------------------
 *
 * iso_time.h
 *		Times as Postmark writes them.
 *
 * src/base/iso_time.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_ISO_TIME_H
#define PM_ISO_TIME_H

#include "datatype/timestamp.h"

extern bool pm_parse_iso_time(const char *text, TimestampTz *result);

#endif							/* PM_ISO_TIME_H */
