/*-------------------------------------------------------------------------
 *
 * connector_token.h
 *		Which server token a connector uses.
 *
 * src/settings/connector_token.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_CONNECTOR_TOKEN_H
#define PM_CONNECTOR_TOKEN_H

#include "settings/connector.h"

extern char *pm_connector_token(const PmConnector *connector, bool missing_ok);
extern void pm_forget_token(char *token);
extern char *pm_token_file_problem(const char *name);
extern char *pm_token_from_file(const char *name, bool missing_ok);

#endif							/* PM_CONNECTOR_TOKEN_H */
