/*-------------------------------------------------------------------------
 *
 * configure.c
 *		The SQL functions with which an administrator changes connectors.
 *
 * Whoever may execute one of these needs no privilege on the tables: they act
 * as the tables' owner, with SQL in which nothing depends on the caller's
 * search_path.  What they changed, the tables' triggers announce.
 *
 * src/settings/configure.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "base/args.h"
#include "base/catalog.h"
#include "base/errors.h"
#include "base/owner.h"
#include "base/text.h"
#include "settings/code_key.h"
#include "settings/config_json.h"
#include "settings/config_store.h"
#include "settings/connector.h"
#include "settings/connector_roles.h"
#include "settings/connector_token.h"
#include "settings/token.h"
#include "settings/webhook_secret.h"
#include "shared/wake.h"
#include "shared/wakeup.h"

#define REASON_MAX 300			/* bytes */

/* How far ahead postmark_pause looks for messages that will expire. */
#define PAUSE_OUTLOOK_MINUTES 10

PM_HIDDEN_FUNCTION(postmark_configure);
PG_FUNCTION_INFO_V1(postmark_config);
PM_HIDDEN_FUNCTION(postmark_set_token);
PG_FUNCTION_INFO_V1(postmark_pause);
PG_FUNCTION_INFO_V1(postmark_resume);
PG_FUNCTION_INFO_V1(postmark_remove);
PG_FUNCTION_INFO_V1(postmark_settings_row);
PG_FUNCTION_INFO_V1(postmark_rotate_code_key);

/*
 * Whoever changes a connector takes this lock first, and so nobody else is at it
 * and no two can wait for each other: the server's report of that would show
 * their statements, with a token in one of them.
 */
static PmStatement lock_settings = {
	"LOCK TABLE @.postmark_settings IN SHARE ROW EXCLUSIVE MODE",
};

/* Values go in as arguments only, so no error shows them as part of the SQL. */
static PmStatement put_settings = {
	"INSERT INTO @.postmark_settings (connector, number, config, configured_at)"
	" VALUES ($1, $2, $3, pg_catalog.clock_timestamp())"
	" ON CONFLICT (connector) DO UPDATE"
	" SET config = EXCLUDED.config, configured_at = EXCLUDED.configured_at",
	3, {TEXTOID, INT4OID, JSONBOID}
};

static PmStatement put_token = {
	"INSERT INTO @.postmark_secrets (connector, server_token) VALUES ($1, $2)"
	" ON CONFLICT (connector) DO UPDATE SET server_token = EXCLUDED.server_token",
	2, {TEXTOID, TEXTOID}
};

static PmStatement put_template = {
	"INSERT INTO @.postmark_templates"
	" (connector, usage_type, locale, template_alias, priority, expires_in)"
	" VALUES ($1, $2, $3, $4, $5, $6)",
	6, {TEXTOID, TEXTOID, TEXTOID, TEXTOID, INT4OID, INT4OID}
};

static PmStatement delete_templates = {
	"DELETE FROM @.postmark_templates WHERE connector" PM_EQ "$1",
	1, {TEXTOID}
};

static PmStatement delete_settings = {
	"DELETE FROM @.postmark_settings WHERE connector" PM_EQ "$1",
	1, {TEXTOID}
};

static PmStatement delete_secrets = {
	"DELETE FROM @.postmark_secrets WHERE connector" PM_EQ "$1",
	1, {TEXTOID}
};

static PmStatement find_trouble = {
	"SELECT 1 FROM @.postmark_trouble WHERE connector" PM_EQ "$1",
	1, {TEXTOID}
};

static PmStatement delete_trouble = {
	"DELETE FROM @.postmark_trouble WHERE connector" PM_EQ "$1",
	1, {TEXTOID}
};

/* Waits for transactions that issue codes, and keeps others from it. */
static PmStatement lock_codes = {
	"LOCK TABLE @.postmark_codes IN SHARE ROW EXCLUSIVE MODE",
};

static PmStatement delete_codes = {
	"DELETE FROM @.postmark_codes WHERE connector" PM_EQ "$1",
	1, {TEXTOID}
};

static PmStatement delete_sends = {
	"DELETE FROM @.postmark_sends WHERE connector" PM_EQ "$1",
	1, {TEXTOID}
};

static PmStatement delete_suppressed = {
	"DELETE FROM @.postmark_suppressed WHERE connector" PM_EQ "$1",
	1, {TEXTOID}
};

static PmStatement delete_inquiries = {
	"DELETE FROM @.postmark_inquiries WHERE connector" PM_EQ "$1",
	1, {TEXTOID}
};

