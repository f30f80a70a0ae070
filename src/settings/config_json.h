/*-------------------------------------------------------------------------
 *
 * config_json.h
 *		A connector's settings as a whole: from JSON, from what is stored, and
 *		back to JSON.
 *
 * src/settings/config_json.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_CONFIG_JSON_H
#define PM_CONFIG_JSON_H

#include "settings/connector.h"

extern PmConnector *pm_config_parse(Jsonb *config, const char *name);
extern PmConnector *pm_config_from_parts(const char *name, int number,
										 Jsonb *options, int ntemplates,
										 PmTemplate *templates);
extern Jsonb *pm_config_json(const PmConnector *connector,
							 const char *masked_token,
							 const PmWebhookSecrets *masked_secrets);

#endif							/* PM_CONFIG_JSON_H */
