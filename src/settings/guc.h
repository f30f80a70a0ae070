/*-------------------------------------------------------------------------
 *
 * guc.h
 *		Settings of the server, postmark_connector.*
 *
 * src/settings/guc.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_GUC_H
#define PM_GUC_H

typedef enum PmInDoubtPolicy
{
	PM_IN_DOUBT_RESEND,
	PM_IN_DOUBT_HOLD
} PmInDoubtPolicy;

extern char *pm_api_url;		/* without a trailing slash or with: see api.c */
extern char *pm_ca_file;		/* empty: the system's */
extern char *pm_proxy;			/* empty: none */
extern char *pm_token_directory;	/* empty: none */
extern int	pm_batch_size;		/* messages a request */
extern int	pm_max_in_flight;	/* requests a connector */
extern int	pm_history_retention;	/* minutes, 0 keeps for ever */
extern int	pm_settle_time;		/* ms */
extern int	pm_in_doubt;		/* a PmInDoubtPolicy */
extern bool pm_worker_enabled;
extern int	pm_connect_timeout; /* ms */
extern int	pm_request_timeout; /* ms */

extern void pm_define_gucs(void);
extern void pm_guc_server_only(void);
extern const char *pm_url_problem(const char *url);

#endif							/* PM_GUC_H */
