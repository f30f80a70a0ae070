/*-------------------------------------------------------------------------
 *
 * forgotten.h
 *		Persons who are to be forgotten, and stay so.
 *
 * src/feedback/forgotten.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_FORGOTTEN_H
#define PM_FORGOTTEN_H

#include "datatype/timestamp.h"

extern void pm_forgotten_put(const char *address);
extern bool pm_forgotten_since(const char *address, TimestampTz at);

#endif							/* PM_FORGOTTEN_H */