static PmStatement delete_captures = {
	"DELETE FROM @.postmark_captures WHERE connector" PM_EQ "$1",
	1, {TEXTOID}
};

static PmStatement delete_progress = {
	"DELETE FROM @.postmark_feedback_progress WHERE connector" PM_EQ "$1",
	1, {TEXTOID}
};

static PmStatement delete_dedup_keys = {
	"DELETE FROM @.postmark_dedup_keys WHERE connector" PM_EQ "$1",
	1, {TEXTOID}
};

static PmStatement set_paused = {
	"UPDATE @.postmark_settings"
	" SET paused_at = pg_catalog.clock_timestamp(), pause_reason = NULL"
	" WHERE connector" PM_EQ "$1",
	1, {TEXTOID}
};

static PmStatement set_pause_reason = {
	"UPDATE @.postmark_settings SET pause_reason = $2"
	" WHERE connector" PM_EQ "$1",
	2, {TEXTOID, TEXTOID}
};

static PmStatement set_resumed = {
	"UPDATE @.postmark_settings SET paused_at = NULL, pause_reason = NULL"
	" WHERE connector" PM_EQ "$1",
	1, {TEXTOID}
};

static PmStatement set_database = {
	"UPDATE @.postmark_instance SET database = $1"
	" WHERE database" PM_NE "$1",
	1, {OIDOID}
};

static PmStatement lock_queue = {
	"LOCK TABLE @.postmark_queue, @.postmark_deferred IN SHARE MODE",
};

/* From the first to the last lane of a connector */
#define OF_LANES \
	" WHERE lane" PM_GE "$1 AND lane" PM_LE "$2"

static PmStatement count_expiring = {
	"SELECT pg_catalog.count(*) FROM ("
	"SELECT lane, expires_at FROM @.postmark_queue"
	" UNION ALL SELECT lane, expires_at FROM @.postmark_deferred) AS m"
	OF_LANES
	" AND expires_at" PM_GT "$3"
	" AND expires_at" PM_LE "$4",
	4, {INT4OID, INT4OID, TIMESTAMPTZOID, TIMESTAMPTZOID}
};

/* A message under way is in its table still, but an intent alone counts, too. */
static PmStatement count_unsent = {
	"SELECT GREATEST("
	"(SELECT pg_catalog.count(*) FROM ("
	"SELECT lane FROM @.postmark_queue"
	" UNION ALL SELECT lane FROM @.postmark_deferred) AS m" OF_LANES "),"
	" (SELECT pg_catalog.count(*) FROM @.postmark_intents" OF_LANES "))",
	2, {INT4OID, INT4OID}
};

/*
 * Run a statement that returns one int8: what a transaction of REPEATABLE READ
 * does not see may be what matters.
 */
static int64
count_now(PmStatement *statement, Datum *values)
{
	bool		isnull;

	pm_execute_now(statement, values, true);
	return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0],
									   SPI_tuptable->tupdesc, 1, &isnull));
}

/*
 * Number of a connector, also of one that is stored but invalid, for whoever
 * called us to change it; PM001 if there is none, insufficient_privilege.
 */
static int
require_number(const char *name, const PmOwnerScope *scope)
{
	const PmConnector *connector = pm_find_connector(name);

	if (connector == NULL)
		pm_raise_not_configured(name);
	pm_require_use(connector, scope->save_user);
	return connector->number;
}

/* ----------
 * Arguments
 * ----------
 */

/* A name that can be a connector's; PM001 if not. */
static char *
get_connector_arg(FunctionCallInfo fcinfo, int n)
{
	char	   *name = pm_text_arg(fcinfo, n);

	pm_check_connector_name(name);
	return name;
}

/* ----------
 * The functions
 * ----------
 */

/* What Postmark was asked for a connector is to be asked anew. */
static void
forget_progress(const char *name)
{
	Datum		values[1];

	if (pm_sql_version() < PM_SQL_1_1)
		return;
	values[0] = CStringGetTextDatum(name);
	pm_execute_now(&delete_progress, values, false);
}

/*
 * Store a token, the connector's only one.  Another one may be of another
 * server of Postmark's, which was asked nothing so far.
 */
static void
store_token(const char *name, const char *token)
{
	const char *before = pm_stored_token(name);
	Datum		values[2];

	if (before == NULL || strcmp(before, token) != 0)
		forget_progress(name);
	values[0] = CStringGetTextDatum(name);
	values[1] = CStringGetTextDatum(token);
	pm_execute(&put_token, values, NULL, 0);
}

