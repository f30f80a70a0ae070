/*-------------------------------------------------------------------------
 *
 * install_templates.c
 *		postmark_install_templates: templates for a connector's aliases, put
 *		into the Postmark server.
 *
 * What is there is kept unless the caller says otherwise, so that a call which
 * an error has ended is only to be made again.  As the other functions that
 * talk to Postmark, it holds no lock beyond what reading settings locks while
 * it waits, and writes nothing here.
 *
 * src/install_templates.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"

#include "base/args.h"
#include "postmark/api.h"
#include "postmark/api_errors.h"
#include "postmark/http.h"
#include "postmark/template_list.h"
#include "postmark/template_text.h"
#include "settings/config_store.h"
#include "settings/connector.h"
#include "settings/connector_token.h"
#include "shared/wake.h"

PG_FUNCTION_INFO_V1(postmark_install_templates);

/* The language of the texts */
#define ENGLISH "en"

/* An alias, and what its template is for */
typedef struct Wanted
{
	const char *alias;
	const char *usage_type;		/* NULL: several */
	const char *locale;			/* that it is used for if none is found that
								 * English serves; else NULL */
} Wanted;

static bool
is_english(const char *locale)
{
	return pg_strncasecmp(locale, ENGLISH, strlen(ENGLISH)) == 0 &&
		!isalpha((unsigned char) locale[strlen(ENGLISH)]);
}

/*
 * The connector's aliases, each of them once.  An alias of several usage types
 * has to speak for all of them.
 */
static Wanted *
collect_wanted(const PmConnector *connector, int *nwanted)
{
	Wanted	   *wanted = palloc(sizeof(Wanted) * connector->ntemplates);
	int			n = 0;
	int			i;
	int			j;

	for (i = 0; i < connector->ntemplates; i++)
	{
		const PmTemplate *t = &connector->templates[i];

		for (j = 0; j < n; j++)
			if (strcmp(wanted[j].alias, t->alias) == 0)
				break;
		if (j == n)
		{
			wanted[n].alias = t->alias;
			wanted[n].usage_type = t->usage_type;
			wanted[n++].locale = t->locale;
		}
		else if (wanted[j].usage_type &&
				 strcmp(wanted[j].usage_type, t->usage_type) != 0)
			wanted[j].usage_type = NULL;
		if (t->locale == NULL || is_english(t->locale))
			wanted[j].locale = NULL;
	}
	*nwanted = n;
	return wanted;
}

/* Put one template into the server; done is how many were put before it. */
static void
put_template(const PmConnector *connector, char *token,
			 const PmTemplateText *template, bool is_new, int done)
{
	StringInfoData body;
	PmHttpRequest *request;
	PmHttpResult result;
	PmVerdict	verdict;

	initStringInfo(&body);
	pm_api_template_body(&body, template, is_new);
	request = pm_api_start_template(connector, token,
									is_new ? NULL : template->alias, &body,
									NULL);
	pm_http_perform(request, &result);
	pm_api_read_plain(&result, &verdict);
	pm_http_release(request);
	pfree(body.data);
	if (verdict.outcome != PM_ACCEPTED)
	{
		pm_forget_token(token);
		pm_api_raise_template(&verdict, connector, template->alias, done);
	}
}

static void
report(ReturnSetInfo *rsinfo, const char *alias, const char *action)
{
	Datum		values[2];
	bool		nulls[2] = {false};

	values[0] = CStringGetTextDatum(alias);
	values[1] = CStringGetTextDatum(action);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/*
 * postmark_install_templates(connector, overwrite)
 * returns table (template_alias text, action text)
 *
 * The first row is the layout's, unless nothing needs one.  PM001 for an
 * unknown connector or one without a token, else as pm_api_raise_template.
 */
Datum
postmark_install_templates(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	bool		overwrite = !PG_ARGISNULL(1) && PG_GETARG_BOOL(1);
	char	   *name = pm_text_arg(fcinfo, 0);
	const PmConnector *connector;
	Wanted	   *wanted;
	int			nwanted;
	const char **aliases;
	const PmListed **found;
	char	   *token;
	PmVerdict	verdict;
	bool		all_kept;
	int			done = 0;
	int			i;

	InitMaterializedSRF(fcinfo, 0);
	connector = pm_use_connector(name ? name : PM_DEFAULT_CONNECTOR, GetUserId());
	wanted = collect_wanted(connector, &nwanted);
	aliases = palloc(sizeof(char *) * (nwanted + 1));
	found = palloc(sizeof(PmListed *) * (nwanted + 1));

	/* The layout goes first: the others name it. */
	aliases[0] = PM_LAYOUT_ALIAS;
	for (i = 0; i < nwanted; i++)
		aliases[i + 1] = wanted[i].alias;

	token = pm_connector_token(connector, false);
	if (!pm_list_templates(connector, token, nwanted + 1, aliases, found,
						   &verdict))
	{
		pm_forget_token(token);
		pm_api_raise_template(&verdict, connector, NULL, 0);
	}

	all_kept = !overwrite;
	for (i = 1; i <= nwanted; i++)
		all_kept = all_kept && found[i] != NULL;

	for (i = 0; i <= nwanted; i++)
	{
		PmTemplateText template;

		if (found[i] && !overwrite)
		{
			report(rsinfo, aliases[i], "kept");
			continue;
		}
		if (i == 0)
		{
			if (all_kept)
				continue;
			pm_layout_text(&template);
		}
		else
		{
			const Wanted *w = &wanted[i - 1];

			pm_template_text(connector, w->usage_type, w->alias, &template);
			if (w->locale)
				ereport(NOTICE,
						(errmsg("template \"%s\" is for locale \"%s\" and in English",
								w->alias, w->locale),
						 errhint("Translate it in Postmark.")));
		}
		put_template(connector, token, &template, found[i] == NULL, done++);
		report(rsinfo, aliases[i], found[i] ? "overwritten" : "created");
	}
	pm_forget_token(token);

	/* What waits for them is due */
	if (done > 0)
		pm_note_resume(connector->number);

	return (Datum) 0;
}
