/*-------------------------------------------------------------------------
 *
 * config_check.c
 *		Checking settings without raising: describing a fault, and reading
 *		members of a JSON object.
 *
 * The same checks serve JSON that a user hands in, where a fault is raised,
 * and rows that were stored, where it is only remembered: somebody may have
 * edited them, and that must not stop the other connectors.  So everything
 * here, and what is built upon it, returns false and describes the fault;
 * nothing in between raises.
 *
 * A value is never repeated in a fault, for it might be a token pasted into
 * the wrong place; keys and positions are.
 *
 * src/settings/config_check.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"

#include "base/nearest.h"
#include "settings/config_check.h"

#define KEY_SHOWN_MAX		64	/* bytes of an unknown key */

/*
 * Describe what is wrong, in *f: fmt and what follows make the DETAIL, hint is
 * the HINT, or NULL.  Both are copied into the current memory context.  Returns
 * false, for the caller to return.
 */
bool
pm_fault(PmFault *f, const char *hint, const char *fmt,...)
{
	StringInfoData buf;
	int			needed;
	va_list		args;

	initStringInfo(&buf);
	for (;;)
	{
		va_start(args, fmt);
		needed = appendStringInfoVA(&buf, fmt, args);
		va_end(args);
		if (needed == 0)
			break;
		enlargeStringInfo(&buf, needed);
	}
	f->detail = buf.data;
	f->hint = hint ? pstrdup(hint) : NULL;
	return false;
}

/* ----------
 * Reading members.
 *
 * All but pm_get_member return true with *result set, true with *result left
 * alone if the key is absent or its value a JSON null, and false with *f set
 * if it is something else than the function is for.  "where" is what to put
 * before the key to name it in a fault.
 * ----------
 */

/*
 * The member of an object, in *value, which is also returned; NULL if there is
 * none, or a JSON null.
 */
JsonbValue *
pm_get_member(JsonbContainer *object, const char *key, JsonbValue *value)
{
	if (getKeyJsonValueFromContainer(object, key, strlen(key), value) == NULL ||
		value->type == jbvNull)
		return NULL;
	return value;
}

/* A text, palloc'd. */
bool
pm_get_string(JsonbContainer *object, const char *where, const char *key,
			  char **result, PmFault *f)
{
	JsonbValue	value;

	if (pm_get_member(object, key, &value) == NULL)
		return true;
	if (value.type != jbvString)
		return pm_fault(f, NULL, "\"%s%s\" must be a string.", where, key);
	*result = pnstrdup(value.val.string.val, value.val.string.len);
	return true;
}

/* True or false. */
bool
pm_get_bool(JsonbContainer *object, const char *where, const char *key,
			bool *result, PmFault *f)
{
	JsonbValue	value;

	if (pm_get_member(object, key, &value) == NULL)
		return true;
	if (value.type != jbvBool)
		return pm_fault(f, NULL, "\"%s%s\" must be true or false.", where, key);
	*result = value.val.boolean;
	return true;
}

static bool
compare_int(PGFunction comparison, Datum numeric, int number)
{
	Datum		other = NumericGetDatum(int64_to_numeric(number));

	return DatumGetBool(DirectFunctionCall2(comparison, numeric, other));
}

static bool
not_int(const char *where, const char *key, int min, int max, PmFault *f)
{
	return pm_fault(f, NULL, "\"%s%s\" must be a whole number from %d to %d.",
					where, key, min, max);
}

/* A whole number from min to max. */
bool
pm_get_int(JsonbContainer *object, const char *where, const char *key,
		   int min, int max, int *result, PmFault *f)
{
	JsonbValue	value;
	Datum		numeric;
	int			number;

	if (pm_get_member(object, key, &value) == NULL)
		return true;
	if (value.type != jbvNumeric)
		return not_int(where, key, min, max, f);
	numeric = NumericGetDatum(value.val.numeric);

	/* Within the limits, which NaN is not, nothing overflows. */
	if (!compare_int(numeric_ge, numeric, min) ||
		!compare_int(numeric_le, numeric, max))
		return not_int(where, key, min, max, f);
	number = DatumGetInt32(DirectFunctionCall1(numeric_int4, numeric));
	/* that rounded */
	if (!compare_int(numeric_eq, numeric, number))
		return not_int(where, key, min, max, f);
	*result = number;
	return true;
}

static bool
get_container(JsonbContainer *object, const char *where, const char *key,
			  uint32 kind, const char *kind_name, JsonbContainer **result,
			  PmFault *f)
{
	JsonbValue	value;

	if (pm_get_member(object, key, &value) == NULL)
		return true;
	if (value.type != jbvBinary || !(value.val.binary.data->header & kind))
		return pm_fault(f, NULL, "\"%s%s\" must be an %s.", where, key, kind_name);
	*result = value.val.binary.data;
	return true;
}

/* An array, which remains part of the object. */
bool
pm_get_array(JsonbContainer *object, const char *where, const char *key,
			 JsonbContainer **result, PmFault *f)
{
	return get_container(object, where, key, JB_FARRAY, "array", result, f);
}

/* An object, which remains part of the one that it is in. */
bool
pm_get_object(JsonbContainer *object, const char *where, const char *key,
			  JsonbContainer **result, PmFault *f)
{
	return get_container(object, where, key, JB_FOBJECT, "object", result, f);
}

/*
 * The place of a key, as an iterator returns it, among the known ones; -1 if
 * it is none of them.
 */
int
pm_find_key(const JsonbValue *key, const char *const *known, int nknown)
{
	int			i;

	for (i = 0; i < nknown; i++)
		if (key->val.string.len == strlen(known[i]) &&
			memcmp(key->val.string.val, known[i], key->val.string.len) == 0)
			return i;
	return -1;
}

/*
 * Refuse keys of an object that are not among the known ones.  The HINT names
 * the nearest of those, or all of them.  "where" as above; false for a fault.
 */
bool
pm_check_keys(JsonbContainer *object, const char *where,
			  const char *const *known, int nknown, PmFault *f)
{
	JsonbIterator *it = JsonbIteratorInit(object);
	JsonbIteratorToken token;
	JsonbValue	value;

	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		PmNearest	nearest;
		StringInfoData hint;
		char	   *key;
		char	   *c;
		int			i;

		if (token != WJB_KEY || pm_find_key(&value, known, nknown) >= 0)
			continue;

		key = pnstrdup(value.val.string.val,
					   pg_mbcliplen(value.val.string.val,
									value.val.string.len, KEY_SHOWN_MAX));
		for (c = key; *c; c++)
			if ((unsigned char) *c < 0x20 || *c == 0x7f)
				*c = '?';

		pm_nearest_begin(&nearest, key);
		for (i = 0; i < nknown; i++)
			pm_nearest_consider(&nearest, known[i]);
		initStringInfo(&hint);
		if (nearest.best)
			appendStringInfo(&hint, "Perhaps you meant the key \"%s\".",
							 nearest.best);
		else
		{
			appendStringInfoString(&hint, "The keys are ");
			for (i = 0; i < nknown; i++)
				appendStringInfo(&hint, "%s%s", i ? ", " : "", known[i]);
			appendStringInfoChar(&hint, '.');
		}
		return pm_fault(f, hint.data, "The key \"%s%s\" is unknown.", where, key);
	}
	return true;
}
