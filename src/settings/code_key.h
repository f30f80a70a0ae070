/*-------------------------------------------------------------------------
 *
 * code_key.h
 *		The keys under which verification codes are kept.
 *
 * src/settings/code_key.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_CODE_KEY_H
#define PM_CODE_KEY_H

/* Bytes of a connector's key */
#define PM_CODE_KEY		32

/* With the owner's rights and SPI */
extern bool pm_code_key_read(const char *connector, unsigned char *key);
extern bool pm_code_keys_to_come(void);
extern void pm_code_key_make(const char *connector);
extern void pm_code_key_replace(const char *connector);

#endif							/* PM_CODE_KEY_H */
