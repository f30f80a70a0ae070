/*-------------------------------------------------------------------------
 *
 * connector.h
 *		A connector as the rest of the extension works with it: its name, and
 *		which of its templates a message gets.
 *
 * src/settings/connector.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_CONNECTOR_H
#define PM_CONNECTOR_H

#include "datatype/timestamp.h"
#include "utils/jsonb.h"

#define PM_DEFAULT_CONNECTOR "default"
#define PM_DEFAULT_PRIORITY 5
#define PM_PRIORITIES 10

/* So many connectors' lanes fit into an int4. */
#define PM_CONNECTOR_NUMBER_MAX 200000000

/* Lane of the hot table: connector number and priority, highest first. */
#define PM_LANE(number, priority) \
	((number) * PM_PRIORITIES + (PM_PRIORITIES - 1 - (priority)))
#define PM_LANE_CONNECTOR(lane) ((lane) / PM_PRIORITIES)

typedef struct PmTemplate
{
	char	   *usage_type;
	char	   *locale;			/* NULL: any */
	char	   *alias;
	int			priority;		/* 0 to 9 */
	int			expires_in;		/* seconds, 0: the default */
} PmTemplate;

/* Policy of the verification codes */
typedef struct PmPolicy
{
	int			code_length;
	int			code_ttl;		/* s */
	int			code_max_attempts;
	int			verify_limit;
	int			verify_window;	/* s */
	int			send_limit;
	int			send_window;	/* s */
	int			resend_interval;	/* s */
} PmPolicy;

/* Addresses and domains, folded, in which "*" stands for any characters */
typedef struct PmRecipientList
{
	int			n;
	char	  **patterns;
} PmRecipientList;

/* Who may be sent a code; all empty: anybody. */
typedef struct PmRecipientPolicy
{
	bool		block_subaddressing;
	PmRecipientList allow;		/* empty: anybody */
	PmRecipientList block;		/* goes before allow */
} PmRecipientPolicy;

/* Secrets of a webhook: one, or two while it is changed */
#define PM_WEBHOOK_SECRETS 2

typedef struct PmWebhookSecrets
{
	bool		given;			/* the JSON had the key */
	int			n;
	char	   *secret[PM_WEBHOOK_SECRETS]; /* or masks of them */
} PmWebhookSecrets;

/* The stream of what names none, here and at Postmark */
#define PM_DEFAULT_STREAM	"outbound"

typedef struct PmConnector
{
	char	   *name;
	int			number;			/* 0 if not stored */
	char	   *invalid;		/* stored, but unusable: why; else NULL.  Then
								 * only name, number, roles and paused count. */
	char	   *from_email;		/* as it is sent: a name is quoted if need be */
	char	   *message_stream;
	char	   *reply_to;		/* the same; NULL if none */
	char	   *tag;			/* NULL if none */
	bool		captures;		/* messages are kept instead of being sent */
	bool		track_opens;
	char	   *track_links;
	double		max_requests_per_second;	/* 0: no limit */
	char	   *notify_channel; /* NULL if none */
	int			feedback_interval;	/* s between two questions; 0: none */
	char	   *link_prefix;	/* of links with tokens; NULL: any */
	PmPolicy	policy;
	PmRecipientPolicy recipients;
	int			ntemplates;
	PmTemplate *templates;
	bool		bound;			/* to these roles, maybe none; else anybody
								 * may use it */
	int			nroles;
	char	  **roles;
	bool		paused;
	Jsonb	   *options;		/* the JSON as given, without serverToken,
								 * templates and nulls */
	char	   *token;			/* from a config not stored; else NULL, see
								 * pm_connector_token */
	char	   *masked_token;	/* a config not stored gave this instead */
	PmWebhookSecrets webhook_secrets;	/* from a config not stored; else
										 * empty, see webhook_secret.c */
} PmConnector;

/* One of Logto's usage types */
typedef struct PmUsageType
{
	const char *name;
	bool		required;		/* a connector must have a template for it */
} PmUsageType;

/* Longest name of a usage type, bytes */
#define PM_USAGE_TYPE_MAX	64

/* In the order in which templates are shown; the last one's name is NULL. */
extern const PmUsageType pm_usage_types[];

extern void pm_check_connector_name(const char *name);
extern int	pm_usage_type_rank(const char *usage_type);
extern const PmTemplate *pm_find_template(const PmConnector *connector,
										  const char *usage_type,
										  const char *locale);
extern const PmTemplate *pm_require_template(const PmConnector *connector,
											 const char *usage_type,
											 const char *locale);
extern void pm_require_usage_type(const PmConnector *connector,
								  const char *usage_type);

#endif							/* PM_CONNECTOR_H */
