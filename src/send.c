/*-------------------------------------------------------------------------
 *
 * send.c
 *		The SQL-callable functions that talk to Postmark themselves:
 *		postmark_send, postmark_test and postmark_check.
 *
 * They read settings and write nothing, unless the connector captures what it
 * would send, so they work in a read-only transaction and on a standby.  While they wait for the network a
 * transaction is open, but nothing is locked beyond what reading settings
 * locks, and a cancel ends the wait at once.
 *
 * A connector from the cache stays good over the wait: it goes only when
 * another one is looked up, and a waiting session looks up none.
 *
 * src/send.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"
#include "utils/uuid.h"

#include "base/args.h"
#include "base/errors.h"
#include "base/random.h"
#include "feedback/suppression.h"
#include "postmark/api.h"
#include "postmark/api_errors.h"
#include "postmark/http.h"
#include "postmark/template_list.h"
#include "queue/batch.h"
#include "queue/capture.h"
#include "queue/message_check.h"
#include "queue/state.h"
#include "settings/config_json.h"
#include "settings/config_store.h"
#include "settings/connector.h"
#include "settings/connector_roles.h"
#include "settings/connector_token.h"

#define TEST_USAGE_TYPE "Generic"
#define TEST_CODE		"000000"

PM_HIDDEN_FUNCTION(postmark_send);
PM_HIDDEN_FUNCTION(postmark_test);
PM_HIDDEN_FUNCTION(postmark_check);

/*
 * The connector to use: the one that is stored, or what a config makes of it.
 * A NULL name means the default one.  PM001 if there is none, and
 * insufficient_privilege if it is not for the current user.
 */
static const PmConnector *
choose_connector(const char *name, Jsonb *config)
{
	const PmConnector *stored;

	if (name == NULL)
		name = PM_DEFAULT_CONNECTOR;
	if (config == NULL)
		return pm_use_connector(name, GetUserId());

	/* It goes with the stored one's token, if it has none itself */
	stored = pm_find_connector(name);
	if (stored)
		pm_require_use(stored, GetUserId());
	return pm_config_parse(config, name);
}

/* Keep a message instead of sending it.  Returns what stands for a MessageID. */
static Datum
capture(const PmConnector *connector, const PmMessage *m,
		const char *template_alias)
{
	PmMessage	message = *m;
	pg_uuid_t  *message_id = palloc(sizeof(pg_uuid_t));

	pm_random_uuid(message_id);
	message.message_id = message_id;
	message.connector = connector->name;
	message.template_alias = pstrdup(template_alias);
	pm_capture_at_once(&message);
	return UUIDPGetDatum(message_id);
}

/*
 * Send one message whose parts were checked, and wait for the answer; or keep
 * it, where the connector captures.
 *
 * Returns the MessageID.  PM001 if there is no token, PM002 if there is no
 * template, else as pm_api_raise; 57014 if cancelled, and then nobody knows
 * whether the message was sent.
 */
static Datum
send_message(const PmConnector *connector, const PmMessage *m)
{
	const PmTemplate *template;
	PmApiMessage message = {0};
	StringInfoData body;
	char	   *suppressed;
	char	   *token;
	PmHttpRequest *request;
	PmHttpResult result;
	PmVerdict	verdict;

	template = pm_require_template(connector, m->usage_type, m->locale);
	suppressed = pm_suppressed(connector, m->email);
	if (suppressed)
		ereport(ERROR,
				(errcode(PM_ERRCODE_SUPPRESSED),
				 errmsg("Postmark does not deliver to this address"),
				 errdetail_internal("%s", suppressed),
				 errhint("See postmark_suppressions; postmark_unsuppress asks Postmark to deliver to it again."),
				 errhidestmt(true)));
	if (connector->captures)
		return capture(connector, m, template->alias);
	token = pm_connector_token(connector, false);

	message.to = m->email;
	message.template_alias = template->alias;
	message.code = m->code;
	message.payload = m->payload;
	initStringInfo(&body);
	pm_api_message(&body, connector, &message);

	request = pm_api_start_send(connector, token, &body, NULL);
	pm_http_perform(request, &result);
	pm_api_read_send(&result, m->email, &verdict);
	pm_http_release(request);
	pfree(body.data);

	if (verdict.outcome != PM_ACCEPTED)
	{
		pm_api_mask(verdict.text, m->code);
		pm_api_mask_payload(verdict.text, m->payload);
		pm_forget_token(token);
		pm_api_raise(&verdict, connector, m->usage_type, template->alias);
	}
	pm_forget_token(token);
	return UUIDPGetDatum(verdict.message_id);
}

