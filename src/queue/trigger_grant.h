/*-------------------------------------------------------------------------
 *
 * trigger_grant.h
 *		What CREATE TRIGGER says to a role that may not execute our triggers.
 *
 * src/queue/trigger_grant.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_TRIGGER_GRANT_H
#define PM_TRIGGER_GRANT_H

extern void pm_install_trigger_hook(void);

#endif							/* PM_TRIGGER_GRANT_H */
