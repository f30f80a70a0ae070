/*-------------------------------------------------------------------------
 *
 * guc.c
 *		Settings of the server, postmark_connector.*
 *
 * Every value is checked when it is set, so that nothing else has to doubt
 * it: api_url decides where tokens and codes go, so only https is taken, or
 * http that cannot leave this machine.  A value that may hold a password is
 * not repeated in the error about it.
 *
 * None is PGC_POSTMASTER, so that the library also works in a server that
 * did not preload it.
 *
 * src/settings/guc.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>
#include <netinet/in.h>
#include <arpa/inet.h>

#include "utils/guc.h"

#include "settings/guc.h"

#define PREFIX "postmark_connector"

#define MS_PER_MINUTE		(60 * 1000)
#define MINUTES_PER_DAY		(24 * 60)

/* Longest host name in the text form of DNS, and the longest url we take. */
#define HOST_MAX	253
#define URL_MAX		1000

char	   *pm_api_url;
char	   *pm_ca_file;
char	   *pm_proxy;
char	   *pm_token_directory;
int			pm_batch_size;
int			pm_max_in_flight;
int			pm_history_retention;
int			pm_settle_time;
int			pm_in_doubt;
bool		pm_worker_enabled;
int			pm_connect_timeout;
int			pm_request_timeout;

/* Whether this process is to heed the server's configuration alone */
static bool server_only = false;

static const struct config_enum_entry in_doubt_options[] = {
	{"resend", PM_IN_DOUBT_RESEND, false},
	{"hold", PM_IN_DOUBT_HOLD, false},
	{NULL, 0, false}
};

/* Is every character printable ASCII, and none a space? */
static bool
is_visible_ascii(const char *text)
{
	for (; *text; text++)
		if (*text <= 0x20 || *text >= 0x7f)
			return false;
	return true;
}

/* Is it "", or a colon and a port number? */
static bool
is_port_part(const char *text)
{
	int			port = 0;

	if (*text == '\0')
		return true;
	if (*text++ != ':' || *text == '\0')
		return false;
	for (; *text; text++)
	{
		if (*text < '0' || *text > '9')
			return false;
		port = port * 10 + (*text - '0');
		if (port > 65535)
			return false;
	}
	return port > 0;
}

/*
 * Check host and port, "authority" being what stands between "//" and the
 * path; it is changed.  *loopback tells whether the host is this machine for
 * certain: a literal address, or "localhost", which libcurl resolves itself.
 */
static bool
check_authority(char *authority, bool *loopback)
{
	struct in_addr v4;
	struct in6_addr v6;
	char	   *host = authority;
	char	   *end;

	*loopback = false;

	if (*host == '[')
	{
		host++;
		end = strchr(host, ']');
		if (end == NULL || !is_port_part(end + 1))
			return false;
		*end = '\0';
		if (inet_pton(AF_INET6, host, &v6) != 1)
			return false;
		*loopback = IN6_IS_ADDR_LOOPBACK(&v6);
		return true;
	}

	end = host + strcspn(host, ":");
	if (!is_port_part(end))
		return false;
	*end = '\0';
	if (*host == '\0' || strlen(host) > HOST_MAX ||
		strspn(host, "abcdefghijklmnopqrstuvwxyz"
			   "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._") != strlen(host))
		return false;
	if (inet_pton(AF_INET, host, &v4) == 1)
		*loopback = (ntohl(v4.s_addr) >> 24) == 127;
	else
		*loopback = pg_strcasecmp(host, "localhost") == 0;
	return true;
}

static const char plain_http[] =
	"Plain http is allowed to localhost or a literal loopback address only.";

/*
 * What is wrong with a URL that is to be https, or http to this machine, and no
 * more than scheme, host, port and path; NULL if nothing.  A whole sentence.
 */
