/*-------------------------------------------------------------------------
 *
 * message_check.c
 *		What a message must be like, whichever way it is sent.
 *
 * The row trigger of the queue calls this for every row, so it allocates next
 * to nothing for a message that is in order.
 *
 * src/queue/message_check.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"

#include "base/errors.h"
#include "base/text.h"
#include "queue/batch.h"
#include "queue/message_check.h"
#include "settings/recipient_policy.h"

#define ADDRESS_HINT	"Give one email address, such as ann@example.com."
#define USAGE_TYPE_HINT	"Give one such as 'Register' or 'SignIn'."
#define OPTIONAL_HINT	"Give a text, or NULL for none."

/*
 * The text itself is never shown: a code must not get into the log.
 *
 * instead: what to give instead of an empty one, as a hint
 */
static void
check_short_text(const char *text, const char *name, const char *instead)
{
	if (text == NULL)
		return;
	if (text[0] == '\0')
		ereport(ERROR,
				(errcode(PM_ERRCODE_INVALID),
				 errmsg("%s is empty", name),
				 errhint("%s", instead),
				 errhidestmt(true)));
	if (strlen(text) > PM_SHORT_TEXT_MAX)
		ereport(ERROR,
				(errcode(PM_ERRCODE_INVALID),
				 errmsg("%s is too long", name),
				 errdetail("It has %zu bytes, at most %d are allowed.",
						   strlen(text), PM_SHORT_TEXT_MAX),
				 errhint("It is a short text; longer ones belong in the payload."),
				 errhidestmt(true)));
	if (pm_has_line_break(text))
		ereport(ERROR,
				(errcode(PM_ERRCODE_INVALID),
				 errmsg("%s contains a line break", name),
				 errhint("Give it in one line, without a line break at its end."),
				 errhidestmt(true)));
}

/*
 * An empty one is refused: it would be the key of all messages for which the
 * application forgot to make one.
 */
static void
check_dedup_key(const char *key)
{
	const char *problem = NULL;

	if (key == NULL)
		return;
	if (key[0] == '\0')
		problem = "It is empty.";
	else if (strlen(key) > PM_DEDUP_KEY_MAX)
		problem = psprintf("It has more than %d bytes.", PM_DEDUP_KEY_MAX);
	else if (pm_has_control(key))
		problem = "It has a control character in it.";
	if (problem)
		ereport(ERROR,
				(errcode(PM_ERRCODE_INVALID),
				 errmsg("invalid %s", "dedup_key"),
				 errdetail_internal("%s", problem),
				 errhint("Give a text that names what the message is sent for, such as the id of a request, or NULL for none."),
				 errhidestmt(true)));
}

/* Bytes of a JSON string as it is written, see escape_json */
static Size
string_size(const char *text, int len)
{
	Size		size = 2 + len;
	int			i;

	for (i = 0; i < len; i++)
	{
		unsigned char c = (unsigned char) text[i];

		if (c == '"' || c == '\\' || c == '\b' || c == '\f' ||
			c == '\n' || c == '\r' || c == '\t')
			size += 1;
		else if (c < ' ')
			size += strlen("\\u0000") - 1;
	}
	return size;
}

static Size
numeric_size(Numeric number)
{
	char	   *text = DatumGetCString(DirectFunctionCall1(numeric_out,
														   NumericGetDatum(number)));
	Size		size = strlen(text);

	pfree(text);
	return size;
}

/* Bytes of a scalar as it is written */
static Size
scalar_size(const JsonbValue *value)
{
	switch (value->type)
	{
		case jbvString:
			return string_size(value->val.string.val, value->val.string.len);
		case jbvNumeric:
			return numeric_size(value->val.numeric);
		case jbvBool:
			return value->val.boolean ? strlen("true") : strlen("false");
		default:
			return strlen("null");
	}
}

/*
 * How many bytes a payload has when it is written into a request, in the
 * database's encoding.  A number takes few bytes as jsonb and may be written
 * with a hundred thousand digits, so that one says nothing of the other.
 * Counting ends once there are more than "enough".
 */
