/*-------------------------------------------------------------------------
 *
 * uuid_text.c
 *		UUIDs as text and back.
 *
 * There is one of each for every message: its batch's in what is sent, and
 * Postmark's MessageID in what comes back.  The server's own uuid_in raises an
 * error where we need an answer, and takes a call of strtoul for each byte.
 *
 * src/base/uuid_text.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/uuid_text.h"

/* Value of a hexadecimal digit, -1 if it is none. */
static inline int
hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* Whether a hyphen goes before this byte of a uuid. */
static inline bool
hyphen_before(int byte)
{
	return byte == 4 || byte == 6 || byte == 8 || byte == 10;
}

/* Write a uuid as text, for which there must be PM_UUID_TEXT bytes. */
void
pm_format_uuid(const pg_uuid_t *uuid, char *text)
{
	static const char hex[] = "0123456789abcdef";
	int			i;

	for (i = 0; i < UUID_LEN; i++)
	{
		if (hyphen_before(i))
			*text++ = '-';
		*text++ = hex[uuid->data[i] >> 4];
		*text++ = hex[uuid->data[i] & 0x0f];
	}
	*text = '\0';
}

/*
 * Read a uuid in the form that RFC 4122 gives it, with four hyphens and letters
 * of either case.  Returns false, with *uuid undefined, if the text is anything
 * else.  Raises nothing.
 */
bool
pm_parse_uuid(const char *text, pg_uuid_t *uuid)
{
	int			i;

	for (i = 0; i < UUID_LEN; i++)
	{
		int			high;
		int			low;

		if (hyphen_before(i) && *text++ != '-')
			return false;

		/* A NUL is no digit, so nothing behind the end is read */
		if ((high = hex_value(text[0])) < 0 || (low = hex_value(text[1])) < 0)
			return false;
		uuid->data[i] = (unsigned char) (high << 4 | low);
		text += 2;
	}
	return *text == '\0';
}
