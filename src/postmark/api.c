/*-------------------------------------------------------------------------
 *
 * api.c
 *		Postmark's HTTP API: endpoints, field names, and what its answers
 *		mean.
 *
 * Postmark has no idempotency key: a message sent twice is two mails.  So the
 * one question put to every answer is how certain it is.  An answer that says
 * "accepted" or "refused" in a form that we recognise is believed; one that is
 * certain to come from before the message was looked at (429, 503, ErrorCode
 * 100) allows to try again; everything else leaves the message in doubt.
 *
 * The HTTP status and Postmark's ErrorCode are different numbers that overlap
 * (401, 402, 413, 429, ...).  A status is only ever looked at in judge(), an
 * ErrorCode only in judge_object().
 *
 * src/postmark/api.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <ctype.h>
#include <limits.h>

#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/errors.h"
#include "base/iso_time.h"
#include "base/text.h"
#include "base/uuid_text.h"
#include "postmark/api.h"
#include "postmark/api_errors.h"
#include "postmark/http.h"
#include "postmark/json.h"
#include "postmark/template_text.h"
#include "settings/connector.h"
#include "settings/guc.h"
#include "settings/token.h"

#define TOKEN_HEADER "X-Postmark-Server-Token: "

/* Longest answers that are read, bytes */
#define SHORT_REPLY_MAX	(256 * 1024)
#define LONG_REPLY_MAX	(4 * 1024 * 1024)

/*
 * The same of a dump of suppressions, which has no pages: what has no more
 * bytes has no more values than can be read, see PM_JSON_MAX_NODES.
 */
#define DUMP_REPLY_MAX	(2 * 1024 * 1024)

/* ErrorCodes with a meaning beyond the table's (api_errors.c) */
#define SEVERAL_ERRORS	11
#define MAINTENANCE		100
#define INVALID_REQUEST	300

/* Metadata keys by which a message is found again */
#define METADATA_ID		"postmark_id"
#define METADATA_BATCH	"postmark_batch"

/* What an answer is an answer to, which decides what a refusal is about. */
typedef enum AnswerTo
{
	TO_ONE,						/* one message, or one result of a batch */
	TO_BATCH,					/* a batch, as a whole */
	TO_QUERY					/* a question that changes nothing */
} AnswerTo;

static const char not_postmarks[] =
"the answer is not in the form that Postmark documents";

static const char foreign[] =
"this is not Postmark's API, whose answers have an ErrorCode";
static const char came_early[] =
"the answer came before the request was sent";

/* How many bytes of an answer that is not Postmark's are shown */
#define SEEN_MAX		80

/*
 * A request of so many bytes is too large for nobody: who says so of it says
 * so of all.
 */
#define SMALL_REQUEST	(16 * 1024)

/*
 * Requests
 */

/* Append text as a JSON string; most text needs no escape. */
static void
append_string(StringInfo buf, const char *text)
{
	const unsigned char *c = (const unsigned char *) text;
	int			len;

	while (*c >= ' ' && *c != '"' && *c != '\\')
		c++;
	if (*c != '\0')
	{
		escape_json(buf, text);
		return;
	}

	len = (int) ((const char *) c - text);
	enlargeStringInfo(buf, len + 2);
	buf->data[buf->len++] = '"';
	memcpy(buf->data + buf->len, text, len);
	buf->len += len;
	buf->data[buf->len++] = '"';
	buf->data[buf->len] = '\0';
}

#define append_literal(buf, literal) \
	appendBinaryStringInfo(buf, "" literal, sizeof(literal) - 1)

/*
 * Append the object that the template is filled from: the payload as it is,
 * with "code" in front where a code is given.  The argument wins over a "code"
 * in the payload.
 */
static void
append_model(StringInfo buf, const char *code, Jsonb *payload)
{
	int			start;

	if (code == NULL)
	{
		if (payload == NULL)
			append_literal(buf, "{}");
		else
			JsonbToCString(buf, &payload->root, VARSIZE(payload));
		return;
	}

	append_literal(buf, "{\"code\": ");
	append_string(buf, code);

	if (payload && getKeyJsonValueFromContainer(&payload->root, "code", 4,
												NULL) != NULL)
		payload = DatumGetJsonbP(DirectFunctionCall2(jsonb_delete,
													 JsonbPGetDatum(payload),
													 CStringGetTextDatum("code")));
	if (payload == NULL || JB_ROOT_COUNT(payload) == 0)
	{
		append_literal(buf, "}");
		return;
	}

	/* The payload's opening brace becomes the comma after the code. */
	start = buf->len;
	JsonbToCString(buf, &payload->root, VARSIZE(payload));
	Assert(buf->data[start] == '{');
	buf->data[start] = ',';
}

/*
 * What a template is filled in with: the message's TemplateModel as jsonb, in
 * the current memory context.
 */
Jsonb *
pm_api_model(const char *code, Jsonb *payload)
{
	StringInfoData buf;
	Jsonb	   *model;

	initStringInfo(&buf);
	append_model(&buf, code, payload);
	model = DatumGetJsonbP(DirectFunctionCall1(jsonb_in,
											   CStringGetDatum(buf.data)));
	pfree(buf.data);
	return model;
}

/*
 * Append one message as a JSON object, in UTF-8 whatever the database's
 * encoding.
 *
 * buf may hold other text, which is left alone; its memory is the caller's.
 * Scratch memory, of which there is some only for a payload that has a "code"
 * besides the argument or for a database that is not in UTF-8, is of the
 * current context.  connector is not used after this returns.  Raises what
 * pm_to_utf8 raises, which in a database that is neither UTF8 nor SQL_ASCII
 * also needs a transaction, and an error if buf would pass 1 GB.
 */
