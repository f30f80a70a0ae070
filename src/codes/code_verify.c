/*-------------------------------------------------------------------------
 *
 * code_verify.c
 *		Codes and tokens: checked, and used up.
 *
 * A code of six digits can be guessed, so a guess is counted before it is
 * compared, where no rollback reaches (attempts.c).  A token of 192 bits
 * cannot; it is looked up by its HMAC and needs no counting.
 *
 * src/codes/code_verify.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "base/args.h"
#include "base/compat.h"
#include "base/errors.h"
#include "base/text.h"
#include "codes/attempts.h"
#include "codes/code_secret.h"
#include "codes/code_store.h"
#include "queue/message_check.h"
#include "settings/code_key.h"
#include "settings/config_store.h"
#include "settings/connector.h"
#include "settings/recipient_policy.h"
#include "shared/slots.h"
#include "shared/stats.h"
#include "shared/wake.h"
#include "shared/wakeup.h"

PM_HIDDEN_FUNCTION(postmark_verify_code);
PM_HIDDEN_FUNCTION(postmark_verify_token);

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
		/* Once it is counted, nothing ends it before its answer */
		pm_counters_load(counters, n);
		CHECK_FOR_INTERRUPTS();
		reservation = pm_attempts_reserve(counters, n, &epoch);
	} while (reservation == PM_NOT_LOADED);
	return reservation == PM_RESERVED;
}

/* Whether these digits are the code's, in time that does not tell how far. */
static bool
is_code(const unsigned char *key, const PmCode *code, const char *digits)
{
	unsigned char hmac[PM_CODE_HMAC];
	unsigned char hmac_1_0[PM_CODE_HMAC];
	bool		right;
	bool		right_1_0;

	pm_code_hmac(PM_HMAC_1_1, key, code, digits, hmac);
	pm_code_hmac(PM_HMAC_1_0, key, code, digits, hmac_1_0);
	right = timingsafe_bcmp(hmac, code->hmac, PM_CODE_HMAC) == 0;
	right_1_0 = timingsafe_bcmp(hmac_1_0, code->hmac, PM_CODE_HMAC) == 0;
	return right | right_1_0;
}

/*
 * Do for a code that is not there what is done for a wrong guess at one that
 * is, so that the time does not tell.  The counters are nobody's.
 */
static void
guess_at_nothing(const unsigned char *key, const unsigned char *address_name,
				 const PmCode *of, const char *digits)
{
	PmCounter	counters[2];
	int			i;

	memset(counters, 0, sizeof(counters));
	for (i = 0; i < 2; i++)
	{
		counters[i].name[0] = PM_COUNTER_NONE;
		memcpy(counters[i].name + 1, address_name + i, PM_COUNTER_NAME - 1);
		counters[i].limit = PG_INT32_MAX;
		counters[i].until = DT_NOEND;
	}
	if (reserve(counters, 2))
	{
		(void) is_code(key, of, digits);
		(void) pm_attempts_give_back(counters, 2);
	}
	pm_wake_database(MyDatabaseId, PM_WAKE_ATTEMPTS);
}

/* Verify a well-formed code. */
static const char *
verify_code(const char *address, const char *usage_type, const char *digits,
			const char *connector_name)
{
	unsigned char key[PM_CODE_KEY] = {0};
	unsigned char address_name[PM_CODE_HMAC];
	const PmConnector *connector = pm_use_connector(connector_name,
													GetUserId());
	PmPolicy	policy = connector->policy;
	int			connector_number = connector->number;
	PmCounter  *counters;
	PmCode		of;
	PmCode	   *codes;
	TimestampTz now;
	bool		has_key;
	bool		right = false;
	int			ncounters = 0;
	int			good = 0;
	int			n;
	int			i;

	pm_require_usage_type(connector, usage_type);
	memset(&of, 0, sizeof(of));
	of.connector = connector_name;
	of.address = pstrdup(address);
	of.usage_type = usage_type;
	pm_fold_address(of.address);

	/* Without a key nothing was issued, and the rest is done all the same */
	has_key = pm_code_key(connector_name, false, key);
	codes = pm_codes_find(&of, &n);
	pm_address_hmac(key, connector_name, of.address, address_name);
	now = GetCurrentTimestamp();
	for (i = 0; i < n && has_key; i++)
		if (codes[i].expires_at > now)
			codes[good++] = codes[i];
	if (good == 0)
	{
		guess_at_nothing(key, address_name, &of, digits);
		return has_key && n > 0 ? "expired" : "not_found";
	}

	/* One attempt of the address, and one of each code that is guessed at */
	counters = palloc0(sizeof(PmCounter) * (good + 1));
	counters[0].name[0] = PM_COUNTER_ADDRESS;
	memcpy(counters[0].name + 1, address_name, PM_COUNTER_NAME - 1);
	counters[0].limit = policy.verify_limit;
	counters[0].window = policy.verify_window * USECS_PER_SEC;
	for (i = 0; i < good && !right; i++)
	{
		PmCounter  *counter = &counters[Max(ncounters, 1)];

		/* Not by its id, which a new extension or a failover may give again */
		memset(counter, 0, sizeof(*counter));
		counter->name[0] = PM_COUNTER_CODE;
		memcpy(counter->name + 1, codes[i].hmac, PM_COUNTER_NAME - 1);
		counter->limit = policy.code_max_attempts;
		counter->until = codes[i].expires_at + PM_CODES_GRACE * USECS_PER_SEC;
		if (ncounters == 0 ? !reserve(counters, 2) : !reserve(counter, 1))
			continue;
		ncounters = Max(ncounters, 1) + 1;
		right = is_code(key, &codes[i], digits);
	}
	explicit_bzero(key, sizeof(key));
	if (ncounters == 0)
		return "exhausted";
	if (!right)
	{
		pm_wake_database(MyDatabaseId, PM_WAKE_ATTEMPTS);
		pm_stats_add(pm_stats_of(connector_number, connector_name),
					 PM_COUNT_WRONG_GUESSES, 1);
		return "mismatch";
	}

	/*
	 * Whoever has used it up, and may yet roll back, holds the lock.  A wait
	 * for it may be cancelled, and has spent no attempt then.
	 */
	if (pm_attempts_give_back(counters, ncounters))
		pm_wake_database(MyDatabaseId, PM_WAKE_ATTEMPTS);
	pm_code_lock(address_name);
	return pm_code_take(&codes[i - 1]) ? "verified" : "not_found";
}

