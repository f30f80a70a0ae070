/*-------------------------------------------------------------------------
 *
 * prepared.h
 *		Which prepared transactions concern us.
 *
 * src/shared/prepared.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_PREPARED_H
#define PM_PREPARED_H

#include "nodes/pg_list.h"

extern List *pm_prepared_transactions(void);
extern void pm_note_prepared(const List *transactions);

#endif							/* PM_PREPARED_H */