void
pm_api_message(StringInfo buf, const PmConnector *connector,
			   const PmApiMessage *message)
{
	int			start = buf->len;
	char	   *utf8;

	append_literal(buf, "{\"From\":");
	append_string(buf, connector->from_email);
	append_literal(buf, ",\"TemplateAlias\":");
	append_string(buf, message->template_alias);
	append_literal(buf, ",\"To\":");
	append_string(buf, message->to);
	append_literal(buf, ",\"TemplateModel\":");
	append_model(buf, message->code, message->payload);
	append_literal(buf, ",\"MessageStream\":");
	append_string(buf, connector->message_stream);

	/* Both are sent always: what is left out is the server's default. */
	if (connector->track_opens)
		append_literal(buf, ",\"TrackOpens\":true,\"TrackLinks\":");
	else
		append_literal(buf, ",\"TrackOpens\":false,\"TrackLinks\":");
	append_string(buf, message->no_track_links ? "None" : connector->track_links);

	if (connector->reply_to)
	{
		append_literal(buf, ",\"ReplyTo\":");
		append_string(buf, connector->reply_to);
	}
	if (connector->tag)
	{
		append_literal(buf, ",\"Tag\":");
		append_string(buf, connector->tag);
	}
	if (message->metadata_id)
	{
		append_literal(buf, ",\"Metadata\":{\"" METADATA_ID "\":");
		append_string(buf, message->metadata_id);
		if (message->metadata_batch)
		{
			append_literal(buf, ",\"" METADATA_BATCH "\":");
			append_string(buf, message->metadata_batch);
		}
		append_literal(buf, "}");
	}
	append_literal(buf, "}");

	/*
	 * Converted here and not when the request is begun: a body can then be
	 * begun a second time, and a message that cannot be converted is known by
	 * name.
	 */
	utf8 = pm_to_utf8(buf->data + start);
	if (utf8 != buf->data + start)
	{
		buf->len = start;
		buf->data[start] = '\0';
		appendStringInfoString(buf, utf8);
		pfree(utf8);
	}
}

/* Begin the body of a batch in buf, which is emptied. */
void
pm_api_batch_begin(StringInfo buf)
{
	resetStringInfo(buf);
	append_literal(buf, "{\"Messages\":[");
}

/* Add a message to the body of a batch; see pm_api_message. */
void
pm_api_batch_add(StringInfo buf, const PmConnector *connector,
				 const PmApiMessage *message)
{
	/* A message ends in a brace, so only the first one follows a bracket. */
	if (buf->data[buf->len - 1] != '[')
		appendStringInfoChar(buf, ',');
	pm_api_message(buf, connector, message);
}

/* End the body of a batch. */
void
pm_api_batch_end(StringInfo buf)
{
	append_literal(buf, "]}");
}

/*
 * Begin a request.  path has no leading slash and is percent-encoded.  Raises
 * PM001 where the token cannot be written into a header; it is never shown.
 */
static PmHttpRequest *
begin_request(const char *method, const char *path,
			  const PmConnector *connector, const char *token,
			  StringInfo body, size_t max_reply, void *owner)
{
	PmHttpSpec	spec = {0};
	PmHttpRequest *request;
	int			base_len = strlen(pm_api_url);
	char	   *url;
	char	   *header;
	const char *problem;

	/*
	 * It was checked when it was set or read; but what went past that check
	 * here would be headers of somebody else's choice.
	 */
	problem = pm_token_problem(token);
	if (problem)
		ereport(ERROR,
				(errcode(PM_ERRCODE_NOT_CONFIGURED),
				 errmsg("connector \"%s\" has no usable server token",
						connector->name),
				 errdetail("The token %s.", problem),
				 errhint("Set it with postmark_set_token."),
				 errhidestmt(true),
				 errhidecontext(true)));

	while (base_len > 0 && pm_api_url[base_len - 1] == '/')
		base_len--;
	url = psprintf("%.*s/%s", base_len, pm_api_url, path);
	header = psprintf(TOKEN_HEADER "%s", token);

	spec.method = method;
	spec.url = url;
	spec.secret_header = header;
	spec.body = body ? body->data : NULL;
	spec.body_len = body ? body->len : 0;
	spec.connect_timeout_ms = pm_connect_timeout;
	spec.request_timeout_ms = pm_request_timeout;
	spec.ca_file = pm_ca_file;
	spec.proxy = pm_proxy;
	spec.max_reply = max_reply;
	spec.owner = owner;
	request = pm_http_start(&spec);

	explicit_bzero(header, strlen(header));
	pfree(header);
	pfree(url);
	return request;
}

/* The same with a path that was put together, whose memory is freed. */
static PmHttpRequest *
begin_built_request(const char *method, StringInfo path,
					const PmConnector *connector, const char *token,
					StringInfo body, size_t max_reply, void *owner)
{
	PmHttpRequest *request = begin_request(method, path->data, connector,
										   token, body, max_reply, owner);

	pfree(path->data);
	return request;
}

/*
 * The requests.  connector gives its name to errors, and to some its stream, and
 * is not used after they return; token is copied; body (of pm_api_message or
 * pm_api_batch_end) stays the caller's and must not change until the request is
 * released; owner is given back by pm_http_owner.  Time-outs, certificate authorities and
 * proxy are those of the settings.  All raise PM001 for a token that cannot be
 * one, and what pm_http_start raises.
 */

/* POST one message, to be read with pm_api_read_send. */
PmHttpRequest *
pm_api_start_send(const PmConnector *connector, const char *token,
				  StringInfo body, void *owner)
{
	return begin_request("POST", "email/withTemplate", connector, token,
						 body, SHORT_REPLY_MAX, owner);
}

/* POST a batch, to be read with pm_api_read_batch. */
PmHttpRequest *
pm_api_start_batch(const PmConnector *connector, const char *token,
				   StringInfo body, void *owner)
{
	return begin_request("POST", "email/batchWithTemplates", connector, token,
						 body, LONG_REPLY_MAX, owner);
}

/* The cheapest check of a token, to be read with pm_api_read_plain. */
PmHttpRequest *
pm_api_start_server(const PmConnector *connector, const char *token,
					void *owner)
{
	return begin_request("GET", "server", connector, token, NULL,
						 SHORT_REPLY_MAX, owner);
}

/*
 * Have a search look through a stream.  One that names none looks through
 * Postmark's own transactional stream alone.
 */
static void
append_stream(StringInfo path, const char *stream)
{
	if (strcmp(stream, PM_DEFAULT_STREAM) == 0)
		return;
	appendStringInfoString(path, "&messagestream=");
	pm_http_escape(path, stream);
}

/*
 * What of a batch, or of one message, did Postmark accept in a stream?  value is
 * its postmark_batch or, if by_id, its postmark_id.  A page from offset on, to be
 * read with pm_api_read_search.
 */
PmHttpRequest *
pm_api_start_search(const PmConnector *connector, const char *token,
					const char *stream, bool by_id, const char *value,
					int offset, void *owner)
{
	StringInfoData path;

	initStringInfo(&path);
	appendStringInfo(&path,
					 "messages/outbound?count=%d&offset=%d&metadata_%s=",
					 PM_SEARCH_PAGE, offset,
					 by_id ? METADATA_ID : METADATA_BATCH);
	pm_http_escape(&path, value);
	append_stream(&path, stream);
	return begin_built_request("GET", &path, connector, token, NULL,
							   LONG_REPLY_MAX, owner);
}

/*
 * Postmark's documentation has it that a time of a search is Eastern time, and
 * shows offsets.  With that of Eastern summer time a time is right whether or
 * not the offset is looked at; in winter it would be an hour late.
 */
