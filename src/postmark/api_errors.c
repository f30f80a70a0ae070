/*-------------------------------------------------------------------------
 *
 * api_errors.c
 *		Postmark's ErrorCodes, and what an answer means in words.
 *
 * The table is the one place that knows what each ErrorCode means for a
 * message and what an administrator can do about it.  The words serve three
 * readers alike: the caller of postmark_send, who gets an error;
 * postmark_messages, which shows why a message failed; and postmark_status,
 * which shows why a connector stands still.
 *
 * Postmark's own text is passed on, because nobody explains a refusal better.
 * It may repeat what was sent: api.c masks the token in it, and what a message
 * has of secrets whoever knows the message.
 *
 * src/postmark/api_errors.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"

#include "base/errors.h"
#include "base/text.h"
#include "postmark/api_errors.h"
#include "settings/connector.h"

/*
 * A secret that was cut is masked, too, if that much of it is left: anywhere
 * in a text, or at the end of one that is as long as texts get.
 */
#define MASK_PREFIX_MIN		16
#define MASK_CUT_FROM		(PM_NETWORK_TEXT_MAX - 10)

/* Values of a payload shorter than this are words, not secrets. */
#define MASK_PAYLOAD_MIN	4

static const char hint_token[] =
"Set a valid server token with postmark_set_token; Postmark shows it under \"API Tokens\" of the server.";
static const char hint_sender[] =
"In Postmark, add and confirm the sender signature of fromEmail, or verify its domain; or change fromEmail with postmark_configure.";
static const char hint_account[] =
"Look at the state of the account in Postmark, or ask Postmark's support.";
static const char hint_stream[] =
"Name a message stream of this Postmark server that can send as messageStream, with postmark_configure; postmark_check shows whether it can.";
static const char hint_template[] =
"Create the template in Postmark, as postmark_install_templates does, or name another as templateAlias with postmark_configure; postmark_check looks for all of them.";
static const char hint_model[] =
"Compare the code and the payload with what the template in Postmark expects.";
static const char hint_foreign[] =
"Check the settings postmark_connector.api_url and proxy, and what filters the network in between: what answers there is not Postmark's API.";
static const char hint_later[] = "Try again later.";
static const char hint_bug[] =
"This is not supposed to happen: report the ErrorCode to the authors of postmark_connector.";

/* By code; the classes are those of Postmark's documentation. */
static const struct
{
	int			code;
	PmOutcome	outcome;
	const char *hint;
}			error_codes[] = {
	{10, PM_MISCONFIGURED, hint_token},
	/* several errors, see Errors[]; this is for when there is none */
	{11, PM_REFUSED, hint_model},
	{100, PM_UNAVAILABLE, hint_later},
	{300, PM_REFUSED, "Check the address and the payload."},
	{400, PM_MISCONFIGURED, hint_sender},
	{401, PM_MISCONFIGURED, hint_sender},
	{402, PM_POISONED, hint_bug},
	{403, PM_POISONED, hint_bug},
	{405, PM_MISCONFIGURED, "Buy more credits in Postmark, or wait for the next billing period."},
	{406, PM_SUPPRESSED, "If the recipient wants mail again, reactivate the address under \"Suppressions\" of the message stream in Postmark."},
	{409, PM_POISONED, hint_bug},
	{410, PM_POISONED, hint_bug},
	{411, PM_REFUSED, hint_bug},
	{412, PM_REFUSED, "The Postmark account awaits approval, and until then sends within the domain of fromEmail only: ask Postmark to approve it."},
	{413, PM_MISCONFIGURED, hint_account},
	{429, PM_RATE_LIMITED, "Send more slowly: set maxRequestsPerSecond with postmark_configure, or queue with postmark_enqueue."},
	{1100, PM_UNAVAILABLE, hint_later},
	{1101, PM_NO_TEMPLATE, hint_template},
	{1109, PM_POISONED, hint_model},
	{1120, PM_POISONED, hint_model},
	{1121, PM_REFUSED, hint_model},
	{1122, PM_REFUSED, hint_model},
	{1123, PM_POISONED, hint_model},
	{1221, PM_MISCONFIGURED, hint_stream},
	{1226, PM_MISCONFIGURED, hint_stream},
	{1227, PM_MISCONFIGURED, hint_stream},
	{1235, PM_MISCONFIGURED, hint_stream},
	{1236, PM_MISCONFIGURED, hint_stream},
};

/* Place of an ErrorCode in the table, -1 if it is not there. */
static int
find_code(int error_code)
{
	int			i;

	for (i = 0; i < lengthof(error_codes); i++)
		if (error_codes[i].code == error_code)
			return i;
	return -1;
}

/*
 * What an ErrorCode means for a message that is alone in its request, or for
 * one result of a batch.  False, and *outcome left alone, if the code is none
 * that sending gives.  Only api.c needs this: elsewhere there is a verdict.
 */
bool
pm_api_error_outcome(int error_code, PmOutcome *outcome)
{
	int			i = find_code(error_code);

	if (i < 0)
		return false;
	*outcome = error_codes[i].outcome;
	return true;
}

