/*-------------------------------------------------------------------------
 *
 * text.c
 *		Checks on text that users supply, cleaning of text that networks
 *		supply.
 *
 * The two directions are treated differently.  What a user supplies is
 * accepted as it stands or refused with a reason, never repaired: an address
 * that was trimmed or cut would be another address.  The reason does not quote
 * what it is about, because it ends in logs.  What the network supplies is
 * only shown to people, so it is always repaired and never refused: nothing
 * that a server answers may raise an error here.
 *
 * The address check runs once for every row that is inserted into the queue.
 * It is one pass over the bytes with a table; only a byte that fails is looked
 * at a second time, to say why.
 *
 * src/base/text.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "common/string.h"
#include "mb/pg_wchar.h"
#include "utils/memutils.h"

#include "base/errors.h"
#include "base/text.h"

/* RFC 1035 2.3.4 */
#define LABEL_MAX 63

/* RFC 5322 2.1.1: what fits a line of the mail's header */
#define MAILBOX_MAX 998

#define TEMPLATE_ALIAS_MAX 255

/* What a byte may be part of: bits of char_class[] */
#define ATEXT 1					/* an atom of RFC 5322 3.2.3, but for "?",
								 * which Postmark takes in no address */
#define LDH 2					/* letter, digit, hyphen: RFC 5890 2.3.1 */

/* Bytes from 0x80 on are neither, and are left to be zero. */
static const uint8 char_class[256] = {
	/* control characters */
	0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
	0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
	/* space ! " # $ % & ' ( ) * + , - . / */
	0, 1, 0, 1, 1, 1, 1, 1, 0, 0, 1, 1, 0, 3, 0, 1,
	/* 0 to 9 : ; < = > ? */
	3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 0, 0, 0, 1, 0, 0,
	/* @ A to O */
	0, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3,
	/* P to Z [ \ ] ^ _ */
	3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 0, 0, 0, 1, 1,
	/* ` a to o */
	1, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3,
	/* p to z { | } ~ DEL */
	3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 1, 1, 1, 1, 0
};

#define IS_ATEXT(c) ((char_class[(unsigned char) (c)] & ATEXT) != 0)
#define IS_LDH(c) ((char_class[(unsigned char) (c)] & LDH) != 0)
#define IS_DIGIT(c) ((c) >= '0' && (c) <= '9')
#define IS_LETTER(c) \
	(((c) >= 'a' && (c) <= 'z') || ((c) >= 'A' && (c) <= 'Z'))
#define IS_CONTROL(c) ((unsigned char) (c) < 0x20 || (c) == 0x7f)

static const char *bad_byte_problem(const char *at, bool in_domain,
									const char **hint);

/*
 * pm_address_problem
 *		Is this exactly one e-mail address, and if not, why?
 *
 * address is NUL-terminated, in the database's encoding.  Returns NULL if it
 * is an address; else a sentence for the DETAIL, with *hint a sentence for the
 * HINT or NULL.  Both are static and never repeat any of the address.  Nothing
 * is trimmed, and nothing is raised.
 *
 * The grammar is stricter than RFC 5322 on purpose: Postmark takes a list in
 * "To", so whatever could make one address two (comma, quotes, comments, angle
 * brackets) is refused.
 */