#define SEARCH_OFFSET_HOURS (-4)
#define SEARCH_OFFSET "-04:00"

/* Append a parameter that is a time, behind its name with what joins it. */
static void
append_time(StringInfo path, const char *name, TimestampTz time)
{
	struct pg_tm tm;
	fsec_t		usec;
	char		text[MAXDATELEN + 1];
	int			len;

	if (timestamp2tm(time + SEARCH_OFFSET_HOURS * USECS_PER_HOUR, NULL, &tm,
					 &usec, NULL, NULL) != 0)
		return;
	len = snprintf(text, sizeof(text), "%04d-%02d-%02dT%02d:%02d:%02d",
				   tm.tm_year, tm.tm_mon, tm.tm_mday, tm.tm_hour,
				   tm.tm_min, tm.tm_sec);
	snprintf(text + len, sizeof(text) - len,
			 usec ? ".%06d" SEARCH_OFFSET : SEARCH_OFFSET, usec);
	appendStringInfoString(path, name);
	pm_http_escape(path, text);
}

/*
 * What did Postmark accept lately, newest first?  Only what it received before
 * "until" (DT_NOEND: up to now).  A page from offset
 * on, to be read with pm_api_read_search.
 */
PmHttpRequest *
pm_api_start_recent(const PmConnector *connector, const char *token,
					TimestampTz until, int offset, void *owner)
{
	StringInfoData path;

	initStringInfo(&path);
	appendStringInfo(&path, "messages/outbound?count=%d&offset=%d",
					 PM_SEARCH_PAGE, offset);
	append_stream(&path, connector->message_stream);
	if (until != DT_NOEND)
		append_time(&path, "&todate=", until);
	return begin_built_request("GET", &path, connector, token, NULL,
							   LONG_REPLY_MAX, owner);
}

/*
 * A page of the server's templates from offset on, to be read with
 * pm_api_read_templates.
 */
PmHttpRequest *
pm_api_start_templates(const PmConnector *connector, const char *token,
					   int offset, void *owner)
{
	char		path[128];

	snprintf(path, sizeof(path), "templates?count=%d&offset=%d",
			 PM_SEARCH_PAGE, offset);
	return begin_request("GET", path, connector, token, NULL,
						 LONG_REPLY_MAX, owner);
}

/*
 * The body of pm_api_start_template, in UTF-8 whatever the database's encoding.
 * What kind a template is can be said of a new one only.
 */
void
pm_api_template_body(StringInfo buf, const PmTemplateText *template,
					 bool is_new)
{
	char	   *utf8;

	append_literal(buf, "{\"Name\":");
	append_string(buf, template->name);
	append_literal(buf, ",\"Alias\":");
	append_string(buf, template->alias);
	if (is_new && template->layout == NULL)
		append_literal(buf, ",\"TemplateType\":\"Layout\"");
	if (template->layout)
	{
		append_literal(buf, ",\"LayoutTemplate\":");
		append_string(buf, template->layout);
		append_literal(buf, ",\"Subject\":");
		append_string(buf, template->subject);
	}
	append_literal(buf, ",\"HtmlBody\":");
	append_string(buf, template->html);
	append_literal(buf, ",\"TextBody\":");
	append_string(buf, template->text);
	append_literal(buf, "}");

	utf8 = pm_to_utf8(buf->data);
	if (utf8 != buf->data)
	{
		resetStringInfo(buf);
		appendStringInfoString(buf, utf8);
		pfree(utf8);
	}
}

/*
 * Put a template into the server, in place of the one of the alias or, if that
 * is NULL, as a new one; body is of pm_api_template_body.  To be read with
 * pm_api_read_plain.
 */
PmHttpRequest *
pm_api_start_template(const PmConnector *connector, const char *token,
					  const char *alias, StringInfo body, void *owner)
{
	StringInfoData path;

	initStringInfo(&path);
	appendStringInfoString(&path, "templates");
	if (alias)
	{
		appendStringInfoChar(&path, '/');
		pm_http_escape(&path, alias);
	}
	return begin_built_request(alias ? "PUT" : "POST", &path, connector,
							   token, body, SHORT_REPLY_MAX, owner);
}

/*
 * All of the server's message streams, archived ones too so that they can be
 * named as such, to be read with pm_api_read_streams.
 */
PmHttpRequest *
pm_api_start_streams(const PmConnector *connector, const char *token,
					 void *owner)
{
	return begin_request("GET", "message-streams?IncludeArchivedStreams=true",
						 connector, token, NULL, SHORT_REPLY_MAX, owner);
}

/* Begin the path of what is asked of a stream's suppressions. */
static void
suppressions_path(StringInfo path, const char *stream, const char *question)
{
	initStringInfo(path);
	appendStringInfoString(path, "message-streams/");
	pm_http_escape(path, stream);
	appendStringInfo(path, "/suppressions/%s", question);
}

/*
 * Does Postmark deliver to an address, which was checked, in a stream?  To be
 * read with pm_api_read_suppression.
 */
PmHttpRequest *
pm_api_start_suppression(const PmConnector *connector, const char *token,
						 const char *stream, const char *address, void *owner)
{
	StringInfoData path;

	suppressions_path(&path, stream, "dump?EmailAddress=");
	pm_http_escape(&path, address);
	return begin_built_request("GET", &path, connector, token, NULL,
							   SHORT_REPLY_MAX, owner);
}

/*
 * Which mail of a stream bounced, or was complained of, in a time?  Newest
 * first, a page from offset on, to be read with pm_api_read_bounces.
 */
PmHttpRequest *
pm_api_start_bounces(const PmConnector *connector, const char *token,
					 const char *stream, TimestampTz from, TimestampTz until,
					 int offset, void *owner)
{
	StringInfoData path;

	initStringInfo(&path);
	appendStringInfo(&path, "bounces?count=%d&offset=%d&messagestream=",
					 PM_BOUNCE_PAGE, offset);
	pm_http_escape(&path, stream);
	append_time(&path, "&fromdate=", from);
	append_time(&path, "&todate=", until);
	return begin_built_request("GET", &path, connector, token, NULL,
							   LONG_REPLY_MAX, owner);
}

/*
 * What was mailed to an address, which was checked, before a time?  The newest
 * of a stream, to be read with pm_api_read_search.
 */
