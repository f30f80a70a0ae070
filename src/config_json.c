/*-------------------------------------------------------------------------
 *
 * config_json.c
 *		A connector's settings as JSON: checking, reading and writing them,
 *		and finding the template of a message.
 *
 * The same checks serve JSON that a user hands in, where a fault is raised,
 * and rows that were stored, where it is only remembered: somebody may have
 * edited them, and that must not stop the other connectors.  So the checks
 * return false and describe the fault; nothing in between raises.
 *
 * A value is never repeated in an error, for it might be a token pasted into
 * the wrong place; keys and positions are.
 *
 * src/config_json.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"

#include "config.h"
#include "errors.h"
#include "nearest.h"
#include "text.h"

#define DEFAULT_STREAM		"outbound"
#define DEFAULT_TRACK_LINKS "None"
#define GENERIC				"Generic"

#define USAGE_TYPE_MAX		64	/* bytes */
#define LOCALE_MAX			64	/* bytes */
#define STREAM_MAX			63	/* bytes */
#define TAG_MAX				1000	/* characters, Postmark's limit */
#define EXPIRES_IN_MAX		(30 * 24 * 60 * 60) /* s */
#define TEMPLATES_MAX		2000
#define RECIPIENTS_MAX		10000
#define REQUEST_RATE_MIN	0.001	/* per second */
#define REQUEST_RATE_MAX	1000.0

/*
 * A masked token begins so, and no token that is accepted does.  The last
 * characters are shown of long ones only, so that what is hidden remains
 * beyond guessing.
 */
#define MASK				"********"
#define MASK_SHOWN			4
#define MASK_SHOWN_FROM		16

/* What is wrong with a configuration: whole sentences. */
typedef struct Fault
{
	char	   *detail;
	char	   *hint;			/* or NULL */
} Fault;

/*
 * Keys of the connector.  The first two are not stored with the others.
 */
#define SEPARATE_KEYS 2
static const char *const connector_keys[] = {
	"serverToken", "templates",
	"fromEmail", "messageStream", "replyTo", "tag", "trackOpens",
	"trackLinks", "maxRequestsPerSecond",
	"codeLength", "codeTtl", "codeMaxAttempts", "verifyLimit", "verifyWindow",
	"sendLimit", "sendWindow", "resendInterval", "recipientPolicy"
};

static const char *const recipient_keys[] = {
	"blockSubaddressing", "customAllowlist", "customBlocklist"
};

static const char *const template_keys[] = {
	"usageType", "templateAlias", "locale", "priority", "expiresIn"
};

static const struct
{
	const char *key;
	size_t		offset;			/* of an int in PmConnector */
	int			value;			/* if not given */
	int			min;
	int			max;
}			policy_keys[] = {
	{"codeLength", offsetof(PmConnector, policy.code_length), 6, 4, 12},
	{"codeTtl", offsetof(PmConnector, policy.code_ttl), 600, 60, 3600},
	{"codeMaxAttempts", offsetof(PmConnector, policy.code_max_attempts), 10, 1, 100},
	{"verifyLimit", offsetof(PmConnector, policy.verify_limit), 30, 0, 100000},
	{"verifyWindow", offsetof(PmConnector, policy.verify_window), 3600, 60, 604800},
	{"sendLimit", offsetof(PmConnector, policy.send_limit), 10, 0, 10000},
	{"sendWindow", offsetof(PmConnector, policy.send_window), 600, 1, 604800},
	{"resendInterval", offsetof(PmConnector, policy.resend_interval), 0, 0, 86400},
};

/* Logto's usage types, in the order in which templates are shown. */
static const struct
{
	const char *name;
	bool		required;
}			usage_types[] = {
	{"SignIn", true},
	{"Register", true},
	{"ForgotPassword", true},
	{"OrganizationInvitation", false},
	{GENERIC, true},
	{"UserPermissionValidation", false},
	{"BindNewIdentifier", false},
	{"MfaVerification", false},
	{"BindMfa", false},
};

