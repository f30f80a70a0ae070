/*-------------------------------------------------------------------------
 *
 * webhook_secret.h
 *		The secrets by which a connector knows Postmark's webhooks.
 *
 * src/settings/webhook_secret.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_WEBHOOK_SECRET_H
#define PM_WEBHOOK_SECRET_H

#include "settings/config_check.h"
#include "settings/connector.h"

extern bool pm_read_webhook_secrets(PmWebhookSecrets *secrets,
									JsonbContainer *root, PmFault *f);
extern void pm_webhook_secrets_store(const PmConnector *connector);
extern void pm_webhook_secrets_masked(const char *name,
									  PmWebhookSecrets *secrets);
extern bool pm_webhook_secret_is(const char *name, const char *secret);

#endif							/* PM_WEBHOOK_SECRET_H */
