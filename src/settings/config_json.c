/*-------------------------------------------------------------------------
 *
 * config_json.c
 *		A connector's settings as a whole: from JSON, from what is stored, and
 *		back to JSON.
 *
 * A connector has three parts, which are stored apart: the token, the options
 * and the templates.  Each has a file of its own that knows what it may be
 * (token.c, config_options.c, config_templates.c); here they are put together
 * and taken apart again.
 *
 * src/settings/config_json.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/numeric.h"

#include "base/compat.h"
#include "base/errors.h"
#include "base/text.h"
#include "settings/config_check.h"
#include "settings/config_json.h"
#include "settings/config_options.h"
#include "settings/config_templates.h"
#include "settings/connector.h"
#include "settings/connector_roles.h"
#include "settings/token.h"
#include "settings/webhook_secret.h"

static void
raise_fault(const char *name, const PmFault *f)
{
	ereport(ERROR,
			(errcode(PM_ERRCODE_NOT_CONFIGURED),
			 errmsg("configuration of connector \"%s\" is invalid", name),
			 errdetail_internal("%s", f->detail),
			 f->hint ? errhint("%s", f->hint) :
			 errhint("Correct the configuration and try again; nothing was changed."),
			 errhidestmt(true)));
}

/* All that pm_config_parse checks.  False for a fault. */
static bool
read_config(PmConnector *connector, Jsonb *config, PmFault *f)
{
	JsonbContainer *root = &config->root;
	char	   *token = NULL;

	if (!JB_ROOT_IS_OBJECT(config))
		return pm_fault(f, NULL, "It must be a JSON object.");
	if (!pm_check_connector_keys(root, false, f))
		return false;

	if (!pm_get_string(root, "", "serverToken", &token, f))
		return false;
	if (token && pm_is_masked_token(token))
	{
		connector->masked_token = token;
		token = NULL;
	}
	else if (token)
	{
		const char *problem = pm_token_problem(token);

		if (problem)
			return pm_fault(f, NULL, "\"serverToken\" %s.", problem);
	}
	connector->token = token;

	return pm_read_webhook_secrets(&connector->webhook_secrets, root, f) &&
		pm_read_roles(connector, root, f) &&
		pm_check_roles(connector, f) &&
		pm_read_options(connector, root, f) &&
		pm_read_templates(connector, root, f);
}

/*
 * Check a connector's JSON, all of it, and make a connector of it, which is
 * not stored: number 0.
 *
 * The token may be absent, or masked; pm_connector_token then says which token
 * is meant, or refuses.
 *
 * The result is in the current memory context.  PM001 for anything wrong,
 * also for a NULL config and a bad name.
 */
PmConnector *
pm_config_parse(Jsonb *config, const char *name)
{
	PmConnector *connector = palloc0(sizeof(PmConnector));
	PmFault		f = {NULL, NULL};

	pm_check_connector_name(name);
	connector->name = pstrdup(name);
	if (config == NULL)
		pm_fault(&f, NULL, "It must not be null.");
	else if (read_config(connector, config, &f))
	{
		connector->options = pm_extract_options(config);
		return connector;
	}
	raise_fault(name, &f);
	return NULL;				/* not reached */
}

/* All that pm_config_from_parts checks.  False for a fault. */
static bool
check_parts(PmConnector *connector, PmFault *f)
{
	if (!pm_valid_connector_name(connector->name))
		return pm_fault(f, NULL, "The connector's name is invalid.");
	if (connector->number < 1 || connector->number > PM_CONNECTOR_NUMBER_MAX)
		return pm_fault(f, NULL, "The connector's number is out of range.");
	if (!JB_ROOT_IS_OBJECT(connector->options))
		return pm_fault(f, NULL, "It must be a JSON object.");

	/* First, since who may see to the rest depends on it */
	return pm_read_roles(connector, &connector->options->root, f) &&
		pm_check_connector_keys(&connector->options->root, true, f) &&
		pm_read_options(connector, &connector->options->root, f) &&
		pm_check_stored_templates(connector, f);
}

