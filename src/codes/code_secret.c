/*-------------------------------------------------------------------------
 *
 * code_secret.c
 *		Codes and tokens: made at random, and what is kept of them.
 *
 * A code goes into the mail and is then known to its recipient alone: what is
 * kept is an HMAC of it, under a key of the connector's that no dump contains.
 * The HMAC covers whom the code is for and what for, so that a row that
 * somebody copies or edits is of no use.
 *
 * src/codes/code_secret.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/base64.h"
#include "common/hmac.h"
#include "port/pg_bswap.h"

#include "base/compat.h"
#include "base/random.h"
#include "codes/code_secret.h"
#include "settings/code_key.h"

/* Random bytes of a token, and what they are written with */
#define TOKEN_BYTES (PM_TOKEN_LENGTH / 4 * 3)
#define TOKEN_ALPHABET \
	"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

/* ----------
 * Making
 * ----------
 */

/*
 * Make a code of n digits, each as likely as any other; there must be room for
 * n + 1 bytes.
 */
void
pm_make_code(char *code, int n)
{
	int			i = 0;

	while (i < n)
	{
		unsigned char byte;

		pm_random_bytes(&byte, 1);
		/* 250 of the 256 values are a multiple of ten */
		if (byte < 250)
			code[i++] = '0' + byte % 10;
	}
	code[n] = '\0';
}

/*
 * Make a token, in the alphabet of base64 that a URL needs no quoting for;
 * there must be room for PM_TOKEN_LENGTH + 1 bytes.
 */
void
pm_make_token(char *token)
{
	unsigned char bytes[TOKEN_BYTES];
	int			len;
	char	   *c;

	pm_random_bytes(bytes, TOKEN_BYTES);
	len = pg_b64_encode(bytes, TOKEN_BYTES, token, PM_TOKEN_LENGTH + 1);
	if (len != PM_TOKEN_LENGTH)
		elog(ERROR, "could not encode a token");
	token[len] = '\0';
	for (c = token; *c; c++)
	{
		if (*c == '+')
			*c = '-';
		else if (*c == '/')
			*c = '_';
	}
	explicit_bzero(bytes, sizeof(bytes));
}

/*
 * The code that somebody has typed, who may have grouped its digits with blanks
 * or hyphens.
 *
 * typed: or NULL
 * code:  gets it; room for PM_CODE_MAX + 1 bytes
 *
 * False if it cannot be one.
 */
bool
pm_typed_code(const char *typed, char *code)
{
	int			n = 0;

	for (; typed && *typed; typed++)
	{
		if (strchr(" \t\r\n-", *typed))
			continue;
		if (*typed < '0' || *typed > '9' || n == PM_CODE_MAX)
			return false;
		code[n++] = *typed;
	}
	code[n] = '\0';
	return n >= PM_CODE_MIN;
}

/* Whether something, perhaps NULL, can be a token. */
bool
pm_well_formed_token(const char *token)
{
	return token != NULL && strlen(token) == PM_TOKEN_LENGTH &&
		strspn(token, TOKEN_ALPHABET) == PM_TOKEN_LENGTH;
}

/* ----------
 * HMACs
 * ----------
 */

static void
hmac_failed(pg_hmac_ctx *ctx)
{
	ereport(ERROR,
			(errcode(ERRCODE_INTERNAL_ERROR),
			 errmsg("could not compute an HMAC: %s",
					ctx ? pg_hmac_error(ctx) : "out of memory"),
			 errhint("Try again."),
			 errhidestmt(true)));
}

static pg_hmac_ctx *
hmac_begin(const unsigned char *key)
{
	pg_hmac_ctx *ctx = pg_hmac_create(PG_SHA256);

	if (ctx == NULL || pg_hmac_init(ctx, key, PM_CODE_KEY) < 0)
		hmac_failed(ctx);
	return ctx;
}

/* Each field goes with its length before it, so that no two inputs are one. */
static void
hmac_add(pg_hmac_ctx *ctx, const void *field, size_t len)
{
	uint32		prefix = pg_hton32((uint32) len);

	if (pg_hmac_update(ctx, (const uint8 *) &prefix, sizeof(prefix)) < 0 ||
		pg_hmac_update(ctx, field, len) < 0)
		hmac_failed(ctx);
}

static void
hmac_add_text(pg_hmac_ctx *ctx, const char *text)
{
	hmac_add(ctx, text, strlen(text));
}

static void
hmac_end(pg_hmac_ctx *ctx, unsigned char *hmac)
{
	if (pg_hmac_final(ctx, hmac, PM_CODE_HMAC) < 0)
		hmac_failed(ctx);
	pg_hmac_free(ctx);
}

static void
hmac_add_int64(pg_hmac_ctx *ctx, int64 number)
{
	uint64		bytes = pg_hton64((uint64) number);

	hmac_add(ctx, &bytes, sizeof(bytes));
}

/*
 * What is kept of a code: of its digits, and of whom and what they are for,
 * and how long.
 *
 * key:  the connector's, PM_CODE_KEY bytes
 * hmac: room for PM_CODE_HMAC bytes
 */
void
pm_code_hmac(PmHmacForm form, const unsigned char *key, const PmCode *code,
			 const char *digits, unsigned char *hmac)
{
	pg_hmac_ctx *ctx = hmac_begin(key);

	hmac_add_text(ctx, form == PM_HMAC_1_0 ? "code" : "code 1.1");
	hmac_add_text(ctx, code->connector);
	hmac_add_text(ctx, code->usage_type);
	hmac_add_text(ctx, code->address);
	hmac_add_int64(ctx, code->id);
	if (form != PM_HMAC_1_0)
		hmac_add_int64(ctx, code->expires_at);
	hmac_add_text(ctx, digits);
	hmac_end(ctx, hmac);
}

/*
 * What is kept of a token, and found by it, so nothing goes in that is not
 * known when the token comes back; otherwise as pm_code_hmac.
 */
void
pm_token_hmac(PmHmacForm form, const unsigned char *key,
			  const char *connector, const char *usage_type,
			  const char *token, unsigned char *hmac)
{
	pg_hmac_ctx *ctx = hmac_begin(key);

	hmac_add_text(ctx, form == PM_HMAC_1_0 ? "token" : "token 1.1");
	hmac_add_text(ctx, connector);
	hmac_add_text(ctx, usage_type);
	hmac_add_text(ctx, token);
	hmac_end(ctx, hmac);
}

/*
 * The rest of what a token is bound to, of which the row says what it is:
 * whose it is, and how long.  As pm_code_hmac.
 */
void
pm_token_seal(const unsigned char *key, const PmCode *code,
			  unsigned char *hmac)
{
	pg_hmac_ctx *ctx = hmac_begin(key);

	hmac_add_text(ctx, "seal");
	hmac_add(ctx, code->hmac, PM_CODE_HMAC);
	hmac_add_text(ctx, code->address);
	hmac_add_text(ctx, code->email);
	hmac_add_int64(ctx, code->id);
	hmac_add_int64(ctx, code->expires_at);
	hmac_end(ctx, hmac);
}

/*
 * What stands for an address in shared memory and in lock tags: nobody can
 * tell the address from it, or find another with the same.  As pm_code_hmac;
 * the address is folded.
 */
void
pm_address_hmac(const unsigned char *key, const char *connector,
				const char *address, unsigned char *hmac)
{
	pg_hmac_ctx *ctx = hmac_begin(key);

	hmac_add_text(ctx, "address");
	hmac_add_text(ctx, connector);
	hmac_add_text(ctx, address);
	hmac_end(ctx, hmac);
}
