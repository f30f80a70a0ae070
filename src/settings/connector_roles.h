/*-------------------------------------------------------------------------
 *
 * connector_roles.h
 *		Who may use a connector.
 *
 * src/settings/connector_roles.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_CONNECTOR_ROLES_H
#define PM_CONNECTOR_ROLES_H

#include "utils/jsonb.h"

#include "settings/config_check.h"
#include "settings/connector.h"

extern bool pm_read_roles(PmConnector *connector, JsonbContainer *object,
						  PmFault *f);
extern bool pm_check_roles(const PmConnector *connector, PmFault *f);
extern bool pm_may_use(const PmConnector *connector, Oid role);
extern void pm_require_use(const PmConnector *connector, Oid role);

#endif							/* PM_CONNECTOR_ROLES_H */
