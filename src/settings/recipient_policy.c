/*-------------------------------------------------------------------------
 *
 * recipient_policy.c
 *		Who may be sent a code: Logto's email policy.
 *
 * Lists hold addresses (ann@example.com) and domains (@example.com), in both
 * of which "*" stands for any characters (@*.example.com, test*@example.com).
 * They are folded like addresses when they are read, so that comparing is
 * comparing bytes.
 *
 * src/settings/recipient_policy.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/text.h"
#include "settings/connector.h"
#include "settings/recipient_policy.h"

/*
 * Fold ASCII A-Z in place, and nothing else: of other characters, such as the
 * Kelvin sign, none may become an ASCII letter.
 */
void
pm_fold_address(char *address)
{
	for (; *address; address++)
		if (*address >= 'A' && *address <= 'Z')
			*address += 'a' - 'A';
}

/*
 * Whether a text can be an item of a list: an address, or "@" and a domain,
 * when each "*" in it is taken for a letter.
 */
bool
pm_valid_recipient_pattern(const char *pattern)
{
	const char *hint = NULL;
	const char *domain = strchr(pattern, '@');
	char	   *sample;
	char	   *c;
	bool		valid;

	/* One that matches everything is a slip. */
	if (domain == NULL || strspn(domain, "@*.") == strlen(domain))
		return false;
	sample = psprintf("%s%s", domain == pattern ? "x" : "", pattern);
	for (c = sample; *c; c++)
		if (*c == '*')
			*c = 'x';
	valid = pm_address_problem(sample, &hint) == NULL;
	pfree(sample);
	return valid;
}

/* Whether a text is what the pattern says, "*" being any characters. */
static bool
matches(const char *text, const char *pattern)
{
	const char *star = NULL;	/* the last one passed */
	const char *resume = NULL;	/* where what it stands for may end */

	while (*text)
	{
		if (*pattern == '*')
		{
			star = pattern++;
			resume = text;
		}
		else if (*pattern == *text)
		{
			pattern++;
			text++;
		}
		else if (star)
		{
			pattern = star + 1;
			text = ++resume;
		}
		else
			return false;
	}
	while (*pattern == '*')
		pattern++;
	return *pattern == '\0';
}

static bool
listed(const PmRecipientList *list, const char *address)
{
	const char *domain = strchr(address, '@');
	int			i;

	for (i = 0; i < list->n; i++)
	{
		const char *pattern = list->patterns[i];

		if (matches(*pattern == '@' && domain ? domain : address, pattern))
			return true;
	}
	return false;
}

/*
 * Why the policy of a connector refuses a folded address, as a whole sentence;
 * NULL if it does not.
 */
const char *
pm_recipient_refusal(const PmConnector *connector, const char *address)
{
	const PmRecipientPolicy *policy = &connector->recipients;

	if (policy->block_subaddressing)
	{
		const char *plus = strchr(address, '+');

		if (plus && plus < strchr(address, '@'))
			return "The recipient policy refuses subaddresses, such as name+tag@example.com.";
	}
	if (listed(&policy->block, address))
		return "The recipient policy has the address, or its domain, on its block list.";
	if (policy->allow.n > 0 && !listed(&policy->allow, address))
		return "The recipient policy has neither the address nor its domain on its allow list.";
	return NULL;
}