PmHttpRequest *
pm_api_start_mailed(const PmConnector *connector, const char *token,
					const char *stream, const char *address, TimestampTz until,
					void *owner)
{
	StringInfoData path;

	initStringInfo(&path);
	appendStringInfo(&path, "messages/outbound?count=%d&offset=0&recipient=",
					 PM_MAILED_PAGE);
	pm_http_escape(&path, address);
	appendStringInfoString(&path, "&messagestream=");
	pm_http_escape(&path, stream);
	append_time(&path, "&todate=", until);
	return begin_built_request("GET", &path, connector, token, NULL,
							   LONG_REPLY_MAX, owner);
}

/*
 * To which addresses was nothing delivered any more from a time on, until
 * another one?  To be read with pm_api_read_dump.  There are no pages: where the
 * answer is longer than is read, ask for a shorter time, or for a large answer.
 */
PmHttpRequest *
pm_api_start_dump(const PmConnector *connector, const char *token,
				  const char *stream, TimestampTz from, TimestampTz until,
				  bool large, void *owner)
{
	StringInfoData path;

	suppressions_path(&path, stream, "dump");
	append_time(&path, "?fromdate=", from);
	append_time(&path, "&todate=", until);
	return begin_built_request("GET", &path, connector, token, NULL,
							   large ? DUMP_REPLY_MAX : SHORT_REPLY_MAX, owner);
}

/* The body of pm_api_start_unsuppress */
void
pm_api_unsuppress_body(StringInfo buf, const char *address)
{
	append_literal(buf, "{\"Suppressions\":[{\"EmailAddress\":");
	append_string(buf, address);
	append_literal(buf, "}]}");
}

/*
 * Ask Postmark to deliver to an address again, in the connector's stream; body
 * is of pm_api_unsuppress_body.  To be read with pm_api_read_unsuppress.
 */
PmHttpRequest *
pm_api_start_unsuppress(const PmConnector *connector, const char *token,
						StringInfo body, void *owner)
{
	StringInfoData path;

	suppressions_path(&path, connector->message_stream, "delete");
	return begin_built_request("POST", &path, connector, token, body,
							   SHORT_REPLY_MAX, owner);
}

/*
 * Answers
 *
 * The JSON of an answer is read into a memory context of its own, which is
 * gone when the reader returns: a batch's is a hundred times what is kept of
 * it.
 */

static MemoryContext
begin_reading(void)
{
	return AllocSetContextCreate(CurrentMemoryContext, "postmark answer",
								 ALLOCSET_DEFAULT_SIZES);
}

/* A verdict about which nothing is known but how the request ended. */
static void
init_verdict(PmVerdict *verdict, const PmHttpResult *result,
			 PmOutcome outcome, const char *text)
{
	verdict->outcome = outcome;
	verdict->http_status = (int) result->status;
	verdict->error_code = -1;
	verdict->text = text ? pstrdup(text) : NULL;
	verdict->message_id = NULL;
	verdict->retry_after_ms = result->retry_after_ms;
	verdict->foreign = false;
}

/*
 * Text of an answer, fit to be shown.  pm_network_text reads UTF-8, and that
 * is what pm_json_parse leaves: in a database of another encoding, ASCII.
 *
 * Postmark may repeat the token that it was sent, which need not be the
 * connector's any more.
 */
static char *
shown(const PmHttpResult *result, const char *text, size_t len)
{
	char	   *clean = pm_network_text(text, len);

	if (result->secret_header)
		pm_api_mask(clean, result->secret_header + strlen(TOKEN_HEADER));
	return clean;
}

/*
 * Is a result about this recipient, as far as it says?  A refusal need not
 * name one.
 */
static bool
is_about(const PmJson *object, const char *to)
{
	const char *named = pm_json_string(object, "To");

	return named == NULL || pg_strcasecmp(named, to) == 0;
}

/*
 * Cut text in place to at most "max" bytes, behind a whole word: half of a
 * secret that it repeats could not be found to be masked.
 */
static void
cut_words(char *text, int max)
{
	static const char dots[] = "...";
	int			len = strlen(text);

	if (len <= max)
		return;
	len = pg_mbcliplen(text, len, max - (int) strlen(dots));
	while (len > 0 && text[len] != ' ')
		len--;
	strcpy(text + len, dots);
}

/*
 * What came in place of an answer of Postmark's: "what" that means, then its
 * media type, and its first words without markup, as far as they can be shown.
 * Not those of what a question was answered with: Postmark tells the tokens of
 * a server to whom it knows.
 */
static char *
describe(const char *what, const PmHttpResult *result, AnswerTo to)
{
	char	   *words;
	char	   *type = pstrdup(result->media_type ? result->media_type :
							   "no media type");
	size_t		len = 0;
	bool		in_markup = false;
	bool		gap = true;		/* nothing but space since a line or tag */
	char	   *text;
	size_t		i;

	cut_words(type, SEEN_MAX);
	if (to == TO_QUERY && result->status < 300)
		return psprintf("%s: %s", what, type);

	words = palloc(result->reply_len + 1);

	/* Spaces within a line stay: they may be part of what has to be masked. */
	for (i = 0; i < result->reply_len; i++)
	{
		char		c = result->reply[i];

		if (c == '<')
			in_markup = true;
		if (in_markup || (c >= '\0' && c < ' '))
		{
			if (!gap)
				words[len++] = ' ';
			gap = true;
		}
		else if (c != ' ' || !gap)
		{
			words[len++] = c;
			gap = false;
		}
		if (c == '>')
			in_markup = false;
	}
	text = shown(result, words, len);
	pfree(words);
	cut_words(text, SEEN_MAX);
	return psprintf("%s: %s%s%s%s", what, type,
					*text ? ", \"" : "", text,
					*text ? "\"" : ", no text");
}

/* MessageID of an object; false if it has none. */
static bool
get_message_id(const PmJson *object, pg_uuid_t *id)
{
	const char *text = pm_json_string(object, "MessageID");

	return text && pm_parse_uuid(text, id);
}

/*
 * ErrorCode of an object, -1 if there is none.  It has been seen as a string
 * of digits.  False if there is one that cannot be read.
 */
static bool
get_error_code(const PmJson *object, int *code)
{
	const PmJson *value = pm_json_get(object, "ErrorCode");
	char	   *end;
	long		number;

	*code = -1;
	if (value == NULL || value->type == PM_JSON_NULL)
		return true;
	if (value->type != PM_JSON_NUMBER && value->type != PM_JSON_STRING)
		return false;
	if (!isdigit((unsigned char) value->text[0]))
		return false;
	errno = 0;
	number = strtol(value->text, &end, 10);
	if (*end != '\0' || errno != 0 || number > INT_MAX)
		return false;
	*code = (int) number;
	return true;
}

/*
 * Does the text of ErrorCode 300 complain of a field that is the connector's
 * and not the message's?  The first field named decides.  Words with an "@"
 * are skipped: an address may be quoted, and nobody shall stop a connector by
 * signing up as From@example.com.
 */