static const char *const track_links_values[] = {
	"None", "HtmlAndText", "HtmlOnly", "TextOnly"
};

static bool fault(Fault *f, const char *hint, const char *fmt,...) pg_attribute_printf(3, 4);

/* Describe what is wrong.  Returns false, for the caller to return. */
static bool
fault(Fault *f, const char *hint, const char *fmt,...)
{
	StringInfoData buf;
	int			needed;
	va_list		args;

	initStringInfo(&buf);
	for (;;)
	{
		va_start(args, fmt);
		needed = appendStringInfoVA(&buf, fmt, args);
		va_end(args);
		if (needed == 0)
			break;
		enlargeStringInfo(&buf, needed);
	}
	f->detail = buf.data;
	f->hint = hint ? pstrdup(hint) : NULL;
	return false;
}

static void
raise_fault(const char *name, const Fault *f)
{
	ereport(ERROR,
			(errcode(PM_ERRCODE_NOT_CONFIGURED),
			 errmsg("configuration of connector \"%s\" is invalid", name),
			 errdetail_internal("%s", f->detail),
			 f->hint ? errhint("%s", f->hint) :
			 errhint("Correct the configuration and try again; nothing was changed."),
			 errhidestmt(true)));
}

static bool
is_known_usage_type(const char *usage_type)
{
	int			i;

	for (i = 0; i < lengthof(usage_types); i++)
		if (strcmp(usage_types[i].name, usage_type) == 0)
			return true;
	return false;
}

/*
 * Refuse a connector name that cannot be one, or NULL: PM001.
 */
void
pm_check_connector_name(const char *name)
{
	if (name == NULL || !pm_valid_connector_name(name))
		ereport(ERROR,
				(errcode(PM_ERRCODE_NOT_CONFIGURED),
				 name ? errmsg("invalid connector name") :
				 errmsg("connector must not be null"),
				 errhint("A connector's name is 1 to 63 lower-case letters, digits, hyphens and underscores."),
				 errhidestmt(true)));
}

/* ----------
 * Reading members.  An absent key, or a JSON null, leaves *result alone.
 * "where" is what to put before a key to name it in an error.
 * ----------
 */

static JsonbValue *
get_member(JsonbContainer *object, const char *key, JsonbValue *value)
{
	if (getKeyJsonValueFromContainer(object, key, strlen(key), value) == NULL ||
		value->type == jbvNull)
		return NULL;
	return value;
}

static bool
get_string(JsonbContainer *object, const char *where, const char *key,
		   char **result, Fault *f)
{
	JsonbValue	value;

	if (get_member(object, key, &value) == NULL)
		return true;
	if (value.type != jbvString)
		return fault(f, NULL, "\"%s%s\" must be a string.", where, key);
	*result = pnstrdup(value.val.string.val, value.val.string.len);
	return true;
}

static bool
get_bool(JsonbContainer *object, const char *where, const char *key,
		 bool *result, Fault *f)
{
	JsonbValue	value;

	if (get_member(object, key, &value) == NULL)
		return true;
	if (value.type != jbvBool)
		return fault(f, NULL, "\"%s%s\" must be true or false.", where, key);
	*result = value.val.boolean;
	return true;
}

static bool
get_int(JsonbContainer *object, const char *where, const char *key,
		int min, int max, int *result, Fault *f)
{
	JsonbValue	value;
	bool		bad = true;
	int			number = 0;

	if (get_member(object, key, &value) == NULL)
		return true;
	if (value.type == jbvNumeric)
	{
		number = numeric_int4_opt_error(value.val.numeric, &bad);
		/* that rounded */
		if (!bad)
			bad = !DatumGetBool(DirectFunctionCall2(numeric_eq,
													NumericGetDatum(value.val.numeric),
													NumericGetDatum(int64_to_numeric(number))));
	}
	if (bad || number < min || number > max)
		return fault(f, NULL, "\"%s%s\" must be a whole number from %d to %d.",
					 where, key, min, max);
	*result = number;
	return true;
}

