/*-------------------------------------------------------------------------
 *
 * json.c
 *		Reading JSON that came over the network, without ever raising an
 *		error.
 *
 * PostgreSQL's own parser reads the text, but three things make it raise an
 * error instead of returning one: bytes that the database's encoding does not
 * have, an escape for a character that it does not have, and nesting that is
 * too deep for the stack.  So the text is cleaned of all three first, in one
 * pass over a copy; whatever is still wrong then is a syntax error, which the
 * parser returns.  An error here would be an answer of Postmark's that is
 * never stored, so that a name which a database cannot hold is worth a question
 * mark.
 *
 * src/postmark/json.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/jsonapi.h"
#include "mb/pg_wchar.h"
#include "utils/memutils.h"

#include "base/compat.h"
#include "base/text.h"
#include "postmark/json.h"

/* Longer text would make a StringInfo of the parser's raise an error. */
#define JSON_MAX_LENGTH (MaxAllocSize / 2)

/* \uXXXX */
#define UNICODE_ESCAPE_LENGTH 6
#define UNICODE_ESCAPE_QUESTION_MARK "\\u003f"

/* The tree while it grows */
typedef struct Builder
{
	PmJson	   *root;
	char	   *name;			/* key of the next value, if in an object */
	PmJson	   *open[PM_JSON_MAX_DEPTH];	/* arrays and objects not yet
											 * ended, outermost first */
	int			depth;
} Builder;

static char *clean_copy(const char *utf8, size_t len, int *clean_len);
static const char *clean_escape(const char *in, const char *end,
								bool keep_non_ascii, char **out);
static int	unicode_escape(const char *in, const char *end);
static void add_value(Builder *builder, PmJsonType type, char *text);
static PmJsonActionResult on_object_start(void *state);
static PmJsonActionResult on_array_start(void *state);
static PmJsonActionResult on_container_end(void *state);
static PmJsonActionResult on_field_start(void *state, char *name, bool isnull);
static PmJsonActionResult on_scalar(void *state, char *token, JsonTokenType type);

/*
 * pm_json_parse
 *		Parse len bytes at utf8, which need not be NUL-terminated.
 *
 * Returns the tree, in the current memory context and in the database's
 * encoding, or NULL if the bytes are not one JSON value, if there is a NUL
 * among them, if the nesting is deeper than PM_JSON_MAX_DEPTH, or if there are
 * more values than PM_JSON_MAX_NODES.  What the
 * database cannot hold is a question mark in the tree: invalid UTF-8, \u0000,
 * half a surrogate pair and, if the encoding is not UTF8, every non-ASCII
 * character.  Strings can hold control characters: to show one, pass it
 * through pm_network_text().
 *
 * Raises nothing but out of memory, and needs no transaction.
 */
PmJson *
pm_json_parse(const char *utf8, size_t len)
{
	Builder		builder = {0};
	JsonSemAction actions = {0};
	JsonLexContext *lex;
	JsonParseErrorType result;
	char	   *clean;
	int			clean_len;

	if (len > JSON_MAX_LENGTH)
		return NULL;

	clean = clean_copy(utf8, len, &clean_len);
	if (clean == NULL)
		return NULL;

	actions.semstate = &builder;
	actions.object_start = on_object_start;
	actions.object_end = on_container_end;
	actions.array_start = on_array_start;
	actions.array_end = on_container_end;
	actions.object_field_start = on_field_start;
	actions.scalar = on_scalar;

	lex = makeJsonLexContextCstringLen(NULL, clean, clean_len,
									   GetDatabaseEncoding(), true);
	result = pg_parse_json(lex, &actions);

	freeJsonLexContext(lex);
	pfree(clean);

	return (result == JSON_SUCCESS) ? builder.root : NULL;
}

/*
 * Copy the text without what could make the parser raise an error.  Returns
 * NULL if it cannot be JSON that we want.
 *
 * Strings are told from the rest by their quotes alone.  Where the text is not
 * JSON this can go wrong, but only behind the first syntax error, and so
 * behind what the parser reads.
 */
