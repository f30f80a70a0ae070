/*-------------------------------------------------------------------------
 *
 * config_templates.c
 *		A connector's templates, from JSON and from rows: what each must be, and
 *		which there must be.
 *
 * src/settings/config_templates.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"

#include "base/text.h"
#include "settings/config_check.h"
#include "settings/config_templates.h"
#include "settings/connector.h"

#define LOCALE_MAX			64	/* bytes */
#define EXPIRES_IN_MAX		(30 * 24 * 60 * 60) /* s */
#define TEMPLATES_MAX		2000

static const char *const template_keys[] = {
	"usageType", "templateAlias", "locale", "priority", "expiresIn"
};

/* ----------
 * Checks
 * ----------
 */

/* Check a template, which came from JSON or from a row. */
static bool
check_template(const PmTemplate *template, const char *where, PmFault *f)
{
	if (template->usage_type == NULL)
		return pm_fault(f, NULL, "The key \"%susageType\" is missing.", where);
	if (*template->usage_type == '\0' ||
		strlen(template->usage_type) > PM_USAGE_TYPE_MAX ||
		pm_has_control(template->usage_type))
		return pm_fault(f, NULL,
						"\"%susageType\" must be 1 to %d bytes, and no control characters.",
						where, PM_USAGE_TYPE_MAX);
	if (template->alias == NULL)
		return pm_fault(f, "A template is named by its alias in Postmark, not by its id.",
						"The key \"%stemplateAlias\" is missing.", where);
	if (!pm_valid_template_alias(template->alias))
		return pm_fault(f, "It is the alias of a template in Postmark: a letter, then letters, digits, dots, hyphens and underscores.",
						"\"%stemplateAlias\" is invalid.", where);
	if (template->locale &&
		!pm_is_made_of(template->locale, PM_LOWER PM_UPPER PM_DIGITS "-_",
					   LOCALE_MAX))
		return pm_fault(f, "Leave it out for a template that serves any locale.",
						"\"%slocale\" must be 1 to %d letters, digits, hyphens and underscores.",
						where, LOCALE_MAX);
	if (template->priority < 0 || template->priority >= PM_PRIORITIES)
		return pm_fault(f, NULL, "\"%spriority\" must be a whole number from 0 to %d.",
						where, PM_PRIORITIES - 1);
	if (template->expires_in < 0 || template->expires_in > EXPIRES_IN_MAX)
		return pm_fault(f, NULL, "\"%sexpiresIn\" must be a whole number from 1 to %d.",
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
read_array(PmConnector *connector, JsonbContainer *array, PmFault *f)
{
	int			n = JsonContainerSize(array);
	int			i;

	if (n > TEMPLATES_MAX)
		return pm_fault(f, NULL, "There are more than %d templates.", TEMPLATES_MAX);

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
			return pm_fault(f, NULL, "\"templates[%d]\" must be an object.", i);
		object = element->val.binary.data;

		if (!pm_check_keys(object, where, template_keys,
						   lengthof(template_keys), f) ||
			!pm_get_string(object, where, "usageType", &template.usage_type, f) ||
			!pm_get_string(object, where, "templateAlias", &template.alias, f) ||
			!pm_get_string(object, where, "locale", &template.locale, f) ||
			!pm_get_int(object, where, "priority", 0, PM_PRIORITIES - 1,
						&template.priority, f) ||
			!pm_get_int(object, where, "expiresIn", 1, EXPIRES_IN_MAX,
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
check_required(const PmConnector *connector, PmFault *f)
{
	StringInfoData missing;
	const char *misspelt = NULL;
	int			i;
	int			j;

	initStringInfo(&missing);
	for (i = 0; pm_usage_types[i].name; i++)
	{
		if (!pm_usage_types[i].required)
			continue;
		for (j = 0; j < connector->ntemplates; j++)
		{
			const char *given = connector->templates[j].usage_type;

			if (strcmp(given, pm_usage_types[i].name) == 0)
				break;
			if (pg_strcasecmp(given, pm_usage_types[i].name) == 0)
				misspelt = pm_usage_types[i].name;
		}
		if (j == connector->ntemplates)
			appendStringInfo(&missing, "%s%s", missing.len ? ", " : "",
							 pm_usage_types[i].name);
	}
	if (missing.len > 0)
		return pm_fault(f,
						misspelt ? psprintf("Letter case matters: write \"%s\".", misspelt) :
						"Add them to \"templates\".",
						"Templates are missing for these usage types: %s.",
						missing.data);
	return true;
}

/*
 * Read the templates of a connector's whole JSON, root, into connector, which
 * has none yet, and see that none is missing; the first of equals wins.  False
 * for a fault.  What is read is copied into the current memory context.
 */
bool
pm_read_templates(PmConnector *connector, JsonbContainer *root, PmFault *f)
{
	JsonbContainer *array = NULL;

	return pm_get_array(root, "", "templates", &array, f) &&
		(array == NULL || read_array(connector, array, f)) &&
		check_required(connector, f);
}

static int
compare_templates(const void *a, const void *b)
{
	const PmTemplate *s = a;
	const PmTemplate *t = b;
	int			diff;

	diff = pm_usage_type_rank(s->usage_type) - pm_usage_type_rank(t->usage_type);
	if (diff == 0)
		diff = strcmp(s->usage_type, t->usage_type);
	if (diff == 0)
		diff = strcmp(s->locale ? s->locale : "", t->locale ? t->locale : "");
	return diff;
}

/*
 * Check the templates that a stored connector has, and sort them.  False for a
 * fault.
 */
bool
pm_check_stored_templates(PmConnector *connector, PmFault *f)
{
	int			i;

	for (i = 0; i < connector->ntemplates; i++)
		if (!check_template(&connector->templates[i], "postmark_templates.", f))
			return false;
	if (!check_required(connector, f))
		return false;
	qsort(connector->templates, connector->ntemplates, sizeof(PmTemplate),
		  compare_templates);
	return true;
}
