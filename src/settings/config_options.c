/*-------------------------------------------------------------------------
 *
 * config_options.c
 *		A connector's options: all of its JSON but the token and the templates.
 *
 * What the user gave is stored as it is, as jsonb, and read again whenever the
 * settings are: a default that a later version changes, or a key that it adds,
 * holds for stored connectors too.  So one function reads both.
 *
 * src/settings/config_options.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "utils/builtins.h"

#include "base/catalog.h"
#include "base/compat.h"
#include "base/text.h"
#include "settings/config_check.h"
#include "settings/config_options.h"
#include "settings/connector.h"
#include "settings/guc.h"
#include "settings/recipient_policy.h"

#define DEFAULT_TRACK_LINKS "None"

#define STREAM_MAX			63	/* bytes */
#define TAG_MAX				1000	/* characters, Postmark's limit */
#define RECIPIENTS_MAX		10000
#define REQUEST_RATE_MIN	0.001	/* per second */
#define REQUEST_RATE_MAX	1000.0
#define FEEDBACK_INTERVAL_MIN	60	/* s */
#define FEEDBACK_INTERVAL_MAX	86400

/*
 * Keys of the connector.  The first three are not stored with the others.
 */
#define SEPARATE_KEYS 3
static const char *const connector_keys[] = {
	"serverToken", "templates", "webhookSecret",
	"fromEmail", "messageStream", "replyTo", "tag", "trackOpens",
	"trackLinks", "maxRequestsPerSecond", "notifyChannel",
	"feedbackInterval", "linkPrefix", "delivery", "roles",
	"codeLength", "codeTtl", "codeMaxAttempts", "verifyLimit", "verifyWindow",
	"sendLimit", "sendWindow", "resendInterval", "recipientPolicy"
};

