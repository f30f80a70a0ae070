/*-------------------------------------------------------------------------
 *
 * nearest.c
 *		The name that was probably meant, for a HINT.
 *
 * Nearest is what the fewest strokes of a key would make of the name given.
 * Whoever knows the names offers them one after another, so they need not be
 * in one list; the first of equally near ones wins.
 *
 * src/base/nearest.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "utils/varlena.h"

#include "base/nearest.h"

/* Longer words are not misspellings of one another. */
#define WORD_MAX 255			/* bytes */

/*
 * How many characters must be changed, added or taken away to make one word of
 * the other, ASCII case aside.  Words that are too long are INT_MAX away from
 * everything.
 */
static int
edit_distance(const char *a, const char *b)
{
	int			result;
	size_t		alen = strlen(a);
	size_t		blen = strlen(b);
	char	   *afolded;
	char	   *bfolded;
	char	   *p;

	if (alen > WORD_MAX || blen > WORD_MAX)
		return INT_MAX;

	afolded = pnstrdup(a, alen);
	bfolded = pnstrdup(b, blen);
	for (p = afolded; *p != '\0'; p++)
		*p = pg_ascii_tolower((unsigned char) *p);
	for (p = bfolded; *p != '\0'; p++)
		*p = pg_ascii_tolower((unsigned char) *p);

	result = varstr_levenshtein(afolded, alen, bfolded, blen, 1, 1, 1, true);

	pfree(afolded);
	pfree(bfolded);

	return result;
}

/*
 * Begin the search for a name near to the one that was given, wanted, which
 * must stay until the search is over.
 */
void
pm_nearest_begin(PmNearest *nearest, const char *wanted)
{
	nearest->wanted = wanted;
	nearest->best = NULL;
	/* farther away it would be another word, not a slip */
	nearest->distance = Max(2, (int) strlen(wanted) / 3) + 1;
}

/*
 * Consider a name.  If it is the nearest so far, nearest->best is that very
 * pointer afterwards, so candidate must stay, too.  Raises nothing but out of
 * memory.
 */
void
pm_nearest_consider(PmNearest *nearest, const char *candidate)
{
	int			distance = edit_distance(nearest->wanted, candidate);

	if (distance < nearest->distance)
	{
		nearest->best = candidate;
		nearest->distance = distance;
	}
}
