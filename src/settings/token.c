/*-------------------------------------------------------------------------
 *
 * token.c
 *		Server tokens: what can be one, and what may be shown of one.
 *
 * No token ever gets into a message; a mask stands for it wherever one is
 * shown.
 *
 * src/settings/token.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "settings/token.h"

/*
 * A masked token begins so, and no token that is accepted does.  The last
 * characters are shown of long ones only, so that what is hidden remains
 * beyond guessing.
 */
#define MASK				"********"
#define MASK_SHOWN			4
#define MASK_SHOWN_FROM		16

/*
 * Whether a text is what pm_mask_token makes of a token, and not a token.
 */
bool
pm_is_masked_token(const char *token)
{
	return strncmp(token, MASK, strlen(MASK)) == 0;
}

/*
 * What makes a text unfit to be a server token, as the end of a sentence
 * ("is empty"); NULL if nothing.  The text itself must not be shown.
 */
const char *
pm_token_problem(const char *token)
{
	const char *c;

	if (*token == '\0')
		return "is empty";
	if (strlen(token) > PM_TOKEN_MAX)
		return "is too long";
	for (c = token; *c; c++)
		if (*c <= 0x20 || *c >= 0x7f)
			return "has spaces, control characters or non-ASCII characters";
	if (pm_is_masked_token(token))
		return "is masked";
	return NULL;
}

/*
 * What may be shown of a token, palloc'd: always the same for the same token.
 */
char *
pm_mask_token(const char *token)
{
	size_t		len = strlen(token);

	return psprintf("%s%s", MASK,
					len >= MASK_SHOWN_FROM ? token + len - MASK_SHOWN : "");
}
