/*-------------------------------------------------------------------------
 *
 * recipient_policy.h
 *		Who may be sent a code: Logto's email policy.
 *
 * src/settings/recipient_policy.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_RECIPIENT_POLICY_H
#define PM_RECIPIENT_POLICY_H

#include "settings/connector.h"

extern void pm_fold_address(char *address);
extern bool pm_valid_recipient_pattern(const char *pattern);
extern const char *pm_recipient_refusal(const PmConnector *connector,
										const char *address);

#endif							/* PM_RECIPIENT_POLICY_H */