const char *
pm_address_problem(const char *address, const char **hint)
{
	const char *p = address;
	const char *start;
	int			nlabels = 0;

	*hint = NULL;

	if (*p == '\0')
		return "The address is empty.";

	/* The local part: atoms with single dots between them. */
	for (;;)
	{
		start = p;
		while (IS_ATEXT(*p))
			p++;
		if (p == start || *p != '.')
			break;
		p++;
	}
	if (*p == '\0')
		return "The address has no \"@\".";
	if (*p != '@' && *p != '.')
		return bad_byte_problem(p, false, hint);
	if (p == address && *p == '@')
		return "The address has nothing before the \"@\".";
	if (p == start)
		return "The part before the \"@\" begins or ends with a dot, or has two dots in a row.";
	if (p - address > PM_LOCAL_PART_MAX)
		return "The part before the \"@\" is longer than 64 bytes.";

	/* The domain: labels with single dots between them. */
	p++;
	if (*p == '\0')
		return "The address has nothing after the \"@\".";
	for (;;)
	{
		start = p;
		while (IS_LDH(*p))
			p++;
		if (*p != '\0' && *p != '.')
			return bad_byte_problem(p, true, hint);
		if (p == start)
			return "The domain begins or ends with a dot, or has two dots in a row.";
		if (*start == '-' || p[-1] == '-')
			return "A label of the domain begins or ends with a hyphen.";
		if (p - start > LABEL_MAX)
			return "A label of the domain is longer than 63 bytes.";
		nlabels++;
		if (*p == '\0')
			break;
		p++;
	}
	if (nlabels < 2)
		return "The domain has no dot.";
	if (p - address > PM_ADDRESS_MAX)
		return "The address is longer than 254 bytes.";

	/*
	 * No top-level domain is a number (RFC 3696 2), but the last part of an
	 * IP address is, and some resolvers take such a name for one.
	 */
	while (IS_DIGIT(*start))
		start++;
	if (start == p)
		return "The domain ends in a number, as an IP address does.";

	return NULL;
}

/*
 * Does the text begin with a character that nobody sees?  It comes in where an
 * address is copied from a page: zero-width space and its like, byte order
 * mark, no-break space, soft hyphen.
 */
static bool
is_invisible(const char *text)
{
	static const char *const invisible[] = {
		"\xE2\x80\x8B", "\xE2\x80\x8C", "\xE2\x80\x8D", "\xE2\x80\x8E",
		"\xE2\x80\x8F", "\xE2\x81\xA0", "\xEF\xBB\xBF", "\xC2\xA0", "\xC2\xAD"
	};
	int			i;

	if (GetDatabaseEncoding() != PG_UTF8)
		return false;
	for (i = 0; i < lengthof(invisible); i++)
		if (strncmp(text, invisible[i], strlen(invisible[i])) == 0)
			return true;
	return false;
}

/*
 * Say what is wrong with a byte at which an address cannot go on.  It is not
 * NUL and, before the "@", neither "@" nor a dot.
 */
static const char *
bad_byte_problem(const char *at, bool in_domain, const char **hint)
{
	unsigned char c = (unsigned char) *at;

	if (is_invisible(at))
	{
		*hint = "It may have come in by copying; type the address anew.";
		return "The address has a character that cannot be seen.";
	}
	if (IS_HIGHBIT_SET(c))
	{
		if (!in_domain)
			return "The part before the \"@\" has a non-ASCII character.";
		*hint = "Write the domain in its A-label form, in which such a label begins with \"xn--\".";
		return "The domain has a non-ASCII character.";
	}
	if (c == '\r' || c == '\n')
		return "The address has a line break.";
	if (c == '<' || c == '>' ||
		((c == ' ' || c == '"') && strchr(at, '<') != NULL))
	{
		*hint = "Give the address alone, without a name and angle brackets.";
		return "The address has an angle bracket.";
	}
	if (c == ' ' || c == '\t')
	{
		*hint = "Spaces are not trimmed, neither before nor after the address.";
		return "The address has a space.";
	}
	if (IS_CONTROL(c))
		return "The address has a control character.";
	if (c == '@')
		return "The address has more than one \"@\".";
	if (c == ',' || c == ';')
	{
		*hint = "A list is not accepted, only one address.";
		return "The address has a comma or a semicolon.";
	}
	if (in_domain && c == '[')
		return "The domain is an address literal.";
	if (in_domain)
		return "The domain has a character other than letters, digits, hyphens and dots.";
	*hint = "Postmark takes letters, digits, dots and !#$%&'*+-/=^_`{|}~ there.";
	return "The part before the \"@\" has a character that is not allowed there.";
}

/*
 * pm_mailbox_problem
 *		The same as pm_address_problem for a sender: "a@b", or "Name <a@b>".
 *
 * The name is free text, with or without quotes, commas included; it must fit
 * one line and cannot hold an angle bracket.
 *
 * mailbox is NUL-terminated, in the database's encoding.  Returns NULL if it
 * is good, else static sentences as above.  Raises nothing but out of memory.
 */
