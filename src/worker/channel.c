/*-------------------------------------------------------------------------
 *
 * channel.c
 *		The worker's view of a connector: whether it flows, and what of its
 *		lanes is still to be read.
 *
 * A channel is the worker's memory of a connector.  Trouble is kept a channel,
 * so that one connector's never delays another: rate limits and outages close
 * it for a random time that doubles, a refused configuration until a probe
 * succeeds or its own settings change.  After either it opens for one request
 * at a time, until one succeeds.
 *
 * All of it can be lost: a new worker scans the queue and finds out anew.
 *
 * src/worker/channel.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "postmark/api_errors.h"
#include "settings/config_store.h"
#include "settings/connector.h"
#include "settings/connector_token.h"
#include "settings/guc.h"
#include "settings/token.h"
#include "shared/stats.h"
#include "shared/wakeup.h"
#include "worker/backoff.h"
#include "worker/channel.h"
#include "worker/lane.h"

/*
 * So many messages refused for good, one after another and all for the same
 * reason, are no accident.
 */
#define REFUSALS_IN_A_ROW	10

/* How often to look for a token file, ms */
#define TOKEN_DELAY			1000

static PmChannel **channels = NULL;
static int	nchannels = 0;
static int	max_channels = 0;

static char *
keep_text(const char *text)
{
	return text ? MemoryContextStrdup(TopMemoryContext, text) : NULL;
}

static void
drop_text(char **text)
{
	if (*text)
		pfree(*text);
	*text = NULL;
}

/* The channel of a connector, NULL if it never had one. */
PmChannel *
pm_channel_by_number(int number)
{
	int			low = 0;
	int			high = nchannels - 1;

	while (low <= high)
	{
		int			mid = (low + high) / 2;

		if (channels[mid]->number == number)
			return channels[mid];
		if (channels[mid]->number < number)
			low = mid + 1;
		else
			high = mid - 1;
	}
	return NULL;
}

/* How many channels there are. */
int
pm_channel_count(void)
{
	return nchannels;
}

/* Channel 0 to pm_channel_count() - 1, in the order of their numbers. */
PmChannel *
pm_channel(int index)
{
	return channels[index];
}

static PmChannel *
add_channel(int number)
{
	PmChannel  *channel;
	int			i;

	if (nchannels == max_channels)
	{
		int			larger = Max(16, max_channels * 2);

		if (channels == NULL)
			channels = MemoryContextAlloc(TopMemoryContext,
										  sizeof(PmChannel *) * larger);
		else
			channels = repalloc(channels, sizeof(PmChannel *) * larger);
		max_channels = larger;
	}
	channel = MemoryContextAllocZero(TopMemoryContext, sizeof(PmChannel));
	channel->number = number;
	channel->allowance = 1.0;
	channel->sweep_at = PM_NEVER;
	for (i = nchannels; i > 0 && channels[i - 1]->number > number; i--)
		channels[i] = channels[i - 1];
	channels[i] = channel;
	nchannels++;
	return channel;
}

/* Give a channel that is closed another chance at once. */
static void
reopen(PmChannel *channel, PmMoment now)
{
	if (channel->state != PM_OPEN)
		channel->retry_at = now;
	channel->failures = 0;
}

/* Add bytes, or that there are none, to a fingerprint. */
static uint64
add_bytes(uint64 print, const void *bytes, size_t len)
{
	return hash_bytes_extended(bytes ? bytes : "", bytes ? (int) len : 0, print);
}

static uint64
add_text(uint64 print, const char *text)
{
	return add_bytes(print, text, text ? strlen(text) + 1 : 0);
}

/* Of whom the channel's requests go to, and on whose behalf */
static uint64
peer_fingerprint(PmChannel *channel)
{
	char	   *token = pm_channel_token(channel);
	uint64		print = add_text(0, token);

	if (token)
		pfree(token);
	print = add_text(print, pm_token_directory);
	print = add_text(print, pm_api_url);
	print = add_text(print, pm_proxy);
	return add_text(print, pm_ca_file);
}

/* Of everything else that its connector says */
static uint64
settings_fingerprint(const PmConnector *connector)
{
	uint64		print = add_text(connector->paused ? 1 : 0, connector->invalid);
	int			i;

	if (connector->invalid)
		return print;
	print = add_bytes(print, connector->options, VARSIZE(connector->options));
	for (i = 0; i < connector->ntemplates; i++)
	{
		const PmTemplate *t = &connector->templates[i];

		print = add_text(print, t->usage_type);
		print = add_text(print, t->locale);
		print = add_text(print, t->alias);
		print = add_bytes(print, &t->priority, sizeof(t->priority));
		print = add_bytes(print, &t->expires_in, sizeof(t->expires_in));
	}
	return print;
}

