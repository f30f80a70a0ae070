/*-------------------------------------------------------------------------
 *
 * shim.c
 *		As much of a PostgreSQL backend as reading the network's answers
 *		needs.
 *
 * The sources of src/ are compiled as they are, for the backend; here they
 * find memory, an encoding and ereport().  The rest (the JSON parser, UTF-8,
 * StringInfo) comes from PostgreSQL's own libpgcommon.a.  That is built for
 * programs outside of the server; the difference that matters is that its JSON
 * parser returns an error where the server's would raise one, and the targets
 * require that it does neither.
 *
 * Each palloc() is a malloc(), and deleting a memory context frees each, so
 * that the address sanitizer sees what is used after its time.
 *
 * test/fuzz/shim.c
 *
 *-------------------------------------------------------------------------
 */
#include "fuzz.h"

#include "mb/pg_wchar.h"
#include "base/text.h"
#include "utils/datetime.h"
#include "utils/memutils.h"

/* In front of each piece of memory.  As malloc, it must keep the alignment. */
typedef struct Chunk
{
	struct Chunk *next;
	struct Chunk *previous;
} Chunk;

/* A memory context: PostgreSQL's struct is only there for its address. */
typedef struct Context
{
	MemoryContextData header;
	Chunk		chunks;			/* head of a ring */
} Context;

static Context top = {.chunks = {&top.chunks, &top.chunks}};
static int	ncontexts = 0;		/* besides top */
static int	database_encoding = PG_UTF8;

MemoryContext CurrentMemoryContext = &top.header;

static void
free_chunks(Context *context)
{
	while (context->chunks.next != &context->chunks)
		pfree(context->chunks.next + 1);
}

/*
 * Begin with a new input: forget the last one's memory.  encoding is that of
 * the database: 'L' for LATIN1, 'S' for SQL_ASCII, anything else for UTF8.
 */
void
fuzz_begin(char encoding)
{
	/* What a reader makes for itself it takes away, and it comes back. */
	FUZZ_REQUIRE(ncontexts == 0);
	FUZZ_REQUIRE(CurrentMemoryContext == &top.header);
	free_chunks(&top);

	switch (encoding)
	{
		case 'L':
			database_encoding = PG_LATIN1;
			break;
		case 'S':
			database_encoding = PG_SQL_ASCII;
			break;
		default:
			database_encoding = PG_UTF8;
			break;
	}
}

void
fuzz_fail(const char *what, const char *file, int line)
{
	fprintf(stderr, "%s:%d: this does not hold: %s\n", file, line, what);
	abort();
}

/* A copy with a NUL behind it, in memory of exactly this size. */
char *
fuzz_string(const uint8_t *data, size_t size)
{
	char	   *copy = palloc(size + 1);

	if (size > 0)
		memcpy(copy, data, size);
	copy[size] = '\0';

	return copy;
}

/*
 * Can this be stored in a database of the encoding?  In all but UTF8 ASCII
 * alone is expected, which every encoding holds.
 */
bool
fuzz_valid_text(const char *text)
{
	int			len = (int) strlen(text);

	if (database_encoding == PG_UTF8)
		return pg_encoding_verifymbstr(PG_UTF8, text, len) == len;

	while (*text != '\0')
	{
		if (IS_HIGHBIT_SET(*text++))
			return false;
	}

	return true;
}

/* The same, and all that pm_network_text() promises. */
void
fuzz_require_shown(const char *text)
{
	size_t		len = strlen(text);
	size_t		i;

	FUZZ_REQUIRE(len <= PM_NETWORK_TEXT_MAX);
	FUZZ_REQUIRE(fuzz_valid_text(text));
	FUZZ_REQUIRE(len == 0 || (text[0] != ' ' && text[len - 1] != ' '));
	for (i = 0; i < len; i++)
	{
		FUZZ_REQUIRE((unsigned char) text[i] >= ' ' && text[i] != 0x7f);
		FUZZ_REQUIRE((unsigned char) text[i] != 0xC2 ||
					 (unsigned char) text[i + 1] >= 0xA0);
	}
}

