/*-------------------------------------------------------------------------
 *
 * webhook.c
 *		postmark_webhook: an event that Postmark posted to the application.
 *
 * Whoever may call this need not be trusted: without the connector's secret
 * nothing is looked at, and what an event can change is bounded by the message
 * that it names, by its address, and by what Postmark says when asked.  The
 * caller learns whether the kind of event concerns us, and nothing else.
 *
 * src/feedback/webhook.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"

#include "base/args.h"
#include "base/errors.h"
#include "base/owner.h"
#include "feedback/event.h"
#include "feedback/feedback_store.h"
#include "settings/config_store.h"
#include "settings/connector.h"
#include "settings/webhook_secret.h"
#include "shared/stats.h"
#include "shared/wake.h"
#include "shared/wakeup.h"

PM_HIDDEN_FUNCTION(postmark_webhook);

/* Take an event that concerns us. */
static void
take_event(const PmConnector *connector, const PmEvent *event)
{
	if (pm_feedback_is_ours(connector, event))
		pm_feedback_take(connector, event);
	else if (event->id == 0 && event->suppressing != PM_SUPPRESS_UNCHANGED)
	{
		pm_inquiry_put(connector, event);
		pm_note(PM_WAKE_FEEDBACK);
	}
}

/* Count that somebody came without the secret; the name need not be known. */
static void
count_refused(const char *name)
{
	const PmConnector *connector;
	int			i;

	for (i = 0; name && (connector = pm_connectors(i)) != NULL; i++)
		if (strcmp(connector->name, name) == 0)
			pm_stats_add(pm_stats_of(connector->number, name),
						 PM_COUNT_EVENTS_REFUSED, 1);
}

/*
 * postmark_webhook(event jsonb, secret text, connector text) returns boolean
 *
 * 28000 for a secret that is missing or wrong, whatever else is; PM003 for what
 * is no event.
 */
static Datum
postmark_webhook_hidden(PG_FUNCTION_ARGS)
{
	PmOwnerScope scope;
	PmEvent		event;
	Jsonb	   *json;
	char	   *secret;
	char	   *name;
	bool		concerns_us;

	PreventCommandIfReadOnly("postmark_webhook()");
	json = pm_jsonb_arg(fcinfo, 0);
	secret = pm_text_arg(fcinfo, 1);
	name = pm_text_arg(fcinfo, 2);

	/* One scope for all of it: there are thousands of events a second */
	pm_connect_owner(&scope);
	if (!pm_webhook_secret_is(name, secret))
	{
		count_refused(name);
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("the secret of the webhook is missing or wrong"),
				 errhint("It is the key \"webhookSecret\" of the connector's configuration."),
				 errhidestmt(true)));
	}
	if (json == NULL)
		ereport(ERROR,
				(errcode(PM_ERRCODE_INVALID),
				 errmsg("event must not be null"),
				 errhidestmt(true)));

	concerns_us = pm_event_read(json, &event);
	if (concerns_us)
	{
		const PmConnector *connector = pm_connector(name, false);

		take_event(connector, &event);
		pm_stats_note(connector->number, connector->name, PM_COUNT_EVENTS, 1);
	}
	pm_disconnect_owner(&scope);

	PG_RETURN_BOOL(concerns_us);
}