static bool
blames_connector(const char *text)
{
	static const char *const ours[] = {"From", "ReplyTo", "Reply-To"};
	static const char *const others[] = {
		"To", "Cc", "Bcc", "Subject", "Tag", "Metadata", "Headers",
		"HtmlBody", "TextBody", "TemplateModel", "Recipient", "Recipients"
	};
	static const char space[] = " \t\r\n";
	const char *word = text + strspn(text, space);

	while (*word)
	{
		size_t		len = strcspn(word, space);
		const char *next = word + len;
		int			i;

		if (memchr(word, '@', len) == NULL)
		{
			while (len > 0 && !isalnum((unsigned char) *word))
				word++, len--;
			while (len > 0 && !isalnum((unsigned char) word[len - 1]))
				len--;
			for (i = 0; i < lengthof(ours); i++)
				if (strlen(ours[i]) == len && memcmp(word, ours[i], len) == 0)
					return true;
			for (i = 0; i < lengthof(others); i++)
				if (strlen(others[i]) == len &&
					memcmp(word, others[i], len) == 0)
					return false;
		}
		word = next + strspn(next, space);
	}
	return false;
}

/* Outcome of one ErrorCode other than 0 with its text. */
static PmOutcome
error_outcome(int code, const char *text)
{
	PmOutcome	outcome;

	/* Codes that nobody documents are for sending: this message, for good. */
	if (!pm_api_error_outcome(code, &outcome))
		return PM_REFUSED;
	if (code == INVALID_REQUEST && text && blames_connector(text))
		return PM_MISCONFIGURED;
	return outcome;
}

/*
 * Of several errors, which one decides?  Trouble that has to be mended first
 * goes before what is the message's own, and that before what passes by
 * itself: a message refused for good would only be refused again.
 */
static int
weight(PmOutcome outcome)
{
	switch (outcome)
	{
		case PM_MISCONFIGURED:
			return 6;
		case PM_NO_TEMPLATE:
			return 5;
		case PM_SUPPRESSED:
			return 4;
		case PM_REFUSED:
			return 3;
		case PM_POISONED:
			return 2;
		case PM_RATE_LIMITED:
			return 1;
		default:
			return 0;
	}
}

/* ErrorCode 11: choose from Errors[], whose entries are objects or strings. */
static void
choose_error(const PmJson *errors, int *code, const char **text,
			 PmOutcome *outcome)
{
	const PmJson *entry;
	bool		chosen = false;

	if (errors == NULL || errors->type != PM_JSON_ARRAY)
		return;
	for (entry = errors->first; entry; entry = entry->next)
	{
		int			entry_code = -1;
		const char *entry_text = NULL;
		PmOutcome	entry_outcome;

		if (entry->type == PM_JSON_OBJECT)
		{
			if (!get_error_code(entry, &entry_code) || entry_code == 0)
				entry_code = -1;
			entry_text = pm_json_string(entry, "Message");
		}
		else if (entry->type == PM_JSON_STRING)
			entry_text = entry->text;
		if (entry_code < 0 && entry_text == NULL)
			continue;

		/* Without a number it is one of 300, "invalid email request". */
		entry_outcome = error_outcome(entry_code < 0 ? INVALID_REQUEST : entry_code,
									  entry_text);
		if (!chosen || weight(entry_outcome) > weight(*outcome))
		{
			chosen = true;
			*outcome = entry_outcome;
			if (entry_code > 0)
				*code = entry_code;
			if (entry_text)
				*text = entry_text;
		}
	}
}

/*
 * What the ErrorCode of an object says, of a request or of one result of a
 * batch.  False if there is none, or 0; the verdict is then left as it is.
 */
static bool
judge_object(const PmHttpResult *result, const PmJson *object, AnswerTo to,
			 PmVerdict *verdict)
{
	int			code;
	const char *text;
	PmOutcome	outcome;

	if (object->type != PM_JSON_OBJECT ||
		!get_error_code(object, &code) || code <= 0)
		return false;

	text = pm_json_string(object, "Message");
	outcome = error_outcome(code, text);
	if (code == SEVERAL_ERRORS)
		choose_error(pm_json_get(object, "Errors"), &code, &text, &outcome);

	/*
	 * A batch that is refused for what only a message can be guilty of is to
	 * be taken apart: the other messages are not to blame.
	 */
	if (to == TO_BATCH &&
		(outcome == PM_REFUSED || outcome == PM_SUPPRESSED ||
		 outcome == PM_NO_TEMPLATE))
		outcome = PM_POISONED;

	verdict->outcome = outcome;
	verdict->error_code = code;
	verdict->text = text && *text ? shown(result, text, strlen(text)) :
		pstrdup("Postmark gave no reason");
	return true;
}

/* Is a verdict about a message itself, which has to be read for that? */
static bool
is_about_message(const PmVerdict *verdict)
{
	switch (verdict->outcome)
	{
		case PM_SUPPRESSED:
		case PM_REFUSED:
		case PM_NO_TEMPLATE:
			return true;
		case PM_POISONED:
			return verdict->http_status != 413;
		default:
			return false;
	}
}

/*
 * Judge an answer whose HTTP status is not one of success; json is what it
 * has, or NULL.
 *
 * Only an ErrorCode of Postmark's says anything about a message.  What answers
 * without one is a proxy, a filter or a portal on the way, and would say the
 * same of every message: trouble with the way to Postmark.
 */