/* Remember the stream that the channel's connector sends in. */
static void
note_stream(PmChannel *channel)
{
	const char *stream = channel->connector->message_stream;
	int			i;

	for (i = 0; i < channel->nstreams; i++)
		if (strcmp(channel->streams[i], stream) == 0)
			return;
	channel->streams = channel->streams == NULL ?
		MemoryContextAlloc(TopMemoryContext, sizeof(char *)) :
		repalloc(channel->streams, sizeof(char *) * (channel->nstreams + 1));
	channel->streams[channel->nstreams] = keep_text(stream);
	channel->nstreams++;
}

/*
 * Give the channel another chance if its own settings changed: what closed it
 * may be mended.  One that backs off is told so by whom it talks to, and
 * nothing else ends that.
 */
static void
note_settings(PmChannel *channel, PmMoment now)
{
	uint64		peer = peer_fingerprint(channel);
	uint64		settings = settings_fingerprint(channel->connector);

	if (peer != channel->peer ||
		(settings != channel->settings && channel->state != PM_BACKING_OFF))
		reopen(channel, now);
	channel->peer = peer;
	channel->settings = settings;
}

/*
 * Take over the settings of all connectors.  Needs a transaction.  What the
 * channels point to is good until the next call.
 */
void
pm_channels_load(void)
{
	PmMoment	now = pm_moment();
	const PmConnector *connector;
	int			i;

	for (i = 0; i < nchannels; i++)
		channels[i]->connector = NULL;

	for (i = 0; (connector = pm_connectors(i)) != NULL; i++)
	{
		PmChannel  *channel = pm_channel_by_number(connector->number);

		if (channel == NULL)
			channel = add_channel(connector->number);
		channel->connector = connector;
		channel->stats = pm_stats_of(connector->number, connector->name);
		strlcpy(channel->name, connector->name, sizeof(channel->name));
	}

	/* We keep what we were given until the next time */
	pm_config_pin();
	for (i = 0; i < nchannels; i++)
	{
		PmChannel  *channel = channels[i];
		int			p;

		drop_text(&channel->token);
		if (channel->connector == NULL)
			continue;
		if (!channel->connector->invalid)
		{
			char	   *token = pm_stored_token(channel->name);

			channel->token = keep_text(token);
			note_stream(channel);
		}
		channel->sweep_at = now;
		channel->report = true;
		channel->poll.reload = true;
		note_settings(channel, now);

		/* Deferred for want of a template, perhaps: look at them */
		for (p = 0; p < PM_PRIORITIES; p++)
			if (channel->lanes[p])
				pm_lane_look(channel->lanes[p], PM_AT_ONCE);
	}
}

/*
 * postmark_resume was called: give the connector's channel another chance at
 * once, or all of them.
 *
 * resumed: as in PmWakeup
 */
void
pm_channels_reopen(int resumed)
{
	PmMoment	now = pm_moment();
	int			i;

	for (i = 0; i < nchannels; i++)
		if (resumed == PM_RESUMED_SEVERAL || channels[i]->number == resumed)
			reopen(channels[i], now);
}

/* What is known of a lane of the channel; made when first asked for. */
PmLane *
pm_channel_lane(PmChannel *channel, int32 lane)
{
	int			index = lane % PM_PRIORITIES;

	Assert(PM_LANE_CONNECTOR(lane) == channel->number);
	if (channel->lanes[index] == NULL)
	{
		PmLane	   *made = MemoryContextAllocZero(TopMemoryContext,
												  sizeof(PmLane));

		made->lane = lane;
		pm_lane_forget(made, PM_NEVER);
		channel->lanes[index] = made;
	}
	return channel->lanes[index];
}