static const char *const recipient_keys[] = {
	"blockSubaddressing", "customAllowlist", "customBlocklist"
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

static const char *const track_links_values[] = {
	"None", "HtmlAndText", "HtmlOnly", "TextOnly"
};

/*
 * Refuse keys that are not a connector's: those of its whole JSON, or, if
 * stored is true, of what is stored of that, the options alone.  False for a
 * fault.
 */
bool
pm_check_connector_keys(JsonbContainer *object, bool stored, PmFault *f)
{
	int			skip = stored ? SEPARATE_KEYS : 0;

	return pm_check_keys(object, "", connector_keys + skip,
						 lengthof(connector_keys) - skip, f);
}

/* A list of recipientPolicy. */
static bool
get_recipients(JsonbContainer *object, const char *where, const char *key,
			   PmRecipientList *list, PmFault *f)
{
	JsonbContainer *array = NULL;
	int			n;
	int			i;

	if (!pm_get_array(object, where, key, &array, f))
		return false;
	if (array == NULL)
		return true;
	n = JsonContainerSize(array);
	if (n > RECIPIENTS_MAX)
		return pm_fault(f, NULL, "\"%s%s\" has more than %d items.", where, key,
						RECIPIENTS_MAX);
	list->patterns = palloc(sizeof(char *) * Max(n, 1));
	for (i = 0; i < n; i++)
	{
		JsonbValue *element = getIthJsonbValueFromContainer(array, i);
		char	   *pattern = NULL;

		if (element->type == jbvString)
			pattern = pnstrdup(element->val.string.val,
							   element->val.string.len);
		if (pattern == NULL || !pm_valid_recipient_pattern(pattern))
			return pm_fault(f, "Write ann@example.com, @example.com or @*.example.com.",
							"\"%s%s[%d]\" must be an address, or \"@\" and a domain; \"*\" stands for any characters.",
							where, key, i);
		pm_fold_address(pattern);
		list->patterns[list->n++] = pattern;
		pfree(element);
	}
	return true;
}

static bool
read_recipient_policy(PmConnector *connector, JsonbContainer *root, PmFault *f)
{
	PmRecipientPolicy *policy = &connector->recipients;
	const char *where = "recipientPolicy.";
	JsonbContainer *object = NULL;

	if (!pm_get_object(root, "", "recipientPolicy", &object, f))
		return false;
	if (object == NULL)
		return true;
	return pm_check_keys(object, where, recipient_keys,
						 lengthof(recipient_keys), f) &&
		pm_get_bool(object, where, "blockSubaddressing",
					&policy->block_subaddressing, f) &&
		get_recipients(object, where, "customAllowlist", &policy->allow, f) &&
		get_recipients(object, where, "customBlocklist", &policy->block, f);
}

/*
 * Check what links must begin with.  The host ends in it: else that of
 * https://shop.example would be one of https://shop.example.org as well.
 */
static bool
check_link_prefix(const char *prefix, PmFault *f)
{
	const char *problem = pm_url_problem(prefix);

	if (problem == NULL && strchr(strstr(prefix, "://") + 3, '/') == NULL)
		problem = "There must be a slash behind the host.";
	return problem == NULL ||
		pm_fault(f, "Give the beginning of a link, such as https://shop.example/verify.",
				 "\"linkPrefix\" is invalid. %s", problem);
}

/* Whether messages are sent, or kept. */
static bool
read_delivery(PmConnector *connector, JsonbContainer *object, PmFault *f)
{
	char	   *delivery = NULL;

	if (!pm_get_string(object, "", "delivery", &delivery, f))
		return false;
	connector->captures = delivery && strcmp(delivery, "capture") == 0;
	if (delivery && !connector->captures && strcmp(delivery, "postmark") != 0)
		return pm_fault(f, NULL, "\"delivery\" must be postmark or capture.");
	if (connector->captures && pm_sql_version() < PM_SQL_1_1)
		return pm_fault(f, "Use ALTER EXTENSION postmark_connector UPDATE.",
						"\"delivery\" can be capture from version 1.1 of the extension's objects on.");
	return true;
}

/*
 * Read an object's options into connector, whose fields for them must be zero
 * still; one that is not given gets its default.  False for a fault.  What is
 * read is copied into the current memory context.
 */
bool
pm_read_options(PmConnector *connector, JsonbContainer *object, PmFault *f)
{
	JsonbValue	value;
	const char *problem;
	const char *hint = NULL;
	int			i;

	if (!pm_get_string(object, "", "fromEmail", &connector->from_email, f))
		return false;
	if (connector->from_email == NULL)
		return pm_fault(f, "It is the sender's address, or a name with the address in angle brackets.",
						"The key \"fromEmail\" is missing.");
	problem = pm_mailbox_problem(connector->from_email, &hint);
	if (problem)
		return pm_fault(f, hint, "\"fromEmail\" is invalid. %s", problem);
	connector->from_email = pm_mailbox_quoted(connector->from_email);

	if (!pm_get_string(object, "", "replyTo", &connector->reply_to, f))
		return false;
	hint = NULL;
	problem = connector->reply_to ?
		pm_mailbox_problem(connector->reply_to, &hint) : NULL;
	if (problem)
		return pm_fault(f, hint, "\"replyTo\" is invalid. %s", problem);
	if (connector->reply_to)
		connector->reply_to = pm_mailbox_quoted(connector->reply_to);

	connector->message_stream = pstrdup(PM_DEFAULT_STREAM);
	if (!pm_get_string(object, "", "messageStream", &connector->message_stream, f))
		return false;
	if (!pm_is_made_of(connector->message_stream, PM_LOWER PM_DIGITS "-_",
					   STREAM_MAX))
		return pm_fault(f, "It is the ID of a message stream, not its name.",
						"\"messageStream\" must be 1 to %d lower-case letters, digits, hyphens and underscores.",
						STREAM_MAX);

	if (!pm_get_string(object, "", "tag", &connector->tag, f))
		return false;
	if (connector->tag &&
		(*connector->tag == '\0' || pm_has_control(connector->tag) ||
		 pg_mbstrlen(connector->tag) > TAG_MAX))
		return pm_fault(f, NULL,
						"\"tag\" must be 1 to %d characters, and no control characters.",
						TAG_MAX);

	if (!pm_get_bool(object, "", "trackOpens", &connector->track_opens, f))
		return false;

	connector->track_links = pstrdup(DEFAULT_TRACK_LINKS);
	if (!pm_get_string(object, "", "trackLinks", &connector->track_links, f))
		return false;
	for (i = 0; i < lengthof(track_links_values); i++)
		if (strcmp(connector->track_links, track_links_values[i]) == 0)
			break;
	if (i == lengthof(track_links_values))
		return pm_fault(f, NULL,
						"\"trackLinks\" must be None, HtmlAndText, HtmlOnly or TextOnly.");

	if (pm_get_member(object, "maxRequestsPerSecond", &value))
	{
		double		rate = 0;

		if (value.type == jbvNumeric)
			rate = DatumGetFloat8(DirectFunctionCall1(numeric_float8_no_overflow,
													  NumericGetDatum(value.val.numeric)));
		if (!(rate >= REQUEST_RATE_MIN && rate <= REQUEST_RATE_MAX))
			return pm_fault(f, "Leave it out for no limit.",
							"\"maxRequestsPerSecond\" must be a number from %g to %g.",
							REQUEST_RATE_MIN, REQUEST_RATE_MAX);
		connector->max_requests_per_second = rate;
	}

	if (!pm_get_string(object, "", "notifyChannel",
					   &connector->notify_channel, f))
		return false;
	if (connector->notify_channel &&
		(*connector->notify_channel == '\0' ||
		 strlen(connector->notify_channel) >= NAMEDATALEN ||
		 pm_has_control(connector->notify_channel)))
		return pm_fault(f, "It is the name that a session gives to LISTEN.",
						"\"notifyChannel\" must be 1 to %d bytes, and no control characters.",
						NAMEDATALEN - 1);

	if (!pm_get_int(object, "", "feedbackInterval", 0, FEEDBACK_INTERVAL_MAX,
					&connector->feedback_interval, f))
		return false;
	if (connector->feedback_interval > 0 &&
		connector->feedback_interval < FEEDBACK_INTERVAL_MIN)
		return pm_fault(f, NULL,
						"\"feedbackInterval\" must be 0, for never, or %d to %d seconds.",
						FEEDBACK_INTERVAL_MIN, FEEDBACK_INTERVAL_MAX);

	if (!pm_get_string(object, "", "linkPrefix", &connector->link_prefix, f))
		return false;
	if (connector->link_prefix &&
		!check_link_prefix(connector->link_prefix, f))
		return false;

	if (!read_delivery(connector, object, f))
		return false;

	for (i = 0; i < lengthof(policy_keys); i++)
	{
		int		   *result = (int *) ((char *) connector + policy_keys[i].offset);

		*result = policy_keys[i].value;
		if (!pm_get_int(object, "", policy_keys[i].key,
						policy_keys[i].min, policy_keys[i].max, result, f))
			return false;
	}
	return read_recipient_policy(connector, object, f);
}

/*
 * The options alone, to be stored: all members of an object but null ones,
 * serverToken, templates and webhookSecret.  The result is in the current memory context.
 */
Jsonb *
pm_extract_options(Jsonb *config)
{
	JsonbIterator *it = JsonbIteratorInit(&config->root);
	JsonbInState state = {0};
	JsonbValue	key;
	JsonbValue	value;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	(void) JsonbIteratorNext(&it, &key, true);
	while (JsonbIteratorNext(&it, &key, true) == WJB_KEY)
	{
		(void) JsonbIteratorNext(&it, &value, true);
		if (value.type == jbvNull ||
			pm_find_key(&key, connector_keys, SEPARATE_KEYS) >= 0)
			continue;
		pushJsonbValue(&state, WJB_KEY, &key);
		pushJsonbValue(&state, WJB_VALUE, &value);
	}
	pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	return JsonbValueToJsonb(state.result);
}