static void
judge_refusal(const PmHttpResult *result, const PmJson *json, AnswerTo to,
			  PmVerdict *verdict)
{
	long		status = result->status;
	PmOutcome	by_status;
	enum
	{
		ANY_CODE,				/* the ErrorCode decides */
		KNOWN_CODE,				/* if it is one that we know */
		STATUS					/* the status, whatever the ErrorCode */
	}			decides = STATUS;

	if (status >= 300 && status <= 399)
		by_status = PM_MISCONFIGURED;
	else if (status == 401)
		by_status = PM_MISCONFIGURED;
	else if (status == 429)
		by_status = PM_RATE_LIMITED;
	else if (status == 503)
		by_status = PM_UNAVAILABLE;
	else if (status == 413)
	{
		/* Who is on the way may know the size of what passes. */
		by_status = PM_POISONED;
	}
	else if (status == 404 || status == 405 || status == 407)
	{
		/* Wrong place: not this message's fault, nor any other's. */
		by_status = PM_MISCONFIGURED;
		decides = KNOWN_CODE;
	}
	else if (status == 408)
	{
		/*
		 * "Request not received in time", but a gateway says so too when the
		 * server behind it is slow.
		 */
		by_status = PM_IN_DOUBT;
	}
	else if (status >= 400 && status <= 499)
	{
		/* 422 above all, and what Postmark's like would say instead. */
		by_status = PM_POISONED;
		decides = ANY_CODE;
	}
	else
	{
		/* 500, 502, 504 and what has no business here */
		by_status = PM_IN_DOUBT;
	}

	verdict->outcome = by_status;
	if (json && judge_object(result, json, to, verdict))
	{
		PmOutcome	known;

		/*
		 * Under a 500 and its like an ErrorCode is no proof that nothing was
		 * accepted, but maintenance is.
		 */
		if ((decides == STATUS && verdict->error_code != MAINTENANCE) ||
			(decides == KNOWN_CODE &&
			 !pm_api_error_outcome(verdict->error_code, &known)))
			verdict->outcome = by_status;
		return;
	}

	if (decides == ANY_CODE ||
		(status == 413 && result->sent_len <= SMALL_REQUEST))
		verdict->outcome = PM_MISCONFIGURED;
	pfree(verdict->text);
	if (status >= 300 && status <= 399)
		verdict->text = pstrdup("the server answered with a redirect, which is not followed: the token would go with it");
	else
		verdict->text = describe(verdict->outcome == PM_MISCONFIGURED ?
								 foreign : not_postmarks, result, to);
	verdict->foreign = true;
}

/*
 * Judge an answer by its HTTP status.
 *
 * Returns the JSON of a successful answer, in the context "reading", for the
 * caller to read, with an outcome of "in doubt" to be replaced by what is
 * found there.  NULL if the verdict is final.
 */
static const PmJson *
judge(const PmHttpResult *result, AnswerTo to, MemoryContext reading,
	  PmVerdict *verdict)
{
	long		status = result->status;
	const PmJson *json;
	MemoryContext old;

	if (result->phase != PM_HTTP_REPLIED)
	{
		/*
		 * A status line may have come, but without the rest of the answer it
		 * proves nothing.
		 */
		init_verdict(verdict, result,
					 result->phase == PM_HTTP_NOT_SENT || to == TO_QUERY ?
					 PM_UNAVAILABLE : PM_IN_DOUBT,
					 result->error ? result->error : "no answer");
		return NULL;
	}

	old = MemoryContextSwitchTo(reading);
	json = pm_json_parse(result->reply, result->reply_len);
	MemoryContextSwitchTo(old);
	init_verdict(verdict, result, PM_IN_DOUBT, not_postmarks);

	if (status >= 200 && status <= 299)
	{
		if (json && !judge_object(result, json, to, verdict))
		{
			if (!result->early)
				return json;
			pfree(verdict->text);
			verdict->text = pstrdup(came_early);
		}
		else if (json == NULL)
		{
			pfree(verdict->text);
			verdict->text = describe(not_postmarks, result, to);
			verdict->foreign = true;
		}
	}
	else
		judge_refusal(result, json, to, verdict);

	/*
	 * Nobody can have read what is not sent yet.  What was said of the
	 * messages all the same is not about them; that there is something else
	 * amiss, as the size or the token, may be known from the header.
	 */
	if (result->early && is_about_message(verdict))
	{
		pfree(verdict->text);
		verdict->outcome = PM_IN_DOUBT;
		verdict->text = pstrdup(came_early);
	}

	if (to == TO_QUERY)
	{
		/* Nothing was to be sent, so nothing can be in doubt. */
		if (verdict->outcome == PM_IN_DOUBT)
			verdict->outcome = PM_UNAVAILABLE;
		else if (verdict->outcome == PM_POISONED)
			verdict->outcome = PM_REFUSED;
	}
	return NULL;
}

/*
 * What a result of one message says, where it is no ErrorCode other than 0:
 * accepted if it has a MessageID.  Without an ErrorCode too: such have been
 * seen, and taking one for a failure would be a second mail.
 */
static void
judge_success(const PmJson *object, PmVerdict *verdict)
{
	pg_uuid_t	id;
	int			code;

	if (object->type != PM_JSON_OBJECT || !get_error_code(object, &code) ||
		!get_message_id(object, &id))
		return;
	verdict->outcome = PM_ACCEPTED;
	verdict->error_code = code;
	if (verdict->text)
		pfree(verdict->text);
	verdict->text = NULL;
	verdict->message_id = palloc(sizeof(pg_uuid_t));
	*verdict->message_id = id;
}

/* The answer is to another request: what was sent with it proves nothing. */
static void
init_mistaken(PmVerdict *verdict, const PmHttpResult *result)
{
	init_verdict(verdict, result, PM_IN_DOUBT,
				 "the answer is about another recipient");
}

/*
 * Read the answer to pm_api_start_send, of a message to the address "to", into
 * *verdict.  Raises no errors.
 */
void
pm_api_read_send(const PmHttpResult *result, const char *to,
				 PmVerdict *verdict)
{
	MemoryContext reading = begin_reading();
	const PmJson *json = judge(result, TO_ONE, reading, verdict);

	if (json && !is_about(json, to))
		init_mistaken(verdict, result);
	else if (json)
		judge_success(json, verdict);
	MemoryContextDelete(reading);
}

/*
 * Are the results of a batch about these recipients, in this order?  One that
 * is not makes all of them another request's: on a connection that is used
 * again, an answer may come that nobody has waited for.
 */
static bool
are_about(const PmJson *results, const char *const *to)
{
	const PmJson *entry;

	for (entry = results->first; entry; entry = entry->next)
		if (!is_about(entry, *to++))
			return false;
	return true;
}

/*
 * Read the answer to pm_api_start_batch of nmessages messages, whose addresses
 * are to[0 .. nmessages - 1].
 *
 * True: items[0 .. nmessages - 1] say what came of each message, in the order
 * of the request.  False: only *whole says something, of all of them; if it
 * is PM_POISONED the batch is to be split.  A batch of one that was refused
 * for its message's sake gives true: there is nothing left to split.
 */
