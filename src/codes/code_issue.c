/*-------------------------------------------------------------------------
 *
 * code_issue.c
 *		Codes and tokens: made and sent.
 *
 * A code is stored, and the mail that carries it queued, in the caller's
 * transaction: both are there, or neither.  Whoever issues holds the lock on
 * the address until then, so that there is one code of an address and usage
 * type, and limits are kept by sessions that issue at the same time.
 *
 * src/codes/code_issue.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "commands/trigger.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "replication/logicalworker.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "base/args.h"
#include "base/catalog.h"
#include "base/compat.h"
#include "base/errors.h"
#include "codes/code_secret.h"
#include "codes/code_store.h"
#include "queue/batch.h"
#include "queue/enqueue.h"
#include "queue/message_check.h"
#include "queue/trigger_row.h"
#include "settings/code_key.h"
#include "settings/config_store.h"
#include "settings/connector.h"
#include "settings/recipient_policy.h"
#include "shared/wake.h"
#include "shared/wakeup.h"

#define LINK_MAX	2048		/* bytes */

PM_HIDDEN_FUNCTION(postmark_issue_code);
PM_HIDDEN_FUNCTION(postmark_issue_code_trigger);
PM_HIDDEN_FUNCTION(postmark_issue_token);
PG_FUNCTION_INFO_V1(postmark_retry_after);

/* What is asked for when a code or a token is issued */
typedef struct Request
{
	char	   *email;
	char	   *usage_type;
	char	   *locale;			/* or NULL */
	char	   *connector;
	Jsonb	   *payload;		/* or NULL */
	char	   *link;			/* pattern; NULL: a code */
	Oid			role;			/* whose it is to use the connector */
} Request;

/*
 * The next place for the token in a pattern, NULL if there is none.  Code that
 * builds URLs may have escaped its braces.  *len becomes its length.
 */
static const char *
find_place(const char *pattern, int *len)
{
	static const char *const places[] = {
		"{token}", "%7Btoken%7D", "%7btoken%7d"
	};
	const char *first = NULL;
	int			i;

	for (i = 0; i < lengthof(places); i++)
	{
		const char *place = strstr(pattern, places[i]);

		if (place && (first == NULL || place < first))
		{
			first = place;
			*len = strlen(places[i]);
		}
	}
	return first;
}

/* The problem is a whole sentence. */
static void
refuse_link(const char *problem)
{
	ereport(ERROR,
			(errcode(PM_ERRCODE_INVALID),
			 errmsg("invalid link"),
			 errdetail_internal("%s", problem),
			 errhint("Give a pattern such as https://shop.example/verify?token={token}."),
			 errhidestmt(true)));
}

