/*-------------------------------------------------------------------------
 *
 * token.h
 *		Server tokens: what can be one, and what may be shown of one.
 *
 * src/settings/token.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_TOKEN_H
#define PM_TOKEN_H

/* A server token, as Postmark gives it out or as a file holds it, bytes. */
#define PM_TOKEN_MAX 200

extern bool pm_is_masked_token(const char *token);
extern const char *pm_token_problem(const char *token);
extern char *pm_mask_token(const char *token);

#endif							/* PM_TOKEN_H */
