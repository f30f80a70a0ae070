/*-------------------------------------------------------------------------
 *
 * iso_time.c
 *		Times as Postmark writes them.
 *
 * PostgreSQL's own input function raises an error for what is no time, reads
 * much that is none in ISO 8601, and depends on the session's settings.
 *
 * src/base/iso_time.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <ctype.h>

#include "utils/datetime.h"
#include "utils/timestamp.h"

#include "base/iso_time.h"

/* Read a number of exactly "digits" digits, and what must follow it. */
static bool
read_number(const char **text, int digits, char behind, int min, int max,
			int *result)
{
	const char *c = *text;

	for (*result = 0; digits > 0; digits--, c++)
	{
		if (!isdigit((unsigned char) *c))
			return false;
		*result = *result * 10 + (*c - '0');
	}
	if (behind != '\0' && *c++ != behind)
		return false;
	*text = c;
	return *result >= min && *result <= max;
}

/*
 * pm_parse_iso_time
 *		Read a time of ISO 8601: 2014-08-01T13:28:10.2735393-04:00.
 *
 * text is NUL-terminated.  Any number of digits may follow the seconds'
 * point; those beyond the microsecond are left out.  The offset may be "Z";
 * without one the time is UTC.  False, and *result as it was, for anything
 * else.  Raises nothing.
 */
bool
pm_parse_iso_time(const char *text, TimestampTz *result)
{
	struct pg_tm tm;
	Timestamp	time;
	int			usec = 0;
	int			unit = 100000;
	int			west = 0;		/* seconds */

	memset(&tm, 0, sizeof(tm));
	if (!read_number(&text, 4, '-', 1, 9999, &tm.tm_year) ||
		!read_number(&text, 2, '-', 1, 12, &tm.tm_mon) ||
		!read_number(&text, 2, 'T', 1, 31, &tm.tm_mday) ||
		!read_number(&text, 2, ':', 0, 23, &tm.tm_hour) ||
		!read_number(&text, 2, ':', 0, 59, &tm.tm_min) ||
		!read_number(&text, 2, '\0', 0, 60, &tm.tm_sec) ||
		tm.tm_mday > day_tab[isleap(tm.tm_year)][tm.tm_mon - 1])
		return false;
	if (*text == '.')
	{
		if (!isdigit((unsigned char) *++text))
			return false;
		for (; isdigit((unsigned char) *text); text++, unit /= 10)
			usec += (*text - '0') * unit;
	}
	if (*text == 'Z')
		text++;
	else if (*text == '+' || *text == '-')
	{
		int			sign = *text++ == '+' ? -1 : 1;
		int			hours;
		int			minutes;

		if (!read_number(&text, 2, ':', 0, 15, &hours) ||
			!read_number(&text, 2, '\0', 0, 59, &minutes))
			return false;
		west = sign * (hours * SECS_PER_HOUR + minutes * SECS_PER_MINUTE);
	}
	if (*text != '\0' || tm2timestamp(&tm, usec, &west, &time) != 0)
		return false;
	*result = time;
	return true;
}