const char *
pm_url_problem(const char *url)
{
	char		authority[URL_MAX + 1];
	const char *rest;
	size_t		len;
	bool		secure;
	bool		loopback;

	if (strlen(url) > URL_MAX)
		return "The URL is too long.";
	if (!is_visible_ascii(url))
		return "A URL has no spaces, control characters or non-ASCII characters.";

	if (pg_strncasecmp(url, "https://", 8) == 0)
	{
		secure = true;
		rest = url + 8;
	}
	else if (pg_strncasecmp(url, "http://", 7) == 0)
	{
		secure = false;
		rest = url + 7;
	}
	else
		return "The URL must begin with https://.";

	if (strpbrk(rest, "?#\\"))
		return "The URL must not have a query, a fragment or a backslash.";

	len = strcspn(rest, "/");
	memcpy(authority, rest, len);
	authority[len] = '\0';
	if (strchr(authority, '@'))
		return "The URL must not have a user name or a password.";
	if (!check_authority(authority, &loopback))
		return "The URL has no valid host and port.";
	if (!secure && !loopback)
		return plain_http;

	return NULL;
}

/* What is wrong with a proxy, NULL if nothing. */
static const char *
proxy_problem(const char *proxy)
{
	static const char *const schemes[] = {
		"http://", "https://", "socks5://", "socks5h://"
	};
	char		authority[URL_MAX + 1];
	bool		loopback;
	int			i;

	if (*proxy == '\0')
		return NULL;
	if (strlen(proxy) > URL_MAX)
		return "The URL is too long.";
	if (!is_visible_ascii(proxy))
		return "A URL has no spaces, control characters or non-ASCII characters.";

	for (i = 0; i < lengthof(schemes); i++)
	{
		size_t		len = strlen(schemes[i]);
		char	   *at;
		char	   *slash;

		if (pg_strncasecmp(proxy, schemes[i], len) != 0)
			continue;

		strcpy(authority, proxy + len);
		slash = strchr(authority, '/');
		if (slash && slash[1] == '\0')
			*slash = '\0';
		at = strrchr(authority, '@');
		if (!check_authority(at ? at + 1 : authority, &loopback))
			return "The proxy has no valid host and port.";
		return NULL;
	}
	return "The proxy must begin with http://, https://, socks5:// or socks5h://.";
}

/* Refuse a value without repeating it: it may hold a password. */
static bool
refuse_unseen(const char *name, const char *problem)
{
	if (problem == NULL)
		return true;
	GUC_check_errmsg("invalid value for parameter \"%s.%s\"", PREFIX, name);
	GUC_check_errdetail("%s", problem);
	return false;
}

static bool
check_api_url(char **newval, void **extra, GucSource source)
{
	const char *problem = pm_url_problem(*newval);

	if (problem == plain_http)
		GUC_check_errhint("A server in a container of its own can share the database's network, so that it is 127.0.0.1, or speak https with a certificate that postmark_connector.ca_file trusts.");
	return refuse_unseen("api_url", problem);
}

static bool
check_proxy(char **newval, void **extra, GucSource source)
{
	return refuse_unseen("proxy", proxy_problem(*newval));
}

static bool
check_token_directory(char **newval, void **extra, GucSource source)
{
	if (**newval == '\0')
		return true;
	if (!is_absolute_path(*newval))
	{
		GUC_check_errdetail("The directory must be an absolute path.");
		return false;
	}
	if (strlen(*newval) >= MAXPGPATH - 65)
	{
		GUC_check_errdetail("The path is too long.");
		return false;
	}
	return true;
}

static bool
check_ca_file(char **newval, void **extra, GucSource source)
{
	if (strlen(*newval) >= MAXPGPATH)
	{
		GUC_check_errdetail("The path is too long.");
		return false;
	}
	return true;
}

/*
 * Time-outs are for any user to set, and so for the owner of a database to set
 * for all that runs in it; but not for the worker, whose mail would be in doubt
 * each time.  A value that is not taken leaves that of the configuration in
 * its place, also after a reload; the server reports it as a WARNING.
 */
static bool
check_timeout(int *newval, void **extra, GucSource source)
{
	if (!server_only || source < PGC_S_GLOBAL || source > PGC_S_DATABASE_USER)
		return true;
	GUC_check_errmsg("a time-out of postmark_connector that is set for a database or a role does not apply to the background worker");
	GUC_check_errdetail("The worker takes it from the configuration of the server.");
	return false;
}

/*
 * From now on nothing that ALTER DATABASE or ALTER ROLE sets of ours applies to
 * this process.  To be called before it connects to a database.
 */
void
pm_guc_server_only(void)
{
	server_only = true;
}

