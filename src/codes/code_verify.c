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

/* Verify a well-formed code. */
static const char *
verify_code(const char *email, const char *usage_type, const char *digits,
			const char *connector_name)
{
	unsigned char key[PM_CODE_KEY] = {0};
	unsigned char address_name[PM_CODE_HMAC];
	unsigned char hmac[PM_CODE_HMAC];
	PmCounter	counters[2];
	const PmConnector *connector;
	int			connector_number;
	PmPolicy	policy;
	PmCode		code;
	char	   *address = pstrdup(email);
	TimestampTz now;
	bool		found;
	bool		right;

	connector = pm_connector(connector_name, false);
	policy = connector->policy;
	connector_number = connector->number;
	pm_fold_address(address);

	/* Without a key nothing was issued, and the rest is done all the same */
	found = pm_code_key(connector_name, false, key);
	found = pm_code_find(connector_name, address, usage_type, &code) && found;
	code.address = address;
	code.usage_type = unconstify(char *, usage_type);
	pm_address_hmac(key, connector_name, address, address_name);

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
		pm_code_hmac(key, &code, digits, hmac);
		(void) timingsafe_bcmp(hmac, code.hmac, PM_CODE_HMAC);
		return found ? "expired" : "not_found";
	}

	if (!reserve(counters, 2))
		return "exhausted";
	pm_code_hmac(key, &code, digits, hmac);
	explicit_bzero(key, sizeof(key));
	right = timingsafe_bcmp(hmac, code.hmac, PM_CODE_HMAC) == 0;
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
	if (pm_attempts_give_back(counters, 2))
		pm_wake_database(MyDatabaseId, PM_WAKE_ATTEMPTS);
	pm_code_lock(address_name);
	return pm_code_take(code.id) ? "verified" : "not_found";
}

/*
 * postmark_verify_code(email, usage_type, code, connector) returns text
 *
 * Never NULL.  PM001 without preload, or if there is no such connector.
 */
static Datum
postmark_verify_code_hidden(PG_FUNCTION_ARGS)
{
	const char *verdict = "mismatch";
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
	if (email && well_formed(email, usage_type, connector) &&
		pm_well_formed_code(code))
		verdict = verify_code(email, usage_type, code, connector);
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
	pm_token_hmac(key, connector_name, usage_type, token, hmac);
	found = pm_token_find(hmac, &code) && found;
	if (!found)
		return "not_found";
	if (code.expires_at <= GetCurrentTimestamp())
		return "expired";

	pm_address_hmac(key, connector_name, code.address, address_name);
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
static Datum
postmark_verify_token_hidden(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	const char *verdict = "mismatch";
	char	   *email = NULL;
	char	   *token;
	char	   *usage_type;
	char	   *connector;
	Datum		values[2];
	bool		nulls[2] = {false, true};

	PreventCommandIfReadOnly("postmark_verify_token()");
	InitMaterializedSRF(fcinfo, 0);
	token = pm_text_arg(fcinfo, 0);
	usage_type = pm_text_arg(fcinfo, 1);
	connector = pm_text_arg(fcinfo, 2);
	if (pm_well_formed_token(token) &&
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
	return (Datum) 0;
}
