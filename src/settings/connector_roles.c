/*-------------------------------------------------------------------------
 *
 * connector_roles.c
 *		Who may use a connector.
 *
 * Applications that share a database share the extension's functions, and a
 * GRANT on these says nothing of connectors.  So a connector can name the roles
 * that may use it; whoever owns the extension's tables could write to them
 * anyway and may, too.  Without the key everybody may who can call the
 * functions.
 *
 * Roles are kept by name, as settings come from a dump or another server, where
 * their OIDs are others.
 *
 * src/settings/connector_roles.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/acl.h"

#include "base/catalog.h"
#include "base/text.h"
#include "settings/connector_roles.h"

#define KEY			"roles"
#define ROLES_MAX	100

/*
 * Read the key of a connector's JSON.  False for a fault; then the connector is
 * bound to no role at all.  In the current memory context.
 */
bool
pm_read_roles(PmConnector *connector, JsonbContainer *object, PmFault *f)
{
	JsonbContainer *array = NULL;
	JsonbValue	value;
	int			n;
	int			i;

	connector->bound = pm_get_member(object, KEY, &value) != NULL;
	if (!pm_get_array(object, "", KEY, &array, f))
		return false;
	if (array == NULL)
		return true;
	n = JsonContainerSize(array);
	if (n > ROLES_MAX)
		return pm_fault(f, "Grant a role to the others, and name that one.",
						"\"%s\" has more than %d items.", KEY, ROLES_MAX);
	connector->roles = palloc(sizeof(char *) * Max(n, 1));
	for (i = 0; i < n; i++)
	{
		JsonbValue *element = getIthJsonbValueFromContainer(array, i);

		if (element->type != jbvString || element->val.string.len == 0 ||
			element->val.string.len >= NAMEDATALEN)
		{
			connector->nroles = 0;
			return pm_fault(f, "Write it as in pg_roles, without quotes around it.",
							"\"%s[%d]\" must be the name of a role.", KEY, i);
		}
		connector->roles[connector->nroles++] =
			pnstrdup(element->val.string.val, element->val.string.len);
		pfree(element);
	}
	return true;
}

/*
 * Whether there are such roles, and the one that configures the connector may
 * use it afterwards; false for a fault.  What is stored may name others: a role
 * can be dropped, or come later than the settings of a dump.
 */
bool
pm_check_roles(const PmConnector *connector, PmFault *f)
{
	int			i;

	for (i = 0; i < connector->nroles; i++)
		if (!OidIsValid(get_role_oid(connector->roles[i], true)))
			return pm_fault(f, "Create the role first; names are as in pg_roles.",
							"\"%s[%d]\" names no role of this server.", KEY, i);
	if (!pm_may_use(connector, GetUserId()))
		return pm_fault(f, "Name it, or a role that it is a member of, as well.",
						"\"%s\" would keep the role that configures the connector from it.",
						KEY);
	return true;
}

/*
 * Whether a role may use a connector: if it has the privileges of one of the
 * connector's roles, or of the tables' owner, as a superuser has.
 */
bool
pm_may_use(const PmConnector *connector, Oid role)
{
	int			i;

	if (!connector->bound || has_privs_of_role(role, pm_owner()))
		return true;
	for (i = 0; i < connector->nroles; i++)
	{
		Oid			named = get_role_oid(connector->roles[i], true);

		if (OidIsValid(named) && has_privs_of_role(role, named))
			return true;
	}
	return false;
}

/* Refuse a role that may not use a connector: insufficient_privilege. */
void
pm_require_use(const PmConnector *connector, Oid role)
{
	if (pm_may_use(connector, role))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied for connector \"%s\"", connector->name),
			 errdetail("Its configuration names the roles that may use it, and role \"%s\" is not a member of any.",
					   GetUserNameFromId(role, true)),
			 errhint("Have an administrator grant one of them to the role, or add it to the key \"%s\" with postmark_configure.",
					 KEY),
			 errhidestmt(true)));
}
