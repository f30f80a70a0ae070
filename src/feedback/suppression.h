/*-------------------------------------------------------------------------
 *
 * suppression.h
 *		Addresses to which nothing is sent.
 *
 * src/feedback/suppression.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_SUPPRESSION_H
#define PM_SUPPRESSION_H

#include "queue/batch.h"
#include "settings/connector.h"

extern char *pm_suppressed(const PmConnector *connector, const char *email);
extern int	pm_suppressed_messages(const PmConnector *connector,
								   PmBatch *batch, int first);
extern bool pm_suppressions_learn(const PmConnector *connector,
								  const PmBatch *batch);

#endif							/* PM_SUPPRESSION_H */