/* Refuse a pattern that makes no link: PM003. */
static void
check_link(const char *link)
{
	const char *problem = NULL;
	const char *scheme_end;
	const unsigned char *c;
	int			len;

	if (link == NULL)
		problem = "It is null.";
	else if (strlen(link) > LINK_MAX)
		problem = "It has more than 2048 bytes.";
	else if (find_place(link, &len) == NULL)
		problem = "It has no {token} in it.";
	else
	{
		scheme_end = strstr(link, "://");
		if (scheme_end == NULL || scheme_end == link ||
			strspn(link, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+.-") !=
			scheme_end - link)
			problem = "It does not begin with https:// or another scheme.";
		for (c = (const unsigned char *) link; *c; c++)
			if (*c <= 0x20 || *c == 0x7f)
				problem = "It has spaces or control characters in it.";
	}
	if (problem)
		refuse_link(problem);
}

/* The link: the pattern with the token in each place. */
static char *
make_link(const char *pattern, const char *token)
{
	StringInfoData link;
	const char *place;
	int			len;

	initStringInfo(&link);
	while ((place = find_place(pattern, &len)) != NULL)
	{
		appendBinaryStringInfo(&link, pattern, place - pattern);
		appendStringInfoString(&link, token);
		pattern = place + len;
	}
	appendStringInfoString(&link, pattern);
	return link.data;
}

/* A member of a template's model, and from how many seconds on it is said */
typedef struct ExpiryUnit
{
	const char *name;
	int			seconds;
} ExpiryUnit;

/* The largest first.  None says "1 minutes". */
static const ExpiryUnit expiry_units[] = {
	{"expiresInDays", SECS_PER_DAY},
	{"expiresInHours", SECS_PER_HOUR},
	{"expiresInMinutes", SECS_PER_MINUTE}
};

static bool
has_member(Jsonb *payload, const char *name)
{
	JsonbValue	value;

	return payload &&
		getKeyJsonValueFromContainer(&payload->root, name, strlen(name),
									 &value) != NULL;
}

/* How long something good for ttl seconds is said to be; NULL: nothing is. */
static const ExpiryUnit *
choose_unit(Jsonb *payload, int ttl)
{
	const ExpiryUnit *unit = NULL;
	int			i;

	for (i = 0; i < lengthof(expiry_units); i++)
	{
		if (has_member(payload, expiry_units[i].name))
			return NULL;		/* the caller knows better */
		if (unit == NULL && ttl >= 2 * expiry_units[i].seconds)
			unit = &expiry_units[i];
	}
	return unit;
}

static void
push_member(JsonbInState *state, const char *name, JsonbValue *value)
{
	JsonbValue	key;

	key.type = jbvString;
	key.val.string.val = unconstify(char *, name);
	key.val.string.len = strlen(name);
	pushJsonbValue(state, WJB_KEY, &key);
	pushJsonbValue(state, WJB_VALUE, value);
}

/*
 * What the template is filled from: the payload, the link unless that is NULL,
 * and how long it is good.
 */
static Jsonb *
make_model(Jsonb *payload, const char *link, int ttl)
{
	const ExpiryUnit *unit = choose_unit(payload, ttl);
	JsonbInState state = {0};
	JsonbValue	value;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	if (payload)
	{
		JsonbIterator *it = JsonbIteratorInit(&payload->root);
		JsonbIteratorToken token;

		(void) JsonbIteratorNext(&it, &value, true);
		while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_END_OBJECT)
			pushJsonbValue(&state, token, &value);
	}
	if (link)
	{
		value.type = jbvString;
		value.val.string.val = unconstify(char *, link);
		value.val.string.len = strlen(link);
		push_member(&state, "link", &value);
	}
	if (unit)
	{
		value.type = jbvNumeric;
		value.val.numeric = int64_to_numeric(ttl / unit->seconds);
		push_member(&state, unit->name, &value);
	}
	pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	return JsonbValueToJsonb(state.result);
}

/* Refuse if the recipient has had enough: PM007. */
static void
check_send_limits(const PmCode *code, const PmSendLimits *limits)
{
	bool		resend;
	int			wait = pm_send_wait(code->connector, code->address,
									code->usage_type, limits,
									code->created_at, &resend);

	if (wait > 0)
		ereport(ERROR,
				(errcode(PM_ERRCODE_TOO_MANY),
				 resend ? errmsg("the last message to this recipient was sent a moment ago") :
				 errmsg("too many messages to this recipient"),
				 errdetail_plural("The next one can be sent in %d second.",
								  "The next one can be sent in %d seconds.",
								  wait, wait),
				 resend ? errhint("The connector's \"resendInterval\" says how long to wait.") :
				 errhint("The connector's \"sendLimit\" and \"sendWindow\" say how many are allowed."),
				 errhidestmt(true)));
}

/* What a connector's policy says of how often somebody may be sent a code. */
static PmSendLimits
send_limits(const PmPolicy *policy)
{
	PmSendLimits limits;

	limits.limit = policy->send_limit;
	limits.window = policy->send_window;
	limits.interval = policy->resend_interval;
	return limits;
}

/*
 * Make a code or a token, and queue the mail that carries it.  Returns the
 * message's id, 0 in an apply worker, where there is nothing to be done.
 */
