/*-------------------------------------------------------------------------
 *
 * capture.h
 *		Messages that were kept instead of being sent.
 *
 * src/queue/capture.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_CAPTURE_H
#define PM_CAPTURE_H

#include "datatype/timestamp.h"

#include "queue/batch.h"

extern void pm_captures_insert(const PmBatch *batch, TimestampTz now);
extern void pm_capture_at_once(const PmMessage *message);
extern bool pm_captures_purge(TimestampTz before, int limit,
							  TimestampTz *next);

#endif							/* PM_CAPTURE_H */
