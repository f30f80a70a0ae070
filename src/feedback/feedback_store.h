/*-------------------------------------------------------------------------
 *
 * feedback_store.h
 *		The tables of what became of messages and addresses.
 *
 * src/feedback/feedback_store.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_FEEDBACK_STORE_H
#define PM_FEEDBACK_STORE_H

#include "feedback/event.h"
#include "settings/connector.h"

extern bool pm_feedback_is_ours(const PmConnector *connector,
								const PmEvent *event);
extern void pm_feedback_take(const PmConnector *connector,
							 const PmEvent *event);
extern void pm_feedback_learn(const PmConnector *connector,
							  const PmEvent *event);
extern void pm_suppression_learn(const PmConnector *connector,
								 const PmEvent *event);
extern bool pm_progress_begin(const PmConnector *connector,
							  TimestampTz *bounces_until,
							  TimestampTz *suppressions_until);
extern void pm_progress_put(const PmConnector *connector, const char *stream,
							TimestampTz bounces_until,
							TimestampTz suppressions_until);
extern void pm_suppression_put(const PmConnector *connector,
							   const PmEvent *event);
extern bool pm_inquiry_next(const char *connector, char **stream,
							char **address);
extern void pm_inquiry_put_off(const char *connector, const char *stream,
							   const char *address);
extern void pm_inquiry_answered(const PmConnector *connector,
								const char *stream, const char *address,
								const PmEvent *event);
extern void pm_inquiry_put(const PmConnector *connector, const PmEvent *event);

#endif							/* PM_FEEDBACK_STORE_H */
