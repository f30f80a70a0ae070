/*-------------------------------------------------------------------------
 *
 * codes.c
 *		Verification codes and tokens: made, sent and checked.
 *
 * A code goes into the mail and is then known to its recipient alone: what is
 * kept is an HMAC of it, under a key of the connector's that no dump contains.
 * The HMAC covers whom the code is for and what for, so that a row that
 * somebody copies or edits is of no use.
 *
 * A code of six digits can be guessed, so a guess is counted before it is
 * compared, where no rollback reaches (attempts.c).  A token of 192 bits
 * cannot; it is looked up by its HMAC and needs no counting.
 *
 * src/codes.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/trigger.h"
#include "common/base64.h"
#include "common/hmac.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "port/pg_bswap.h"
#include "replication/logicalworker.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "args.h"
#include "attempts.h"
#include "code_store.h"
#include "config.h"
#include "enqueue.h"
#include "errors.h"
#include "message_check.h"
#include "queue.h"
#include "shmem.h"
#include "text.h"
#include "trigger_row.h"
#include "wake.h"

/* Digits of a code, see config_options.c */
#define CODE_MIN	4
#define CODE_MAX	12

/* Random bytes of a token, and its length in base64 */
#define TOKEN_BYTES 24
#define TOKEN_LENGTH (TOKEN_BYTES / 3 * 4)

#define LINK_MAX	2048		/* bytes */
#define LINK_PLACE	"{token}"

PG_FUNCTION_INFO_V1(postmark_issue_code);
PG_FUNCTION_INFO_V1(postmark_verify_code);
PG_FUNCTION_INFO_V1(postmark_issue_code_trigger);
PG_FUNCTION_INFO_V1(postmark_issue_token);
PG_FUNCTION_INFO_V1(postmark_verify_token);

/* What is asked for when a code or a token is issued */
typedef struct Request
{
	char	   *email;
	char	   *usage_type;
	char	   *locale;			/* or NULL */
	char	   *connector;
	Jsonb	   *payload;		/* or NULL */
	char	   *link;			/* pattern; NULL: a code */
} Request;

static void
random_bytes(unsigned char *bytes, int n)
{
	if (!pg_strong_random(bytes, n))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate random values"),
				 errhint("Try again."),
				 errhidestmt(true)));
}

/* ----------
 * HMACs
 * ----------
 */

static void
hmac_failed(pg_hmac_ctx *ctx)
{
	ereport(ERROR,
			(errcode(ERRCODE_INTERNAL_ERROR),
			 errmsg("could not compute an HMAC: %s",
					ctx ? pg_hmac_error(ctx) : "out of memory"),
			 errhint("Try again."),
			 errhidestmt(true)));
}

static pg_hmac_ctx *
hmac_begin(const unsigned char *key)
{
	pg_hmac_ctx *ctx = pg_hmac_create(PG_SHA256);

	if (ctx == NULL || pg_hmac_init(ctx, key, PM_CODE_KEY) < 0)
		hmac_failed(ctx);
	return ctx;
}

/* Each field goes with its length before it, so that no two inputs are one. */
static void
hmac_add(pg_hmac_ctx *ctx, const void *field, size_t len)
{
	uint32		prefix = pg_hton32((uint32) len);

	if (pg_hmac_update(ctx, (const uint8 *) &prefix, sizeof(prefix)) < 0 ||
		pg_hmac_update(ctx, field, len) < 0)
		hmac_failed(ctx);
}

static void
hmac_add_text(pg_hmac_ctx *ctx, const char *text)
{
	hmac_add(ctx, text, strlen(text));
}

static void
hmac_end(pg_hmac_ctx *ctx, unsigned char *hmac)
{
	if (pg_hmac_final(ctx, hmac, PM_CODE_HMAC) < 0)
		hmac_failed(ctx);
	pg_hmac_free(ctx);
}

static void
code_hmac(const unsigned char *key, const PmCode *code, const char *digits,
		  unsigned char *hmac)
{
	pg_hmac_ctx *ctx = hmac_begin(key);
	uint64		id = pg_hton64((uint64) code->id);

	hmac_add_text(ctx, "code");
	hmac_add_text(ctx, code->connector);
	hmac_add_text(ctx, code->usage_type);
	hmac_add_text(ctx, code->address);
	hmac_add(ctx, &id, sizeof(id));
	hmac_add_text(ctx, digits);
	hmac_end(ctx, hmac);
}

