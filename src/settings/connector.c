/*-------------------------------------------------------------------------
 *
 * connector.c
 *		A connector as the rest of the extension works with it: its name, and
 *		which of its templates a message gets.
 *
 * A template is for a usage type, one of Logto's or any other, and maybe for a
 * locale.  A usage type of Logto's that has none gets Generic's, and a locale
 * that has none gets that of its language, or of any; so a connector is
 * complete with the four templates that Logto demands.
 *
 * src/settings/connector.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/errors.h"
#include "base/nearest.h"
#include "base/text.h"
#include "settings/connector.h"

#define GENERIC				"Generic"

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

/* Logto's usage types, in the order in which templates are shown. */
const PmUsageType pm_usage_types[] = {
	{"SignIn", true},
	{"Register", true},
	{"ForgotPassword", true},
	{"OrganizationInvitation", false},
	{GENERIC, true},
	{"UserPermissionValidation", false},
	{"BindNewIdentifier", false},
	{"MfaVerification", false},
	{"BindMfa", false},
	{NULL, false}
};

#define USAGE_TYPES ((int) lengthof(pm_usage_types) - 1)

/* Place of a usage type among the known ones, after them if it is none. */
int
pm_usage_type_rank(const char *usage_type)
{
	int			i;

	for (i = 0; i < USAGE_TYPES; i++)
		if (strcmp(pm_usage_types[i].name, usage_type) == 0)
			break;
	return i;
}

static bool
is_known_usage_type(const char *usage_type)
{
	return pm_usage_type_rank(usage_type) < USAGE_TYPES;
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

/* Whether a usage type is one of Logto's, or the connector has a template. */
static bool
is_expected(const PmConnector *connector, const char *usage_type)
{
	int			i;

	for (i = 0; i < connector->ntemplates; i++)
		if (strcmp(connector->templates[i].usage_type, usage_type) == 0)
			return true;
	return is_known_usage_type(usage_type);
}

pg_noreturn static void
raise_no_template(const PmConnector *connector, const char *usage_type)
{
	PmNearest	nearest;
	bool		expected = is_expected(connector, usage_type);
	bool		showable;
	int			i;

	/*
	 * Somebody who mixes up the arguments hands in a code here.  No usage
	 * type begins with a digit.
	 */
	showable = isalpha((unsigned char) usage_type[0]) &&
		strlen(usage_type) <= PM_USAGE_TYPE_MAX && !pm_has_control(usage_type);

	pm_nearest_begin(&nearest, showable ? usage_type : "");
	for (i = 0; i < USAGE_TYPES; i++)
		pm_nearest_consider(&nearest, pm_usage_types[i].name);
	for (i = 0; i < connector->ntemplates; i++)
		pm_nearest_consider(&nearest, connector->templates[i].usage_type);

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
}

/*
 * Like pm_find_template, but PM002 if there is none.
 */
const PmTemplate *
pm_require_template(const PmConnector *connector, const char *usage_type,
					const char *locale)
{
	const PmTemplate *found = pm_find_template(connector, usage_type, locale);

	if (found == NULL)
		raise_no_template(connector, usage_type);
	return found;
}

/* Refuse a usage type that is neither known nor configured: PM002. */
void
pm_require_usage_type(const PmConnector *connector, const char *usage_type)
{
	if (!is_expected(connector, usage_type))
		raise_no_template(connector, usage_type);
}
