/*-------------------------------------------------------------------------
 *
 * config_templates.h
 *		A connector's templates, from JSON and from rows: what each must be, and
 *		which there must be.
 *
 * src/settings/config_templates.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_CONFIG_TEMPLATES_H
#define PM_CONFIG_TEMPLATES_H

#include "utils/jsonb.h"

#include "settings/config_check.h"
#include "settings/connector.h"

extern bool pm_read_templates(PmConnector *connector, JsonbContainer *root,
							  PmFault *f);
extern bool pm_check_stored_templates(PmConnector *connector, PmFault *f);

#endif							/* PM_CONFIG_TEMPLATES_H */