/*
 * postmark_send(email, usage_type, code, payload, locale, connector)
 * returns uuid
 */
static Datum
postmark_send_hidden(PG_FUNCTION_ARGS)
{
	PmMessage	m;
	const PmConnector *connector;
	Datum		message_id;

	memset(&m, 0, sizeof(m));
	m.email = pm_text_arg(fcinfo, 0);
	m.usage_type = pm_text_arg(fcinfo, 1);
	m.code = pm_text_arg(fcinfo, 2);
	m.payload = pm_jsonb_arg(fcinfo, 3);
	m.locale = pm_text_arg(fcinfo, 4);
	pm_check_message(&m);

	connector = choose_connector(pm_text_arg(fcinfo, 5), NULL);
	message_id = send_message(connector, &m);

	return message_id;
}

/*
 * postmark_test(email, config, connector) returns uuid
 */
static Datum
postmark_test_hidden(PG_FUNCTION_ARGS)
{
	PmMessage	m;
	const PmConnector *connector;
	Datum		message_id;

	memset(&m, 0, sizeof(m));
	m.email = pm_text_arg(fcinfo, 0);
	m.usage_type = pstrdup(TEST_USAGE_TYPE);
	m.code = pstrdup(TEST_CODE);
	pm_check_message(&m);

	connector = choose_connector(pm_text_arg(fcinfo, 2), pm_jsonb_arg(fcinfo, 1));
	message_id = send_message(connector, &m);

	return message_id;
}

/*
 * postmark_check
 */

/* What is known of one item */
typedef enum Finding
{
	FOUND_GOOD,
	FOUND_BAD,
	NOT_FOUND_OUT
} Finding;