/* Note what transactions said that they committed. */
void
pm_channels_wake(const PmWakeup *wakeup)
{
	int			i;

	for (i = 0; i < nchannels; i++)
	{
		PmChannel  *channel = channels[i];
		int			p;

		for (p = 0; p < PM_PRIORITIES; p++)
		{
			int32		number = channel->number * PM_PRIORITIES + p;
			uint32		bit = PM_WAKE_LANE_BIT(number);
			PmLane	   *lane;
			int			r;

			if (!(wakeup->lanes[bit / 64] & (UINT64CONST(1) << (bit % 64))))
				continue;
			lane = pm_channel_lane(channel, number);
			if (wakeup->reasons & PM_WAKE_DEFERRED)
				pm_lane_look(lane, PM_AT_ONCE);
			if (!(wakeup->reasons & PM_WAKE_MESSAGES))
				continue;
			lane->dirty = true;
			for (r = 0; r < wakeup->ranges.n; r++)
			{
				const PmIdRange *range = &wakeup->ranges.range[r];

				if (range->low <= lane->cursor)
					pm_ranges_add(&lane->late, range->low,
								  Min(range->high, lane->cursor));
			}
			channel->sweep_news = true;
			if (!pm_channel_flows(channel))
				channel->sweep_at =
					Min(channel->sweep_at,
						pm_later(pm_moment(), PM_SWEEP_DELAY));
		}
	}
}

/*
 * The lanes whose messages need not wake the worker, as for
 * pm_slot_may_sleep: those of channels that do not flow and will soon be
 * looked at anyway, for what has expired.
 */
void
pm_channels_quiet(uint64 *quiet)
{
	PmMoment	soon = pm_later(pm_moment(), PM_SWEEP_DELAY);
	bool		any = false;
	int			pass;

	memset(quiet, 0, sizeof(uint64) * PM_WAKE_LANE_WORDS);
	for (pass = 0; pass < 2 && (pass == 0 || any); pass++)
	{
		int			i;

		for (i = 0; i < nchannels; i++)
		{
			PmChannel  *channel = channels[i];
			bool		wants;
			int			p;

			wants = pm_channel_flows(channel) ||
				channel->connector == NULL || channel->sweep_at > soon;
			if (wants == (pass == 0))
				continue;
			any = true;

			/* Channels may share a bit: then it is for who wants to know */
			for (p = 0; p < PM_PRIORITIES; p++)
			{
				int32		lane = channel->number * PM_PRIORITIES + p;
				uint32		bit = PM_WAKE_LANE_BIT(lane);

				if (pass == 0)
					quiet[bit / 64] |= UINT64CONST(1) << (bit % 64);
				else
					quiet[bit / 64] &= ~(UINT64CONST(1) << (bit % 64));
			}
		}
	}
}

/*
 * Whether the channel's messages are kept instead of being sent.  Then no request
 * is begun for it, whatever for.
 */
bool
pm_channel_captures(const PmChannel *channel)
{
	return channel->connector != NULL && !channel->connector->invalid &&
		channel->connector->captures;
}

/*
 * The token to use for the next request, palloc'd; NULL if there is none, or no
 * request is to be begun.  A token file is read anew each time, so that
 * replacing it rotates the token.
 */
char *
pm_channel_token(PmChannel *channel)
{
	if (channel->connector == NULL || channel->connector->invalid ||
		channel->connector->captures)
		return NULL;

	/* Somebody may have written one into the table that cannot be used */
	if (channel->token)
		return pm_token_problem(channel->token) ? NULL : pstrdup(channel->token);
	return pm_token_from_file(channel->name, true);
}

/* Whether nothing but time keeps the channel's messages from being sent. */
bool
pm_channel_flows(PmChannel *channel)
{
	return channel->connector != NULL && !channel->connector->invalid &&
		!channel->connector->paused && channel->state == PM_OPEN;
}

/*
 * Whether a channel that was in trouble is being tried, or that is due, or what
 * came of it is not stored.
 */
bool
pm_channel_on_trial(PmChannel *channel, PmMoment now)
{
	if (channel->trouble_dirty)
		return true;
	if (channel->connector == NULL || channel->connector->invalid ||
		channel->connector->paused)
		return false;
	if (channel->state == PM_OPEN)
		return channel->trouble_shown &&
			(channel->in_flight > 0 || pm_channel_can_claim(channel, now));
	return channel->probing || channel->retry_at <= now;
}

static void
refill_allowance(PmChannel *channel, PmMoment now)
{
	double		rate = channel->connector->max_requests_per_second;

	if (channel->allowance_at != 0)
		channel->allowance += rate * (now - channel->allowance_at) / USECS_PER_SEC;
	channel->allowance = Min(channel->allowance, 1.0);
	channel->allowance_at = now;
}

/*
 * How many messages a request has at most: after trouble it is tried with one.
 */