bool
pm_api_read_batch(const PmHttpResult *result, int nmessages,
				  const char *const *to, PmVerdict *whole, PmVerdict *items)
{
	MemoryContext reading = begin_reading();
	const PmJson *json;
	const PmJson *entry;
	int			i;
	bool		by_message = false;

	json = judge(result, nmessages == 1 ? TO_ONE : TO_BATCH, reading, whole);
	if (json == NULL)
	{
		if (nmessages == 1 &&
			(whole->outcome == PM_REFUSED || whole->outcome == PM_POISONED ||
			 whole->outcome == PM_SUPPRESSED ||
			 whole->outcome == PM_NO_TEMPLATE))
		{
			items[0] = *whole;
			if (items[0].outcome == PM_POISONED)
				items[0].outcome = PM_REFUSED;
			by_message = true;
		}
	}
	else if (json->type == PM_JSON_ARRAY && json->nchildren != nmessages)
	{
		/*
		 * Results are matched by their order.  If one is missing or too many,
		 * any of them may be another message's, and a message not sent would
		 * pass for sent.  Leave all in doubt: the search tells them apart by
		 * their ids.
		 */
		pfree(whole->text);
		whole->text = psprintf("Postmark answered with %d results for %d messages",
							   json->nchildren, nmessages);
	}
	else if (json->type == PM_JSON_ARRAY && !are_about(json, to))
		init_mistaken(whole, result);
	else if (json->type == PM_JSON_ARRAY)
	{
		for (i = 0, entry = json->first; i < nmessages; i++, entry = entry->next)
		{
			PmVerdict  *item = &items[i];

			init_verdict(item, result, PM_IN_DOUBT, NULL);
			if (judge_object(result, entry, TO_ONE, item))
			{
				/* It stands alone already. */
				if (item->outcome == PM_POISONED)
					item->outcome = PM_REFUSED;
			}
			else
			{
				judge_success(entry, item);
				if (item->outcome == PM_IN_DOUBT)
					item->text = pstrdup(not_postmarks);
			}
		}
		init_verdict(whole, result, PM_ACCEPTED, NULL);
		by_message = true;
	}
	MemoryContextDelete(reading);
	return by_message;
}

/* Judge the answer to a question: its JSON, or NULL and a final verdict. */
static const PmJson *
judge_query(const PmHttpResult *result, MemoryContext reading,
			PmVerdict *verdict)
{
	const PmJson *json = judge(result, TO_QUERY, reading, verdict);

	/* Unless the caller finds what it looks for. */
	if (json)
		verdict->outcome = PM_UNAVAILABLE;
	return json;
}

/* The question was answered. */
static void
answered(const PmHttpResult *result, PmVerdict *verdict)
{
	init_verdict(verdict, result, PM_ACCEPTED, NULL);
}

/*
 * Read the answer to pm_api_start_server or pm_api_start_template: PM_ACCEPTED
 * if Postmark knows the token, or took the template.  The first shows the
 * server's tokens, so none of it is kept.
 */
void
pm_api_read_plain(const PmHttpResult *result, PmVerdict *verdict)
{
	MemoryContext reading = begin_reading();
	const PmJson *json = judge_query(result, reading, verdict);

	if (json && json->type == PM_JSON_OBJECT)
		answered(result, verdict);
	MemoryContextDelete(reading);
}

/*
 * Elements of a page and, unless total is NULL, how many there are on all
 * pages.  NULL if the answer has no such page; the verdict is then final.
 */
static const PmJson *
judge_page(const PmHttpResult *result, MemoryContext reading,
		   PmVerdict *verdict, const char *name, int64 *total)
{
	const PmJson *json = judge_query(result, reading, verdict);
	const PmJson *page;

	if (json == NULL || json->type != PM_JSON_OBJECT)
		return NULL;
	page = pm_json_get(json, name);
	if (page == NULL || page->type != PM_JSON_ARRAY)
		return NULL;
	if (total && (!pm_json_int(json, "TotalCount", total) || *total < 0))
		return NULL;
	answered(result, verdict);
	return page;
}

/* When Postmark received an entry of a search; DT_NOBEGIN: it does not say */
static TimestampTz
received_at(const PmJson *entry)
{
	const char *text = pm_json_string(entry, "ReceivedAt");
	TimestampTz time;

	if (text == NULL || !pm_parse_iso_time(text, &time))
		return DT_NOBEGIN;
	return time;
}

/*
 * Read a page of pm_api_start_search or pm_api_start_recent.
 *
 * True: *page is set.  False: *verdict says why not.
 */
bool
pm_api_read_search(const PmHttpResult *result, PmVerdict *verdict,
				   PmFoundPage *page)
{
	MemoryContext reading = begin_reading();
	const PmJson *messages = judge_page(result, reading, verdict, "Messages",
										&page->total);
	const PmJson *entry;

	if (messages == NULL)
	{
		MemoryContextDelete(reading);
		return false;
	}
	page->nread = messages->nchildren;
	page->nfound = 0;
	page->found = palloc(sizeof(PmFound) * Max(page->nread, 1));
	page->newest = page->oldest = DT_NOBEGIN;
	for (entry = messages->first; entry; entry = entry->next)
	{
		const char *id = pm_json_string(pm_json_get(entry, "Metadata"),
										METADATA_ID);
		PmFound    *next = &page->found[page->nfound];

		if (entry == messages->first)
			page->newest = received_at(entry);
		if (entry->next == NULL)
			page->oldest = received_at(entry);
		if (id && get_message_id(entry, &next->message_id))
		{
			next->metadata_id = pstrdup(id);
			page->nfound++;
		}
	}
	MemoryContextDelete(reading);
	return true;
}

/*
 * Read a page of pm_api_start_templates.  True: *total and
 * *nread count all templates, *templates holds those that have an alias.
 */
bool
pm_api_read_templates(const PmHttpResult *result, PmVerdict *verdict,
					  int64 *total, int *nread, PmListed **templates,
					  int *ntemplates)
{
	MemoryContext reading = begin_reading();
	const PmJson *page = judge_page(result, reading, verdict, "Templates", total);
	const PmJson *entry;

	if (page == NULL)
	{
		MemoryContextDelete(reading);
		return false;
	}
	*nread = page->nchildren;
	*ntemplates = 0;
	*templates = palloc(sizeof(PmListed) * Max(page->nchildren, 1));
	for (entry = page->first; entry; entry = entry->next)
	{
		PmListed   *listed = &(*templates)[*ntemplates];
		const char *name = pm_json_string(entry, "Alias");
		const char *type;
		bool		active;

		if (name == NULL)
			continue;
		listed->name = pstrdup(name);
		type = pm_json_string(entry, "TemplateType");
		listed->problem = NULL;
		if (type && strcmp(type, "Layout") == 0)
			listed->problem = "this is a layout, which cannot be sent by itself";
		else if (pm_json_bool(entry, "Active", &active) && !active)
			listed->problem = "the template is not active";
		(*ntemplates)++;
	}
	MemoryContextDelete(reading);
	return true;
}

/*
 * Read the answer to pm_api_start_streams: true, and all message streams in
 * *streams; or false, and *verdict says why not.
 */
