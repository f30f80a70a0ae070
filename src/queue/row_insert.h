/*-------------------------------------------------------------------------
 *
 * row_insert.h
 *		Putting rows into our tables without a statement.
 *
 * src/queue/row_insert.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_ROW_INSERT_H
#define PM_ROW_INSERT_H

#include "utils/rel.h"

/* Fills in row number "i" of those to insert, in a context of its own. */
typedef void (*PmMakeRow) (void *arg, int i, Datum *values, bool *nulls);

extern bool pm_insert_is_plain(Relation rel, int ncolumns,
							   const char *row_trigger);
extern bool pm_indexes_are_plain(Relation rel);
extern void pm_insert_rows(Relation rel, int n, PmMakeRow make, void *arg);

#endif							/* PM_ROW_INSERT_H */
