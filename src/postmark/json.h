/*-------------------------------------------------------------------------
 *
 * json.h
 *		Reading JSON that came over the network, without ever raising an
 *		error.
 *
 * src/postmark/json.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_JSON_H
#define PM_JSON_H

#define PM_JSON_MAX_DEPTH 64

/*
 * Values that a text may have.  The longest answer of Postmark's, a page of a
 * search, has some thirty for each of its 500 messages; each takes a hundred
 * bytes here.
 */
#define PM_JSON_MAX_NODES 100000

typedef enum PmJsonType
{
	PM_JSON_NULL,
	PM_JSON_BOOL,
	PM_JSON_NUMBER,
	PM_JSON_STRING,
	PM_JSON_ARRAY,
	PM_JSON_OBJECT
} PmJsonType;

/*
 * A value, linked to its next sibling.  Strings and numbers keep their text
 * (in the database's encoding, NUL-terminated); arrays and objects link their
 * elements in the order of the text.
 */
typedef struct PmJson
{
	PmJsonType	type;
	char	   *name;			/* key, if a member of an object */
	char	   *text;			/* string, number, "true" or "false" */
	int			nchildren;
	struct PmJson *first;
	struct PmJson *last;
	struct PmJson *next;
} PmJson;

extern PmJson *pm_json_parse(const char *utf8, size_t len);
extern const PmJson *pm_json_get(const PmJson *object, const char *name);
extern const char *pm_json_string(const PmJson *object, const char *name);
extern bool pm_json_int(const PmJson *object, const char *name, int64 *result);
extern bool pm_json_bool(const PmJson *object, const char *name, bool *result);

#endif							/* PM_JSON_H */