static char *
clean_copy(const char *utf8, size_t len, int *clean_len)
{
	bool		keep_non_ascii = (GetDatabaseEncoding() == PG_UTF8);
	bool		in_string = false;
	int			depth = 0;
	int			nodes = 1;
	const char *in = utf8;
	const char *end = utf8 + len;
	char	   *copy;
	char	   *out;

	/* RFC 8259 8.1 lets a parser ignore a byte order mark. */
	if (len >= 3 && memcmp(in, "\xEF\xBB\xBF", 3) == 0)
		in += 3;

	/* Nothing below makes the text longer. */
	copy = palloc(len + 1);
	out = copy;

	while (in < end)
	{
		char		c = *in;

		if (c == '\0')
			goto refuse;

		if (IS_HIGHBIT_SET(c))
		{
			int			length = pm_utf8_char_length(in, end);

			if (length > 0 && keep_non_ascii)
			{
				memcpy(out, in, length);
				out += length;
			}
			else
				*out++ = '?';
			in += Max(length, 1);
			continue;
		}

		if (in_string && c == '\\')
		{
			in = clean_escape(in, end, keep_non_ascii, &out);
			continue;
		}

		/* Each value but the first follows one of these, or a key that does. */
		if (!in_string && (c == ',' || c == '{' || c == '[') &&
			++nodes > PM_JSON_MAX_NODES)
			goto refuse;

		if (c == '"')
			in_string = !in_string;
		else if (!in_string && (c == '{' || c == '['))
		{
			if (++depth > PM_JSON_MAX_DEPTH)
				goto refuse;
		}
		else if (!in_string && (c == '}' || c == ']'))
		{
			if (--depth < 0)
				goto refuse;
		}

		*out++ = c;
		in++;
	}

	*out = '\0';
	*clean_len = (int) (out - copy);
	return copy;

refuse:
	pfree(copy);
	return NULL;
}

/*
 * Copy one escape, which begins with the backslash at in, to *out and move
 * *out past it.  Returns where the text goes on.
 */
static const char *
clean_escape(const char *in, const char *end, bool keep_non_ascii, char **out)
{
	int			code = unicode_escape(in, end);
	int			length = UNICODE_ESCAPE_LENGTH;
	bool		keep;

	if (code < 0)
	{
		/*
		 * A backslash or a quote that is escaped must be copied now: the
		 * caller would take it for the beginning of an escape, or for the end
		 * of the string.  Other bytes it can look at itself.
		 */
		length = (end - in > 1 && (in[1] == '\\' || in[1] == '"')) ? 2 : 1;
		keep = true;
	}
	else if (is_utf16_surrogate_first(code))
	{
		int			second = unicode_escape(in + length, end);

		keep = (second >= 0 && is_utf16_surrogate_second(second));
		if (keep)
			length += UNICODE_ESCAPE_LENGTH;
		keep = keep && keep_non_ascii;
	}
	else if (is_utf16_surrogate_second(code) || code == 0)
		keep = false;
	else
		keep = (code < 0x80 || keep_non_ascii);

	if (keep)
	{
		memcpy(*out, in, length);
		*out += length;
	}
	else
	{
		memcpy(*out, UNICODE_ESCAPE_QUESTION_MARK, UNICODE_ESCAPE_LENGTH);
		*out += UNICODE_ESCAPE_LENGTH;
	}

	return in + length;
}

/*
 * The code unit of the \uXXXX at in, or -1 if there is none before end.
 */
static int
unicode_escape(const char *in, const char *end)
{
	int			code = 0;
	int			i;

	if (end - in < UNICODE_ESCAPE_LENGTH || in[0] != '\\' || in[1] != 'u')
		return -1;

	for (i = 2; i < UNICODE_ESCAPE_LENGTH; i++)
	{
		char		c = in[i];

		if (c >= '0' && c <= '9')
			code = code * 16 + (c - '0');
		else if (c >= 'a' && c <= 'f')
			code = code * 16 + (c - 'a' + 10);
		else if (c >= 'A' && c <= 'F')
			code = code * 16 + (c - 'A' + 10);
		else
			return -1;
	}

	return code;
}

/*
 * Append a value to the innermost open array or object.  The tree takes text.
 */