static void
store_templates(const PmConnector *connector)
{
	Datum		values[6];
	char		nulls[6] = {' ', ' ', ' ', ' ', ' ', ' '};
	int			i;

	values[0] = CStringGetTextDatum(connector->name);
	pm_execute(&delete_templates, values, NULL, 0);

	for (i = 0; i < connector->ntemplates; i++)
	{
		const PmTemplate *t = &connector->templates[i];

		values[1] = CStringGetTextDatum(t->usage_type);
		values[2] = CStringGetTextDatum(t->locale ? t->locale : "");
		values[3] = CStringGetTextDatum(t->alias);
		values[4] = Int32GetDatum(t->priority);
		PM_NULLABLE(values, nulls, 5, t->expires_in == 0,
					Int32GetDatum(t->expires_in));
		pm_execute(&put_template, values, nulls, 0);
	}
}

/*
 * Store everything but the token.  A connector keeps its number and whether
 * it is paused; a new one gets the next number.
 */
static void
store_settings(const PmConnector *connector)
{
	const PmConnector *other;
	Datum		values[3];
	int			number = 1;
	int			i;

	/* Ours is the only session that changes them now. */
	for (i = 0; (other = pm_connectors(i)) != NULL; i++)
	{
		if (strcmp(other->name, connector->name) == 0)
		{
			number = other->number;
			break;
		}
		number = other->number + 1;
	}

	values[0] = CStringGetTextDatum(connector->name);
	values[1] = Int32GetDatum(number);
	values[2] = JsonbPGetDatum(connector->options);
	pm_execute(&put_settings, values, NULL, 0);

	store_templates(connector);
}

/*
 * postmark_configure(config jsonb, connector text) RETURNS void
 *
 * PM001 if anything in the JSON is wrong, or if no token is given, stored or
 * in the token directory though messages are to be sent; then nothing is
 * changed.
 */
static Datum
postmark_configure_hidden(PG_FUNCTION_ARGS)
{
	PmOwnerScope scope;
	PmConnector *connector;
	const PmConnector *stored;
	char	   *name;

	name = get_connector_arg(fcinfo, 1);
	connector = pm_config_parse(pm_jsonb_arg(fcinfo, 0), name);

	pm_connect_owner(&scope);
	pm_execute(&lock_settings, NULL, NULL, 0);
	stored = pm_find_connector(name);
	if (stored)
		pm_require_use(stored, scope.save_user);
	(void) pm_connector_token(connector, connector->captures);
	store_settings(connector);
	pm_code_key_make(name);
	if (connector->token)
		store_token(name, connector->token);
	if (connector->feedback_interval == 0)
		forget_progress(name);
	pm_webhook_secrets_store(connector);
	pm_disconnect_owner(&scope);

	PG_RETURN_VOID();
}

/*
 * postmark_config(connector text) RETURNS jsonb
 *
 * PM001 if there is no such connector, or what is stored of it is invalid.
 */
Datum
postmark_config(PG_FUNCTION_ARGS)
{
	char	   *name = get_connector_arg(fcinfo, 0);
	const PmConnector *connector = pm_use_connector(name, GetUserId());
	const char *token = pm_stored_token(name);
	PmWebhookSecrets secrets;

	pm_webhook_secrets_masked(name, &secrets);
	PG_RETURN_JSONB_P(pm_config_json(connector,
									 token ? pm_mask_token(token) : NULL,
									 &secrets));
}

/*
 * postmark_set_token(token text, connector text) RETURNS void
 *
 * PM001 if there is no such connector, or the token cannot be one.
 */
static Datum
postmark_set_token_hidden(PG_FUNCTION_ARGS)
{
	PmOwnerScope scope;
	const char *problem;
	char	   *token;
	char	   *name;

	token = pm_text_arg(fcinfo, 0);
	name = get_connector_arg(fcinfo, 1);
	problem = token ? pm_token_problem(token) : "is null";
	if (problem)
		ereport(ERROR,
				(errcode(PM_ERRCODE_NOT_CONFIGURED),
				 errmsg("invalid server token for connector \"%s\"", name),
				 errdetail("The token %s.", problem),
				 errhint("A server token is found in Postmark under the server's API tokens."),
				 errhidestmt(true)));

	pm_connect_owner(&scope);

	pm_execute(&lock_settings, NULL, NULL, 0);
	(void) require_number(name, &scope);
	store_token(name, token);
	pm_disconnect_owner(&scope);

	PG_RETURN_VOID();
}

/*
 * postmark_pause(connector text, reason text) RETURNS void
 *
 * A second call changes at most the reason.  PM001 if there is no such
 * connector, PM003 for a reason that does not fit one line.
 */
