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

/* A code or token that was issued and not used */
typedef struct PmCode
{
	int64		id;				/* of the message that carries it */
	const char *connector;
	char	   *address;		/* folded */
	char	   *usage_type;
	char	   *email;			/* as it was given */
	bool		token;
	unsigned char hmac[PM_CODE_HMAC];
	TimestampTz created_at;
	TimestampTz expires_at;
} PmCode;

extern void pm_make_code(char *code, int n);
extern void pm_make_token(char *token);
extern bool pm_well_formed_code(const char *code);
extern bool pm_well_formed_token(const char *token);
extern void pm_code_hmac(const unsigned char *key, const PmCode *code,
						 const char *digits, unsigned char *hmac);
extern void pm_token_hmac(const unsigned char *key, const char *connector,
						  const char *usage_type, const char *token,
						  unsigned char *hmac);
extern void pm_address_hmac(const unsigned char *key, const char *connector,
							const char *address, unsigned char *hmac);

#endif							/* PM_CODE_SECRET_H */