/* An address as a form would hand it on: without blanks around it. */
static char *
trim(char *address)
{
	static const char blanks[] = " \t\r\n\f\v";
	size_t		len;

	address += strspn(address, blanks);
	len = strlen(address);
	while (len > 0 && strchr(blanks, address[len - 1]))
		len--;
	address[len] = '\0';
	return address;
}

/*
 * postmark_verify_code(email, usage_type, code, connector) returns text
 *
 * Never NULL.  PM001 without preload, or if there is no such connector, PM002
 * for a usage type that is neither known nor configured, PM007 if a right code
 * is being used or replaced by a transaction that does not end.
 */
static Datum
postmark_verify_code_hidden(PG_FUNCTION_ARGS)
{
	const char *verdict = "mismatch";
	char		digits[PM_CODE_MAX + 1];
	char	   *email;
	char	   *usage_type;
	char	   *code;
	char	   *connector;

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
	if (email)
		email = trim(email);
	if (email && well_formed(email, usage_type, connector) &&
		pm_typed_code(code, digits))
		verdict = verify_code(email, usage_type, digits, connector);
	PG_RETURN_TEXT_P(cstring_to_text(verdict));
}

/* Find a token that is good; false if there is none. */
static bool
find_token(const unsigned char *key, const char *token, const char *usage_type,
		   const char *connector_name, PmCode *code)
{
	unsigned char hmac[PM_CODE_HMAC];
	PmCode	   *good;
	int			n;
	int			i;

	pm_token_hmac(PM_HMAC_1_1, key, connector_name, usage_type, token, hmac);
	if (pm_token_find(hmac, code))
	{
		/* Whoever may edit the table cannot make it another's, or last */
		pm_token_seal(key, code, hmac);
		if (!code->sealed ||
			timingsafe_bcmp(hmac, code->seal, PM_CODE_HMAC) != 0)
			return false;
	}
	else
	{
		pm_token_hmac(PM_HMAC_1_0, key, connector_name, usage_type, token,
					  hmac);
		if (!pm_token_find(hmac, code))
			return false;
	}
	code->connector = connector_name;
	code->usage_type = usage_type;

	/* A newer one may have been mailed */
	good = pm_codes_find(code, &n);
	for (i = 0; i < n; i++)
		if (good[i].id == code->id)
			return true;
	return false;
}

/*
 * Verify a well-formed token, and use it up if "consume" says so; *email
 * becomes whose it is, if it is verified.
 */
static const char *
verify_token(const char *token, const char *usage_type,
			 const char *connector_name, bool consume, char **email)
{
	unsigned char key[PM_CODE_KEY] = {0};
	unsigned char address_name[PM_CODE_HMAC];
	PmCode		code;
	bool		found;

	pm_require_usage_type(pm_use_connector(connector_name, GetUserId()),
						  usage_type);
	found = pm_code_key(connector_name, false, key) &&
		find_token(key, token, usage_type, connector_name, &code);
	if (found)
		pm_address_hmac(key, connector_name, code.address, address_name);
	explicit_bzero(key, sizeof(key));
	if (!found)
		return "not_found";
	if (code.expires_at <= GetCurrentTimestamp())
		return "expired";

	if (consume)
	{
		pm_code_lock(address_name);
		if (!pm_code_take(&code))
			return "not_found";
	}
	*email = code.email;
	return "verified";
}

/*
 * postmark_verify_token(token, usage_type, connector, consume)
 * returns table (verdict text, email text)
 *
 * Always one row.  Errors as those of postmark_verify_code, but it needs no
 * preload.  1.0's has no "consume".
 */
static Datum
postmark_verify_token_hidden(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	bool		consume = PG_NARGS() < 4 || PG_ARGISNULL(3) ||
		PG_GETARG_BOOL(3);
	const char *verdict = "mismatch";
	char	   *email = NULL;
	char	   *token;
	char	   *usage_type;
	char	   *connector;
	Datum		values[2];
	bool		nulls[2] = {false, true};

	if (consume)
		PreventCommandIfReadOnly("postmark_verify_token()");
	InitMaterializedSRF(fcinfo, 0);
	token = pm_text_arg(fcinfo, 0);
	usage_type = pm_text_arg(fcinfo, 1);
	connector = pm_text_arg(fcinfo, 2);
	if (pm_well_formed_token(token) &&
		well_formed(NULL, usage_type, connector))
		verdict = verify_token(token, usage_type, connector, consume, &email);

	values[0] = CStringGetTextDatum(verdict);
	values[1] = (Datum) 0;
	if (email)
	{
		values[1] = CStringGetTextDatum(email);
		nulls[1] = false;
	}
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	return (Datum) 0;
}