/* Refuse keys that are not among the known ones. */
static bool
check_keys(JsonbContainer *object, const char *where,
		   const char *const *known, int nknown, Fault *f)
{
	JsonbIterator *it = JsonbIteratorInit(object);
	JsonbIteratorToken token;
	JsonbValue	value;

	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		PmNearest	nearest;
		StringInfoData hint;
		char	   *key;
		char	   *c;
		int			i;

		if (token != WJB_KEY)
			continue;
		for (i = 0; i < nknown; i++)
			if (value.val.string.len == strlen(known[i]) &&
				memcmp(value.val.string.val, known[i], value.val.string.len) == 0)
				break;
		if (i < nknown)
			continue;

		key = pnstrdup(value.val.string.val,
					   pg_mbcliplen(value.val.string.val,
									value.val.string.len, USAGE_TYPE_MAX));
		for (c = key; *c; c++)
			if ((unsigned char) *c < 0x20 || *c == 0x7f)
				*c = '?';

		pm_nearest_begin(&nearest, key);
		for (i = 0; i < nknown; i++)
			pm_nearest_consider(&nearest, known[i]);
		initStringInfo(&hint);
		if (nearest.best)
			appendStringInfo(&hint, "Perhaps you meant the key \"%s\".",
							 nearest.best);
		else
		{
			appendStringInfoString(&hint, "The keys are ");
			for (i = 0; i < nknown; i++)
				appendStringInfo(&hint, "%s%s", i ? ", " : "", known[i]);
			appendStringInfoChar(&hint, '.');
		}
		return fault(f, hint.data, "The key \"%s%s\" is unknown.", where, key);
	}
	return true;
}

/* ----------
 * Checks
 * ----------
 */

/* A list of recipientPolicy. */
static bool
get_recipients(JsonbContainer *object, const char *where, const char *key,
			   PmRecipientList *list, Fault *f)
{
	JsonbValue	value;
	JsonbContainer *array;
	int			n;
	int			i;

	if (get_member(object, key, &value) == NULL)
		return true;
	if (value.type != jbvBinary ||
		!JsonContainerIsArray(value.val.binary.data))
		return fault(f, NULL, "\"%s%s\" must be an array.", where, key);
	array = value.val.binary.data;
	n = JsonContainerSize(array);
	if (n > RECIPIENTS_MAX)
		return fault(f, NULL, "\"%s%s\" has more than %d items.", where, key,
					 RECIPIENTS_MAX);
	list->patterns = palloc(sizeof(char *) * Max(n, 1));
	for (i = 0; i < n; i++)
	{
		JsonbValue *element = getIthJsonbValueFromContainer(array, i);
		char	   *pattern = element->type == jbvString
			? pnstrdup(element->val.string.val, element->val.string.len) : NULL;

		if (pattern == NULL || !pm_valid_recipient_pattern(pattern))
			return fault(f, "Write ann@example.com, @example.com or @*.example.com.",
						 "\"%s%s[%d]\" must be an address, or \"@\" and a domain; \"*\" stands for any characters.",
						 where, key, i);
		pm_fold_address(pattern);
		list->patterns[list->n++] = pattern;
		pfree(element);
	}
	return true;
}

static bool
read_recipient_policy(PmConnector *connector, JsonbContainer *root, Fault *f)
{
	PmRecipientPolicy *policy = &connector->recipients;
	const char *where = "recipientPolicy.";
	JsonbContainer *object;
	JsonbValue	value;

	if (get_member(root, "recipientPolicy", &value) == NULL)
		return true;
	if (value.type != jbvBinary ||
		!JsonContainerIsObject(value.val.binary.data))
		return fault(f, NULL, "\"recipientPolicy\" must be an object.");
	object = value.val.binary.data;
	return check_keys(object, where, recipient_keys,
					  lengthof(recipient_keys), f) &&
		get_bool(object, where, "blockSubaddressing",
				 &policy->block_subaddressing, f) &&
		get_recipients(object, where, "customAllowlist", &policy->allow, f) &&
		get_recipients(object, where, "customBlocklist", &policy->block, f);
}