const char *
pm_mailbox_problem(const char *mailbox, const char **hint)
{
	const char *open = NULL;
	const char *p;
	const char *problem;
	char	   *address;
	bool		has_name = false;
	bool		has_at = false;
	bool		has_comma = false;
	bool		in_quotes = false;

	*hint = NULL;

	for (p = mailbox; *p != '\0'; p++)
	{
		if (*p == '\r' || *p == '\n')
			return "The sender has a line break.";
		if (IS_CONTROL(*p))
			return "The sender has a control character.";
		if (*p == '>' && (open == NULL || p[1] != '\0'))
			return "The sender has an angle bracket that does not belong to the address at its end.";
		if (*p == '<')
		{
			if (open != NULL)
				return "The sender has more than one \"<\".";
			open = p;
		}
		if (open != NULL)
			continue;

		if (*p == '\\' && in_quotes && p[1] == '"')
			p++;
		else if (*p == '"')
			in_quotes = !in_quotes;
		else if (!in_quotes && *p == '@')
			has_at = true;
		else if (!in_quotes && (*p == ',' || *p == ';'))
			has_comma = true;
		if (*p != ' ' && *p != '"')
			has_name = true;
	}

	if (open == NULL)
		return pm_address_problem(mailbox, hint);

	if (p[-1] != '>')
		return "The sender has a \"<\" without a \">\" at its end.";
	if (p - mailbox > MAILBOX_MAX)
		return "The sender is longer than 998 bytes.";
	if (!has_name)
	{
		*hint = "Without a name, give the address without angle brackets.";
		return "The sender has no name before the \"<\".";
	}

	/*
	 * "a@x.example, Ann <b@y.example>" is a list of two to everyone who reads
	 * it but us.
	 */
	if (has_at && has_comma)
	{
		*hint = "Put double quotes around a name that has both a comma and an \"@\".";
		return "The sender looks like a list of addresses.";
	}

	address = pnstrdup(open + 1, p - open - 2);
	problem = pm_address_problem(address, hint);
	pfree(address);

	return problem;
}

/*
 * Is this name a phrase of RFC 5322 as it stands: atoms and quoted strings with
 * spaces between them?  Non-ASCII letters belong to atoms (RFC 6532).  A dot
 * does not: in a name it is to be quoted.
 */
static bool
is_phrase(const char *name, const char *end)
{
	while (name < end)
	{
		if (*name != '"')
		{
			if (!IS_ATEXT(*name) && !IS_HIGHBIT_SET(*name) && *name != ' ' &&
				*name != '?')
				return false;
			name++;
			continue;
		}
		for (name++; name < end && *name != '"'; name++)
			if (*name == '\\')
				name++;
		if (name >= end)
			return false;
		name++;
		if (name < end && *name != ' ')
			return false;
	}
	return true;
}

/*
 * pm_mailbox_quoted
 *		A sender as it is written into a mail: its name quoted where it needs
 *		to be.
 *
 * mailbox is one that pm_mailbox_problem finds nothing wrong with.  Returns it
 * unchanged, or a palloc'd text.
 */
char *
pm_mailbox_quoted(char *mailbox)
{
	const char *open = strchr(mailbox, '<');
	const char *end = open;
	const char *c = mailbox;
	StringInfoData quoted;

	if (open == NULL)
		return mailbox;
	while (*c == ' ')
		c++;
	while (end > c && end[-1] == ' ')
		end--;
	if (is_phrase(c, end))
		return mailbox;

	initStringInfo(&quoted);
	appendStringInfoChar(&quoted, '"');
	for (; c < end; c++)
	{
		if (*c == '"' || *c == '\\')
			appendStringInfoChar(&quoted, '\\');
		appendStringInfoChar(&quoted, *c);
	}
	appendStringInfo(&quoted, "\" %s", open);
	return quoted.data;
}

/*
 * pm_mailbox_name
 *		The name of a sender as a person reads it, without quotes; NULL if it
 *		has none.
 *
 * mailbox is one that pm_mailbox_problem finds nothing wrong with.  Returns a
 * palloc'd text.
 */
