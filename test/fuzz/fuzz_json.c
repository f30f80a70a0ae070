/*-------------------------------------------------------------------------
 *
 * fuzz_json.c
 *		Fuzz target: json.c.
 *
 * An input is a letter for the encoding, then the text.
 *
 * Cleaning must not change what is JSON: PostgreSQL's parser, let loose on the
 * text as it came, has to accept and refuse the same, and where nothing was to
 * be cleaned to read the same.  A tree that is written out and read again has
 * to be the same tree.
 *
 * test/fuzz/fuzz_json.c
 *
 *-------------------------------------------------------------------------
 */
#include "fuzz.h"

#include "common/jsonapi.h"
#include "mb/pg_wchar.h"

#include "postmark/json.h"

typedef struct Nesting
{
	int			now;
	int			deepest;
} Nesting;

static void
nesting_begin(void *state)
{
	Nesting    *nesting = state;

	nesting->now++;
	nesting->deepest = Max(nesting->deepest, nesting->now);
}

static void
nesting_end(void *state)
{
	((Nesting *) state)->now--;
}

/*
 * What pm_json_parse() should think of it.  The parser does not look into the
 * escapes here, and takes a backslash and a NUL for one.
 */
static bool
is_json(const char *text, size_t len)
{
	Nesting		nesting = {0};
	JsonSemAction actions = {0};
	JsonLexContext *lex;

	if (memchr(text, '\0', len) != NULL)
		return false;
	if (len >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0)
	{
		text += 3;
		len -= 3;
	}
	actions.semstate = &nesting;
	actions.object_start = actions.array_start = nesting_begin;
	actions.object_end = actions.array_end = nesting_end;
	lex = makeJsonLexContextCstringLen(fuzz_string((const uint8_t *) text, len),
									   (int) len, PG_UTF8, false);

	return pg_parse_json(lex, &actions) == JSON_SUCCESS &&
		nesting.deepest <= PM_JSON_MAX_DEPTH;
}

static void
collect_name(void *state, char *name, bool isnull)
{
	appendStringInfo(state, "%s\n", name);
}

static void
collect_scalar(void *state, char *token, JsonTokenType type)
{
	if (type != JSON_TOKEN_NULL)
		appendStringInfo(state, "%s\n", token);
}

static void
collect(StringInfo out, const PmJson *value)
{
	const PmJson *child;

	if (value->name != NULL)
		appendStringInfo(out, "%s\n", value->name);
	if (value->text != NULL)
		appendStringInfo(out, "%s\n", value->text);
	for (child = value->first; child != NULL; child = child->next)
		collect(out, child);
}

/*
 * In a UTF8 database valid text without the escapes that nobody can represent
 * needs no cleaning.  All that is in the tree must then be what PostgreSQL's
 * parser reads.
 */
static void
require_same_text(const char *text, size_t len, const PmJson *json)
{
	JsonSemAction actions = {0};
	StringInfoData expected;
	StringInfoData found;

	if (pg_encoding_verifymbstr(PG_UTF8, text, (int) len) != (int) len)
		return;

	initStringInfo(&expected);
	actions.semstate = &expected;
	actions.object_field_start = collect_name;
	actions.scalar = collect_scalar;
	if (pg_parse_json(makeJsonLexContextCstringLen(unconstify(char *, text),
												   (int) len, PG_UTF8, true),
					  &actions) != JSON_SUCCESS)
		return;

	initStringInfo(&found);
	collect(&found, json);
	FUZZ_REQUIRE(strcmp(expected.data, found.data) == 0);
}

static void
write_string(StringInfo out, const char *text)
{
	appendStringInfoChar(out, '"');
	for (; *text != '\0'; text++)
	{
		if ((unsigned char) *text < ' ' || *text == '"' || *text == '\\')
			appendStringInfo(out, "\\u%04x", *text);
		else
			appendStringInfoChar(out, *text);
	}
	appendStringInfoChar(out, '"');
}

