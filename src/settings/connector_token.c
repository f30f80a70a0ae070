/*-------------------------------------------------------------------------
 *
 * connector_token.c
 *		Which server token a connector uses.
 *
 * A connector's own token, which a JSON not stored yet may have, goes before
 * the stored one, and that before the file of the token directory.
 *
 * src/settings/connector_token.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "storage/fd.h"

#include "base/errors.h"
#include "base/text.h"
#include "settings/config_store.h"
#include "settings/connector.h"
#include "settings/connector_token.h"
#include "settings/guc.h"
#include "settings/token.h"

/*
 * Read the file of the token directory for that name.  Returns the palloc'd
 * token, or NULL with *problem set to a whole sentence.
 */
static char *
read_token_file(const char *name, char **problem)
{
	char		path[MAXPGPATH + NAMEDATALEN];
	char		buf[PM_TOKEN_MAX + 3];	/* a line break, and one too many */
	const char *unfit;
	struct stat st;
	ssize_t		nread = 0;
	size_t		len;
	int			fd;

	*problem = NULL;

	/* The name has no dot and no slash, so the path stays in the directory. */
	if (pm_token_directory == NULL || *pm_token_directory == '\0' ||
		!pm_valid_connector_name(name))
	{
		*problem = pstrdup("No token is stored, and there is no token directory.");
		return NULL;
	}
	snprintf(path, sizeof(path), "%s/%s", pm_token_directory, name);

	/* A named pipe must not block us. */
	fd = OpenTransientFile(path, O_RDONLY | O_NONBLOCK | PG_BINARY);
	if (fd < 0)
	{
		*problem = psprintf("No token is stored, and the file \"%s\" could not be opened: %s.",
							path, strerror(errno));
		return NULL;
	}
	if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
		*problem = psprintf("\"%s\" is not a regular file.", path);
	else
	{
		/* A local file that small comes whole, or not at all. */
		do
			nread = read(fd, buf, sizeof(buf));
		while (nread < 0 && errno == EINTR);
		if (nread < 0)
			*problem = psprintf("The file \"%s\" could not be read: %s.",
								path, strerror(errno));
	}
	CloseTransientFile(fd);
	if (*problem)
		return NULL;

	len = nread;
	if (len >= sizeof(buf))
		unfit = "is too long";
	else
	{
		if (len > 0 && buf[len - 1] == '\n')
			len--;
		if (len > 0 && buf[len - 1] == '\r')
			len--;
		buf[len] = '\0';
		unfit = strlen(buf) != len ?
			"has spaces, control characters or non-ASCII characters" :
			pm_token_problem(buf);
	}
	if (unfit)
	{
		*problem = psprintf("The token in the file \"%s\" %s.", path, unfit);
		return NULL;
	}
	return pstrdup(buf);
}

/*
 * Why the token directory has no token for a connector's name, a palloc'd
 * sentence; NULL if it has one, or if there is no such directory.
 */
char *
pm_token_file_problem(const char *name)
{
	char	   *problem;
	char	   *token;

	if (pm_token_directory == NULL || *pm_token_directory == '\0')
		return NULL;
	token = read_token_file(name, &problem);
	if (token)
		pfree(token);
	return problem;
}

static void
raise_no_token(const char *name, const char *problem)
{
	ereport(ERROR,
			(errcode(PM_ERRCODE_NOT_CONFIGURED),
			 errmsg("connector \"%s\" has no server token", name),
			 errdetail_internal("%s", problem),
			 errhint("Set it with postmark_set_token, or give a connector that is new its \"serverToken\"."),
			 errhidestmt(true)));
}

/*
 * The token that the token directory holds for a connector's name.  The file
 * is read at each call, so that replacing it rotates the token.  Needs no
 * transaction.
 *
 * missing_ok: NULL for whatever keeps it from being read; otherwise PM001
 * says what does.  The result is in the current memory context.
 */
char *
pm_token_from_file(const char *name, bool missing_ok)
{
	char	   *problem;
	char	   *token = read_token_file(name, &problem);

	if (token == NULL && !missing_ok)
		raise_no_token(name, problem);
	return token;
}

/*
 * The token to use for a connector, stored or just parsed: its own, else the
 * one that is stored under its name, else that of the token directory.
 *
 * PM001 if there is none, unless missing_ok: then NULL; PM001 always if the
 * connector's JSON had a masked token that is not the stored one's.  The
 * settings are not read anew, so the connector stays good.  The result is in
 * the current memory context.
 */
char *
pm_connector_token(const PmConnector *connector, bool missing_ok)
{
	char	   *stored;

	if (connector->token)
		return pstrdup(connector->token);
	stored = pm_stored_token(connector->name);

	if (connector->masked_token)
	{
		bool		same = false;

		if (stored)
		{
			char	   *mask = pm_mask_token(stored);

			same = strcmp(mask, connector->masked_token) == 0;
			pfree(mask);
		}
		if (!same)
			ereport(ERROR,
					(errcode(PM_ERRCODE_NOT_CONFIGURED),
					 errmsg("configuration of connector \"%s\" is invalid",
							connector->name),
					 stored ?
					 errdetail("\"serverToken\" is masked, and not the mask of the stored token.") :
					 errdetail("\"serverToken\" is masked, and no token is stored."),
					 errhint("Give the token itself, or leave the key out to keep the present one."),
					 errhidestmt(true)));
	}
	if (stored == NULL)
		return pm_token_from_file(connector->name, missing_ok);

	/* Somebody may have written it into the table. */
	if (pm_token_problem(stored))
	{
		if (missing_ok)
			return NULL;
		raise_no_token(connector->name,
					   psprintf("The stored token %s.",
								pm_token_problem(stored)));
	}
	return stored;
}

/* Overwrite a token that was palloc'd, and free it. */
void
pm_forget_token(char *token)
{
	explicit_bzero(token, strlen(token));
	pfree(token);
}