static void
token_hmac(const unsigned char *key, const char *connector,
		   const char *usage_type, const char *token, unsigned char *hmac)
{
	pg_hmac_ctx *ctx = hmac_begin(key);

	hmac_add_text(ctx, "token");
	hmac_add_text(ctx, connector);
	hmac_add_text(ctx, usage_type);
	hmac_add_text(ctx, token);
	hmac_end(ctx, hmac);
}

/*
 * What stands for an address in shared memory and in lock tags: nobody can
 * tell the address from it, or find another with the same.
 */
static void
address_hmac(const unsigned char *key, const char *connector,
			 const char *address, unsigned char *hmac)
{
	pg_hmac_ctx *ctx = hmac_begin(key);

	hmac_add_text(ctx, "address");
	hmac_add_text(ctx, connector);
	hmac_add_text(ctx, address);
	hmac_end(ctx, hmac);
}

/* ----------
 * Issuing
 * ----------
 */

/* A code of n digits, each as likely as any other. */
static void
make_code(char *code, int n)
{
	int			i = 0;

	while (i < n)
	{
		unsigned char byte;

		random_bytes(&byte, 1);
		/* 250 of the 256 values are a multiple of ten */
		if (byte < 250)
			code[i++] = '0' + byte % 10;
	}
	code[n] = '\0';
}

/* A token, in the alphabet of base64 that a URL needs no quoting for. */
static void
make_token(char *token)
{
	unsigned char bytes[TOKEN_BYTES];
	int			len;
	char	   *c;

	random_bytes(bytes, TOKEN_BYTES);
	len = pg_b64_encode((char *) bytes, TOKEN_BYTES, token, TOKEN_LENGTH + 1);
	if (len != TOKEN_LENGTH)
		elog(ERROR, "could not encode a token");
	token[len] = '\0';
	for (c = token; *c; c++)
	{
		if (*c == '+')
			*c = '-';
		else if (*c == '/')
			*c = '_';
	}
	explicit_bzero(bytes, sizeof(bytes));
}

/* Refuse a pattern that makes no link: PM003. */
static void
check_link(const char *link)
{
	const char *problem = NULL;
	const char *scheme_end;
	const unsigned char *c;

	if (link == NULL)
		problem = "It is null.";
	else if (strlen(link) > LINK_MAX)
		problem = "It has more than 2048 bytes.";
	else if (strstr(link, LINK_PLACE) == NULL)
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
		ereport(ERROR,
				(errcode(PM_ERRCODE_INVALID),
				 errmsg("invalid link"),
				 errdetail_internal("%s", problem),
				 errhint("Give a pattern such as https://shop.example/verify?token={token}."),
				 errhidestmt(true)));
}

/* The link: the pattern with the token in each place. */
static char *
make_link(const char *pattern, const char *token)
{
	StringInfoData link;
	const char *place;

	initStringInfo(&link);
	while ((place = strstr(pattern, LINK_PLACE)) != NULL)
	{
		appendBinaryStringInfo(&link, pattern, place - pattern);
		appendStringInfoString(&link, token);
		pattern = place + strlen(LINK_PLACE);
	}
	appendStringInfoString(&link, pattern);
	return link.data;
}

