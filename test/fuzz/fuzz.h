/*-------------------------------------------------------------------------
 *
 * fuzz.h
 *		What the fuzz targets share; see test/fuzz/run.
 *
 * test/fuzz/fuzz.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef FUZZ_H
#define FUZZ_H

#include "postgres.h"

#include "postmark/json.h"

/* Stop with a report unless this holds. */
#define FUZZ_REQUIRE(condition) \
	do { \
		if (!(condition)) \
			fuzz_fail(#condition, __FILE__, __LINE__); \
	} while (0)

extern void fuzz_begin(char encoding);
extern void fuzz_fail(const char *what, const char *file, int line)
			pg_attribute_noreturn();
extern char *fuzz_string(const uint8_t *data, size_t size);
extern bool fuzz_valid_text(const char *text);
extern void fuzz_require_shown(const char *text);

/* What libFuzzer calls: once for every input it makes up. */
extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif							/* FUZZ_H */