/* What connector_keys says but serverToken and templates, into connector. */
static bool
read_options(PmConnector *connector, JsonbContainer *object, Fault *f)
{
	JsonbValue	value;
	const char *problem;
	const char *hint = NULL;
	int			i;

	if (!get_string(object, "", "fromEmail", &connector->from_email, f))
		return false;
	if (connector->from_email == NULL)
		return fault(f, "It is the sender's address, or a name with the address in angle brackets.",
					 "The key \"fromEmail\" is missing.");
	problem = pm_mailbox_problem(connector->from_email, &hint);
	if (problem)
		return fault(f, hint, "\"fromEmail\" is invalid. %s", problem);

	if (!get_string(object, "", "replyTo", &connector->reply_to, f))
		return false;
	hint = NULL;
	problem = connector->reply_to ?
		pm_mailbox_problem(connector->reply_to, &hint) : NULL;
	if (problem)
		return fault(f, hint, "\"replyTo\" is invalid. %s", problem);

	connector->message_stream = pstrdup(DEFAULT_STREAM);
	if (!get_string(object, "", "messageStream", &connector->message_stream, f))
		return false;
	if (!pm_is_made_of(connector->message_stream, PM_LOWER PM_DIGITS "-_", STREAM_MAX))
		return fault(f, "It is the ID of a message stream, not its name.",
					 "\"messageStream\" must be 1 to %d lower-case letters, digits, hyphens and underscores.",
					 STREAM_MAX);

	if (!get_string(object, "", "tag", &connector->tag, f))
		return false;
	if (connector->tag &&
		(*connector->tag == '\0' || pm_has_control(connector->tag) ||
		 pg_mbstrlen(connector->tag) > TAG_MAX))
		return fault(f, NULL,
					 "\"tag\" must be 1 to %d characters, and no control characters.",
					 TAG_MAX);

	if (!get_bool(object, "", "trackOpens", &connector->track_opens, f))
		return false;

	connector->track_links = pstrdup(DEFAULT_TRACK_LINKS);
	if (!get_string(object, "", "trackLinks", &connector->track_links, f))
		return false;
	for (i = 0; i < lengthof(track_links_values); i++)
		if (strcmp(connector->track_links, track_links_values[i]) == 0)
			break;
	if (i == lengthof(track_links_values))
		return fault(f, NULL,
					 "\"trackLinks\" must be None, HtmlAndText, HtmlOnly or TextOnly.");

	if (get_member(object, "maxRequestsPerSecond", &value))
	{
		double		rate = 0;

		if (value.type == jbvNumeric)
			rate = DatumGetFloat8(DirectFunctionCall1(numeric_float8_no_overflow,
													  NumericGetDatum(value.val.numeric)));
		if (!(rate >= REQUEST_RATE_MIN && rate <= REQUEST_RATE_MAX))
			return fault(f, "Leave it out for no limit.",
						 "\"maxRequestsPerSecond\" must be a number from %g to %g.",
						 REQUEST_RATE_MIN, REQUEST_RATE_MAX);
		connector->max_requests_per_second = rate;
	}

	for (i = 0; i < lengthof(policy_keys); i++)
	{
		int		   *result = (int *) ((char *) connector + policy_keys[i].offset);

		*result = policy_keys[i].value;
		if (!get_int(object, "", policy_keys[i].key,
					 policy_keys[i].min, policy_keys[i].max, result, f))
			return false;
	}
	return read_recipient_policy(connector, object, f);
}

