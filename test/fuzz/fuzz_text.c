/*-------------------------------------------------------------------------
 *
 * fuzz_text.c
 *		Fuzz target: text.c.
 *
 * An input is a letter for the encoding, then the text.
 *
 * Whether an address is accepted is compared with a second implementation,
 * written down as plainly as possible.
 *
 * test/fuzz/fuzz_text.c
 *
 *-------------------------------------------------------------------------
 */
#include "fuzz.h"

#include <ctype.h>

#include "base/text.h"
#include "base/uuid_text.h"

static const char letters_digits[] =
"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";

static const char letters_digits_alias[] =
"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_";

/* Are all parts between dots there, and made of these characters only? */
static bool
is_dotted(const char *text, const char *others)
{
	char		allowed[128];

	snprintf(allowed, sizeof(allowed), "%s%s.", letters_digits, others);

	return text[0] != '\0' && text[0] != '.' &&
		text[strlen(text) - 1] != '.' &&
		strstr(text, "..") == NULL &&
		strspn(text, allowed) == strlen(text);
}

static bool
is_address(const char *text)
{
	char	   *copy = pstrdup(text);
	char	   *at = strchr(copy, '@');
	char	   *label;
	char	   *last = NULL;

	if (strlen(text) > 254 || at == NULL)
		return false;
	*at = '\0';
	if (strlen(copy) > 64 || !is_dotted(copy, "!#$%&'*+-/=^_`{|}~") ||
		!is_dotted(at + 1, "-") || strchr(at + 1, '.') == NULL)
		return false;

	for (label = strtok(at + 1, "."); label; label = strtok(NULL, "."))
	{
		if (strlen(label) > 63 || label[0] == '-' ||
			label[strlen(label) - 1] == '-')
			return false;
		last = label;
	}

	return strspn(last, "0123456789") < strlen(last);
}

/* A uuid that is read is the text's, but for the case of its letters. */
static void
check_uuid(const char *text)
{
	pg_uuid_t	uuid;
	char		again[PM_UUID_TEXT];
	int			i;

	if (!pm_parse_uuid(text, &uuid))
	{
		FUZZ_REQUIRE(strlen(text) != 36 ||
					 strspn(text, "0123456789abcdefABCDEF-") != 36 ||
					 text[8] != '-' || text[13] != '-' || text[18] != '-' ||
					 text[23] != '-' || strchr(text + 24, '-') != NULL ||
					 strcspn(text + 9, "-") != 4 ||
					 strcspn(text, "-") != 8 ||
					 strcspn(text + 14, "-") != 4 ||
					 strcspn(text + 19, "-") != 4);
		return;
	}
	pm_format_uuid(&uuid, again);
	for (i = 0; i < PM_UUID_TEXT; i++)
		FUZZ_REQUIRE(again[i] == tolower((unsigned char) text[i]));
}

/* A reason is a sentence, and no part of what was given. */
static void
require_reason(const char *problem, const char *hint)
{
	FUZZ_REQUIRE(problem[strlen(problem) - 1] == '.');
	FUZZ_REQUIRE(hint == NULL || hint[strlen(hint) - 1] == '.');
	FUZZ_REQUIRE(fuzz_valid_text(problem));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char	   *text;
	char	   *shown;
	const char *problem;
	const char *hint;
	bool		address;

	if (size < 1)
		return 0;
	fuzz_begin(data[0]);
	data++;
	size--;

	/* From the network, as it came */
	shown = pm_network_text((const char *) data, size);
	fuzz_require_shown(shown);
	FUZZ_REQUIRE(strcmp(pm_network_text(shown, strlen(shown)), shown) == 0);

	/* From a user */
	text = fuzz_string(data, size);
	address = is_address(text);

	problem = pm_address_problem(text, &hint);
	FUZZ_REQUIRE((problem == NULL) == address);
	if (problem != NULL)
		require_reason(problem, hint);
	else
		FUZZ_REQUIRE(hint == NULL);

	problem = pm_mailbox_problem(text, &hint);
	if (problem != NULL)
	{
		FUZZ_REQUIRE(!address);
		require_reason(problem, hint);
	}
	else
	{
		FUZZ_REQUIRE(!pm_has_line_break(text));
		if (!address)
		{
			char	   *open = strchr(text, '<');

			FUZZ_REQUIRE(open != NULL && open > text);
			FUZZ_REQUIRE(strchr(text, '>') == text + strlen(text) - 1);
			FUZZ_REQUIRE(is_address(pnstrdup(open + 1, strlen(open) - 2)));
		}
	}

	/* They become a file's name, and a part of a URL. */
	FUZZ_REQUIRE(pm_valid_connector_name(text) ==
				 (text[0] != '\0' && strlen(text) <= 63 &&
				  strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789_-") ==
				  strlen(text)));
	FUZZ_REQUIRE(pm_valid_template_alias(text) ==
				 (text[0] != '\0' && strlen(text) <= 255 &&
				  strcspn(text, letters_digits) == 0 &&
				  strchr("0123456789", text[0]) == NULL &&
				  strspn(text, letters_digits_alias) == strlen(text)));

	check_uuid(text);

	return 0;
}
