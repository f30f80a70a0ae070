/*-------------------------------------------------------------------------
 *
 * code_secret.h
 *		Codes and tokens: made at random, and what is kept of them.
 *
 * src/codes/code_secret.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_CODE_SECRET_H
#define PM_CODE_SECRET_H

#include "datatype/timestamp.h"

/* Bytes of what is computed with a connector's key */
#define PM_CODE_HMAC	32

/* Characters of a token: base64 of 192 random bits */
#define PM_TOKEN_LENGTH	32

/* Digits of a code, see config_options.c */
#define PM_CODE_MIN		4
#define PM_CODE_MAX		12

/* A code or token that was issued and not used */
typedef struct PmCode
{
	int64		id;				/* of the message that carries it */
	const char *connector;
	char	   *address;		/* folded */
	const char *usage_type;
	char	   *email;			/* as it was given */
	bool		token;
	unsigned char hmac[PM_CODE_HMAC];
	bool		sealed;			/* of a token: whether it has the next */
	unsigned char seal[PM_CODE_HMAC];
	TimestampTz created_at;
	TimestampTz expires_at;
} PmCode;

/*
 * What an HMAC covers.  Codes and tokens that were issued with the SQL objects
 * of 1.0 are good until they expire.
 */
typedef enum PmHmacForm
{
	PM_HMAC_1_0,
	PM_HMAC_1_1
} PmHmacForm;

extern void pm_make_code(char *code, int n);
extern void pm_make_token(char *token);
extern bool pm_typed_code(const char *typed, char *code);
extern bool pm_well_formed_token(const char *token);
extern void pm_code_hmac(PmHmacForm form, const unsigned char *key,
						 const PmCode *code, const char *digits,
						 unsigned char *hmac);
extern void pm_token_hmac(PmHmacForm form, const unsigned char *key,
						  const char *connector, const char *usage_type,
						  const char *token, unsigned char *hmac);
extern void pm_token_seal(const unsigned char *key, const PmCode *code,
						  unsigned char *hmac);
extern void pm_address_hmac(const unsigned char *key, const char *connector,
							const char *address, unsigned char *hmac);

#endif							/* PM_CODE_SECRET_H */