int
pm_channel_batch_size(const PmChannel *channel)
{
	return channel->trial ? 1 : pm_batch_size;
}

/*
 * How many requests that send may be under way beside those that are, whatever
 * time it is: with messages that were in doubt before, or with others.
 *
 * What was in doubt may be what makes Postmark fail.  So it has not all of the
 * room, is never what shows whether a channel that was in trouble works again,
 * and does not keep that from being tried.
 */
static int
free_places(const PmChannel *channel, bool doubtful)
{
	int			places = pm_max_in_flight - channel->in_flight;
	int			undoubted = channel->in_flight - channel->doubtful_in_flight;

	if (doubtful)
		places = Min(places,
					 (channel->trial ? 1 : Max(pm_max_in_flight / 2, 1)) -
					 channel->doubtful_in_flight);
	else if (channel->trial)
		places = Min(places, 1 - undoubted);
	return Max(places, 0);
}

/*
 * How many requests that send may begin now, of those with "doubtful" messages
 * or of the others.
 */
int
pm_channel_room(PmChannel *channel, bool doubtful, PmMoment now)
{
	int			room;

	if (!pm_channel_flows(channel) || channel->unstored > 0 ||
		(doubtful && channel->doubtful_at > now))
		return 0;
	room = free_places(channel, doubtful);
	if (room > 0 && channel->connector->max_requests_per_second > 0)
	{
		refill_allowance(channel, now);
		room = channel->allowance < 1.0 ? 0 : 1;
	}
	return room;
}

/* A request that sends is about to begin. */
void
pm_channel_spend(PmChannel *channel, bool doubtful)
{
	channel->in_flight++;
	if (doubtful)
		channel->doubtful_in_flight++;
	channel->allowance -= 1.0;
}

/* Such a request has ended. */
void
pm_channel_ended(PmChannel *channel, bool doubtful)
{
	channel->in_flight--;
	if (doubtful)
		channel->doubtful_in_flight--;
}

/*
 * Note what postmark_status is to say: what the verdict says, and "more", whole
 * sentences or "".  NULL for the verdict: nothing any more.
 */
static void
say_trouble(PmChannel *channel, const PmVerdict *verdict, const char *more)
{
	const char *hint = verdict ? pm_api_hint(verdict) : NULL;

	drop_text(&channel->trouble);
	drop_text(&channel->trouble_hint);
	if (verdict)
	{
		char	   *detail = psprintf("%s%s", pm_api_detail(verdict), more);

		channel->trouble = keep_text(detail);
		channel->trouble_hint = keep_text(hint);
	}
	channel->trouble_dirty = true;
}

/*
 * Postmark's message search does not tell what was sent by others, or does by
 * now (NULL).  That is to be seen, but new messages can be sent.
 */
void
pm_channel_search_failed(PmChannel *channel, const PmVerdict *verdict)
{
	if (verdict == NULL && channel->recent_trouble == NULL)
		return;
	drop_text(&channel->recent_trouble);
	if (verdict)
	{
		char	   *detail = pm_api_detail(verdict);

		channel->recent_trouble =
			keep_text(psprintf("older messages wait, for Postmark's message search does not tell which of them were sent already: %s",
							   detail ? detail : "no answer"));
	}
	channel->trouble_dirty = true;
}

/*
 * A request of the channel was answered as it should be.  One that was begun
 * before the channel was closed says nothing about what closed it.
 */
void
pm_channel_succeeded(PmChannel *channel)
{
	if (channel->state != PM_OPEN)
	{
		channel->good_news = true;
		return;
	}
	channel->failures = 0;
	channel->trial = false;
	if (channel->trouble_shown || channel->trouble)
		say_trouble(channel, NULL, "");
}

/* Postmark has accepted a message: it does not refuse all of them. */
void
pm_channel_accepted(PmChannel *channel)
{
	channel->refusals = 0;
}

/*
 * A message was refused for good.  Returns whether so many were in a row, with
 * the same words and none accepted in between, that it can hardly be they.
 */
bool
pm_channel_refused(PmChannel *channel, const PmVerdict *verdict)
{
	if (channel->refusal_status != verdict->http_status ||
		channel->refusal_code != verdict->error_code)
		channel->refusals = 0;
	channel->refusal_status = verdict->http_status;
	channel->refusal_code = verdict->error_code;
	channel->refusals++;
	return channel->refusals >= REFUSALS_IN_A_ROW;
}