/* Write a value out, looking at everything that the header promises. */
static void
write_value(StringInfo out, const PmJson *value, int depth)
{
	const PmJson *child;
	int			n = 0;

	switch (value->type)
	{
		case PM_JSON_NULL:
			FUZZ_REQUIRE(value->text == NULL);
			appendStringInfoString(out, "null");
			break;
		case PM_JSON_BOOL:
			FUZZ_REQUIRE(strcmp(value->text, "true") == 0 ||
						 strcmp(value->text, "false") == 0);
			appendStringInfoString(out, value->text);
			break;
		case PM_JSON_NUMBER:
			FUZZ_REQUIRE(IsValidJsonNumber(value->text,
										   (int) strlen(value->text)));
			appendStringInfoString(out, value->text);
			break;
		case PM_JSON_STRING:
			FUZZ_REQUIRE(fuzz_valid_text(value->text));
			write_string(out, value->text);
			break;
		case PM_JSON_ARRAY:
		case PM_JSON_OBJECT:
			FUZZ_REQUIRE(depth < PM_JSON_MAX_DEPTH);
			FUZZ_REQUIRE(value->text == NULL);
			appendStringInfoChar(out,
								 value->type == PM_JSON_ARRAY ? '[' : '{');
			for (child = value->first; child != NULL; child = child->next)
			{
				if (n++ > 0)
					appendStringInfoChar(out, ',');
				FUZZ_REQUIRE((child->name != NULL) ==
							 (value->type == PM_JSON_OBJECT));
				if (child->name != NULL)
				{
					FUZZ_REQUIRE(fuzz_valid_text(child->name));
					write_string(out, child->name);
					appendStringInfoChar(out, ':');
				}
				write_value(out, child, depth + 1);
				FUZZ_REQUIRE(child->next != NULL || value->last == child);
			}
			FUZZ_REQUIRE(n == value->nchildren);
			appendStringInfoChar(out,
								 value->type == PM_JSON_ARRAY ? ']' : '}');
			break;
		default:
			FUZZ_REQUIRE(false);
	}
}

/* Ask every member of an object, by name, for what it might be. */
static void
try_accessors(const PmJson *object)
{
	const PmJson *child;

	for (child = object->first; child != NULL; child = child->next)
	{
		const PmJson *member = pm_json_get(object, child->name);
		const char *string = pm_json_string(object, child->name);
		int64		number;
		bool		flag = false;

		FUZZ_REQUIRE(member != NULL);
		FUZZ_REQUIRE((string != NULL) == (member->type == PM_JSON_STRING));
		FUZZ_REQUIRE(pm_json_bool(object, child->name, &flag) ==
					 (member->type == PM_JSON_BOOL));
		if (pm_json_int(object, child->name, &number))
		{
			char		digits[32];
			const char *text = member->text;

			/* Leading zeros of a string are all that can differ. */
			snprintf(digits, sizeof(digits), INT64_FORMAT, number);
			if (text[0] == '-' && digits[0] == '-')
				text++;
			if (text[0] == '-')
				text++;			/* -0 */
			text += strspn(text, "0");
			FUZZ_REQUIRE(strcmp(text, digits + (digits[0] == '-')) == 0 ||
						 (*text == '\0' && number == 0));
		}
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *text;
	PmJson	   *json;
	PmJson	   *again;
	StringInfoData first;
	StringInfoData second;

	if (size < 1)
		return 0;
	fuzz_begin(data[0]);
	text = (const char *) data + 1;
	size--;

	json = pm_json_parse(text, size);
	FUZZ_REQUIRE((json != NULL) == is_json(text, size));
	if (json == NULL)
		return 0;
	if (GetDatabaseEncoding() == PG_UTF8)
		require_same_text(text, size, json);

	initStringInfo(&first);
	write_value(&first, json, 0);
	again = pm_json_parse(first.data, first.len);
	FUZZ_REQUIRE(again != NULL);
	initStringInfo(&second);
	write_value(&second, again, 0);
	FUZZ_REQUIRE(strcmp(first.data, second.data) == 0);

	if (json->type == PM_JSON_OBJECT)
		try_accessors(json);
	else
		FUZZ_REQUIRE(pm_json_get(json, "MessageID") == NULL);

	return 0;
}
