/*-------------------------------------------------------------------------
 *
 * event.c
 *		News of a message or an address, as Postmark tells it.
 *
 * Postmark posts one JSON object an event.  What it says is not trusted to be
 * ours, complete, or new: here it is only read.  Kinds and fields that we do
 * not know, those of the future among them, are passed over.
 *
 * Sources: Postmark's pages on webhooks and on bounce types.
 *
 * src/feedback/event.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <ctype.h>

#include "utils/timestamp.h"

#include "base/errors.h"
#include "base/iso_time.h"
#include "base/text.h"
#include "feedback/event.h"
#include "postmark/api.h"
#include "queue/batch.h"
#include "settings/config_check.h"
#include "settings/recipient_policy.h"

/* Longest type, reason or origin that is kept, bytes */
#define WORD_MAX 40

/* A run of so many digits may be a code, one of so many others a token. */
#define CODE_DIGITS		4
#define TOKEN_LENGTH	20

/* The types of bounces; one that is not listed ends nothing. */
static const struct
{
	int			code;
	const char *name;
	PmStanding	standing;
}			bounce_types[] = {
	{1, "HardBounce", PM_STANDING_HARD},
	{2, "Transient", PM_STANDING_NOTE},
	{16, "Unsubscribe", PM_STANDING_NOTE},
	{32, "Subscribe", PM_STANDING_NOTE},
	{64, "AutoResponder", PM_STANDING_NOTE},
	{128, "AddressChange", PM_STANDING_NOTE},
	{256, "DnsError", PM_STANDING_HARD},
	{512, "SpamNotification", PM_STANDING_HARD},
	{1024, "OpenRelayTest", PM_STANDING_NOTE},
	{2048, "Unknown", PM_STANDING_HARD},
	{4096, "SoftBounce", PM_STANDING_SOFT},
	{8192, "VirusNotification", PM_STANDING_HARD},
	{16384, "ChallengeVerification", PM_STANDING_NOTE},
	{100000, "BadEmailAddress", PM_STANDING_HARD},
	{100001, "SpamComplaint", PM_STANDING_COMPLAINT},
	{100002, "ManuallyDeactivated", PM_STANDING_HARD},
	{100003, "Unconfirmed", PM_STANDING_HARD},
	{100006, "Blocked", PM_STANDING_HARD},
	{100007, "SMTPApiError", PM_STANDING_HARD},
	{100008, "InboundError", PM_STANDING_NOTE},
	{100009, "DMARCPolicy", PM_STANDING_HARD},
};

static void
refuse(const char *detail, const char *key)
{
	ereport(ERROR,
			(errcode(PM_ERRCODE_INVALID),
			 errmsg("not an event of Postmark's"),
			 errdetail(detail, key),
			 errhint("Hand in the JSON object as Postmark posted it."),
			 errhidestmt(true)));
}

/* A text that need not be there; NULL if it is not, or is no text. */
static char *
optional_text(JsonbContainer *object, const char *key)
{
	JsonbValue	value;

	if (pm_get_member(object, key, &value) == NULL || value.type != jbvString)
		return NULL;
	return pnstrdup(value.val.string.val, value.val.string.len);
}

static char *
required_text(JsonbContainer *object, const char *key)
{
	char	   *text = optional_text(object, key);

	if (text == NULL)
		refuse("Its field \"%s\" is missing, or is no string.", key);
	return text;
}

/* A word that Postmark chose, made harmless; NULL if it is not there. */
static const char *
optional_word(JsonbContainer *object, const char *key)
{
	char	   *word = optional_text(object, key);

	if (word == NULL ||
		!pm_is_made_of(word, PM_LOWER PM_UPPER PM_DIGITS, WORD_MAX))
		return NULL;
	return word;
}

static bool
flag(JsonbContainer *object, const char *key)
{
	JsonbValue	value;

	return pm_get_member(object, key, &value) != NULL &&
		value.type == jbvBool && value.val.boolean;
}

/* When it happened; a clock that is ahead of ours does not make it later. */
static TimestampTz
required_time(JsonbContainer *object, const char *key)
{
	char	   *text = required_text(object, key);
	TimestampTz at;

	if (!pm_parse_iso_time(text, &at))
		refuse("Its field \"%s\" is no time.", key);
	return Min(at, GetCurrentTimestamp());
}

/*
 * Blot out, in place, whatever may echo a code, a token or a link: a mail
 * server's words can quote the mail.
 */