/* The payload with the member "link" set. */
static Jsonb *
add_link(Jsonb *payload, const char *link)
{
	JsonbParseState *state = NULL;
	JsonbValue	key;
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
	key.type = jbvString;
	key.val.string.val = "link";
	key.val.string.len = strlen("link");
	pushJsonbValue(&state, WJB_KEY, &key);
	value.type = jbvString;
	value.val.string.val = unconstify(char *, link);
	value.val.string.len = strlen(link);
	pushJsonbValue(&state, WJB_VALUE, &value);
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
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

/*
 * Make a code or a token, and queue the mail that carries it.  Returns the
 * message's id.
 */
static int64
issue(const Request *request)
{
	unsigned char key[PM_CODE_KEY];
	unsigned char address_name[PM_CODE_HMAC];
	char		secret[TOKEN_LENGTH + 1];
	const PmConnector *connector;
	const PmTemplate *template;
	const char *refusal;
	PmPolicy	policy;
	PmSendLimits limits;
	PmMessage	message;
	PmCode		code;
	int			ttl;

	pm_check_message(request->email, request->usage_type, NULL,
					 request->payload, request->locale);
	if (request->connector == NULL)
		pm_check_connector_name(NULL);
	memset(&code, 0, sizeof(code));
	code.connector = request->connector;
	code.usage_type = request->usage_type;
	code.email = request->email;
	code.address = pstrdup(request->email);
	code.token = request->link != NULL;
	pm_fold_address(code.address);

	connector = pm_connector(request->connector, false);
	template = pm_require_template(connector, request->usage_type,
								   request->locale);
	policy = connector->policy;
	refusal = pm_recipient_refusal(connector, code.address);
	if (refusal)
		ereport(ERROR,
				(errcode(PM_ERRCODE_INVALID),
				 errmsg("recipient is not allowed"),
				 errdetail_internal("%s", refusal),
				 errhint("The connector's \"recipientPolicy\" says who may be sent a code."),
				 errhidestmt(true)));

	/* A link may be good for days, where the template says so */
	ttl = policy.code_ttl;
	if (code.token && template->expires_in > 0)
		ttl = template->expires_in;

	(void) pm_code_key(code.connector, true, key);
	address_hmac(key, code.connector, code.address, address_name);
	pm_code_lock(address_name);

	code.created_at = GetCurrentTimestamp();
	code.expires_at = code.created_at + ttl * USECS_PER_SEC;
	limits.limit = policy.send_limit;
	limits.window = policy.send_window;
	limits.interval = policy.resend_interval;
	check_send_limits(&code, &limits);

	memset(&message, 0, sizeof(message));
	message.email = request->email;
	message.usage_type = request->usage_type;
	message.locale = request->locale;
	message.connector = request->connector;
	message.payload = request->payload;
	message.expires_at = code.expires_at;
	if (code.token)
	{
		make_token(secret);
		message.payload = add_link(request->payload,
								   make_link(request->link, secret));
		message.no_track = true;
	}
	else
	{
		make_code(secret, policy.code_length);
		message.code = secret;
	}
	code.id = pm_enqueue(&message);

	if (code.token)
		token_hmac(key, code.connector, code.usage_type, secret, code.hmac);
	else
		code_hmac(key, &code, secret, code.hmac);
	explicit_bzero(secret, sizeof(secret));
	explicit_bzero(key, sizeof(key));
	pm_code_put(&code);
	pm_send_note(&code, &limits);
	pm_note(PM_WAKE_CODES);
	return code.id;
}

/*
 * postmark_issue_code(email, usage_type, payload, locale, connector)
 * returns bigint
 *
 * PM001 to PM003 as postmark_enqueue, PM003 for a recipient that the policy
 * refuses, PM007 over a limit.
 */
Datum
postmark_issue_code(PG_FUNCTION_ARGS)
{
	Request		request;
	int64		id;

	PM_HIDE_STATEMENT();

	memset(&request, 0, sizeof(request));
	request.email = pm_text_arg(fcinfo, 0);
	request.usage_type = pm_text_arg(fcinfo, 1);
	request.payload = pm_jsonb_arg(fcinfo, 2);
	request.locale = pm_text_arg(fcinfo, 3);
	request.connector = pm_text_arg(fcinfo, 4);
	id = issue(&request);
	PM_SHOW_STATEMENT();
	PG_RETURN_INT64(id);
}

/*
 * postmark_issue_token(email, usage_type, link, payload, locale, connector)
 * returns bigint
 */
Datum
postmark_issue_token(PG_FUNCTION_ARGS)
{
	Request		request;
	int64		id;

	PM_HIDE_STATEMENT();

	memset(&request, 0, sizeof(request));
	request.email = pm_text_arg(fcinfo, 0);
	request.usage_type = pm_text_arg(fcinfo, 1);
	request.link = pm_text_arg(fcinfo, 2);
	request.payload = pm_jsonb_arg(fcinfo, 3);
	request.locale = pm_text_arg(fcinfo, 4);
	request.connector = pm_text_arg(fcinfo, 5);
	check_link(request.link);
	id = issue(&request);
	PM_SHOW_STATEMENT();
	PG_RETURN_INT64(id);
}

/*
 * Trigger for a signup table: EXECUTE FUNCTION postmark_issue_code_trigger(
 * email column, usage type [, name=value ...]) with the names payload, locale
 * (columns) and connector (a value).
 */
Datum
postmark_issue_code_trigger(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	HeapTuple	row;
	Request		request;
	char	  **args;
	int			nargs;
	int			i;

	PM_HIDE_STATEMENT();

	row = pm_trigger_row(fcinfo, "postmark_issue_code_trigger",
						 "Use CREATE TRIGGER ... AFTER INSERT ... FOR EACH ROW.",
						 "Use EXECUTE FUNCTION postmark_issue_code_trigger('email column', 'usage type').");
	args = trigger->tg_trigger->tgargs;
	nargs = trigger->tg_trigger->tgnargs;

	memset(&request, 0, sizeof(request));
	request.email = pm_trigger_column(trigger, row, args[0]);
	request.usage_type = args[1];
	request.connector = pstrdup(PM_DEFAULT_CONNECTOR);
	for (i = 2; i < nargs; i++)
	{
		char	   *value = strchr(args[i], '=');
		char	   *name = value ? pnstrdup(args[i], value - args[i]) : "";

		value = value ? value + 1 : NULL;
		if (strcmp(name, "payload") == 0)
			request.payload = pm_trigger_payload(trigger, row, value);
		else if (strcmp(name, "locale") == 0)
			request.locale = pm_trigger_column(trigger, row, value);
		else if (strcmp(name, "connector") == 0)
			request.connector = value;
		else
			ereport(ERROR,
					(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
					 errmsg("invalid argument \"%s\" of postmark_issue_code_trigger",
							args[i]),
					 errhint("After the email column and the usage type come name=value with the names payload, locale, connector.")));
	}

	/* What another server issued, that server sends and checks. */
	if (request.email != NULL && !IsLogicalWorker())
		(void) issue(&request);
	PM_SHOW_STATEMENT();
	return PointerGetDatum(row);
}

/* ----------
 * Verifying
 * ----------
 */

/* Whether address, usage type and connector can be some. */
static bool
well_formed(const char *email, const char *usage_type, const char *connector)
{
	const char *hint;

	return (email == NULL || pm_address_problem(email, &hint) == NULL) &&
		usage_type != NULL && *usage_type != '\0' &&
		strlen(usage_type) <= PM_SHORT_TEXT_MAX &&
		connector != NULL && pm_valid_connector_name(connector);
}

static bool
well_formed_code(const char *code)
{
	size_t		len = code ? strlen(code) : 0;

	return len >= CODE_MIN && len <= CODE_MAX &&
		strspn(code, "0123456789") == len;
}

/*
 * Count the attempt, before anything is compared.  False if it is one too
 * many.
 */
static bool
reserve(PmCounter *counters, int n)
{
	uint64		epoch;
	PmReservation reservation;

	epoch = pm_attempts_epoch();
	do
	{
		pm_counters_load(counters, n);
		reservation = pm_attempts_reserve(counters, n, &epoch);
		CHECK_FOR_INTERRUPTS();
	} while (reservation == PM_NOT_LOADED);
	return reservation == PM_RESERVED;
}

/* Verify a well-formed code. */
static const char *
verify_code(const char *email, const char *usage_type, const char *digits,
			const char *connector_name)
{
	unsigned char key[PM_CODE_KEY] = {0};
	unsigned char address_name[PM_CODE_HMAC];
	unsigned char hmac[PM_CODE_HMAC];
	PmCounter	counters[2];
	PmPolicy	policy;
	PmCode		code;
	char	   *address = pstrdup(email);
	TimestampTz now;
	bool		found;
	bool		right;

	policy = pm_connector(connector_name, false)->policy;
	pm_fold_address(address);

	/* Without a key nothing was issued, and the rest is done all the same */
	found = pm_code_key(connector_name, false, key);
	found = pm_code_find(connector_name, address, usage_type, &code) && found;
	code.address = address;
	code.usage_type = unconstify(char *, usage_type);
	address_hmac(key, connector_name, address, address_name);

	memset(counters, 0, sizeof(counters));
	counters[0].name[0] = PM_COUNTER_ADDRESS;
	memcpy(counters[0].name + 1, address_name, PM_COUNTER_NAME - 1);
	counters[0].limit = policy.verify_limit;
	counters[0].window = policy.verify_window * USECS_PER_SEC;

	/* Not by its id, which a new extension or a failover may give again */
	counters[1].name[0] = PM_COUNTER_CODE;
	memcpy(counters[1].name + 1, code.hmac, PM_COUNTER_NAME - 1);
	counters[1].limit = policy.code_max_attempts;
	counters[1].until = code.expires_at + PM_CODES_GRACE * USECS_PER_SEC;

	now = GetCurrentTimestamp();
	if (!found || code.expires_at <= now)
	{
		pm_counters_load(counters, 2);
		code_hmac(key, &code, digits, hmac);
		(void) timingsafe_bcmp(hmac, code.hmac, PM_CODE_HMAC);
		return found ? "expired" : "not_found";
	}

	if (!reserve(counters, 2))
		return "exhausted";
	code_hmac(key, &code, digits, hmac);
	explicit_bzero(key, sizeof(key));
	right = timingsafe_bcmp(hmac, code.hmac, PM_CODE_HMAC) == 0;
	if (!right)
	{
		pm_wake_database(MyDatabaseId, PM_WAKE_ATTEMPTS);
		return "mismatch";
	}

	/* Whoever has used it up, and may yet roll back, holds the lock. */
	pm_code_lock(address_name);
	found = pm_code_take(code.id);
	if (pm_attempts_give_back(counters, 2))
		pm_wake_database(MyDatabaseId, PM_WAKE_ATTEMPTS);
	return found ? "verified" : "not_found";
}

/*
 * postmark_verify_code(email, usage_type, code, connector) returns text
 *
 * Never NULL.  PM001 without preload, or if there is no such connector.
 */
Datum
postmark_verify_code(PG_FUNCTION_ARGS)
{
	const char *verdict = "mismatch";
	char	   *email;
	char	   *usage_type;
	char	   *code;
	char	   *connector;

	PM_HIDE_STATEMENT();

	if (pm_shared() == NULL)
		ereport(ERROR,
				(errcode(PM_ERRCODE_NOT_CONFIGURED),
				 errmsg("codes cannot be verified: postmark_connector is not preloaded"),
				 errdetail("Failed attempts are counted in shared memory."),
				 errhint("Add postmark_connector to shared_preload_libraries and restart the server."),
				 errhidestmt(true)));
	PreventCommandIfReadOnly("postmark_verify_code()");

	email = pm_text_arg(fcinfo, 0);
	usage_type = pm_text_arg(fcinfo, 1);
	code = pm_text_arg(fcinfo, 2);
	connector = pm_text_arg(fcinfo, 3);
	if (email && well_formed(email, usage_type, connector) &&
		well_formed_code(code))
		verdict = verify_code(email, usage_type, code, connector);
	PM_SHOW_STATEMENT();
	PG_RETURN_TEXT_P(cstring_to_text(verdict));
}

/* Verify a well-formed token; *email becomes whose it is, if it is verified. */
static const char *
verify_token(const char *token, const char *usage_type,
			 const char *connector_name, char **email)
{
	unsigned char key[PM_CODE_KEY] = {0};
	unsigned char address_name[PM_CODE_HMAC];
	unsigned char hmac[PM_CODE_HMAC];
	PmCode		code;
	bool		found;

	(void) pm_connector(connector_name, false);
	found = pm_code_key(connector_name, false, key);
	token_hmac(key, connector_name, usage_type, token, hmac);
	found = pm_token_find(hmac, &code) && found;
	if (!found)
		return "not_found";
	if (code.expires_at <= GetCurrentTimestamp())
		return "expired";

	address_hmac(key, connector_name, code.address, address_name);
	explicit_bzero(key, sizeof(key));
	pm_code_lock(address_name);
	if (!pm_code_take(code.id))
		return "not_found";
	*email = code.email;
	return "verified";
}

/*
 * postmark_verify_token(token, usage_type, connector)
 * returns table (verdict text, email text)
 *
 * Always one row.  PM001 if there is no such connector.
 */
Datum
postmark_verify_token(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	const char *verdict = "mismatch";
	char	   *email = NULL;
	char	   *token;
	char	   *usage_type;
	char	   *connector;
	Datum		values[2];
	bool		nulls[2] = {false, true};

	PM_HIDE_STATEMENT();

	PreventCommandIfReadOnly("postmark_verify_token()");
	InitMaterializedSRF(fcinfo, 0);
	token = pm_text_arg(fcinfo, 0);
	usage_type = pm_text_arg(fcinfo, 1);
	connector = pm_text_arg(fcinfo, 2);
	if (token && strlen(token) == TOKEN_LENGTH &&
		strspn(token, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") == TOKEN_LENGTH &&
		well_formed(NULL, usage_type, connector))
		verdict = verify_token(token, usage_type, connector, &email);

	values[0] = CStringGetTextDatum(verdict);
	values[1] = (Datum) 0;
	if (email)
	{
		values[1] = CStringGetTextDatum(email);
		nulls[1] = false;
	}
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	PM_SHOW_STATEMENT();
	return (Datum) 0;
}