Datum
postmark_pause(PG_FUNCTION_ARGS)
{
	PmOwnerScope scope;
	Datum		values[4];
	TimestampTz now = GetCurrentTimestamp();
	char	   *name;
	char	   *reason;
	int			number;
	bool		paused;
	int64		expiring;

	name = get_connector_arg(fcinfo, 0);
	reason = pm_text_arg(fcinfo, 1);
	if (reason && strlen(reason) > REASON_MAX)
		ereport(ERROR,
				(errcode(PM_ERRCODE_INVALID),
				 errmsg("reason is longer than %d bytes", REASON_MAX),
				 errhint("Shorten it.")));
	if (reason && pm_has_control(reason))
		ereport(ERROR,
				(errcode(PM_ERRCODE_INVALID),
				 errmsg("reason has control characters"),
				 errhint("Write it in one line.")));

	pm_connect_owner(&scope);
	pm_execute(&lock_settings, NULL, NULL, 0);
	number = require_number(name, &scope);
	paused = pm_connector_by_number(number)->paused;

	values[0] = CStringGetTextDatum(name);
	if (!paused)
		pm_execute_now(&set_paused, values, false);
	if (reason)
	{
		values[1] = CStringGetTextDatum(reason);
		pm_execute_now(&set_pause_reason, values, false);
	}

	values[0] = Int32GetDatum(PM_LANE(number, PM_PRIORITIES - 1));
	values[1] = Int32GetDatum(PM_LANE(number, 0));
	values[2] = TimestampTzGetDatum(now);
	values[3] = TimestampTzGetDatum(now + PAUSE_OUTLOOK_MINUTES * USECS_PER_MINUTE);
	expiring = count_now(&count_expiring, values);
	pm_disconnect_owner(&scope);

	if (paused)
		ereport(NOTICE,
				(errmsg("connector \"%s\" is paused already", name)));
	if (expiring > 0)
		ereport(NOTICE,
				(errmsg_plural("%lld message of connector \"%s\" expires within ten minutes",
							   "%lld messages of connector \"%s\" expire within ten minutes",
							   (unsigned long) expiring,
							   (long long) expiring, name)));
	PG_RETURN_VOID();
}

/*
 * postmark_resume(connector text) RETURNS void
 *
 * Ends a pause, the waiting after trouble, and the state "copied".  PM001 if
 * there is no such connector.
 */
Datum
postmark_resume(PG_FUNCTION_ARGS)
{
	PmOwnerScope scope;
	Datum		values[1];
	char	   *name = get_connector_arg(fcinfo, 0);
	int			number;
	bool		paused;
	bool		troubled;
	bool		copied;

	pm_connect_owner(&scope);
	pm_execute(&lock_settings, NULL, NULL, 0);
	number = require_number(name, &scope);
	paused = pm_connector_by_number(number)->paused;
	values[0] = CStringGetTextDatum(name);
	if (paused)
		pm_execute_now(&set_resumed, values, false);
	pm_execute_now(&find_trouble, values, true);
	troubled = SPI_processed > 0;

	values[0] = ObjectIdGetDatum(MyDatabaseId);
	pm_execute(&set_database, values, NULL, 0);
	copied = SPI_processed > 0;
	pm_disconnect_owner(&scope);

	pm_note_resume(number);
	if (copied)
	{
		/* It has no worker yet */
		pm_note(PM_WAKE_CATALOG);
		ereport(NOTICE,
				(errmsg("this copy of a database sends its messages from now on")));
	}
	else if (!paused && troubled)
		ereport(NOTICE,
				(errmsg("connector \"%s\" was not paused; it is tried again at once",
						name)));
	else if (!paused)
		ereport(NOTICE,
				(errmsg("connector \"%s\" is not paused", name)));
	PG_RETURN_VOID();
}

/* Refuse if a connector has unsent messages, queued or under way. */
static void
refuse_unsent(const char *name, int number)
{
	Datum		values[2];
	int64		unsent;

	values[0] = Int32GetDatum(PM_LANE(number, PM_PRIORITIES - 1));
	values[1] = Int32GetDatum(PM_LANE(number, 0));
	unsent = count_now(&count_unsent, values);
	if (unsent > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("connector \"%s\" has unsent messages", name),
				 errdetail_plural("There is %lld of them.",
								  "There are %lld of them.",
								  (unsigned long) unsent, (long long) unsent),
				 errhint("Wait with postmark_flush until they are sent, or cancel them with postmark_cancel.")));
}