static void
blot_secrets(char *text)
{
	char	   *c = text;

	while (*c != '\0')
	{
		char	   *end = c;
		char	   *p;
		int			digits = 0;

		/* A word with what joins codes and links */
		while (*end != '\0' && !isspace((unsigned char) *end))
		{
			digits += isdigit((unsigned char) *end) != 0;
			end++;
		}
		if (strstr(c, "://") != NULL && strstr(c, "://") < end)
			for (p = c; p < end; p++)
				*p = '*';
		else if (digits > 0 && end - c >= TOKEN_LENGTH)
			for (p = c; p < end; p++)
				*p = '*';
		else
		{
			for (p = c; p < end;)
			{
				char	   *run = p;

				while (run < end && isdigit((unsigned char) *run))
					run++;
				if (run - p >= CODE_DIGITS)
					memset(p, '*', run - p);
				p = Max(run, p + 1);
			}
		}
		c = end;
		while (isspace((unsigned char) *c))
			c++;
	}
}

/* "HardBounce: unknown user", cut and cleaned, in the database's encoding */
static char *
describe(const char *type, const char *description)
{
	char	   *whole;
	char	   *result;

	if (description)
		description = pm_network_text(description, strlen(description));
	if (description == NULL || *description == '\0')
		return pstrdup(type);
	whole = psprintf("%s: %s", type, description);
	result = pm_network_text(whole, strlen(whole));
	blot_secrets(result);
	return result;
}

/*
 * The message that an event is about, as its metadata names it, see
 * pm_metadata_id; what is no such name leaves the event without a message.
 */
void
pm_event_name_message(PmEvent *event, const char *name)
{
	char		again[PM_METADATA_ID];
	PmMessage	message;
	char	   *rest;

	if (strlen(name) >= PM_METADATA_ID)
		return;
	errno = 0;
	message.id = strtoll(name, &rest, 10);
	if (*rest++ != '-' || message.id <= 0)
		return;
	message.created_at = strtoll(rest, NULL, 10);

	/* Nothing else than what we write */
	pm_metadata_id(&message, again);
	if (errno != 0 || strcmp(name, again) != 0 ||
		!IS_VALID_TIMESTAMP(message.created_at))
		return;
	event->id = message.id;
	event->created_at = message.created_at;
}

static void
read_metadata(JsonbContainer *object, PmEvent *event)
{
	JsonbValue	value;
	char	   *text;

	if (pm_get_member(object, "Metadata", &value) == NULL ||
		value.type != jbvBinary ||
		!JsonContainerIsObject(value.val.binary.data))
		return;
	text = optional_text(value.val.binary.data, "postmark_id");
	if (text)
		pm_event_name_message(event, text);
}

/* What a bounce or a complaint says; its type is known. */
static void
apply_bounce(const PmBounce *bounce, const char *type, PmEvent *event)
{
	int			i;

	event->email = pstrdup(bounce->email);
	event->at = Min(bounce->at, GetCurrentTimestamp());
	event->standing = PM_STANDING_NOTE;
	for (i = 0; i < lengthof(bounce_types); i++)
		if (strcmp(type, bounce_types[i].name) == 0)
			event->standing = bounce_types[i].standing;
	if (bounce->complaint)
		event->standing = PM_STANDING_COMPLAINT;
	event->feedback = describe(type, bounce->description);

	if (event->standing == PM_STANDING_COMPLAINT)
	{
		event->suppressing = PM_SUPPRESS_ADDED;
		event->reason = "SpamComplaint";
		event->origin = "Recipient";
	}
	else if (event->standing >= PM_STANDING_SOFT && bounce->inactive)
	{
		event->suppressing = PM_SUPPRESS_ADDED;
		event->reason = strcmp(type, "ManuallyDeactivated") == 0 ?
			"ManualSuppression" : "HardBounce";
		event->origin = "Recipient";
	}
}

/* The type of a bounce by its name or its number; NULL: it has none. */
static const char *
bounce_type(const PmBounce *bounce)
{
	int			i;

	if (bounce->type && pm_is_made_of(bounce->type,
									  PM_LOWER PM_UPPER PM_DIGITS, WORD_MAX))
		return bounce->type;
	for (i = 0; i < lengthof(bounce_types); i++)
		if (bounce->type_code == bounce_types[i].code)
			return bounce_types[i].name;
	return bounce->complaint ? "SpamComplaint" : NULL;
}