static int64
issue(const Request *request)
{
	unsigned char key[PM_CODE_KEY];
	unsigned char address_name[PM_CODE_HMAC];
	char		secret[PM_TOKEN_LENGTH + 1];
	const PmConnector *connector;
	const PmTemplate *template;
	const char *refusal;
	PmPolicy	policy;
	PmSendLimits limits;
	PmMessage	message;
	PmHmacForm	form;
	PmCode		code;
	int			ttl;

	/* What another server issued, that server sends and checks. */
	if (IsLogicalWorker())
		return 0;

	memset(&message, 0, sizeof(message));
	message.email = request->email;
	message.usage_type = request->usage_type;
	message.locale = request->locale;
	message.payload = request->payload;
	message.connector = request->connector;
	pm_check_message(&message);
	if (request->connector == NULL)
		pm_check_connector_name(NULL);
	memset(&code, 0, sizeof(code));
	code.connector = request->connector;
	code.usage_type = request->usage_type;
	code.email = request->email;
	code.address = pstrdup(request->email);
	code.token = request->link != NULL;
	pm_fold_address(code.address);

	connector = pm_use_connector(request->connector, request->role);
	template = pm_require_template(connector, request->usage_type,
								   message.locale);
	policy = connector->policy;
	refusal = pm_recipient_refusal(connector, code.address);
	if (refusal)
		ereport(ERROR,
				(errcode(PM_ERRCODE_INVALID),
				 errmsg("recipient is not allowed"),
				 errdetail_internal("%s", refusal),
				 errhint("The connector's \"recipientPolicy\" says who may be sent a code."),
				 errhidestmt(true)));

	if (code.token && connector->link_prefix &&
		strncmp(request->link, connector->link_prefix,
				strlen(connector->link_prefix)) != 0)
		refuse_link("It does not begin with the connector's \"linkPrefix\".");

	/* A link may be good for days, where the template says so */
	ttl = policy.code_ttl;
	if (code.token && template->expires_in > 0)
		ttl = template->expires_in;

	pm_code_key_hold();
	(void) pm_code_key(code.connector, true, key);
	pm_address_hmac(key, code.connector, code.address, address_name);
	pm_code_lock(address_name);

	code.created_at = GetCurrentTimestamp();
	code.expires_at = code.created_at + ttl * USECS_PER_SEC;
	limits = send_limits(&policy);
	check_send_limits(&code, &limits);

	message.expires_at = code.expires_at;
	if (code.token)
	{
		pm_make_token(secret);
		message.payload = make_model(message.payload,
									 make_link(request->link, secret), ttl);
		message.no_track = true;
	}
	else
	{
		pm_make_code(secret, policy.code_length);
		message.code = secret;
		message.payload = make_model(message.payload, NULL, ttl);
	}
	code.id = pm_enqueue(&message, request->role);

	form = pm_sql_version() == PM_SQL_1_0 ? PM_HMAC_1_0 : PM_HMAC_1_1;
	if (code.token)
	{
		pm_token_hmac(form, key, code.connector, code.usage_type, secret,
					  code.hmac);
		code.sealed = form != PM_HMAC_1_0;
		pm_token_seal(key, &code, code.seal);
	}
	else
		pm_code_hmac(form, key, &code, secret, code.hmac);
	explicit_bzero(secret, sizeof(secret));
	explicit_bzero(key, sizeof(key));
	pm_code_put(&code);
	pm_send_note(&code, &limits);
	pm_note(PM_WAKE_CODES);
	return code.id;
}

/*
 * Refuse a payload that is a code: whoever gives one takes the function for
 * postmark_enqueue.  PM003.
 */
static void
check_no_code(Jsonb *payload)
{
	JsonbValue	value;

	if (payload && JsonbExtractScalar(&payload->root, &value) &&
		(value.type == jbvNumeric || value.type == jbvString))
		ereport(ERROR,
				(errcode(PM_ERRCODE_INVALID),
				 errmsg("payload is not a JSON object"),
				 errdetail("The third argument of postmark_issue_code is the payload; it makes the code itself."),
				 errhint("Leave it out, or use postmark_enqueue to send a code of your own."),
				 errhidestmt(true)));
}