/*
 * Define all settings; called once, when the library is loaded.  A value
 * that the configuration already holds is checked here, and a wrong one
 * reported as a WARNING by the server.
 */
void
pm_define_gucs(void)
{
	DefineCustomStringVariable(PREFIX ".api_url",
							   "URL of Postmark's API.",
							   "https, or http to localhost or a literal loopback "
							   "address; no user name, query or fragment.",
							   &pm_api_url,
							   "https://api.postmarkapp.com",
							   PGC_SIGHUP, 0,
							   check_api_url, NULL, NULL);
	DefineCustomStringVariable(PREFIX ".ca_file",
							   "File of the certificate authorities that Postmark's "
							   "certificate is verified against.",
							   "A relative path starts in the data directory.  "
							   "Empty: those of the operating system.",
							   &pm_ca_file,
							   "",
							   PGC_SIGHUP, 0,
							   check_ca_file, NULL, NULL);
	DefineCustomStringVariable(PREFIX ".proxy",
							   "Proxy on the way to Postmark.",
							   "A URL that begins with http://, https://, socks5:// or "
							   "socks5h://.  Empty: none; the environment is not asked.",
							   &pm_proxy,
							   "",
							   PGC_SIGHUP, GUC_SUPERUSER_ONLY,
							   check_proxy, NULL, NULL);
	DefineCustomStringVariable(PREFIX ".token_directory",
							   "Directory with a file for each connector that has "
							   "no stored token, which holds its server token.",
							   "An absolute path; a file has the name of its connector.  "
							   "Empty: none.",
							   &pm_token_directory,
							   "",
							   PGC_SIGHUP, 0,
							   check_token_directory, NULL, NULL);

	DefineCustomIntVariable(PREFIX ".batch_size",
							"Most messages in one request.",
							NULL,
							&pm_batch_size,
							500, 1, 500,
							PGC_SIGHUP, 0,
							NULL, NULL, NULL);
	DefineCustomIntVariable(PREFIX ".max_in_flight",
							"Most requests of a connector at the same time.",
							NULL,
							&pm_max_in_flight,
							8, 1, 64,
							PGC_SIGHUP, 0,
							NULL, NULL, NULL);
	DefineCustomIntVariable(PREFIX ".history_retention",
							"How long finished messages are kept.",
							"0 keeps them for ever.",
							&pm_history_retention,
							30 * MINUTES_PER_DAY, 0, 36500 * MINUTES_PER_DAY,
							PGC_SIGHUP, GUC_UNIT_MIN,
							NULL, NULL, NULL);
	DefineCustomIntVariable(PREFIX ".settle_time",
							"How long a request of unknown outcome rests before "
							"Postmark is asked what became of it.",
							NULL,
							&pm_settle_time,
							5000, 0, 10 * MS_PER_MINUTE,
							PGC_SIGHUP, GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomEnumVariable(PREFIX ".in_doubt",
							 "What happens to a message whose code is about to expire "
							 "while Postmark still cannot tell whether it has it.",
							 "\"resend\" risks a second mail, \"hold\" risks none.",
							 &pm_in_doubt,
							 PM_IN_DOUBT_RESEND, in_doubt_options,
							 PGC_SIGHUP, 0,
							 NULL, NULL, NULL);
	DefineCustomBoolVariable(PREFIX ".worker",
							 "Whether background workers send queued messages.",
							 NULL,
							 &pm_worker_enabled,
							 true,
							 PGC_SIGHUP, 0,
							 NULL, NULL, NULL);

	DefineCustomIntVariable(PREFIX ".connect_timeout",
							"Longest wait for a connection to Postmark.",
							NULL,
							&pm_connect_timeout,
							5000, 1, 10 * MS_PER_MINUTE,
							PGC_USERSET, GUC_UNIT_MS,
							check_timeout, NULL, NULL);
	DefineCustomIntVariable(PREFIX ".request_timeout",
							"Longest wait for Postmark's answer to a request.",
							"Connecting counts.",
							&pm_request_timeout,
							30000, 1, 10 * MS_PER_MINUTE,
							PGC_USERSET, GUC_UNIT_MS,
							check_timeout, NULL, NULL);

	MarkGUCPrefixReserved(PREFIX);
}