/* Check a template, which came from JSON or from a row. */
static bool
check_template(const PmTemplate *template, const char *where, Fault *f)
{
	if (template->usage_type == NULL)
		return fault(f, NULL, "The key \"%susageType\" is missing.", where);
	if (*template->usage_type == '\0' ||
		strlen(template->usage_type) > USAGE_TYPE_MAX ||
		pm_has_control(template->usage_type))
		return fault(f, NULL,
					 "\"%susageType\" must be 1 to %d bytes, and no control characters.",
					 where, USAGE_TYPE_MAX);
	if (template->alias == NULL)
		return fault(f, "A template is named by its alias in Postmark, not by its id.",
					 "The key \"%stemplateAlias\" is missing.", where);
	if (!pm_valid_template_alias(template->alias))
		return fault(f, "It is the alias of a template in Postmark: a letter, then letters, digits, dots, hyphens and underscores.",
					 "\"%stemplateAlias\" is invalid.", where);
	if (template->locale &&
		!pm_is_made_of(template->locale, PM_LOWER PM_UPPER PM_DIGITS "-_", LOCALE_MAX))
		return fault(f, "Leave it out for a template that serves any locale.",
					 "\"%slocale\" must be 1 to %d letters, digits, hyphens and underscores.",
					 where, LOCALE_MAX);
	if (template->priority < 0 || template->priority >= PM_PRIORITIES)
		return fault(f, NULL, "\"%spriority\" must be a whole number from 0 to %d.",
					 where, PM_PRIORITIES - 1);
	if (template->expires_in < 0 || template->expires_in > EXPIRES_IN_MAX)
		return fault(f, NULL, "\"%sexpiresIn\" must be a whole number from 1 to %d.",
					 where, EXPIRES_IN_MAX);
	return true;
}

static bool
has_template(const PmConnector *connector, const char *usage_type,
			 const char *locale)
{
	int			i;

	for (i = 0; i < connector->ntemplates; i++)
	{
		const PmTemplate *t = &connector->templates[i];

		if (strcmp(t->usage_type, usage_type) == 0 &&
			strcmp(t->locale ? t->locale : "", locale ? locale : "") == 0)
			return true;
	}
	return false;
}

/* The array of templates, into connector; the first of equals wins. */
static bool
read_templates(PmConnector *connector, JsonbContainer *array, Fault *f)
{
	int			n = JsonContainerSize(array);
	int			i;

	if (n > TEMPLATES_MAX)
		return fault(f, NULL, "There are more than %d templates.", TEMPLATES_MAX);

	connector->templates = palloc0(sizeof(PmTemplate) * Max(n, 1));
	for (i = 0; i < n; i++)
	{
		JsonbValue *element = getIthJsonbValueFromContainer(array, i);
		PmTemplate	template = {.priority = PM_DEFAULT_PRIORITY};
		JsonbContainer *object;
		char		where[32];

		snprintf(where, sizeof(where), "templates[%d].", i);
		if (element->type != jbvBinary ||
			!JsonContainerIsObject(element->val.binary.data))
			return fault(f, NULL, "\"templates[%d]\" must be an object.", i);
		object = element->val.binary.data;

		if (!check_keys(object, where, template_keys,
						lengthof(template_keys), f) ||
			!get_string(object, where, "usageType", &template.usage_type, f) ||
			!get_string(object, where, "templateAlias", &template.alias, f) ||
			!get_string(object, where, "locale", &template.locale, f) ||
			!get_int(object, where, "priority", 0, PM_PRIORITIES - 1,
					 &template.priority, f) ||
			!get_int(object, where, "expiresIn", 1, EXPIRES_IN_MAX,
					 &template.expires_in, f) ||
			!check_template(&template, where, f))
			return false;

		if (!has_template(connector, template.usage_type, template.locale))
			connector->templates[connector->ntemplates++] = template;
		pfree(element);
	}
	return true;
}

/* Is there a template for every usage type that needs one? */
static bool
check_required(const PmConnector *connector, Fault *f)
{
	StringInfoData missing;
	int			i;
	int			j;

	initStringInfo(&missing);
	for (i = 0; i < lengthof(usage_types); i++)
	{
		if (!usage_types[i].required)
			continue;
		for (j = 0; j < connector->ntemplates; j++)
			if (strcmp(connector->templates[j].usage_type,
					   usage_types[i].name) == 0)
				break;
		if (j == connector->ntemplates)
			appendStringInfo(&missing, "%s%s", missing.len ? ", " : "",
							 usage_types[i].name);
	}
	if (missing.len > 0)
		return fault(f, "Add them to \"templates\".",
					 "Templates are missing for these usage types: %s.",
					 missing.data);
	return true;
}

