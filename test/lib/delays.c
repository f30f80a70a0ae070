/*-------------------------------------------------------------------------
 *
 * delays.c
 *		Print what src/worker/backoff.c makes of each number of failures.
 *
 * Times of minutes cannot be waited for in a test, nor can one tell of a time
 * that it was random.  So the functions are called many times, outside of a
 * server; a line has the function, the number, and the least, mean and most of
 * what it gave, in milliseconds.  For test/t/119_delays.pl.
 *
 * test/lib/delays.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/pg_prng.h"

#include "worker/backoff.h"

#define CALLS 2000

static void
print(const char *name, long (*function) (int), int number)
{
	long		least = PG_INT32_MAX;
	long		most = 0;
	double		sum = 0;
	int			i;

	for (i = 0; i < CALLS; i++)
	{
		long		delay = function(number);

		least = Min(least, delay);
		most = Max(most, delay);
		sum += delay;
	}
	printf("%s %d %ld %.0f %ld\n", name, number, least, sum / CALLS, most);
}

/* The argument is in seconds, to be an int like the others. */
static long
retry_after(int seconds)
{
	return pm_retry_after_delay(seconds * 1000L);
}

int
main(void)
{
	static const int numbers[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 20, 100, 1000000};
	int			i;

	pg_prng_seed(&pg_global_prng_state, 42);
	for (i = 0; i < lengthof(numbers); i++)
	{
		print("backoff", pm_backoff_delay, numbers[i]);
		print("brake", pm_brake_delay, numbers[i]);
		print("block", pm_block_delay, numbers[i]);
		print("message", pm_message_delay, numbers[i]);
	}
	print("retry_after", retry_after, 0);
	print("retry_after", retry_after, 7);
	print("retry_after", retry_after, 900);
	print("retry_after", retry_after, 7200);
	return 0;
}
