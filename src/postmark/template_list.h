/*-------------------------------------------------------------------------
 *
 * template_list.h
 *		Which of a connector's templates the Postmark server has.
 *
 * src/postmark/template_list.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_TEMPLATE_LIST_H
#define PM_TEMPLATE_LIST_H

#include "postmark/api.h"

extern const PmListed *pm_find_listed(const PmListed *listed, int n,
									  const char *name);
extern bool pm_list_templates(const PmConnector *connector, const char *token,
							  int naliases, const char *const *aliases,
							  const PmListed **found, PmVerdict *verdict);

#endif							/* PM_TEMPLATE_LIST_H */
