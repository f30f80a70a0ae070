/*-------------------------------------------------------------------------
 *
 * config_options.h
 *		A connector's options: all of its JSON but the token and the templates.
 *
 * src/settings/config_options.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_CONFIG_OPTIONS_H
#define PM_CONFIG_OPTIONS_H

#include "utils/jsonb.h"

#include "settings/config_check.h"
#include "settings/connector.h"

extern bool pm_check_connector_keys(JsonbContainer *object, bool stored,
									PmFault *f);
extern bool pm_read_options(PmConnector *connector, JsonbContainer *object,
							PmFault *f);
extern Jsonb *pm_extract_options(Jsonb *config);

#endif							/* PM_CONFIG_OPTIONS_H */