/*
 * Close the channel for a while, for "delay" ms or longer if it is closed for
 * longer already.  Requests that fail together count once.
 */
static void
close_for(PmChannel *channel, long delay, bool at_least)
{
	PmMoment	now = pm_moment();
	PmMoment	until = pm_later(now, delay);

	if (channel->state == PM_OPEN || (at_least && until > channel->retry_at))
		channel->retry_at = until;
	if (channel->state == PM_OPEN)
	{
		channel->state = PM_BACKING_OFF;
		channel->good_news = false;
	}
	channel->trial = true;
	channel->sweep_at = Min(channel->sweep_at, now);
}

/*
 * Postmark cannot be reached, is overloaded, or limits our rate: close the
 * channel for a while, with exponential backoff and full jitter, or as long as
 * Retry-After says.  Requests that fail together count once.
 */
void
pm_channel_back_off(PmChannel *channel, const PmVerdict *verdict)
{
	bool		asked = verdict->retry_after_ms >= 0;

	if (channel->state == PM_OPEN)
		channel->failures++;
	close_for(channel,
			  asked ? pm_retry_after_delay(verdict->retry_after_ms)
			  : pm_backoff_delay(channel->failures),
			  asked);
	if (channel->state == PM_BACKING_OFF)
		say_trouble(channel, verdict,
					verdict->retry_after_ms > PM_RETRY_AFTER_MAX ?
					" It is tried again after " PM_RETRY_AFTER_MAX_TEXT " all the same." :
					"");
}

/*
 * Message after message is refused: perhaps rightly, but perhaps they are all
 * failed for something that we did not think of.  Go on slowly, with one
 * message at a time, until one is accepted or somebody has looked.
 */
void
pm_channel_brake(PmChannel *channel, const PmVerdict *verdict)
{
	if (channel->state == PM_OPEN)
		channel->failures++;
	close_for(channel, pm_brake_delay(channel->failures), false);
	if (channel->state == PM_BACKING_OFF)
		say_trouble(channel, verdict,
					" Message after message is refused for this reason; they are sent one at a time until one is accepted.");
}

/*
 * A request with messages that were in doubt before has left them in doubt
 * again.  It may be their fault: that says nothing of the channel, but the next
 * request of this kind waits, and longer each time.
 */
void
pm_channel_doubted(PmChannel *channel)
{
	PmMoment	now = pm_moment();
	long		delay;

	if (channel->doubtful_at <= now)
		channel->doubtful_failures++;
	delay = pm_backoff_delay(channel->doubtful_failures);
	channel->doubtful_at = Max(channel->doubtful_at, pm_later(now, delay));
}

/*
 * Postmark refuses the configuration: close the channel until a probe
 * succeeds, or the settings change.
 */
void
pm_channel_block(PmChannel *channel, const PmVerdict *verdict)
{
	PmMoment	now = pm_moment();

	if (channel->state != PM_BLOCKED || channel->retry_at <= now)
		channel->failures++;
	channel->retry_at = pm_later(now, pm_block_delay(channel->failures));
	channel->state = PM_BLOCKED;
	channel->trial = true;
	channel->sweep_at = Min(channel->sweep_at, now);
	say_trouble(channel, verdict, "");
}

/*
 * There is no token.  One that is set changes the settings, and so opens the
 * channel; for one that is put into the token directory we look.
 */
void
pm_channel_no_token(PmChannel *channel)
{
	PmMoment	now = pm_moment();

	if (channel->state != PM_NO_TOKEN)
		channel->report = true;
	channel->state = PM_NO_TOKEN;
	channel->sweep_at = Min(channel->sweep_at, now);
	channel->retry_at = PM_NEVER;
	if (pm_token_directory && pm_token_directory[0])
		channel->retry_at = pm_later(now, TOKEN_DELAY);
}

/*
 * Something of the channel's is in a table that cannot be used.
 *
 * what: says so; copied
 */
void
pm_channel_damaged(PmChannel *channel, const char *what)
{
	if (channel->damage && strcmp(channel->damage, what) == 0)
		return;
	drop_text(&channel->damage);
	channel->damage = keep_text(what);
	channel->trouble_dirty = true;
}

/* Whether all of a channel can be read, and its results stored. */
static bool
is_whole(const PmChannel *channel)
{
	int			p;

	for (p = 0; p < PM_PRIORITIES; p++)
		if (channel->lanes[p] && channel->lanes[p]->failures > 0)
			return false;
	return channel->unstored == 0;
}