/*
 * Memory.  These replace the functions of the same names in libpgcommon.a.
 */
void *
palloc(Size size)
{
	Chunk	   *head = &((Context *) CurrentMemoryContext)->chunks;
	Chunk	   *chunk = malloc(sizeof(Chunk) + size);

	if (chunk == NULL)
		abort();
	chunk->next = head->next;
	chunk->previous = head;
	chunk->next->previous = chunk;
	head->next = chunk;

	return chunk + 1;
}

void *
palloc0(Size size)
{
	return memset(palloc(size), 0, size);
}

void
pfree(void *pointer)
{
	Chunk	   *chunk = (Chunk *) pointer - 1;

	chunk->next->previous = chunk->previous;
	chunk->previous->next = chunk->next;
	free(chunk);
}

void *
repalloc(void *pointer, Size size)
{
	Chunk	   *chunk = realloc((Chunk *) pointer - 1, sizeof(Chunk) + size);

	if (chunk == NULL)
		abort();
	chunk->next->previous = chunk;
	chunk->previous->next = chunk;

	return chunk + 1;
}

char *
pnstrdup(const char *in, Size len)
{
	return fuzz_string((const uint8_t *) in, strnlen(in, len));
}

char *
pstrdup(const char *in)
{
	return pnstrdup(in, strlen(in));
}

MemoryContext
AllocSetContextCreateInternal(MemoryContext parent, const char *name,
							  Size minContextSize, Size initBlockSize,
							  Size maxBlockSize)
{
	Context    *context = calloc(1, sizeof(Context));

	if (context == NULL)
		abort();
	context->chunks.next = context->chunks.previous = &context->chunks;
	ncontexts++;

	return &context->header;
}

void
MemoryContextDelete(MemoryContext context)
{
	FUZZ_REQUIRE(context != CurrentMemoryContext);
	free_chunks((Context *) context);
	free(context);
	ncontexts--;
}

/*
 * The encoding.
 */
int
GetDatabaseEncoding(void)
{
	return database_encoding;
}

bool
pg_verify_mbstr(int encoding, const char *mbstr, int len, bool noError)
{
	return pg_encoding_verifymbstr(encoding, mbstr, len) == len;
}

int
pg_mblen(const char *mbstr)
{
	return pg_encoding_mblen(database_encoding, mbstr);
}

int
pg_mbcliplen(const char *mbstr, int len, int limit)
{
	int			clipped = 0;

	while (clipped < len && mbstr[clipped] != '\0' &&
		   clipped + pg_mblen(mbstr + clipped) <= limit)
		clipped += pg_mblen(mbstr + clipped);

	return clipped;
}

/*
 * Errors: there must be none.
 */
bool
errstart(int elevel, const char *domain)
{
	fprintf(stderr, "an error of level %d was raised\n", elevel);
	abort();
}

bool
errstart_cold(int elevel, const char *domain)
{
	return errstart(elevel, domain);
}

/* Times, as far as pm_parse_iso_time checks what it hands over. */

const int	day_tab[2][13] = {
	{31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 0},
	{31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 0}
};

int
tm2timestamp(struct pg_tm *tm, fsec_t fsec, int *tzp, Timestamp *result)
{
	int64		day = tm->tm_mday;
	int			i;

	FUZZ_REQUIRE(tm->tm_year >= 1 && tm->tm_mon >= 1 && tm->tm_mon <= 12);
	FUZZ_REQUIRE(fsec >= 0 && fsec < USECS_PER_SEC);
	for (i = 1; i < tm->tm_mon; i++)
		day += day_tab[isleap(tm->tm_year)][i - 1];
	for (i = 1; i < tm->tm_year; i++)
		day += isleap(i) ? 366 : 365;
	*result = ((((day * HOURS_PER_DAY) + tm->tm_hour) * MINS_PER_HOUR +
				tm->tm_min) * SECS_PER_MINUTE + tm->tm_sec + *tzp) *
		USECS_PER_SEC + fsec;
	return 0;
}
