/*-------------------------------------------------------------------------
 *
 * template_list.c
 *		Which of a connector's templates the Postmark server has.
 *
 * src/postmark/template_list.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "postmark/api.h"
#include "postmark/api_errors.h"
#include "postmark/http.h"
#include "postmark/template_list.h"

/* Postmark lists no more than this, however it is asked. */
#define LIST_MAX		10000

/* The entry of n that has this name, NULL if there is none. */
const PmListed *
pm_find_listed(const PmListed *listed, int n, const char *name)
{
	int			i;

	for (i = 0; i < n; i++)
		if (strcmp(listed[i].name, name) == 0)
			return &listed[i];
	return NULL;
}

/*
 * Ask Postmark for the templates of these aliases, reading the server's list
 * page by page.
 *
 * found[i] becomes what is known of aliases[i], palloc'd; NULL: nothing.
 * False: the list could not be read to its end, *verdict says why, and what is
 * not found may be there all the same.  Waits for the network; raises what
 * pm_api_start_templates and pm_http_perform do.
 */
bool
pm_list_templates(const PmConnector *connector, const char *token,
				  int naliases, const char *const *aliases,
				  const PmListed **found, PmVerdict *verdict)
{
	int			nmissing = naliases;
	int			offset = 0;
	int			i;

	memset(found, 0, sizeof(PmListed *) * naliases);
	while (nmissing > 0 && offset < LIST_MAX)
	{
		PmHttpRequest *request;
		PmHttpResult result;
		PmListed   *templates;
		int			ntemplates;
		int64		total;
		int			nread;
		bool		readable;

		request = pm_api_start_templates(connector, token, offset, NULL);
		pm_http_perform(request, &result);
		readable = pm_api_read_templates(&result, verdict, &total, &nread,
										 &templates, &ntemplates);
		pm_http_release(request);
		if (!readable)
			return false;

		for (i = 0; i < naliases; i++)
		{
			if (found[i])
				continue;
			found[i] = pm_find_listed(templates, ntemplates, aliases[i]);
			if (found[i])
				nmissing--;
		}
		offset += nread;
		if (nread == 0 || offset >= total)
			break;
	}
	return true;
}