/*
 * The SQL functions' arguments: email, usage_type, for a token the link,
 * payload, locale, connector.
 */
static Datum
issue_of_args(FunctionCallInfo fcinfo, bool token)
{
	Request		request;
	int			n = 0;

	memset(&request, 0, sizeof(request));
	request.role = GetUserId();
	request.email = pm_text_arg(fcinfo, n++);
	request.usage_type = pm_text_arg(fcinfo, n++);
	if (token)
	{
		request.link = pm_text_arg(fcinfo, n++);
		check_link(request.link);
	}
	request.payload = pm_jsonb_arg(fcinfo, n++);
	request.locale = pm_text_arg(fcinfo, n++);
	request.connector = pm_text_arg(fcinfo, n++);
	if (!token)
		check_no_code(request.payload);
	PG_RETURN_INT64(issue(&request));
}

/*
 * postmark_issue_code(email, usage_type, payload, locale, connector)
 * returns bigint
 *
 * PM001 to PM003 as postmark_enqueue, PM003 for a recipient that the policy
 * refuses, PM007 over a limit.
 */
static Datum
postmark_issue_code_hidden(PG_FUNCTION_ARGS)
{
	return issue_of_args(fcinfo, false);
}

/*
 * postmark_issue_token(email, usage_type, link, payload, locale, connector)
 * returns bigint
 *
 * Errors as postmark_issue_code, and PM003 for a pattern that makes no link.
 */
static Datum
postmark_issue_token_hidden(PG_FUNCTION_ARGS)
{
	return issue_of_args(fcinfo, true);
}

/*
 * Trigger for a signup table: EXECUTE FUNCTION postmark_issue_code_trigger(
 * email column, usage type [, name=value ...]) with the names payload, locale
 * (columns) and connector (a value).
 */
static Datum
postmark_issue_code_trigger_hidden(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	HeapTuple	row;
	Request		request;
	PmTriggerArg known[] = {
		{"payload", PM_TRIGGER_PAYLOAD, &request.payload},
		{"locale", PM_TRIGGER_COLUMN, &request.locale},
		{"connector", PM_TRIGGER_VALUE, &request.connector}
	};

	row = pm_trigger_row(fcinfo, "postmark_issue_code_trigger",
						 "Use EXECUTE FUNCTION postmark_issue_code_trigger('email column', 'usage type').");

	memset(&request, 0, sizeof(request));
	request.role = pm_trigger_role(trigger);
	request.email = pm_trigger_email(trigger, row);
	request.usage_type = trigger->tg_trigger->tgargs[1];
	request.connector = pstrdup(PM_DEFAULT_CONNECTOR);
	if (request.email == NULL)
		return PointerGetDatum(row);
	pm_trigger_args(trigger, row, 2, known, lengthof(known),
					"postmark_issue_code_trigger", "");
	(void) issue(&request);
	return PointerGetDatum(row);
}

/*
 * postmark_retry_after(email, usage_type, connector) returns interval
 *
 * How long until the connector's limits let a code be sent, zero if they do.
 * PM001 to PM003 as postmark_issue_code.
 */
Datum
postmark_retry_after(PG_FUNCTION_ARGS)
{
	char	   *connector_name = pm_text_arg(fcinfo, 2);
	Interval   *result = palloc0(sizeof(Interval));
	const PmConnector *connector;
	PmSendLimits limits;
	PmMessage	m;
	bool		resend;

	memset(&m, 0, sizeof(m));
	m.email = pm_text_arg(fcinfo, 0);
	m.usage_type = pm_text_arg(fcinfo, 1);
	pm_check_message(&m);
	pm_check_connector_name(connector_name);
	connector = pm_use_connector(connector_name, GetUserId());
	pm_require_usage_type(connector, m.usage_type);
	limits = send_limits(&connector->policy);
	pm_fold_address(m.email);
	result->time = pm_send_wait(connector_name, m.email, m.usage_type, &limits,
								GetCurrentTimestamp(),
								&resend) * USECS_PER_SEC;
	PG_RETURN_INTERVAL_P(result);
}