static void
report(ReturnSetInfo *rsinfo, const char *item, Finding finding,
	   const char *detail)
{
	Datum		values[3] = {0};
	bool		nulls[3] = {false};

	values[0] = CStringGetTextDatum(item);
	if (finding == NOT_FOUND_OUT)
		nulls[1] = true;
	else
		values[1] = BoolGetDatum(finding == FOUND_GOOD);
	values[2] = CStringGetTextDatum(detail);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* Report an item by what was found of it in a list, NULL for nothing. */
static void
report_listed(ReturnSetInfo *rsinfo, const char *item, const PmListed *listed,
			  const char *missing)
{
	if (listed == NULL)
		report(rsinfo, item, FOUND_BAD, missing);
	else if (listed->problem)
		report(rsinfo, item, FOUND_BAD, listed->problem);
	else
		report(rsinfo, item, FOUND_GOOD, "ready");
}

/* The detail of an item that could not be looked up. */
static const char *
not_checked(const PmVerdict *verdict)
{
	return psprintf("not checked: %s", pm_api_detail(verdict));
}

/* Does Postmark take the token?  False, and reported, if not. */
static bool
check_token(ReturnSetInfo *rsinfo, const PmConnector *connector,
			const char *token)
{
	PmHttpRequest *request;
	PmHttpResult result;
	PmVerdict	verdict;

	request = pm_api_start_server(connector, token, NULL);
	pm_http_perform(request, &result);
	pm_api_read_plain(&result, &verdict);
	pm_http_release(request);

	if (verdict.outcome == PM_ACCEPTED)
	{
		report(rsinfo, "token", FOUND_GOOD, "Postmark accepts the token");
		return true;
	}
	report(rsinfo, "token", FOUND_BAD,
		   psprintf("%s %s", pm_api_detail(&verdict), pm_api_hint(&verdict)));
	return false;
}

static void
check_stream(ReturnSetInfo *rsinfo, const PmConnector *connector,
			 const char *token, const char *item)
{
	PmHttpRequest *request;
	PmHttpResult result;
	PmVerdict	verdict;
	PmListed   *streams;
	int			nstreams;
	bool		readable;

	request = pm_api_start_streams(connector, token, NULL);
	pm_http_perform(request, &result);
	readable = pm_api_read_streams(&result, &verdict, &streams, &nstreams);
	pm_http_release(request);

	if (readable)
		report_listed(rsinfo, item,
					  pm_find_listed(streams, nstreams, connector->message_stream),
					  "the server has no message stream with this ID");
	else
		report(rsinfo, item, NOT_FOUND_OUT, not_checked(&verdict));
}

/* Look all aliases up. */
static void
check_templates(ReturnSetInfo *rsinfo, const PmConnector *connector,
				const char *token, char **items)
{
	int			n = connector->ntemplates;
	const char **aliases = palloc(sizeof(char *) * n);
	const PmListed **found = palloc(sizeof(PmListed *) * n);
	const char *unknown = NULL;
	PmVerdict	verdict;
	int			i;

	for (i = 0; i < n; i++)
		aliases[i] = connector->templates[i].alias;
	if (!pm_list_templates(connector, token, n, aliases, found, &verdict))
		unknown = not_checked(&verdict);

	for (i = 0; i < n; i++)
	{
		if (found[i] == NULL && unknown)
			report(rsinfo, items[i], NOT_FOUND_OUT, unknown);
		else
			report_listed(rsinfo, items[i], found[i],
						  "the server has no template with this alias; postmark_install_templates makes one");
	}
}

/*
 * Report what refusals said of the account, if they did lately and nothing was
 * accepted since.
 */
static void
check_account(ReturnSetInfo *rsinfo, const PmConnector *connector)
{
	char	   *problem = pm_account_problem(connector);

	if (problem)
		report(rsinfo, "account", FOUND_BAD, problem);
}

/*
 * postmark_check(connector, config)
 * returns table (item text, ok boolean, detail text)
 *
 * What Postmark says is a row, also if it says nothing; only settings that
 * cannot be read at all are an error.
 */
static Datum
postmark_check_hidden(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	const PmConnector *connector;
	char	   *stream_item;
	char	  **template_items;
	char	   *token;
	int			i;

	InitMaterializedSRF(fcinfo, 0);
	connector = choose_connector(pm_text_arg(fcinfo, 0), pm_jsonb_arg(fcinfo, 1));

	stream_item = psprintf("stream %s", connector->message_stream);
	template_items = palloc(sizeof(char *) * connector->ntemplates);
	for (i = 0; i < connector->ntemplates; i++)
	{
		const PmTemplate *template = &connector->templates[i];

		template_items[i] = psprintf("template %s%s%s %s",
									 template->usage_type,
									 template->locale ? "/" : "",
									 template->locale ? template->locale : "",
									 template->alias);
	}

	if (connector->captures)
		report(rsinfo, "delivery", FOUND_BAD,
			   "Messages are kept in postmark_captured instead of being sent. Set \"delivery\" to \"postmark\" to send them.");
	token = pm_connector_token(connector, true);
	if (token == NULL)
		report(rsinfo, "token", FOUND_BAD,
			   "There is no usable token. Set it with postmark_set_token.");
	if (token && check_token(rsinfo, connector, token))
	{
		check_stream(rsinfo, connector, token, stream_item);
		check_templates(rsinfo, connector, token, template_items);
	}
	else
	{
		report(rsinfo, stream_item, NOT_FOUND_OUT, "not checked");
		for (i = 0; i < connector->ntemplates; i++)
			report(rsinfo, template_items[i], NOT_FOUND_OUT, "not checked");
	}
	if (token)
		pm_forget_token(token);
	if (connector->number != 0)
		check_account(rsinfo, connector);

	return (Datum) 0;
}