static void
add_value(Builder *builder, PmJsonType type, char *text)
{
	PmJson	   *value = palloc0(sizeof(PmJson));

	value->type = type;
	value->text = text;
	value->name = builder->name;
	builder->name = NULL;

	if (builder->depth == 0)
		builder->root = value;
	else
	{
		PmJson	   *parent = builder->open[builder->depth - 1];

		if (parent->last == NULL)
			parent->first = value;
		else
			parent->last->next = value;
		parent->last = value;
		parent->nchildren++;
	}

	if (type == PM_JSON_ARRAY || type == PM_JSON_OBJECT)
	{
		/* clean_copy() has seen to it that this is deep enough */
		Assert(builder->depth < PM_JSON_MAX_DEPTH);
		builder->open[builder->depth++] = value;
	}
}

/* Callbacks of the parser.  What it passes is palloc'd and left to us. */
static PmJsonActionResult
on_object_start(void *state)
{
	add_value(state, PM_JSON_OBJECT, NULL);
	return PM_JSON_GO_ON;
}

static PmJsonActionResult
on_array_start(void *state)
{
	add_value(state, PM_JSON_ARRAY, NULL);
	return PM_JSON_GO_ON;
}

static PmJsonActionResult
on_container_end(void *state)
{
	((Builder *) state)->depth--;
	return PM_JSON_GO_ON;
}

static PmJsonActionResult
on_field_start(void *state, char *name, bool isnull)
{
	((Builder *) state)->name = name;
	return PM_JSON_GO_ON;
}

static PmJsonActionResult
on_scalar(void *state, char *token, JsonTokenType type)
{
	switch (type)
	{
		case JSON_TOKEN_STRING:
			add_value(state, PM_JSON_STRING, token);
			break;
		case JSON_TOKEN_NUMBER:
			add_value(state, PM_JSON_NUMBER, token);
			break;
		case JSON_TOKEN_TRUE:
		case JSON_TOKEN_FALSE:
			add_value(state, PM_JSON_BOOL, token);
			break;
		default:
			pfree(token);
			add_value(state, PM_JSON_NULL, NULL);
			break;
	}
	return PM_JSON_GO_ON;
}

/*
 * pm_json_get
 *		The member of an object that has this name; the first one, if there
 *		are several.
 *
 * Returns NULL if there is none, or if object is NULL or not an object.  The
 * result is part of the tree.
 */
const PmJson *
pm_json_get(const PmJson *object, const char *name)
{
	const PmJson *member;

	if (object == NULL || object->type != PM_JSON_OBJECT)
		return NULL;

	for (member = object->first; member != NULL; member = member->next)
	{
		if (strcmp(member->name, name) == 0)
			return member;
	}

	return NULL;
}

/*
 * pm_json_string
 *		The same, the text of a string.
 *
 * Returns NULL if there is no such member, or if it is not a string.
 */
const char *
pm_json_string(const PmJson *object, const char *name)
{
	const PmJson *member = pm_json_get(object, name);

	if (member == NULL || member->type != PM_JSON_STRING)
		return NULL;

	return member->text;
}

/*
 * pm_json_int
 *		The same, a whole number; a string of digits counts as one, because
 *		Postmark has been seen to send such.
 *
 * Returns false and leaves *result alone if there is no such member, if it is
 * something else, or if it does not fit.  A number with a fraction or an
 * exponent is something else.
 */
bool
pm_json_int(const PmJson *object, const char *name, int64 *result)
{
	const PmJson *member = pm_json_get(object, name);
	const char *digits;
	char	   *end;
	int64		value;

	if (member == NULL ||
		(member->type != PM_JSON_NUMBER && member->type != PM_JSON_STRING))
		return false;

	/* strtoll() would skip spaces and take a plus sign */
	digits = member->text + (member->text[0] == '-' ? 1 : 0);
	if (*digits < '0' || *digits > '9')
		return false;

	errno = 0;
	value = strtoll(member->text, &end, 10);
	if (errno != 0 || *end != '\0')
		return false;

	*result = value;
	return true;
}

/*
 * pm_json_bool
 *		The same, true or false.
 *
 * Returns false and leaves *result alone if there is no such member, or if it
 * is not a boolean.
 */
bool
pm_json_bool(const PmJson *object, const char *name, bool *result)
{
	const PmJson *member = pm_json_get(object, name);

	if (member == NULL || member->type != PM_JSON_BOOL)
		return false;

	*result = (member->text[0] == 't');
	return true;
}