/* Everything that pm_config_parse checks, but raising. */
static bool
read_config(PmConnector *connector, Jsonb *config, bool token_needed, Fault *f)
{
	JsonbContainer *root = &config->root;
	JsonbValue	value;
	char	   *token = NULL;

	if (!JB_ROOT_IS_OBJECT(config))
		return fault(f, NULL, "It must be a JSON object.");
	if (!check_keys(root, "", connector_keys, lengthof(connector_keys), f))
		return false;

	if (!get_string(root, "", "serverToken", &token, f))
		return false;
	if (token && strncmp(token, MASK, strlen(MASK)) == 0)
	{
		connector->masked_token = token;
		token = NULL;
		if (token_needed)
			return fault(f, "Give the token itself.",
						 "\"serverToken\" is masked, and no token is stored.");
	}
	else if (token)
	{
		const char *problem = pm_token_problem(token);

		if (problem)
			return fault(f, NULL, "\"serverToken\" %s.", problem);
	}
	else if (token_needed)
		return fault(f, NULL, "The key \"serverToken\" is missing.");
	connector->token = token;

	if (!read_options(connector, root, f))
		return false;

	if (get_member(root, "templates", &value))
	{
		if (value.type != jbvBinary ||
			!JsonContainerIsArray(value.val.binary.data))
			return fault(f, NULL, "\"templates\" must be an array.");
		if (!read_templates(connector, value.val.binary.data, f))
			return false;
	}
	return check_required(connector, f);
}

