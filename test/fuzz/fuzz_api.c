/*-------------------------------------------------------------------------
 *
 * fuzz_api.c
 *		Fuzz target: the readers of Postmark's answers in api.c.
 *
 * An input is one line and then the reply.  The line has four characters and a
 * number: encoding (as in fuzz_begin), reader, phase (see below), how many
 * messages the batch had ('1' to '9'), HTTP status.  "Ubr2 200" is a batch of
 * two that was answered with 200.  A phase in capitals: the answer came early.
 * What was sent goes to one and the same address.
 *
 * A reader may make of a reply what it likes, with two exceptions: nothing but
 * a complete answer of success is ever an acceptance, and nothing without an
 * ErrorCode refuses a message.
 *
 * test/fuzz/fuzz_api.c
 *
 *-------------------------------------------------------------------------
 */
#include "fuzz.h"

#include <ctype.h>

#include "base/text.h"
#include "postmark/api.h"
#include "postmark/api_errors.h"
#include "postmark/http.h"

/* Masked wherever an answer repeats it; the first inputs have it. */
#define SECRET "inactive"

/* Whom the mails are to */
#define RECIPIENT "a@b.example"

/* More than any batch of ours here */
#define MAX_MESSAGES 9

static void
check_verdict(const PmVerdict *verdict, const PmHttpResult *result, bool sends)
{
	FUZZ_REQUIRE(verdict->outcome >= PM_ACCEPTED &&
				 verdict->outcome <= PM_IN_DOUBT);
	FUZZ_REQUIRE(verdict->http_status == result->status);
	FUZZ_REQUIRE(verdict->error_code >= -1);
	if (verdict->outcome == PM_ACCEPTED)
	{
		FUZZ_REQUIRE(result->phase == PM_HTTP_REPLIED);
		FUZZ_REQUIRE(result->status >= 200 && result->status <= 299);
		FUZZ_REQUIRE(!result->early || !sends);
	}
	else
	{
		FUZZ_REQUIRE(verdict->text != NULL);
		fuzz_require_shown(verdict->text);
	}
	if (verdict->text != NULL)
	{
		char	   *masked = pstrdup(verdict->text);

		pm_api_mask(masked, SECRET);
		FUZZ_REQUIRE(strstr(masked, SECRET) == NULL);
		FUZZ_REQUIRE(fuzz_valid_text(masked));
		FUZZ_REQUIRE(strlen(masked) <= strlen(verdict->text));
	}
	FUZZ_REQUIRE(fuzz_valid_text(pm_api_detail(verdict)));
	(void) pm_api_hint(verdict);

	if (result->phase == PM_HTTP_MAYBE_SENT)
		FUZZ_REQUIRE(verdict->outcome != PM_REFUSED);

	/* Who is not Postmark refuses no message, but for its size. */
	if (sends && verdict->error_code <= 0 && result->status < 500 &&
		result->status != 413)
		FUZZ_REQUIRE(verdict->outcome != PM_REFUSED &&
					 verdict->outcome != PM_POISONED &&
					 verdict->outcome != PM_SUPPRESSED);
}

static void
check_listed(const PmListed *listed, int n)
{
	int			i;

	for (i = 0; i < n; i++)
	{
		FUZZ_REQUIRE(fuzz_valid_text(listed[i].name));
		if (listed[i].problem != NULL)
			fuzz_require_shown(listed[i].problem);
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *newline = size > 0 ? memchr(data, '\n', size) : NULL;
	PmHttpResult result = {0};
	PmVerdict	verdict;
	PmVerdict	items[MAX_MESSAGES];
	PmFoundPage page;
	PmListed   *listed;
	const char *to[MAX_MESSAGES];
	int64		total;
	int			nmessages;
	int			nread;
	int			n;
	int			i;

	if (newline == NULL || newline - data < 6)
		return 0;
	fuzz_begin(data[0]);

	switch (data[2])
	{
		case 'n':
			result.phase = PM_HTTP_NOT_SENT;
			break;
		case 'm':
			result.phase = PM_HTTP_MAYBE_SENT;
			break;
		default:
			result.phase = PM_HTTP_REPLIED;
			result.status = atoi(fuzz_string(data + 5, newline - data - 5));
			result.status = Min(Max(result.status, 100), 999);
			break;
	}
	if (result.phase == PM_HTTP_REPLIED)
	{
		result.reply_len = size - (newline + 1 - data);
		result.reply = fuzz_string(newline + 1, result.reply_len);
	}
	else
		result.error = "the connection broke";
	result.retry_after_ms = -1;
	result.early = (data[2] >= 'A' && data[2] <= 'Z');
	result.media_type = "text/html; charset=utf-8";
	for (i = 0; i < MAX_MESSAGES; i++)
		to[i] = RECIPIENT;

	/* Whatever a reader does not set must be seen to be nonsense. */
	memset(&verdict, 0xA5, sizeof(verdict));
	memset(items, 0xA5, sizeof(items));

	switch (data[1])
	{
		case 's':
			pm_api_read_send(&result, RECIPIENT, &verdict);
			break;

		case 'b':
			nmessages = (data[3] >= '1' && data[3] <= '9') ? data[3] - '0' : 1;
			if (pm_api_read_batch(&result, nmessages, to, &verdict, items))
			{
				for (i = 0; i < nmessages; i++)
				{
					check_verdict(&items[i], &result, true);
					FUZZ_REQUIRE(items[i].outcome != PM_POISONED);
				}
			}
			else
				FUZZ_REQUIRE(verdict.outcome != PM_ACCEPTED);
			break;

		case 'p':
			pm_api_read_plain(&result, &verdict);
			break;

		case 'f':
			if (pm_api_read_search(&result, &verdict, &page))
			{
				FUZZ_REQUIRE(verdict.outcome == PM_ACCEPTED);
				FUZZ_REQUIRE(page.total >= 0 && page.nread >= page.nfound &&
							 page.nfound >= 0);
				for (i = 0; i < page.nfound; i++)
					FUZZ_REQUIRE(fuzz_valid_text(page.found[i].metadata_id));
			}
			else
				FUZZ_REQUIRE(verdict.outcome != PM_ACCEPTED);
			break;

		case 't':
			if (pm_api_read_templates(&result, &verdict, &total, &nread,
									  &listed, &n))
			{
				FUZZ_REQUIRE(total >= 0 && nread >= n && n >= 0);
				check_listed(listed, n);
			}
			else
				FUZZ_REQUIRE(verdict.outcome != PM_ACCEPTED);
			break;

		default:
			if (pm_api_read_streams(&result, &verdict, &listed, &n))
				check_listed(listed, n);
			else
				FUZZ_REQUIRE(verdict.outcome != PM_ACCEPTED);
			break;
	}
	check_verdict(&verdict, &result, data[1] == 's' || data[1] == 'b');

	return 0;
}