static void
read_bounce(JsonbContainer *object, const char *kind, PmEvent *event)
{
	PmBounce	bounce = {0};
	const char *type;
	JsonbValue	code;

	bounce.email = required_text(object, "Email");
	bounce.at = required_time(object, "BouncedAt");
	bounce.type = optional_text(object, "Type");
	if (pm_get_member(object, "TypeCode", &code) != NULL &&
		code.type == jbvNumeric)
		bounce.type_code = atoi(numeric_normalize(code.val.numeric));
	bounce.complaint = strcmp(kind, "SpamComplaint") == 0;
	bounce.description = optional_text(object, "Description");
	bounce.inactive = flag(object, "Inactive");
	type = bounce_type(&bounce);
	if (type == NULL)
		refuse("Its field \"%s\" is missing, or is no string.", "Type");
	apply_bounce(&bounce, type, event);
}

static void
read_subscription(JsonbContainer *object, PmEvent *event)
{
	JsonbValue	value;

	event->email = required_text(object, "Recipient");
	event->at = required_time(object, "ChangedAt");
	if (pm_get_member(object, "SuppressSending", &value) == NULL ||
		value.type != jbvBool)
		refuse("Its field \"%s\" is missing, or is not true or false.",
			   "SuppressSending");
	if (!value.val.boolean)
	{
		event->suppressing = PM_SUPPRESS_LIFTED;
		return;
	}
	event->suppressing = PM_SUPPRESS_ADDED;
	event->reason = optional_word(object, "SuppressionReason");
	event->origin = optional_word(object, "Origin");
	if (event->reason == NULL)
		event->reason = "ManualSuppression";
}

/*
 * An event's address, and the stream if it is one.  False for what cannot be
 * mailed to: that is no address of ours.
 */
static bool
complete(PmEvent *event, const char *stream)
{
	const char *hint;

	if (pm_address_problem(event->email, &hint) != NULL)
		return false;
	event->address = pstrdup(event->email);
	pm_fold_address(event->address);
	if (stream && pm_is_made_of(stream, PM_LOWER PM_DIGITS "-_",
								NAMEDATALEN - 1))
		event->message_stream = pstrdup(stream);
	return true;
}

/*
 * The event that a bounce of Postmark's list is, as its webhook would have told
 * it; false for one that says nothing to us.  It names no message yet.  The
 * result is in the current memory context.
 */
bool
pm_event_of_bounce(const PmBounce *bounce, PmEvent *event)
{
	const char *type = bounce_type(bounce);

	memset(event, 0, sizeof(*event));
	if (type == NULL)
		return false;
	apply_bounce(bounce, type, event);
	return complete(event, bounce->message_stream);
}

/*
 * The event that an entry of Postmark's list of suppressions is; otherwise as
 * pm_event_of_bounce.
 */
bool
pm_event_of_suppression(const PmSuppression *suppression, const char *stream,
						PmEvent *event)
{
	TimestampTz now = GetCurrentTimestamp();

	memset(event, 0, sizeof(*event));
	if (suppression->email == NULL)
		return false;
	event->suppressing = suppression->suppressed ? PM_SUPPRESS_ADDED :
		PM_SUPPRESS_LIFTED;
	event->reason = suppression->reason;
	event->origin = suppression->origin;
	event->email = pstrdup(suppression->email);
	event->at = suppression->suppressed ? Min(suppression->since, now) : now;
	return complete(event, stream);
}

/*
 * pm_event_read
 *		Read an event as Postmark posts it.
 *
 * False for a kind that concerns neither a message's fate nor an address; then
 * nothing else is looked at.  False, too, for an address that cannot be one of
 * ours: refused, it would come again and again.  PM003 for what is no event,
 * and for one of our kinds in which something is missing.  The result is in the
 * current memory context.
 */
bool
pm_event_read(Jsonb *json, PmEvent *event)
{
	JsonbContainer *object = &json->root;
	char	   *kind;

	memset(event, 0, sizeof(*event));
	if (!JB_ROOT_IS_OBJECT(json))
		refuse("It is no JSON object.", NULL);
	kind = required_text(object, "RecordType");

	event->feedback = pstrdup("");
	if (strcmp(kind, "Delivery") == 0)
	{
		event->email = required_text(object, "Recipient");
		event->at = required_time(object, "DeliveredAt");
		event->delivered = true;
	}
	else if (strcmp(kind, "Bounce") == 0 || strcmp(kind, "SpamComplaint") == 0)
		read_bounce(object, kind, event);
	else if (strcmp(kind, "SubscriptionChange") == 0)
		read_subscription(object, event);
	else
		return false;

	if (!complete(event, optional_text(object, "MessageStream")))
		return false;
	read_metadata(object, event);
	return true;
}
