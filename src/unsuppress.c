/*-------------------------------------------------------------------------
 *
 * unsuppress.c
 *		postmark_unsuppress: delivering to an address again.
 *
 * Postmark decides, so it is asked first; only then is the address taken from
 * the list here.
 *
 * src/unsuppress.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/args.h"
#include "base/owner.h"
#include "feedback/event.h"
#include "feedback/feedback_store.h"
#include "feedback/suppression.h"
#include "postmark/api.h"
#include "postmark/api_errors.h"
#include "postmark/http.h"
#include "queue/message_check.h"
#include "settings/config_store.h"
#include "settings/connector.h"
#include "settings/connector_token.h"

PG_FUNCTION_INFO_V1(postmark_unsuppress);

/* Ask Postmark; raises what keeps it from delivering to the address again. */
static void
ask_postmark(const PmConnector *connector, const char *address)
{
	char	   *token = pm_connector_token(connector, false);
	StringInfoData body;
	PmHttpRequest *request;
	PmHttpResult result;
	PmVerdict	verdict;
	bool		done;

	initStringInfo(&body);
	pm_api_unsuppress_body(&body, address);
	request = pm_api_start_unsuppress(connector, token, &body, NULL);
	pm_http_perform(request, &result);
	done = pm_api_read_unsuppress(&result, address, &verdict);
	pm_http_release(request);
	pm_forget_token(token);
	if (!done)
		pm_api_raise(&verdict, connector, NULL, NULL);
}

/*
 * postmark_unsuppress(email text, connector text) returns boolean
 *
 * True if the address was suppressed as far as this database knew.  PM003 for
 * what is no address; else as pm_api_raise, PM005 where Postmark refuses.
 */
Datum
postmark_unsuppress(PG_FUNCTION_ARGS)
{
	char	   *email = pm_text_arg(fcinfo, 0);
	char	   *name = pm_text_arg(fcinfo, 1);
	char	   *address;
	const PmConnector *connector;
	PmOwnerScope scope;
	PmEvent		event;
	bool		known;

	PreventCommandIfReadOnly("postmark_unsuppress()");
	address = pm_folded_address(email);
	connector = pm_use_connector(name, GetUserId());
	known = pm_suppressed(connector, email) != NULL;
	ask_postmark(connector, email);

	memset(&event, 0, sizeof(event));
	event.suppressing = PM_SUPPRESS_LIFTED;
	event.email = email;
	event.address = address;
	event.at = GetCurrentTimestamp();
	connector = pm_connector(name, false);
	pm_connect_owner(&scope);
	pm_suppression_put(connector, &event);
	pm_disconnect_owner(&scope);
	PG_RETURN_BOOL(known);
}
