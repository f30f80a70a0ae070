/*-------------------------------------------------------------------------
 *
 * curl_loop.c
 *		What a message a request costs with nothing but libcurl: the floor
 *		for postmark_send.
 *
 *		curl_loop URL COUNT
 *
 * POSTs a message such as postmark_send('user@example.com', 'SignIn',
 * '493021') makes to URL/email/withTemplate, COUNT times one after another on
 * one connection that stays open, reads the replies, and prints how many
 * seconds a request took: median and mean.  The first request, which connects,
 * is left out.
 *
 * test/bench/curl_loop.c
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <curl/curl.h>

static const char body[] =
"{\"From\":\"Shop <no-reply@shop.example>\",\"TemplateAlias\":\"logto-sign-in\","
"\"To\":\"user@example.com\",\"TemplateModel\":{\"code\": \"493021\"},"
"\"MessageStream\":\"outbound\",\"TrackOpens\":false,\"TrackLinks\":\"None\"}";

static size_t reply_len;
static char reply[65536];

static size_t
on_reply(char *data, size_t size, size_t n, void *arg)
{
	(void) arg;
	if (reply_len + size * n >= sizeof(reply))
		return 0;
	memcpy(reply + reply_len, data, size * n);
	reply_len += size * n;
	reply[reply_len] = '\0';
	return size * n;
}

static double
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

static int
compare(const void *a, const void *b)
{
	double		x = *(const double *) a;
	double		y = *(const double *) b;

	return (x > y) - (x < y);
}

int
main(int argc, char **argv)
{
	int			count = argc == 3 ? atoi(argv[2]) : 0;
	double	   *took;
	double		sum = 0;
	char		url[256];
	CURL	   *curl;
	struct curl_slist *headers = NULL;

	if (count < 1)
	{
		fprintf(stderr, "usage: %s URL COUNT\n", argv[0]);
		return 2;
	}
	took = calloc(count, sizeof(double));
	snprintf(url, sizeof(url), "%s/email/withTemplate", argv[1]);
	curl_global_init(CURL_GLOBAL_DEFAULT);
	curl = curl_easy_init();
	headers = curl_slist_append(headers, "Accept: application/json");
	headers = curl_slist_append(headers, "Content-Type: application/json");
	headers = curl_slist_append(headers, "X-Postmark-Server-Token: bench-token");
	if (took == NULL || curl == NULL || headers == NULL)
		return 1;
	curl_easy_setopt(curl, CURLOPT_URL, url);
	curl_easy_setopt(curl, CURLOPT_PROXY, "");
	curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body);
	curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE, (long) strlen(body));
	curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_reply);

	for (int i = -1; i < count; i++)
	{
		double		begun = now();
		CURLcode	code;
		long		status = 0;

		reply_len = 0;
		code = curl_easy_perform(curl);
		curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
		if (code != CURLE_OK || status != 200 ||
			strstr(reply, "\"ErrorCode\":0") == NULL)
		{
			fprintf(stderr, "request %d: %s, HTTP status %ld\n", i,
					curl_easy_strerror(code), status);
			return 1;
		}
		if (i >= 0)
			sum += took[i] = now() - begun;
	}
	qsort(took, count, sizeof(double), compare);
	printf("%.9f %.9f\n", took[count / 2], sum / count);
	return 0;
}
