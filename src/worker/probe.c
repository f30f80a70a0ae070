/*-------------------------------------------------------------------------
 *
 * probe.c
 *		Whether a configuration that Postmark refused is mended.
 *
 * A blocked channel may send nothing, for each of its messages would be
 * refused.  Now and then Postmark is asked for the server that the token is of,
 * which sends nothing; if it answers, the channel is opened, and its next
 * request shows whether that was all that was wrong.
 *
 * src/worker/probe.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "postmark/api.h"
#include "postmark/api_errors.h"
#include "postmark/http.h"
#include "worker/channel.h"
#include "worker/probe.h"
#include "worker/share.h"

static void answer_came(void *arg, PmHttpRequest *request);

/*
 * Probe a blocked channel, where it is time to.  Returns whether it was; then
 * a request is under way, or there is no token.
 */
bool
pm_probe_ask(PmChannel *channel, PmMoment now)
{
	MemoryContext old;
	char	   *token;

	if (channel->state != PM_BLOCKED || channel->retry_at > now ||
		channel->probing || channel->recent_asked ||
		channel->connector == NULL || channel->connector->invalid)
		return false;
	token = pm_channel_token(channel);
	if (token == NULL)
	{
		pm_channel_no_token(channel);
		return true;
	}
	old = MemoryContextSwitchTo(TopMemoryContext);
	channel->probing = true;
	channel->asker = (PmAsker) {answer_came, channel};
	(void) pm_api_start_server(channel->connector, token, &channel->asker);
	MemoryContextSwitchTo(old);
	pfree(token);
	return true;
}

/* The probe has been answered, or not; releases the request. */
static void
answer_came(void *arg, PmHttpRequest *request)
{
	PmChannel  *channel = arg;
	PmHttpResult result;
	PmVerdict	verdict;

	channel->probing = false;
	pm_http_result(request, &result);
	pm_api_read_plain(&result, &verdict);
	pm_http_release(request);
	if (channel->state != PM_BLOCKED)
		return;
	if (result.shortage)
		pm_share_shortage();
	else if (verdict.outcome == PM_ACCEPTED)
		channel->state = PM_OPEN;
	else
		pm_channel_block(channel, &verdict);
}
