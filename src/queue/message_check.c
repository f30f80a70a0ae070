/*-------------------------------------------------------------------------
 *
 * message_check.c
 *		What a message must be like, whichever way it is sent.
 *
 * The row trigger of the queue calls this for every row, so it allocates
 * nothing for a message that is in order.
 *
 * src/queue/message_check.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "mb/pg_wchar.h"

#include "base/errors.h"
#include "base/text.h"
#include "queue/message_check.h"

/* The text itself is never shown: a code must not get into the log. */
static void
check_short_text(const char *text, const char *name)
{
	if (text == NULL)
		return;
	if (text[0] == '\0')
		ereport(ERROR,
				(errcode(PM_ERRCODE_INVALID),
				 errmsg("%s is empty", name),
				 errhint("Give a text, or NULL for none."),
				 errhidestmt(true)));
	if (strlen(text) > PM_SHORT_TEXT_MAX)
		ereport(ERROR,
				(errcode(PM_ERRCODE_INVALID),
				 errmsg("%s is too long", name),
				 errdetail("It has %zu bytes, at most %d are allowed.",
						   strlen(text), PM_SHORT_TEXT_MAX),
				 errhidestmt(true)));
	if (pm_has_line_break(text))
		ereport(ERROR,
				(errcode(PM_ERRCODE_INVALID),
				 errmsg("%s contains a line break", name),
				 errhidestmt(true)));
}

/*
 * In a database of another encoding: can it be had in UTF-8, as Postmark wants
 * it?  The worker could only fail it.
 */
static void
check_encoding(const char *usage_type, const char *code, Jsonb *payload)
{
	if (GetDatabaseEncoding() == PG_UTF8)
		return;
	(void) pm_to_utf8(usage_type);
	if (code)
		(void) pm_to_utf8(code);
	if (payload)
		(void) pm_to_utf8(JsonbToCString(NULL, &payload->root,
										 VARSIZE(payload)));
}

/*
 * Check a message.
 *
 * email, usage_type: required
 * code, payload, locale: or NULL
 *
 * Raises PM003 with what is wrong, never with the text that is.
 */
void
pm_check_message(const char *email, const char *usage_type, const char *code,
				 Jsonb *payload, const char *locale)
{
	const char *hint = NULL;
	const char *problem;

	if (email == NULL)
		ereport(ERROR,
				(errcode(PM_ERRCODE_INVALID),
				 errmsg("recipient is missing"),
				 errhint("Give one email address."),
				 errhidestmt(true)));
	problem = pm_address_problem(email, &hint);
	if (problem)
		ereport(ERROR,
				(errcode(PM_ERRCODE_INVALID),
				 errmsg("invalid recipient"),
				 errdetail("%s", problem),
				 hint ? errhint("%s", hint)
				 : errhint("Give one email address, such as ann@example.com."),
				 errhidestmt(true)));
	if (usage_type == NULL)
		ereport(ERROR,
				(errcode(PM_ERRCODE_INVALID),
				 errmsg("usage type is missing"),
				 errhint("Give one such as 'Register' or 'SignIn'."),
				 errhidestmt(true)));
	check_short_text(usage_type, "usage type");
	check_short_text(code, "code");
	check_short_text(locale, "locale");
	if (payload && !JB_ROOT_IS_OBJECT(payload))
		ereport(ERROR,
				(errcode(PM_ERRCODE_INVALID),
				 errmsg("payload is not a JSON object"),
				 errhint("Its members become the template's variables."),
				 errhidestmt(true)));
	if (payload && VARSIZE(payload) > PM_PAYLOAD_MAX)
		ereport(ERROR,
				(errcode(PM_ERRCODE_INVALID),
				 errmsg("payload is too large"),
				 errdetail("It has %zu bytes as jsonb, at most %d are allowed.",
						   (Size) VARSIZE(payload), PM_PAYLOAD_MAX),
				 errhidestmt(true)));
	check_encoding(usage_type, code, payload);
}