Size
pm_rendered_size(Jsonb *payload, Size enough)
{
	JsonbIterator *it = JsonbIteratorInit(&payload->root);
	JsonbIteratorToken token;
	JsonbValue	value;
	bool		first = true;
	Size		size = 0;

	/* As JsonbToCString: ", " between two of a kind, ": " behind a key */
	while ((token = JsonbIteratorNext(&it, &value, false)) != WJB_DONE)
	{
		switch (token)
		{
			case WJB_BEGIN_ARRAY:
			case WJB_BEGIN_OBJECT:
				size += first ? 2 : 4;
				first = true;
				break;
			case WJB_END_ARRAY:
			case WJB_END_OBJECT:
				first = false;
				break;
			case WJB_KEY:
				size += (first ? 2 : 4) + scalar_size(&value);
				first = true;
				break;
			default:
				size += (first ? 0 : 2) + scalar_size(&value);
				first = false;
				break;
		}
		if (size > enough)
			break;
	}
	return size;
}

static void
check_payload_size(Size size)
{
	if (size > PM_PAYLOAD_MAX)
		ereport(ERROR,
				(errcode(PM_ERRCODE_INVALID),
				 errmsg("payload is too large"),
				 errdetail("It has more than %d bytes as it is sent.",
						   PM_PAYLOAD_MAX),
				 errhint("Give the template what it shows, and a link to the rest."),
				 errhidestmt(true)));
}

/*
 * In a database of another encoding: can it be had in UTF-8, as Postmark wants
 * it, and how long is it then?  The worker could only fail it.
 */
static void
check_encoding(const PmMessage *m)
{
	if (GetDatabaseEncoding() == PG_UTF8)
		return;
	(void) pm_to_utf8(m->usage_type);
	if (m->code)
		(void) pm_to_utf8(m->code);
	if (m->payload)
		check_payload_size(strlen(pm_to_utf8(JsonbToCString(NULL,
															&m->payload->root,
															VARSIZE(m->payload)))));
}

/*
 * Check a message.
 *
 * m: email and usage_type, which are required; code, payload, locale and
 *	  dedup_key.  A payload that is JSON's null, and an empty locale, become
 *	  none: they are what many drivers and mappers write for nothing.
 *
 * Raises PM003 with what is wrong, never with the text that is.
 */
void
pm_check_message(PmMessage *m)
{
	const char *hint = NULL;
	const char *problem;

	if (m->locale && m->locale[0] == '\0')
		m->locale = NULL;
	if (m->payload && JB_ROOT_IS_SCALAR(m->payload))
	{
		JsonbValue	value;

		if (JsonbExtractScalar(&m->payload->root, &value) &&
			value.type == jbvNull)
			m->payload = NULL;
	}

	if (m->email == NULL)
		ereport(ERROR,
				(errcode(PM_ERRCODE_INVALID),
				 errmsg("recipient is missing"),
				 errhint("Give one email address."),
				 errhidestmt(true)));
	problem = pm_address_problem(m->email, &hint);
	if (problem)
		ereport(ERROR,
				(errcode(PM_ERRCODE_INVALID),
				 errmsg("invalid recipient"),
				 errdetail("%s", problem),
				 errhint("%s", hint ? hint : ADDRESS_HINT),
				 errhidestmt(true)));
	if (m->usage_type == NULL)
		ereport(ERROR,
				(errcode(PM_ERRCODE_INVALID),
				 errmsg("usage type is missing"),
				 errhint(USAGE_TYPE_HINT),
				 errhidestmt(true)));
	check_short_text(m->usage_type, "usage type", USAGE_TYPE_HINT);
	check_short_text(m->code, "code", OPTIONAL_HINT);
	check_short_text(m->locale, "locale", OPTIONAL_HINT);
	check_dedup_key(m->dedup_key);
	if (m->payload && !JB_ROOT_IS_OBJECT(m->payload))
		ereport(ERROR,
				(errcode(PM_ERRCODE_INVALID),
				 errmsg("payload is not a JSON object"),
				 errhint("Its members become the template's variables."),
				 errhidestmt(true)));
	if (m->payload)
		check_payload_size(pm_rendered_size(m->payload, PM_PAYLOAD_MAX));
	check_encoding(m);
}

/*
 * Whom an administrator's function is about: an address, folded, palloc'd.
 * PM003 for what is none, and for NULL.
 */
char *
pm_folded_address(const char *email)
{
	const char *hint = NULL;
	const char *problem = email ? pm_address_problem(email, &hint) :
		"It is null.";
	char	   *address;

	if (problem)
		ereport(ERROR,
				(errcode(PM_ERRCODE_INVALID),
				 errmsg("invalid address"),
				 errdetail_internal("%s", problem),
				 errhint("%s", hint ? hint : ADDRESS_HINT),
				 errhidestmt(true)));
	address = pstrdup(email);
	pm_fold_address(address);
	return address;
}
