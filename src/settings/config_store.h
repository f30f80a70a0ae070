/*-------------------------------------------------------------------------
 *
 * config_store.h
 *		The stored connectors, as the session knows them.
 *
 * src/settings/config_store.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_CONFIG_STORE_H
#define PM_CONFIG_STORE_H

#include "base/compat.h"
#include "settings/connector.h"

/*
 * All but pm_config_pin need a transaction.
 *
 * pm_connector, pm_use_connector, pm_find_connector, pm_connector_by_number,
 * pm_next_connector and pm_connectors(0) read settings that changed, and make
 * void what any of them returned before, unless that was pinned, or a scope of
 * pm_connect_owner is open: then it is good until the outermost one ends.  The
 * others leave everything as it is.
 */
extern const PmConnector *pm_connector(const char *name, bool missing_ok);
extern const PmConnector *pm_use_connector(const char *name, Oid role);
extern const PmConnector *pm_find_connector(const char *name);
pg_noreturn extern void pm_raise_not_configured(const char *name);
extern const PmConnector *pm_connector_by_number(int number);
extern const PmConnector *pm_next_connector(int number);
extern const PmConnector *pm_connectors(int index);
extern void pm_config_forget(void);
extern void pm_config_pin(void);
extern char *pm_stored_token(const char *name);

#endif							/* PM_CONFIG_STORE_H */