/* The members of an object but null ones, serverToken and templates. */
static Jsonb *
extract_options(Jsonb *config)
{
	JsonbIterator *it = JsonbIteratorInit(&config->root);
	JsonbParseState *state = NULL;
	JsonbIteratorToken token;
	JsonbValue	key;
	JsonbValue	value;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	(void) JsonbIteratorNext(&it, &key, true);
	while ((token = JsonbIteratorNext(&it, &key, true)) == WJB_KEY)
	{
		int			i;

		(void) JsonbIteratorNext(&it, &value, true);
		for (i = 0; i < SEPARATE_KEYS; i++)
			if (key.val.string.len == strlen(connector_keys[i]) &&
				memcmp(key.val.string.val, connector_keys[i],
					   key.val.string.len) == 0)
				break;
		if (i < SEPARATE_KEYS || value.type == jbvNull)
			continue;
		pushJsonbValue(&state, WJB_KEY, &key);
		pushJsonbValue(&state, WJB_VALUE, &value);
	}
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

/*
 * Check a connector's JSON, all of it, and make a connector of it, which is
 * not stored: number 0.
 *
 * token_needed: the token itself must be in it.  Otherwise it may be absent,
 * or masked; pm_connector_token then says which token is meant, or refuses.
 *
 * The result is in the current memory context.  PM001 for anything wrong,
 * also for a NULL config and a bad name.
 */
PmConnector *
pm_config_parse(Jsonb *config, const char *name, bool token_needed)
{
	PmConnector *connector = palloc0(sizeof(PmConnector));
	Fault		f = {NULL, NULL};

	pm_check_connector_name(name);
	connector->name = pstrdup(name);
	if (config == NULL)
		fault(&f, NULL, "It must not be null.");
	else if (read_config(connector, config, token_needed, &f))
	{
		connector->options = extract_options(config);
		return connector;
	}
	raise_fault(name, &f);
	return NULL;				/* not reached */
}

/* Place of a usage type among the known ones. */
static int
usage_type_rank(const char *usage_type)
{
	int			i;

	for (i = 0; i < lengthof(usage_types); i++)
		if (strcmp(usage_types[i].name, usage_type) == 0)
			break;
	return i;
}

static int
compare_templates(const void *a, const void *b)
{
	const PmTemplate *s = a;
	const PmTemplate *t = b;
	int			diff;

	diff = usage_type_rank(s->usage_type) - usage_type_rank(t->usage_type);
	if (diff == 0)
		diff = strcmp(s->usage_type, t->usage_type);
	if (diff == 0)
		diff = strcmp(s->locale ? s->locale : "", t->locale ? t->locale : "");
	return diff;
}

/* Everything that pm_config_from_parts checks. */
static bool
check_parts(PmConnector *connector, Fault *f)
{
	int			i;

	if (!pm_valid_connector_name(connector->name))
		return fault(f, NULL, "The connector's name is invalid.");
	if (connector->number < 1 || connector->number > PM_CONNECTOR_NUMBER_MAX)
		return fault(f, NULL, "The connector's number is out of range.");
	if (!JB_ROOT_IS_OBJECT(connector->options))
		return fault(f, NULL, "It must be a JSON object.");
	if (!check_keys(&connector->options->root, "",
					connector_keys + SEPARATE_KEYS,
					lengthof(connector_keys) - SEPARATE_KEYS, f) ||
		!read_options(connector, &connector->options->root, f))
		return false;
	for (i = 0; i < connector->ntemplates; i++)
		if (!check_template(&connector->templates[i], "postmark_templates.", f))
			return false;
	return check_required(connector, f);
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
	Fault		f = {NULL, NULL};

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
	else if (ntemplates > 1)
		qsort(templates, ntemplates, sizeof(PmTemplate), compare_templates);
	return connector;
}

static void
push_key(JsonbParseState **state, const char *key)
{
	JsonbValue	value;

	value.type = jbvString;
	value.val.string.val = unconstify(char *, key);
	value.val.string.len = strlen(key);
	pushJsonbValue(state, WJB_KEY, &value);
}

static void
push_string(JsonbParseState **state, const char *key, const char *text)
{
	JsonbValue	value;

	push_key(state, key);
	value.type = jbvString;
	value.val.string.val = unconstify(char *, text);
	value.val.string.len = strlen(text);
	pushJsonbValue(state, WJB_VALUE, &value);
}

static void
push_int(JsonbParseState **state, const char *key, int number)
{
	JsonbValue	value;

	push_key(state, key);
	value.type = jbvNumeric;
	value.val.numeric = int64_to_numeric(number);
	pushJsonbValue(state, WJB_VALUE, &value);
}

/*
 * A valid connector as JSON, such that pm_config_parse takes it back.
 * masked_token: for the key serverToken, NULL to leave that out.
 * The result is in the current memory context.
 */
Jsonb *
pm_config_json(const PmConnector *connector, const char *masked_token)
{
	JsonbIterator *it = JsonbIteratorInit(&connector->options->root);
	JsonbParseState *state = NULL;
	JsonbIteratorToken token;
	JsonbValue	value;
	int			i;

	Assert(connector->invalid == NULL);

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	if (masked_token)
		push_string(&state, "serverToken", masked_token);

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
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

/*
 * What makes a text unfit to be a server token, as the end of a sentence
 * ("is empty"); NULL if nothing.  The text itself must not be shown.
 */
const char *
pm_token_problem(const char *token)
{
	const char *c;

	if (*token == '\0')
		return "is empty";
	if (strlen(token) > PM_TOKEN_MAX)
		return "is too long";
	for (c = token; *c; c++)
		if (*c <= 0x20 || *c >= 0x7f)
			return "has spaces, control characters or non-ASCII characters";
	if (strncmp(token, MASK, strlen(MASK)) == 0)
		return "is masked";
	return NULL;
}

/*
 * What may be shown of a token, palloc'd: always the same for the same token.
 */
char *
pm_mask_token(const char *token)
{
	size_t		len = strlen(token);

	return psprintf("%s%s", MASK,
					len >= MASK_SHOWN_FROM ? token + len - MASK_SHOWN : "");
}

/* ----------
 * Lookup.  Runs for every row that is queued.
 * ----------
 */

/*
 * How well a template's locale serves the one wanted: -1 not at all, 0 for a
 * template of any locale, more the more of it agrees.  "pt" and "pt-BR" serve
 * pt_BR, "pt-BR" better.  Letter case does not matter, nor which separator.
 */
static int
locale_fit(const char *have, const char *wanted)
{
	int			i;

	if (have == NULL)
		return 0;
	for (i = 0; have[i]; i++)
	{
		char		h = pg_ascii_tolower((unsigned char) have[i]);
		char		w = pg_ascii_tolower((unsigned char) wanted[i]);

		if (h != w && !(h == '-' && w == '_') && !(h == '_' && w == '-'))
			return -1;
	}
	if (wanted[i] == '\0')
		return 2 * i + (strcmp(have, wanted) == 0 ? 1 : 0);
	if (wanted[i] == '-' || wanted[i] == '_')
		return 2 * i;
	return -1;
}

static const PmTemplate *
find_for_usage_type(const PmConnector *connector, const char *usage_type,
					const char *locale)
{
	const PmTemplate *best = NULL;
	int			best_fit = -1;
	int			i;

	for (i = 0; i < connector->ntemplates; i++)
	{
		const PmTemplate *t = &connector->templates[i];
		int			fit;

		if (strcmp(t->usage_type, usage_type) != 0)
			continue;
		fit = locale_fit(t->locale, locale);
		if (fit > best_fit)
		{
			best = t;
			best_fit = fit;
		}
	}
	return best;
}

/*
 * The template for a message, NULL if there is none.  locale may be NULL.
 * Within the usage type first, then, if it is a known one, Generic's: the
 * exact locale, then its language, then a template of any locale.  The result
 * belongs to the connector.
 */
const PmTemplate *
pm_find_template(const PmConnector *connector, const char *usage_type,
				 const char *locale)
{
	const PmTemplate *found;

	if (locale == NULL)
		locale = "";
	found = find_for_usage_type(connector, usage_type, locale);
	if (found == NULL && is_known_usage_type(usage_type))
		found = find_for_usage_type(connector, GENERIC, locale);
	return found;
}

/*
 * Like pm_find_template, but PM002 if there is none.
 */
const PmTemplate *
pm_require_template(const PmConnector *connector, const char *usage_type,
					const char *locale)
{
	const PmTemplate *found = pm_find_template(connector, usage_type, locale);
	PmNearest	nearest;
	bool		expected;
	bool		showable;
	int			i;

	if (found)
		return found;

	/*
	 * Somebody who mixes up the arguments hands in a code here.  No usage
	 * type begins with a digit.
	 */
	showable = isalpha((unsigned char) usage_type[0]) &&
		strlen(usage_type) <= USAGE_TYPE_MAX && !pm_has_control(usage_type);

	expected = is_known_usage_type(usage_type);
	pm_nearest_begin(&nearest, showable ? usage_type : "");
	for (i = 0; i < lengthof(usage_types); i++)
		pm_nearest_consider(&nearest, usage_types[i].name);
	for (i = 0; i < connector->ntemplates; i++)
	{
		pm_nearest_consider(&nearest, connector->templates[i].usage_type);
		if (strcmp(connector->templates[i].usage_type, usage_type) == 0)
			expected = true;
	}

	ereport(ERROR,
			(errcode(PM_ERRCODE_NO_TEMPLATE),
			 showable ? errmsg("no template for usage type \"%s\"", usage_type) :
			 errmsg("no template for this usage type"),
			 expected ?
			 errdetail("Connector \"%s\" has templates for it in other locales only.",
					   connector->name) :
			 errdetail("It is neither one of Logto's usage types nor has connector \"%s\" a template for it.",
					   connector->name),
			 expected ? errhint("Configure one without a locale.") :
			 showable && nearest.best ?
			 errhint("Perhaps you meant the usage type \"%s\".", nearest.best) :
			 errhint("Configure a template for it, or use \"%s\".", GENERIC),
			 errhidestmt(true)));
	return NULL;				/* not reached */
}
