/*-------------------------------------------------------------------------
 *
 * databases.h
 *		What keeps databases free of workers.
 *
 * src/worker/databases.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_DATABASES_H
#define PM_DATABASES_H

extern void pm_install_database_hooks(void);

#endif							/* PM_DATABASES_H */
