/*-------------------------------------------------------------------------
 *
 * bytes.h
 *		Bytes as values of SQL.
 *
 * src/base/bytes.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_BYTES_H
#define PM_BYTES_H

extern Datum pm_bytes_datum(const unsigned char *bytes, int len);

#endif							/* PM_BYTES_H */