char *
pm_mailbox_name(const char *mailbox)
{
	const char *open = strchr(mailbox, '<');
	const char *c;
	StringInfoData name;

	if (open == NULL)
		return NULL;
	initStringInfo(&name);
	for (c = mailbox + strspn(mailbox, " "); c < open; c++)
	{
		if (*c == '"')
			continue;
		if (*c == '\\' && c + 1 < open)
			c++;
		appendStringInfoChar(&name, *c);
	}
	while (name.len > 0 && name.data[name.len - 1] == ' ')
		name.data[--name.len] = '\0';
	return name.data;
}

/*
 * pm_mailbox_address
 *		The bare address of a sender.
 *
 * mailbox is one that pm_mailbox_problem finds nothing wrong with.  Returns a
 * palloc'd text.
 */
char *
pm_mailbox_address(const char *mailbox)
{
	const char *open = strchr(mailbox, '<');

	if (open == NULL)
		return pstrdup(mailbox);
	return pnstrdup(open + 1, strcspn(open + 1, ">"));
}

/*
 * pm_has_line_break
 *		Would this NUL-terminated text break out of a line of a mail header?
 */
bool
pm_has_line_break(const char *text)
{
	return strpbrk(text, "\r\n") != NULL;
}

/*
 * pm_has_control
 *		Has this NUL-terminated text an ASCII control character?
 */
bool
pm_has_control(const char *text)
{
	for (; *text != '\0'; text++)
		if (IS_CONTROL(*text))
			return true;

	return false;
}

/*
 * pm_is_made_of
 *		Is this text made of the given characters, at least one of them and
 *		at most max?
 *
 * Both are NUL-terminated; the characters are ASCII.
 */
bool
pm_is_made_of(const char *text, const char *characters, size_t max)
{
	size_t		len = strlen(text);

	return len >= 1 && len <= max && strspn(text, characters) == len;
}

/*
 * pm_valid_connector_name
 *		1 to 63 of a-z, 0-9, "_" and "-".
 *
 * A connector's name is also the name of its file in the token directory, so
 * there can be no dot and no slash in it.
 */
bool
pm_valid_connector_name(const char *name)
{
	return pm_is_made_of(name, PM_LOWER PM_DIGITS "_-", NAMEDATALEN - 1);
}

/*
 * pm_valid_template_alias
 *		What Postmark takes for an alias: an ASCII letter, then letters,
 *		digits, ".", "-" and "_"; at most 255 bytes.
 */
bool
pm_valid_template_alias(const char *alias)
{
	const char *p;

	if (!IS_LETTER(*alias))
		return false;

	for (p = alias + 1; *p != '\0'; p++)
	{
		if (!IS_LETTER(*p) && !IS_DIGIT(*p) &&
			*p != '.' && *p != '-' && *p != '_')
			return false;
	}

	return p - alias <= TEMPLATE_ALIAS_MAX;
}

/*
 * pm_utf8_char_length
 *		Length in bytes of the character at s, which must be before end.
 *
 * Returns 0 if the bytes there do not begin a valid character of UTF-8, or if
 * it does not end before end.
 */
int
pm_utf8_char_length(const char *s, const char *end)
{
	int			length = pg_utf_mblen((const unsigned char *) s);

	if (length > end - s ||
		!pg_utf8_islegal((const unsigned char *) s, length))
		return 0;

	return length;
}

/*
 * pm_network_text
 *		Make bytes from the network fit to be shown.
 *
 * utf8 is len bytes that claim to be UTF-8, not NUL-terminated.  Returns text
 * in the database's encoding, palloc'd, at most PM_NETWORK_TEXT_MAX bytes and
 * cut between two characters.  A control character becomes a space, an invalid
 * byte a question mark, spaces at both ends go.  In a database that is not
 * UTF8 every non-ASCII character becomes a question mark: looking a conversion
 * up would need a transaction, and could fail.
 *
 * Raises nothing but out of memory.
 */
