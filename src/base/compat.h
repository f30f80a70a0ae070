/*-------------------------------------------------------------------------
 *
 * compat.h
 *		The server's API as its newest version has it, on all that we serve.
 *
 * Sources are written against the newest PostgreSQL.  What an older one has
 * otherwise gets the newest name and arguments here, so that a source reads as
 * if there were one version.  Nothing else of ours looks at PG_VERSION_NUM.
 *
 * A macro here may have the name of a function of the server, whose
 * declaration it must not meet.  So each section includes the header of what
 * it adapts.
 *
 * src/base/compat.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_COMPAT_H
#define PM_COMPAT_H

/* 15.4 is the first that marks a database whose DROP was interrupted. */
#if PG_VERSION_NUM < 150004
#error "postmark_connector needs PostgreSQL 15.4 or later"
#endif

#include "fmgr.h"
#include "postmaster/bgworker.h"

/* All branches got it in minor releases of 2026, with what configure says. */
#ifndef HAVE_DECL_TIMINGSAFE_BCMP
static inline int
timingsafe_bcmp(const void *b1, const void *b2, size_t len)
{
	const volatile unsigned char *p1 = b1;
	const volatile unsigned char *p2 = b2;
	int			differs = 0;

	while (len-- > 0)
		differs |= *p1++ ^ *p2++;
	return differs != 0;
}
#endif

/* What takes values of SQL apart was in postgres.h. */
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

#if PG_VERSION_NUM < 160000

#include "catalog/pg_database.h"
#include "commands/vacuum.h"
#include "storage/bufmgr.h"
#include "utils/acl.h"
#include "utils/guc_tables.h"

/* One function for all kinds of objects; of ours only databases ask. */
#define object_ownercheck(classid, objectid, roleid) \
	(AssertMacro((classid) == DatabaseRelationId), \
	 pg_database_ownercheck(objectid, roleid))

/* The array was not a copy, and had its length elsewhere. */
#define get_guc_variables(num_vars) \
	(*(num_vars) = GetNumConfigOptions(), get_guc_variables())

/* The table itself was always vacuumed, and the ring's size was fixed. */
#define VACOPT_PROCESS_MAIN 0
#define VacuumBufferUsageLimit 0
#define GetAccessStrategyWithSize(type, kilobytes) GetAccessStrategy(type)
#define vacuum(relations, params, strategy, context, is_top_level) \
	vacuum(relations, params, strategy, is_top_level)

/* What an action of pg_parse_json returns, and with what it goes on. */
#define PmJsonActionResult void
#define PM_JSON_GO_ON
#else
#define PmJsonActionResult JsonParseErrorType
#define PM_JSON_GO_ON JSON_SUCCESS
#endif							/* 16 */

#if PG_VERSION_NUM < 170000

#include "common/jsonapi.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "utils/memutils.h"
#include "utils/wait_event.h"

/* Always in memory of its own; the JSON is not const, and not written. */
#define makeJsonLexContextCstringLen(lex, json, len, encoding, need_escapes) \
	(AssertMacro((lex) == NULL), \
	 makeJsonLexContextCstringLen((char *) (json), len, encoding, need_escapes))

static inline void
freeJsonLexContext(JsonLexContext *lex)
{
	if (lex->strval)
	{
		pfree(lex->strval->data);
		pfree(lex->strval);
	}
	pfree(lex);
}

#define LockHeldByMe(tag, mode, or_stronger) \
	(AssertMacro(!(or_stronger)), LockHeldByMe(tag, mode))

/* Without an owner, it lives until it is freed. */
#define CreateWaitEventSet(owner, nevents) \
	(AssertMacro((owner) == NULL), \
	 CreateWaitEventSet(TopMemoryContext, nevents))

/* An extension's waits had one name for all. */
#define WaitEventExtensionNew(name) ((void) (name), PG_WAIT_EXTENSION)
#endif							/* 17 */

#if PG_VERSION_NUM < 180000

#include "common/base64.h"

/* Before the declaration; the attribute was behind it. */
#define pg_noreturn __attribute__((noreturn))

#define PG_MODULE_MAGIC_EXT(...) PG_MODULE_MAGIC

#define pg_b64_encode(src, len, dst, dst_len) \
	pg_b64_encode((const char *) (src), len, dst, dst_len)
#endif							/* 18 */

#if PG_VERSION_NUM < 190000

#include "access/tableam.h"
#include "commands/dbcommands.h"	/* get_database_name */
#include "executor/executor.h"
#include "storage/shmem.h"		/* mul_size, too, until 2026 */
#include "utils/jsonb.h"

/* End this process for a command that needs the database to itself. */
#define BGWORKER_INTERRUPTIBLE 0

#define SO_NONE 0
#define table_beginscan(rel, snapshot, nkeys, key, flags) \
	table_beginscan(rel, snapshot, nkeys, key)
#define table_beginscan_tidrange(rel, snapshot, first, last, flags) \
	table_beginscan_tidrange(rel, snapshot, first, last)

/* The size was given twice, as the first and as the greatest. */
#define ShmemInitHash(name, nelems, info, flags) \
	ShmemInitHash(name, nelems, nelems, info, flags)

/* Of the flags we need none. */
#if PG_VERSION_NUM < 160000
#define ExecInsertIndexTuples(rel, estate, flags, slot, arbiters, conflict) \
	ExecInsertIndexTuples(rel, slot, estate, false, false, conflict, arbiters)
#else
#define ExecInsertIndexTuples(rel, estate, flags, slot, arbiters, conflict) \
	ExecInsertIndexTuples(rel, slot, estate, false, false, conflict, \
						  arbiters, false)
#endif

/* What is pushed, and the whole once it is complete. */
typedef struct JsonbInState
{
	JsonbValue *result;
	JsonbParseState *parseState;
} JsonbInState;

#define pushJsonbValue(state, token, value) \
	((void) ((state)->result = \
			 pushJsonbValue(&(state)->parseState, token, value)))

/* VacuumParams: another of its own for ANALYZE */
#define log_vacuum_min_duration log_min_duration
#endif							/* 19 */

#endif							/* PM_COMPAT_H */