/*
 * Make a connector of what is stored.  Never raises for what it finds: a
 * connector that is not in order gets its field "invalid" set.
 *
 * options is an object as pm_config_parse leaves it in PmConnector.  The
 * result takes over options and templates, which are sorted; all is in the
 * current memory context.
 */
PmConnector *
pm_config_from_parts(const char *name, int number, Jsonb *options,
					 int ntemplates, PmTemplate *templates)
{
	PmConnector *connector = palloc0(sizeof(PmConnector));
	PmFault		f = {NULL, NULL};

	connector->name = pstrdup(name);
	connector->number = number;
	connector->options = options;
	connector->ntemplates = ntemplates;
	connector->templates = templates;
	if (!check_parts(connector, &f))
	{
		connector->invalid = f.detail;
		connector->ntemplates = 0;
	}
	return connector;
}

static void
push_key(JsonbInState *state, const char *key)
{
	JsonbValue	value;

	value.type = jbvString;
	value.val.string.val = unconstify(char *, key);
	value.val.string.len = strlen(key);
	pushJsonbValue(state, WJB_KEY, &value);
}

static void
push_string(JsonbInState *state, const char *key, const char *text)
{
	JsonbValue	value;

	push_key(state, key);
	value.type = jbvString;
	value.val.string.val = unconstify(char *, text);
	value.val.string.len = strlen(text);
	pushJsonbValue(state, WJB_VALUE, &value);
}

static void
push_element(JsonbInState *state, const char *text)
{
	JsonbValue	value;

	value.type = jbvString;
	value.val.string.val = unconstify(char *, text);
	value.val.string.len = strlen(text);
	pushJsonbValue(state, WJB_ELEM, &value);
}

static void
push_int(JsonbInState *state, const char *key, int number)
{
	JsonbValue	value;

	push_key(state, key);
	value.type = jbvNumeric;
	value.val.numeric = int64_to_numeric(number);
	pushJsonbValue(state, WJB_VALUE, &value);
}

/*
 * A valid connector as JSON, such that pm_config_parse takes it back.
 * masked_token: for the key serverToken, NULL to leave that out
 * masked_secrets: for the key webhookSecret; none: to leave that out
 *
 * The result is in the current memory context.
 */
Jsonb *
pm_config_json(const PmConnector *connector, const char *masked_token,
			   const PmWebhookSecrets *masked_secrets)
{
	JsonbIterator *it = JsonbIteratorInit(&connector->options->root);
	JsonbInState state = {0};
	JsonbIteratorToken token;
	JsonbValue	value;
	int			i;

	Assert(connector->invalid == NULL);

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	if (masked_token)
		push_string(&state, "serverToken", masked_token);
	if (masked_secrets->n == 1)
		push_string(&state, "webhookSecret", masked_secrets->secret[0]);
	else if (masked_secrets->n > 1)
	{
		push_key(&state, "webhookSecret");
		pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
		for (i = 0; i < masked_secrets->n; i++)
			push_element(&state, masked_secrets->secret[i]);
		pushJsonbValue(&state, WJB_END_ARRAY, NULL);
	}

	(void) JsonbIteratorNext(&it, &value, true);
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_END_OBJECT)
		pushJsonbValue(&state, token, &value);

	push_key(&state, "templates");
	pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	for (i = 0; i < connector->ntemplates; i++)
	{
		const PmTemplate *t = &connector->templates[i];

		pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
		push_string(&state, "usageType", t->usage_type);
		push_string(&state, "templateAlias", t->alias);
		if (t->locale)
			push_string(&state, "locale", t->locale);
		if (t->priority != PM_DEFAULT_PRIORITY)
			push_int(&state, "priority", t->priority);
		if (t->expires_in > 0)
			push_int(&state, "expiresIn", t->expires_in);
		pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	}
	pushJsonbValue(&state, WJB_END_ARRAY, NULL);
	pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	return JsonbValueToJsonb(state.result);
}