/*
 * Whether Postmark knows no such message stream, or none that can send: what
 * is asked about one has no other answer.
 */
bool
pm_api_blames_stream(const PmVerdict *verdict)
{
	int			i = find_code(verdict->error_code);

	return i >= 0 && error_codes[i].hint == hint_stream;
}

/*
 * A verdict that is not PM_ACCEPTED in words: one or more whole sentences,
 * with the HTTP status and Postmark's ErrorCode where there are such.
 * Palloc'd; raises no error.  Secrets of a message that the verdict's text may
 * repeat are masked by the caller, before or after.
 */
char *
pm_api_detail(const PmVerdict *verdict)
{
	StringInfoData buf;
	char		last;

	initStringInfo(&buf);
	if (verdict->http_status != 0)
		appendStringInfo(&buf, "HTTP status %d", verdict->http_status);
	if (verdict->error_code > 0)
		appendStringInfo(&buf, "%sPostmark ErrorCode %d",
						 buf.len > 0 ? ", " : "", verdict->error_code);
	if (verdict->text && *verdict->text)
		appendStringInfo(&buf, "%s%s", buf.len > 0 ? ": " : "",
						 verdict->text);
	if (buf.len == 0)
		appendStringInfoString(&buf, "There was no answer");

	/* Our own texts and libcurl's begin in lower case. */
	buf.data[0] = pg_ascii_toupper((unsigned char) buf.data[0]);
	last = buf.data[buf.len - 1];
	if (last != '.' && last != '!' && last != '?')
		appendStringInfoChar(&buf, '.');

	if (verdict->retry_after_ms > 0 &&
		(verdict->outcome == PM_RATE_LIMITED ||
		 verdict->outcome == PM_UNAVAILABLE))
		appendStringInfo(&buf, " Postmark asks to wait %ld s.",
						 (verdict->retry_after_ms + 999) / 1000);
	return buf.data;
}

/* Is it about the message and nothing else? */
static bool
is_final(PmOutcome outcome)
{
	return outcome == PM_SUPPRESSED || outcome == PM_REFUSED ||
		outcome == PM_POISONED;
}

/*
 * What to do about a verdict that is not PM_ACCEPTED: a constant, whole
 * sentences.
 */
const char *
pm_api_hint(const PmVerdict *verdict)
{
	int			i;

	if (verdict->outcome == PM_IN_DOUBT)
		return "Look for the message under \"Activity\" in Postmark before sending it again.";
	if (verdict->foreign && verdict->http_status != 407 &&
		(verdict->outcome == PM_MISCONFIGURED || verdict->http_status < 300))
		return hint_foreign;

	/* Where the status decided the ErrorCode is beside the point. */
	switch (verdict->http_status)
	{
		case 401:
			return hint_token;
		case 407:
			return "Check the setting postmark_connector.proxy.";
		case 413:
			return "The message is larger than Postmark takes: make the payload smaller.";
	}

	i = find_code(verdict->error_code);
	if (i >= 0)
	{
		/* 300 is a message's own fault unless it names the sender. */
		if (verdict->outcome == PM_MISCONFIGURED &&
			is_final(error_codes[i].outcome))
			return hint_sender;
		if (verdict->outcome == error_codes[i].outcome ||
			(is_final(verdict->outcome) && is_final(error_codes[i].outcome)))
			return error_codes[i].hint;
	}

	switch (verdict->outcome)
	{
		case PM_MISCONFIGURED:
			return hint_foreign;
		case PM_RATE_LIMITED:
			return error_codes[find_code(429)].hint;
		case PM_UNAVAILABLE:
			if (verdict->http_status == 0)
				return "Check the network, and the settings postmark_connector.api_url, ca_file and proxy; or try again later.";
			return hint_later;
		case PM_NO_TEMPLATE:
			return hint_template;
		default:
			return "Look the HTTP status and the ErrorCode up in Postmark's API documentation.";
	}
}

/*
 * Replace what text has of a secret of len bytes by asterisks.  Works by
 * characters, so that the result remains valid in the database's encoding.
 */
static void
mask(char *text, const char *secret, size_t len)
{
	size_t		text_len = strlen(text);
	char	   *end = text + text_len;
	char	   *in = text;
	char	   *out = text;

	while (in < end)
	{
		size_t		left = end - in;
		size_t		same = 0;
		int			char_len;

		while (same < len && same < left && in[same] == secret[same])
			same++;

		/* A cut text may have got a full stop. */
		if (same >= PM_MASK_MIN &&
			(same == len ||
			 same >= MASK_PREFIX_MIN ||
			 (text_len >= MASK_CUT_FROM && left - same <= 1)))
		{
			/* not in the middle of a character */
			same = pg_mbcliplen(in, left, same);
		}
		else
			same = 0;
		if (same >= PM_MASK_MIN)
		{
			memcpy(out, "***", 3);
			out += 3;
			in += same;
			continue;
		}

		char_len = Min(pg_mblen(in), (int) left);
		memmove(out, in, char_len);
		out += char_len;
		in += char_len;
	}
	*out = '\0';
}

