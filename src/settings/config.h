/*-------------------------------------------------------------------------
 *
 * config.h
 *		A connector's settings: as JSON, as rows, and as the struct that the
 *		rest of the extension works with.
 *
 * src/settings/config.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_CONFIG_H
#define PM_CONFIG_H

#include "datatype/timestamp.h"
#include "utils/jsonb.h"

#define PM_DEFAULT_CONNECTOR "default"
#define PM_DEFAULT_PRIORITY 5
#define PM_PRIORITIES 10

/* So many connectors' lanes fit into an int4. */
#define PM_CONNECTOR_NUMBER_MAX 200000000

/* A server token, as Postmark gives it out or as a file holds it. */
#define PM_TOKEN_MAX 200

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

/* Policy of the verification codes, section 7 of the contract. */
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

typedef struct PmConnector
{
	char	   *name;
	int			number;			/* 0 if not stored */
	char	   *invalid;		/* stored, but unusable: why; else NULL.  Then
								 * only name, number and paused count. */
	char	   *from_email;
	char	   *message_stream;
	char	   *reply_to;		/* NULL if none */
	char	   *tag;			/* NULL if none */
	bool		track_opens;
	char	   *track_links;
	double		max_requests_per_second;	/* 0: no limit */
	PmPolicy	policy;
	PmRecipientPolicy recipients;
	int			ntemplates;
	PmTemplate *templates;
	bool		paused;
	Jsonb	   *options;		/* the JSON as given, without serverToken,
								 * templates and nulls */
	char	   *token;			/* from a config not stored; else NULL, see
								 * pm_connector_token */
	char	   *masked_token;	/* a config not stored gave this instead */
} PmConnector;

/* The JSON (config_json.c): pure functions of their arguments */
extern void pm_check_connector_name(const char *name);
extern PmConnector *pm_config_parse(Jsonb *config, const char *name,
									bool token_needed);
extern PmConnector *pm_config_from_parts(const char *name, int number,
										 Jsonb *options, int ntemplates,
										 PmTemplate *templates);
extern Jsonb *pm_config_json(const PmConnector *connector,
							 const char *masked_token);

/* Lookup (config_templates.c) */
extern const PmTemplate *pm_find_template(const PmConnector *connector,
										  const char *usage_type,
										  const char *locale);
extern const PmTemplate *pm_require_template(const PmConnector *connector,
											 const char *usage_type,
											 const char *locale);

/*
 * The stored ones, cached in the session (config_store.c).  All but
 * pm_config_pin need a transaction.
 *
 * pm_connector, pm_connector_by_number, pm_connectors(0) and
 * pm_config_generation, and so pm_connector_token of a connector that is not
 * stored, read settings that changed, and make void what any of them returned
 * before, unless that was pinned.  The others leave everything as it is.
 */
extern const PmConnector *pm_connector(const char *name, bool missing_ok);
extern void pm_raise_not_configured(const char *name) pg_attribute_noreturn();
extern const PmConnector *pm_connector_by_number(int number);
extern const PmConnector *pm_connectors(int index);
extern void pm_config_forget(void);
extern void pm_config_pin(void);
extern uint64 pm_config_generation(void);
extern const char *pm_stored_token(const char *name);

/* Tokens (token.c) */
extern bool pm_is_masked_token(const char *token);
extern const char *pm_token_problem(const char *token);
extern char *pm_mask_token(const char *token);
extern char *pm_connector_token(const PmConnector *connector, bool missing_ok);
extern char *pm_token_from_file(const char *name, bool missing_ok);

/* Recipients (recipient_policy.c) */
extern void pm_fold_address(char *address);
extern bool pm_valid_recipient_pattern(const char *pattern);
extern const char *pm_recipient_refusal(const PmConnector *connector,
										const char *address);

#endif							/* PM_CONFIG_H */
