/*-------------------------------------------------------------------------
 *
 * webhook_secret.c
 *		The secrets by which a connector knows Postmark's webhooks.
 *
 * There is one, or two while it is changed: Postmark goes on with the old one
 * until somebody has given it the new one.  They are stored line by line in
 * one column.
 *
 * src/settings/webhook_secret.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"

#include "base/compat.h"
#include "base/errors.h"
#include "base/owner.h"
#include "base/text.h"
#include "settings/config_check.h"
#include "settings/connector.h"
#include "settings/token.h"
#include "settings/webhook_secret.h"

/* A secret that can be guessed keeps nobody out. */
#define SECRET_MIN	16			/* bytes */
#define SECRET_MAX	200

#define SECRET_CHARACTERS \
	PM_LOWER PM_UPPER PM_DIGITS "!#$%&()*+,-./:;<=>?@[]^_{|}~"

static PmStatement find_secret = {
	"SELECT webhook_secret FROM @.postmark_secrets WHERE connector" PM_EQ "$1",
	1, {TEXTOID}
};
static PmStatement put_secret = {
	"INSERT INTO @.postmark_secrets (connector, webhook_secret) VALUES ($1, $2)"
	" ON CONFLICT (connector) DO UPDATE SET webhook_secret = EXCLUDED.webhook_secret",
	2, {TEXTOID, TEXTOID}
};

/* ----------
 * In the connector's JSON
 * ----------
 */

/* Take one secret, or its mask. */
static bool
read_secret(PmWebhookSecrets *secrets, const JsonbValue *value, PmFault *f)
{
	char	   *secret;

	if (value->type != jbvString)
		return pm_fault(f, NULL,
						"\"webhookSecret\" must be a string, or an array of two while it is changed.");
	secret = pnstrdup(value->val.string.val, value->val.string.len);
	if (!pm_is_masked_token(secret) &&
		(strlen(secret) < SECRET_MIN ||
		 !pm_is_made_of(secret, SECRET_CHARACTERS, SECRET_MAX)))
		return pm_fault(f, "Make one at random, with openssl rand -hex 24 for instance.",
						"\"webhookSecret\" must be %d to %d characters of ASCII, without spaces, quotes and backslashes.",
						SECRET_MIN, SECRET_MAX);
	secrets->secret[secrets->n++] = secret;
	return true;
}

/*
 * Read the key webhookSecret of a connector's whole JSON, root.  Not there: the
 * stored ones remain; null or an empty array: there are to be none.  False for
 * a fault.  What is read is copied into the current memory context.
 */
bool
pm_read_webhook_secrets(PmWebhookSecrets *secrets, JsonbContainer *root,
						PmFault *f)
{
	const char *key = "webhookSecret";
	JsonbValue	value;
	int			n;
	int			i;

	if (getKeyJsonValueFromContainer(root, key, strlen(key), &value) == NULL)
		return true;
	secrets->given = true;
	if (value.type == jbvNull)
		return true;
	if (value.type != jbvBinary ||
		!JsonContainerIsArray(value.val.binary.data))
		return read_secret(secrets, &value, f);
	n = JsonContainerSize(value.val.binary.data);
	if (n > PM_WEBHOOK_SECRETS)
		return pm_fault(f, NULL, "\"webhookSecret\" has more than %d items.",
						PM_WEBHOOK_SECRETS);
	for (i = 0; i < n; i++)
		if (!read_secret(secrets,
						 getIthJsonbValueFromContainer(value.val.binary.data, i),
						 f))
			return false;
	return true;
}

/* ----------
 * Stored.  All of it with SPI and the owner's rights.
 * ----------
 */

/* What is stored for a connector's name */
static void
read_stored(const char *name, PmWebhookSecrets *secrets)
{
	Datum		values[1];
	char	   *text;
	char	   *rest;

	memset(secrets, 0, sizeof(*secrets));
	values[0] = CStringGetTextDatum(name);
	pm_execute_now(&find_secret, values, true);
	text = SPI_processed == 0 ? NULL :
		SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	while (text && *text && secrets->n < PM_WEBHOOK_SECRETS)
	{
		rest = strchr(text, '\n');
		if (rest)
			*rest++ = '\0';
		secrets->secret[secrets->n++] = text;
		text = rest;
	}
}

/*
 * Store the secrets that a connector's JSON gave, if it gave any.  PM001 for a
 * mask that is not one of a stored secret.
 */
void
pm_webhook_secrets_store(const PmConnector *connector)
{
	const PmWebhookSecrets *given = &connector->webhook_secrets;
	PmWebhookSecrets stored;
	StringInfoData text;
	Datum		values[2];
	char		nulls[2] = {' ', ' '};
	int			i;
	int			k;

	if (!given->given)
		return;
	read_stored(connector->name, &stored);
	initStringInfo(&text);
	for (i = 0; i < given->n; i++)
	{
		const char *secret = given->secret[i];

		if (pm_is_masked_token(secret))
		{
			for (k = 0; k < stored.n; k++)
				if (strcmp(pm_mask_token(stored.secret[k]), secret) == 0)
					break;
			if (k == stored.n)
				ereport(ERROR,
						(errcode(PM_ERRCODE_NOT_CONFIGURED),
						 errmsg("configuration of connector \"%s\" is invalid",
								connector->name),
						 errdetail("\"webhookSecret\" is masked, and not the mask of a stored secret."),
						 errhint("Give the secret itself, or leave the key out to keep what is stored."),
						 errhidestmt(true)));
			secret = stored.secret[k];
		}
		appendStringInfo(&text, "%s%s", i > 0 ? "\n" : "", secret);
	}
	values[0] = CStringGetTextDatum(connector->name);
	PM_NULLABLE(values, nulls, 1, given->n == 0,
				CStringGetTextDatum(text.data));
	pm_execute(&put_secret, values, nulls, 0);
}

/*
 * What may be shown of the secrets that are stored for a connector's name, in
 * the current memory context.
 */
void
pm_webhook_secrets_masked(const char *name, PmWebhookSecrets *secrets)
{
	MemoryContext context = CurrentMemoryContext;
	PmOwnerScope scope;
	int			i;

	pm_connect_owner(&scope);
	read_stored(name, secrets);
	for (i = 0; i < secrets->n; i++)
		secrets->secret[i] = MemoryContextStrdup(context,
												 pm_mask_token(secrets->secret[i]));
	pm_disconnect_owner(&scope);
}

/*
 * Whether a secret, or NULL, is one of those stored for a connector's name,
 * which may be none or NULL.  Takes the same time for every wrong one: what is
 * compared is always as long as the longest.
 */
bool
pm_webhook_secret_is(const char *name, const char *secret)
{
	PmWebhookSecrets stored;
	char		given[SECRET_MAX + 2] = {0};
	bool		found = false;
	int			i;

	read_stored(name ? name : "", &stored);

	/* One that is too long keeps a byte that none has */
	strlcpy(given, secret ? secret : "", sizeof(given));
	for (i = 0; i < PM_WEBHOOK_SECRETS; i++)
	{
		char		other[SECRET_MAX + 2] = {0};

		strlcpy(other, i < stored.n ? stored.secret[i] : "", sizeof(other));
		if (timingsafe_bcmp(given, other, sizeof(given)) == 0 && i < stored.n &&
			secret != NULL)
			found = true;
	}
	return found;
}