bool
pm_api_read_streams(const PmHttpResult *result, PmVerdict *verdict,
					PmListed **streams, int *nstreams)
{
	MemoryContext reading = begin_reading();
	const PmJson *page = judge_page(result, reading, verdict, "MessageStreams", NULL);
	const PmJson *entry;

	if (page == NULL)
	{
		MemoryContextDelete(reading);
		return false;
	}
	*nstreams = 0;
	*streams = palloc(sizeof(PmListed) * Max(page->nchildren, 1));
	for (entry = page->first; entry; entry = entry->next)
	{
		PmListed   *listed = &(*streams)[*nstreams];
		const char *id = pm_json_string(entry, "ID");
		const char *type;

		if (id == NULL)
			continue;
		listed->name = pstrdup(id);
		type = pm_json_string(entry, "MessageStreamType");
		listed->problem = NULL;
		if (type && strcmp(type, "Inbound") == 0)
			listed->problem = "this is an inbound stream, which cannot send";
		else if (pm_json_string(entry, "ArchivedAt") != NULL)
			listed->problem = "the stream is archived";
		(*nstreams)++;
	}
	MemoryContextDelete(reading);
	return true;
}

/* An entry of a dump, which may lack anything. */
static void
read_suppression(const PmHttpResult *result, const PmJson *entry,
				 PmSuppression *found)
{
	const char *email = pm_json_string(entry, "EmailAddress");
	const char *reason = pm_json_string(entry, "SuppressionReason");
	const char *origin = pm_json_string(entry, "Origin");
	const char *since = pm_json_string(entry, "CreatedAt");

	found->email = email ? pstrdup(email) : NULL;
	found->suppressed = true;
	found->reason = reason ? shown(result, reason, strlen(reason)) : NULL;
	found->origin = origin ? shown(result, origin, strlen(origin)) : NULL;
	if (since == NULL || !pm_parse_iso_time(since, &found->since))
		found->since = GetCurrentTimestamp();
}

/*
 * Read the answer to pm_api_start_suppression: true, and what Postmark says of
 * the address in *found; or false, and *verdict says why not.
 */
bool
pm_api_read_suppression(const PmHttpResult *result, const char *address,
						PmVerdict *verdict, PmSuppression *found)
{
	MemoryContext reading = begin_reading();
	const PmJson *page = judge_page(result, reading, verdict, "Suppressions",
									NULL);
	const PmJson *entry;

	memset(found, 0, sizeof(*found));
	for (entry = page ? page->first : NULL; entry; entry = entry->next)
	{
		const char *email = pm_json_string(entry, "EmailAddress");

		if (email && pg_strcasecmp(email, address) == 0)
			read_suppression(result, entry, found);
	}
	MemoryContextDelete(reading);
	return page != NULL;
}

/*
 * Read the answer to pm_api_start_dump: true, and all suppressions in *dump; or
 * false, and *verdict says why not.
 */
bool
pm_api_read_dump(const PmHttpResult *result, PmVerdict *verdict, PmDump *dump)
{
	MemoryContext reading = begin_reading();
	const PmJson *page = judge_page(result, reading, verdict, "Suppressions",
									NULL);
	const PmJson *entry;

	dump->n = 0;
	dump->suppressions = page ?
		palloc(sizeof(PmSuppression) * Max(page->nchildren, 1)) : NULL;
	for (entry = page ? page->first : NULL; entry; entry = entry->next)
		read_suppression(result, entry, &dump->suppressions[dump->n++]);
	MemoryContextDelete(reading);
	return page != NULL;
}

/* A text of a bounce, copied; NULL if it is not there */
static const char *
bounce_text(const PmJson *entry, const char *name)
{
	const char *text = pm_json_string(entry, name);

	return text ? pstrdup(text) : NULL;
}

/*
 * Read a page of pm_api_start_bounces: true, and *page is set; or false, and
 * *verdict says why not.  What has no address or no time is passed over.
 */
bool
pm_api_read_bounces(const PmHttpResult *result, PmVerdict *verdict,
					PmBouncePage *page)
{
	MemoryContext reading = begin_reading();
	const PmJson *list = judge_page(result, reading, verdict, "Bounces",
									&page->total);
	const PmJson *entry;

	page->nread = list ? list->nchildren : 0;
	page->nbounces = 0;
	page->bounces = palloc0(sizeof(PmBounce) * Max(page->nread, 1));
	for (entry = list ? list->first : NULL; entry; entry = entry->next)
	{
		PmBounce   *bounce = &page->bounces[page->nbounces];
		const char *at = pm_json_string(entry, "BouncedAt");
		int64		code;

		bounce->email = bounce_text(entry, "Email");
		if (bounce->email == NULL || at == NULL ||
			!pm_parse_iso_time(at, &bounce->at))
			continue;
		if (!pm_json_int(entry, "ID", &bounce->id) || bounce->id < 0)
			bounce->id = 0;
		bounce->type = bounce_text(entry, "Type");
		bounce->type_code = pm_json_int(entry, "TypeCode", &code) &&
			code > 0 && code <= INT_MAX ? (int) code : 0;
		bounce->description = bounce_text(entry, "Description");
		bounce->message_stream = bounce_text(entry, "MessageStream");
		if (!pm_json_bool(entry, "Inactive", &bounce->inactive))
			bounce->inactive = false;
		bounce->has_message_id = get_message_id(entry, &bounce->message_id);
		page->nbounces++;
	}
	MemoryContextDelete(reading);
	return list != NULL;
}

/*
 * Read the answer to pm_api_start_unsuppress: true if Postmark delivers to the
 * address from now on; or false, and *verdict says why not, with Postmark's
 * words where it refused.
 */
bool
pm_api_read_unsuppress(const PmHttpResult *result, const char *address,
					   PmVerdict *verdict)
{
	MemoryContext reading = begin_reading();
	const PmJson *page = judge_page(result, reading, verdict, "Suppressions",
									NULL);
	const PmJson *entry;
	bool		done = false;

	for (entry = page ? page->first : NULL; entry; entry = entry->next)
	{
		const char *email = pm_json_string(entry, "EmailAddress");
		const char *status = pm_json_string(entry, "Status");
		const char *words = pm_json_string(entry, "Message");

		if (email == NULL || pg_strcasecmp(email, address) != 0)
			continue;
		done = status && strcmp(status, "Deleted") == 0;
		if (!done)
		{
			verdict->outcome = PM_REFUSED;
			verdict->text = words && *words ?
				shown(result, words, strlen(words)) :
				pstrdup("Postmark gave no reason");
		}
	}
	if (page && !done && verdict->outcome == PM_ACCEPTED)
	{
		verdict->outcome = PM_UNAVAILABLE;
		verdict->text = pstrdup(not_postmarks);
	}
	MemoryContextDelete(reading);
	return done;
}