/*
 * postmark_remove(connector text) RETURNS void
 *
 * PM001 if there is no such connector, object_in_use if it has unsent
 * messages.
 *
 * The lanes, and later the number, may go to another connector, so a message
 * that a transaction still open has queued counts, too: the queue is locked
 * against writers, which waits for such transactions.  Only then is it known
 * that there are none, and what is to go, the key that the worker made included.
 */
Datum
postmark_remove(PG_FUNCTION_ARGS)
{
	PmOwnerScope scope;
	Datum		values[1];
	char	   *name = get_connector_arg(fcinfo, 0);
	int			number;

	pm_connect_owner(&scope);
	pm_execute(&lock_settings, NULL, NULL, 0);
	number = require_number(name, &scope);
	refuse_unsent(name, number);
	pm_execute(&lock_queue, NULL, NULL, 0);
	refuse_unsent(name, number);

	values[0] = CStringGetTextDatum(name);
	pm_execute_now(&delete_secrets, values, false);
	pm_execute_now(&delete_trouble, values, false);
	pm_execute_now(&delete_codes, values, false);
	pm_execute_now(&delete_sends, values, false);
	if (pm_sql_version() >= PM_SQL_1_1)
	{
		pm_execute_now(&delete_suppressed, values, false);
		pm_execute_now(&delete_inquiries, values, false);
		pm_execute_now(&delete_captures, values, false);
		pm_execute_now(&delete_dedup_keys, values, false);
	}
	forget_progress(name);
	pm_execute_now(&delete_settings, values, false);
	pm_disconnect_owner(&scope);
	PG_RETURN_VOID();
}

/*
 * postmark_settings_row() RETURNS trigger
 *		BEFORE ROW trigger of postmark_settings, on UPDATE and DELETE.
 *
 * Queued messages have the connector's name, and lanes are made of its number,
 * so that neither can be changed; feature_not_supported.  Its templates go with
 * a connector.  Not fired for what replication brings.
 */
Datum
postmark_settings_row(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	TupleDesc	desc;
	PmOwnerScope scope;
	Datum		values[1];
	char	   *name;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_BEFORE(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigger->tg_event) ||
		TRIGGER_FIRED_BY_INSERT(trigger->tg_event) ||
		RelationGetRelid(trigger->tg_relation) != pm_object(PM_SETTINGS))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("%s is the row trigger of postmark_settings only",
						"postmark_settings_row")));
	desc = RelationGetDescr(trigger->tg_relation);
	name = SPI_getvalue(trigger->tg_trigtuple, desc,
						SPI_fnumber(desc, "connector"));
	if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event))
	{
		static const char *const kept[] = {"connector", "number"};
		int			i;

		for (i = 0; i < lengthof(kept); i++)
		{
			int			column = SPI_fnumber(desc, kept[i]);
			char	   *before = SPI_getvalue(trigger->tg_trigtuple, desc, column);
			char	   *after = SPI_getvalue(trigger->tg_newtuple, desc, column);

			if (before && (after == NULL || strcmp(before, after) != 0))
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("the %s of connector \"%s\" cannot be changed",
								i == 0 ? "name" : "number", name ? name : ""),
						 errdetail("Its queued messages, and its history, go by it."),
						 errhint("Configure another connector with postmark_configure, and remove this one with postmark_remove.")));
		}
		return PointerGetDatum(trigger->tg_newtuple);
	}

	if (name)
	{
		pm_connect_owner(&scope);
		values[0] = CStringGetTextDatum(name);
		pm_execute(&delete_templates, values, NULL, 0);
		pm_disconnect_owner(&scope);
	}
	return PointerGetDatum(trigger->tg_trigtuple);
}

/*
 * postmark_rotate_code_key(connector text) RETURNS bigint
 *
 * Codes and tokens under way are void: a key is replaced because somebody may
 * have seen it, and who has it and the table has every code of six digits.
 * Returns their number.  PM001 if there is no such connector.
 */
Datum
postmark_rotate_code_key(PG_FUNCTION_ARGS)
{
	PmOwnerScope scope;
	Datum		values[1];
	char	   *name = get_connector_arg(fcinfo, 0);
	int64		voided;

	pm_connect_owner(&scope);
	pm_execute(&lock_settings, NULL, NULL, 0);
	(void) require_number(name, &scope);
	pm_execute(&lock_codes, NULL, NULL, 0);
	pm_code_key_replace(name);
	values[0] = CStringGetTextDatum(name);
	pm_execute_now(&delete_codes, values, false);
	voided = SPI_processed;
	pm_disconnect_owner(&scope);
	PG_RETURN_INT64(voided);
}
