/*-------------------------------------------------------------------------
 *
 * share.c
 *		What of the process's sockets and memory a connector may take.
 *
 * One process serves all connectors of a database, and neither its sockets nor
 * its memory are without end.  Who has many slow requests under way must not
 * leave the others without, and that there are no more is our own shortage: no
 * request is begun that would not get a socket, and no connector is in trouble
 * for it.
 *
 * Half of the sockets are kept for what each connector has first, a few
 * requests or, if there are many connectors, one; the other half is for whoever
 * has use for it.  Of the memory for request bodies each has a part of its own
 * as well, and one request always.
 *
 * The sums are those of a turn's beginning, with what the turn adds.
 *
 * src/worker/share.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "postmark/http.h"
#include "worker/channel.h"
#include "worker/share.h"

/* All request bodies together, but for one of each connector */
#define ALL_BODIES			(16 * 1024 * 1024)

/* When the server has no descriptor left for us, try again after, ms */
#define SHORTAGE_DELAY		200

/* How often to say so, ms */
#define SHORTAGE_LOG		60000

static int	first;				/* requests that a channel has first */
static int	kept;				/* sockets that are kept for those */
static int	kept_taken;
static int	common;				/* that are for whatever more they have */
static int	common_taken;
static int	takers;				/* channels that have requests under way */
static Size all_bytes;			/* of the bodies of all of them */
static int	senders;			/* channels that have bodies */
static PmMoment short_until = PM_AT_ONCE;

/* Requests of a channel that have a socket */
static int
used(const PmChannel *channel)
{
	return channel->in_flight + channel->asking;
}

/* Add up what all channels have; they know what each has itself. */
void
pm_share_begin(void)
{
	int			capacity = pm_http_capacity();
	int			n = Max(pm_channel_count(), 1);
	int			i;

	first = Max(capacity / 2 / n, 1);
	kept = Min(first * n, Max(capacity / 2, 1));
	common = capacity - kept;
	kept_taken = common_taken = 0;
	takers = 0;
	all_bytes = 0;
	senders = 0;
	for (i = 0; i < pm_channel_count(); i++)
	{
		const PmChannel *channel = pm_channel(i);
		Size		bytes = channel->body_bytes + channel->claimed_bytes;

		kept_taken += Min(used(channel), first);
		common_taken += Max(used(channel) - first, 0);
		if (used(channel) > 0)
			takers++;
		all_bytes += bytes;
		if (bytes > 0)
			senders++;
	}
	common_taken += Max(kept_taken - kept, 0);
	kept_taken = Min(kept_taken, kept);
}

/* How many requests the channel may begin now, as far as sockets go. */
int
pm_share_requests(const PmChannel *channel)
{
	int			more = Min(Max(first - used(channel), 0), kept - kept_taken);
	int			part;

	if (short_until > pm_moment())
		return 0;

	/* Of what is for all no more than the others could have as well */
	part = Max(common / Max(takers + (used(channel) == 0), 1), 1) -
		Max(used(channel) - first, 0);
	part = Min(part, common - common_taken);
	return more + Max(part, 0);
}

/* The channel has begun one more. */
static void
taken(const PmChannel *channel)
{
	if (used(channel) <= first && kept_taken < kept)
		kept_taken++;
	else
		common_taken++;
	if (used(channel) == 1)
		takers++;
}

/* The channel has asked something. */
void
pm_share_asked(PmChannel *channel)
{
	channel->asking++;
	taken(channel);
}

/* Whether there is room for so many bytes of the channel's beside others. */
static bool
has_room(const PmChannel *channel, Size bytes)
{
	if (bytes == 0)
		return true;
	return all_bytes < ALL_BODIES && bytes < ALL_BODIES / Max(senders, 1);
}

/* Whether there is room for another batch, which is to become a request. */
bool
pm_share_may_claim(const PmChannel *channel)
{
	return has_room(channel, channel->body_bytes + channel->claimed_bytes);
}

/* The channel has claimed a batch whose body will have about so many bytes. */
void
pm_share_claimed(PmChannel *channel, Size bytes)
{
	channel->claimed_bytes += bytes;
	all_bytes += bytes;
}

/* Whether there is room for the body of another request of the channel. */
bool
pm_share_may_send(const PmChannel *channel)
{
	return channel->in_flight == 0 || has_room(channel, channel->body_bytes);
}

/* The channel has begun a request that sends, whose body has so many bytes. */
void
pm_share_sent(PmChannel *channel, Size bytes)
{
	taken(channel);
	channel->body_bytes += bytes;
	all_bytes += bytes;
}

/* The server had no descriptor for us, however few we wanted: wait a little. */
void
pm_share_shortage(void)
{
	static PmMoment next_log = PM_AT_ONCE;
	PmMoment	now = pm_moment();

	short_until = pm_later(now, SHORTAGE_DELAY);
	if (now < next_log)
		return;
	next_log = pm_later(now, SHORTAGE_LOG);
	ereport(LOG,
			(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
			 errmsg("postmark_connector has no file descriptor for a request"),
			 errhint("Raise max_files_per_process, or the operating system's limit of open files.")));
}

/* When that is over; PM_NEVER if it is. */
PmMoment
pm_share_next(PmMoment now)
{
	return short_until > now ? short_until : PM_NEVER;
}