/* See which channels can use their tables again. */
void
pm_channels_mended(void)
{
	int			i;

	for (i = 0; i < nchannels; i++)
	{
		PmChannel  *channel = channels[i];

		if (channel->damage == NULL || !is_whole(channel))
			continue;
		drop_text(&channel->damage);
		channel->trouble_dirty = true;
	}
}

/* Let postmark_status say when channels that do not flow are tried next. */
void
pm_channels_show(void)
{
	int			i;

	for (i = 0; i < nchannels; i++)
	{
		PmChannel  *channel = channels[i];
		PmMoment	at = channel->state == PM_OPEN ? PM_NEVER : channel->retry_at;

		if (channel->retry_shown == at)
			continue;
		pm_stats_show_attempt(channel->stats, at == PM_NEVER ? 0 :
							  pm_common_us() + (at - pm_moment()));
		channel->retry_shown = at;
	}
}

/*
 * Nothing of the channel is on its way.  If nothing is to be sent either, what
 * its trouble was is past: there may not be a request that shows it for a long
 * time.
 */
void
pm_channel_rested(PmChannel *channel, PmMoment now)
{
	if (channel->trouble && channel->state == PM_OPEN &&
		!channel->trouble_dirty && !pm_channel_can_claim(channel, now))
		say_trouble(channel, NULL, "");
}

/*
 * Let a channel that backed off go on when its time has come.  Where there is
 * nothing to try with, and others succeeded meanwhile, the trouble is over.  And
 * one that captures needs nobody: what an earlier request found out, or one that
 * was still under way, holds up nothing.
 */
void
pm_channel_tick(PmChannel *channel, PmMoment now)
{
	bool		backed_off = (channel->state == PM_BACKING_OFF);

	if (pm_channel_captures(channel))
	{
		if (channel->state != PM_OPEN || channel->trial || channel->trouble)
		{
			channel->state = PM_OPEN;
			pm_channel_succeeded(channel);
		}
		return;
	}
	if ((!backed_off && channel->state != PM_NO_TOKEN) ||
		channel->retry_at > now)
		return;
	channel->state = PM_OPEN;
	if (backed_off && channel->good_news && !pm_channel_can_claim(channel, now))
		say_trouble(channel, NULL, "");
}

/* Whether there may be messages of the channel that may be sent now. */
bool
pm_channel_can_claim(PmChannel *channel, PmMoment now)
{
	bool		room = pm_channel_room(channel, false, now) > 0;
	bool		doubtful_room = pm_channel_room(channel, true, now) > 0;
	int			p;

	for (p = 0; p < PM_PRIORITIES; p++)
	{
		const PmLane *lane = channel->lanes[p];

		if (lane == NULL)
			continue;
		if (room && (pm_lane_hot_work(lane, now) ||
					 pm_lane_deferred_work(lane, false, now)))
			return true;
		if (doubtful_room && pm_lane_deferred_work(lane, true, now))
			return true;
	}
	return false;
}

/* When the channel next needs attention without anything happening. */
PmMoment
pm_channel_next(PmChannel *channel, PmMoment now)
{
	PmMoment	next = PM_NEVER;
	bool		room = free_places(channel, false) > 0;
	bool		doubtful_room = free_places(channel, true) > 0;
	int			p;

	if (channel->connector == NULL)
		return PM_NEVER;
	if (!pm_channel_flows(channel))
	{
		next = channel->sweep_at;
		if (!channel->connector->paused && channel->state != PM_OPEN && !channel->probing)
			next = Min(next, channel->retry_at);
		return next;
	}
	if (channel->recent_wanted)
		next = Min(channel->recent_asked ? PM_NEVER : channel->recent_at,
				   channel->expiry_at);
	if (channel->unstored > 0)
		return next;
	for (p = 0; p < PM_PRIORITIES; p++)
	{
		const PmLane *lane = channel->lanes[p];

		if (lane && room)
			next = Min(next, pm_lane_next(lane, now));
		if (lane && doubtful_room)
			next = Min(next, Max(pm_lane_next_doubtful(lane),
								 channel->doubtful_at));
	}
	if (next <= now && channel->connector->max_requests_per_second > 0)
	{
		double		wait;

		refill_allowance(channel, now);
		wait = (1.0 - channel->allowance) / channel->connector->max_requests_per_second;
		if (wait > 0)
			next = now + (int64) (wait * USECS_PER_SEC) + 1;
	}
	return next;
}