char *
pm_network_text(const char *utf8, size_t len)
{
	bool		keep_non_ascii = (GetDatabaseEncoding() == PG_UTF8);
	const char *end = utf8 + len;
	char	   *result = palloc(PM_NETWORK_TEXT_MAX + 1);
	char	   *out = result;
	char	   *limit = result + PM_NETWORK_TEXT_MAX;

	while (utf8 < end && out < limit)
	{
		unsigned char c = (unsigned char) *utf8;
		int			length = 1;

		if (!IS_HIGHBIT_SET(c))
		{
			if (IS_CONTROL(c))
				c = ' ';
		}
		else
		{
			length = pm_utf8_char_length(utf8, end);

			/* U+0080 to U+009F are control characters, too. */
			if (length == 2 && c == 0xC2 && (unsigned char) utf8[1] < 0xA0)
				c = ' ';
			else if (length == 0 || !keep_non_ascii)
				c = '?';
			else
			{
				if (length > limit - out)
					break;
				memcpy(out, utf8, length);
				out += length;
				utf8 += length;
				continue;
			}
			length = Max(length, 1);
		}

		if (c != ' ' || out > result)
			*out++ = c;
		utf8 += length;
	}

	while (out > result && out[-1] == ' ')
		out--;
	*out = '\0';

	return result;
}

/*
 * pm_to_utf8
 *		Convert text from the database's encoding to UTF-8.
 *
 * text is NUL-terminated.  Returns text itself if it is UTF-8 already, else a
 * palloc'd copy.  Raises PM003 if it cannot be converted.
 *
 * This is pg_server_to_any() but for the error, in which PostgreSQL prints the
 * bytes of the character: they may be part of a code.  In a SQL_ASCII database
 * nobody knows what the bytes are, and we take them for UTF-8 if they can be.
 * Outside of a transaction the client encoding must be UTF8.
 */
char *
pm_to_utf8(const char *text)
{
	int			encoding = GetDatabaseEncoding();
	size_t		len = strlen(text);
	size_t		size;
	char	   *result;
	Oid			proc;

	if (encoding == PG_UTF8 || len == 0)
		return unconstify(char *, text);

	if (encoding == PG_SQL_ASCII)
	{
		if (!pg_verify_mbstr(PG_UTF8, text, len, true))
			ereport(ERROR,
					(errcode(PM_ERRCODE_INVALID),
					 errmsg("text is not valid UTF-8"),
					 errdetail("The database's encoding is SQL_ASCII, so that text must be stored as UTF-8 to be sent.")));
		return unconstify(char *, text);
	}

	/* Most text is ASCII, which every encoding of a database holds as it is. */
	if (pg_is_ascii(text))
		return unconstify(char *, text);

	/*
	 * Without a transaction nothing can be looked up, but the worker keeps
	 * the conversion to its client encoding, UTF8, ready, if there is one.
	 */
	if (!IsTransactionState() && pg_get_client_encoding() == PG_UTF8)
		return pg_server_to_any(text, (int) len, PG_UTF8);

	proc = IsTransactionState() ?
		FindDefaultConversionProc(encoding, PG_UTF8) : InvalidOid;
	if (!OidIsValid(proc))
		ereport(ERROR,
				(errcode(PM_ERRCODE_INVALID),
				 errmsg("text cannot be converted to UTF-8"),
				 errdetail("There is no conversion from the database's encoding %s: only ASCII can be sent.",
						   pg_encoding_to_char(encoding))));

	/* Large enough for the whole text in one call, and the NUL. */
	size = len * MAX_CONVERSION_GROWTH + 1;
	if (len >= MaxAllocSize / MAX_CONVERSION_GROWTH)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("text is too long to be converted")));
	result = palloc(size);
	if (pg_do_encoding_conversion_buf(proc, encoding, PG_UTF8,
									  (unsigned char *) unconstify(char *, text),
									  (int) len, (unsigned char *) result,
									  (int) size, true) != (int) len)
		ereport(ERROR,
				(errcode(PM_ERRCODE_INVALID),
				 errmsg("text cannot be converted to UTF-8"),
				 errdetail("A character has no equivalent in UTF-8, or is not valid in the database's encoding %s.",
						   pg_encoding_to_char(encoding))));

	return result;
}