/*
 * Mask a secret in text, in place; the text gets no longer.  Either may be
 * NULL.  A secret of less than PM_MASK_MIN bytes hides nothing and is left.
 */
void
pm_api_mask(char *text, const char *secret)
{
	if (text == NULL || secret == NULL || strlen(secret) < PM_MASK_MIN)
		return;
	mask(text, secret, strlen(secret));
}

/*
 * Mask the strings and numbers of a payload, at any depth, in text, in place.
 * Either may be NULL.  For texts of errors only: it takes as long as text and
 * payload are long, multiplied.
 */
void
pm_api_mask_payload(char *text, Jsonb *payload)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	value;

	if (text == NULL || payload == NULL)
		return;
	it = JsonbIteratorInit(&payload->root);
	while ((token = JsonbIteratorNext(&it, &value, false)) != WJB_DONE)
	{
		if (token != WJB_VALUE && token != WJB_ELEM)
			continue;
		if (value.type == jbvString &&
			value.val.string.len >= MASK_PAYLOAD_MIN)
			mask(text, value.val.string.val, value.val.string.len);
		else if (value.type == jbvNumeric)
		{
			char	   *number = numeric_normalize(value.val.numeric);

			if (strlen(number) >= MASK_PAYLOAD_MIN)
				mask(text, number, strlen(number));
			pfree(number);
		}
	}
}

/* All words are ready to be shown: raise the error. */
pg_noreturn static void
raise_words(int code, const char *message, const char *detail,
			const char *hint)
{
	ereport(ERROR,
			(errcode(code),
			 errmsg_internal("%s", message),
			 errdetail_internal("%s", detail),
			 errhint("%s", hint),
			 errhidestmt(true),
			 errhidecontext(true)));
	pg_unreachable();
}

/*
 * SQLSTATE and message of a verdict that is about the connector or the moment,
 * whatever was asked for.  False for another.
 */
static bool
general_words(const PmVerdict *verdict, const PmConnector *connector,
			  int *code, const char **message)
{
	switch (verdict->outcome)
	{
		case PM_MISCONFIGURED:
			*code = PM_ERRCODE_REFUSED_CONFIG;
			*message = psprintf("Postmark refused the configuration of connector \"%s\"",
								connector->name);
			return true;
		case PM_RATE_LIMITED:
			*code = PM_ERRCODE_TOO_MANY;
			*message = "too many requests to Postmark";
			return true;
		case PM_UNAVAILABLE:
			*code = PM_ERRCODE_UNAVAILABLE;
			*message = "Postmark is unavailable";
			return true;
		default:
			return false;
	}
}

/*
 * Raise a verdict that is not PM_ACCEPTED as an error, with one of our
 * SQLSTATEs.
 *
 * usage_type and alias are those of the message, and are used only for an
 * unknown template.  In the verdict's text the message's secrets must be masked.
 */
void
pm_api_raise(const PmVerdict *verdict, const PmConnector *connector,
			 const char *usage_type, const char *alias)
{
	int			code;
	const char *message;
	char	   *detail = pm_api_detail(verdict);

	switch (verdict->outcome)
	{
		case PM_SUPPRESSED:
			code = PM_ERRCODE_SUPPRESSED;
			message = "recipient is inactive at Postmark";
			break;
		case PM_NO_TEMPLATE:
			code = PM_ERRCODE_NO_TEMPLATE;
			message = psprintf("Postmark does not know the template \"%s\"",
							   alias);
			detail = psprintf("%s It is configured for usage type \"%s\" of connector \"%s\".",
							  detail, usage_type, connector->name);
			break;
		case PM_IN_DOUBT:
			code = PM_ERRCODE_UNAVAILABLE;
			message = "Postmark did not say whether it accepted the message";
			detail = psprintf("%s The message may have been sent.", detail);
			break;
		default:
			if (!general_words(verdict, connector, &code, &message))
			{
				code = PM_ERRCODE_REFUSED;
				message = "Postmark refused the message";
			}
			break;
	}
	raise_words(code, message, detail, pm_api_hint(verdict));
}

/*
 * The same for a template that was to be put into the server, behind "done"
 * others, or with NULL as alias for the list of templates.
 */
void
pm_api_raise_template(const PmVerdict *verdict, const PmConnector *connector,
					  const char *alias, int done)
{
	int			code;
	const char *message;
	const char *hint;
	char	   *detail = pm_api_detail(verdict);

	if (general_words(verdict, connector, &code, &message))
		hint = pm_api_hint(verdict);
	else
	{
		code = PM_ERRCODE_REFUSED;
		message = alias ?
			psprintf("Postmark refused the template \"%s\"", alias) :
			"Postmark refused to list its templates";
		hint = "Look at the templates of the server in Postmark, which takes 100 of them; then call postmark_install_templates again.";
	}
	if (alias)
		detail = psprintf(done > 0 ?
						  "%s The template was \"%s\"; what was put in place before it stays." :
						  "%s The template was \"%s\"; nothing was put in place before it.",
						  detail, alias);
	raise_words(code, message, detail, hint);
}
