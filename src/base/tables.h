/*-------------------------------------------------------------------------
 *
 * tables.h
 *		The columns of the extension's tables, and whether a table is still
 *		as the extension made it.
 *
 * A list of columns is written here once: the numbers that C code goes by are
 * made of it, and so is what every table is held against before it is used.
 * A column that a later version adds goes to the end of its list, with that
 * version; the install scripts never put one elsewhere.
 *
 * src/base/tables.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_TABLES_H
#define PM_TABLES_H

#include "executor/spi.h"

#include "base/catalog.h"

/* COLUMN(identifier, name, type, whether it is NOT NULL, since) */
#define PM_SETTINGS_COLUMNS(COLUMN) \
	COLUMN(CONNECTOR, "connector", TEXTOID, true, PM_SQL_1_0) \
	COLUMN(NUMBER, "number", INT4OID, true, PM_SQL_1_0) \
	COLUMN(CONFIG, "config", JSONBOID, true, PM_SQL_1_0) \
	COLUMN(PAUSED_AT, "paused_at", TIMESTAMPTZOID, false, PM_SQL_1_0) \
	COLUMN(PAUSE_REASON, "pause_reason", TEXTOID, false, PM_SQL_1_0) \
	COLUMN(CONFIGURED_AT, "configured_at", TIMESTAMPTZOID, true, PM_SQL_1_0)

#define PM_TEMPLATES_COLUMNS(COLUMN) \
	COLUMN(CONNECTOR, "connector", TEXTOID, true, PM_SQL_1_0) \
	COLUMN(USAGE_TYPE, "usage_type", TEXTOID, true, PM_SQL_1_0) \
	COLUMN(LOCALE, "locale", TEXTOID, true, PM_SQL_1_0) \
	COLUMN(ALIAS, "template_alias", TEXTOID, true, PM_SQL_1_0) \
	COLUMN(PRIORITY, "priority", INT4OID, true, PM_SQL_1_0) \
	COLUMN(EXPIRES_IN, "expires_in", INT4OID, false, PM_SQL_1_0)

#define PM_SECRETS_COLUMNS(COLUMN) \
	COLUMN(CONNECTOR, "connector", TEXTOID, true, PM_SQL_1_0) \
	COLUMN(TOKEN, "server_token", TEXTOID, false, PM_SQL_1_0) \
	COLUMN(WEBHOOK, "webhook_secret", TEXTOID, false, PM_SQL_1_0) \
	COLUMN(CODE_KEY, "code_key", BYTEAOID, false, PM_SQL_1_0)

#define PM_QUEUE_COLUMNS(COLUMN) \
	COLUMN(LANE, "lane", INT4OID, true, PM_SQL_1_0) \
	COLUMN(ID, "id", INT8OID, true, PM_SQL_1_0) \
	COLUMN(CREATED_AT, "created_at", TIMESTAMPTZOID, true, PM_SQL_1_0) \
	COLUMN(EXPIRES_AT, "expires_at", TIMESTAMPTZOID, true, PM_SQL_1_0) \
	COLUMN(EMAIL, "email", TEXTOID, true, PM_SQL_1_0) \
	COLUMN(USAGE_TYPE, "usage_type", TEXTOID, true, PM_SQL_1_0) \
	COLUMN(CODE, "code", TEXTOID, false, PM_SQL_1_0) \
	COLUMN(PAYLOAD, "payload", JSONBOID, false, PM_SQL_1_0) \
	COLUMN(LOCALE, "locale", TEXTOID, false, PM_SQL_1_0) \
	COLUMN(CONNECTOR, "connector", TEXTOID, true, PM_SQL_1_0) \
	COLUMN(NO_TRACK, "no_track", BOOLOID, false, PM_SQL_1_0) \
	COLUMN(QUEUED_BY, "queued_by", OIDOID, false, PM_SQL_1_1) \
	COLUMN(DEDUP_KEY, "dedup_key", TEXTOID, false, PM_SQL_1_1)

#define PM_DEFERRED_COLUMNS(COLUMN) \
	COLUMN(ID, "id", INT8OID, true, PM_SQL_1_0) \
	COLUMN(LANE, "lane", INT4OID, true, PM_SQL_1_0) \
	COLUMN(DUE_AT, "due_at", TIMESTAMPTZOID, true, PM_SQL_1_0) \
	COLUMN(CREATED_AT, "created_at", TIMESTAMPTZOID, true, PM_SQL_1_0) \
	COLUMN(EXPIRES_AT, "expires_at", TIMESTAMPTZOID, true, PM_SQL_1_0) \
	COLUMN(EMAIL, "email", TEXTOID, true, PM_SQL_1_0) \
	COLUMN(USAGE_TYPE, "usage_type", TEXTOID, true, PM_SQL_1_0) \
	COLUMN(CODE, "code", TEXTOID, false, PM_SQL_1_0) \
	COLUMN(PAYLOAD, "payload", JSONBOID, false, PM_SQL_1_0) \
	COLUMN(LOCALE, "locale", TEXTOID, false, PM_SQL_1_0) \
	COLUMN(CONNECTOR, "connector", TEXTOID, true, PM_SQL_1_0) \
	COLUMN(ATTEMPTS, "attempts", INT4OID, true, PM_SQL_1_0) \
	COLUMN(ERROR_CODE, "error_code", INT4OID, false, PM_SQL_1_0) \
	COLUMN(LAST_ERROR, "last_error", TEXTOID, false, PM_SQL_1_0) \
	COLUMN(NO_TRACK, "no_track", BOOLOID, false, PM_SQL_1_0) \
	COLUMN(DOUBTS, "doubts", UUIDARRAYOID, false, PM_SQL_1_1) \
	COLUMN(QUEUED_BY, "queued_by", OIDOID, false, PM_SQL_1_1)

#define PM_INTENTS_COLUMNS(COLUMN) \
	COLUMN(BATCH, "batch", UUIDOID, true, PM_SQL_1_0) \
	COLUMN(LANE, "lane", INT4OID, true, PM_SQL_1_0) \
	COLUMN(DEFERRED, "deferred", BOOLOID, true, PM_SQL_1_0) \
	COLUMN(CREATED_AT, "created_at", TIMESTAMPTZOID, true, PM_SQL_1_0) \
	COLUMN(IDS, "ids", INT8ARRAYOID, true, PM_SQL_1_0)

#define PM_HISTORY_COLUMNS(COLUMN) \
	COLUMN(ID, "id", INT8OID, true, PM_SQL_1_0) \
	COLUMN(CONNECTOR, "connector", TEXTOID, true, PM_SQL_1_0) \
	COLUMN(EMAIL, "email", TEXTOID, true, PM_SQL_1_0) \
	COLUMN(USAGE_TYPE, "usage_type", TEXTOID, true, PM_SQL_1_0) \
	COLUMN(LOCALE, "locale", TEXTOID, false, PM_SQL_1_0) \
	COLUMN(TEMPLATE_ALIAS, "template_alias", TEXTOID, false, PM_SQL_1_0) \
	COLUMN(STATUS, "status", TEXTOID, true, PM_SQL_1_0) \
	COLUMN(ATTEMPTS, "attempts", INT4OID, true, PM_SQL_1_0) \
	COLUMN(MESSAGE_ID, "message_id", UUIDOID, false, PM_SQL_1_0) \
	COLUMN(ERROR_CODE, "error_code", INT4OID, false, PM_SQL_1_0) \
	COLUMN(LAST_ERROR, "last_error", TEXTOID, false, PM_SQL_1_0) \
	COLUMN(CREATED_AT, "created_at", TIMESTAMPTZOID, true, PM_SQL_1_0) \
	COLUMN(DUE_AT, "due_at", TIMESTAMPTZOID, false, PM_SQL_1_0) \
	COLUMN(EXPIRES_AT, "expires_at", TIMESTAMPTZOID, true, PM_SQL_1_0) \
	COLUMN(FINISHED_AT, "finished_at", TIMESTAMPTZOID, true, PM_SQL_1_0) \
	COLUMN(CODE, "code", TEXTOID, false, PM_SQL_1_0) \
	COLUMN(PAYLOAD, "payload", JSONBOID, false, PM_SQL_1_0) \
	COLUMN(NO_TRACK, "no_track", BOOLOID, false, PM_SQL_1_0) \
	COLUMN(QUEUED_BY, "queued_by", OIDOID, false, PM_SQL_1_1)

#define PM_TROUBLE_COLUMNS(COLUMN) \
	COLUMN(CONNECTOR, "connector", TEXTOID, true, PM_SQL_1_0) \
	COLUMN(STATE, "state", TEXTOID, true, PM_SQL_1_0) \
	COLUMN(DETAIL, "detail", TEXTOID, true, PM_SQL_1_0) \
	COLUMN(HINT, "hint", TEXTOID, false, PM_SQL_1_0) \
	COLUMN(SINCE, "since", TIMESTAMPTZOID, true, PM_SQL_1_0)

#define PM_INSTANCE_COLUMNS(COLUMN) \
	COLUMN(SINGLETON, "singleton", BOOLOID, true, PM_SQL_1_0) \
	COLUMN(DATABASE, "database", OIDOID, true, PM_SQL_1_0) \
	COLUMN(TIMELINE, "timeline", INT4OID, false, PM_SQL_1_0) \
	COLUMN(FORGET_KEY, "forget_key", BYTEAOID, false, PM_SQL_1_1)

#define PM_CODES_COLUMNS(COLUMN) \
	COLUMN(ID, "id", INT8OID, true, PM_SQL_1_0) \
	COLUMN(CONNECTOR, "connector", TEXTOID, true, PM_SQL_1_0) \
	COLUMN(ADDRESS, "address", TEXTOID, true, PM_SQL_1_0) \
	COLUMN(USAGE_TYPE, "usage_type", TEXTOID, true, PM_SQL_1_0) \
	COLUMN(TOKEN, "token", BOOLOID, true, PM_SQL_1_0) \
	COLUMN(EMAIL, "email", TEXTOID, true, PM_SQL_1_0) \
	COLUMN(HMAC, "hmac", BYTEAOID, true, PM_SQL_1_0) \
	COLUMN(CREATED_AT, "created_at", TIMESTAMPTZOID, true, PM_SQL_1_0) \
	COLUMN(EXPIRES_AT, "expires_at", TIMESTAMPTZOID, true, PM_SQL_1_0) \
	COLUMN(SEAL, "seal", BYTEAOID, false, PM_SQL_1_1)

#define PM_SENDS_COLUMNS(COLUMN) \
	COLUMN(CONNECTOR, "connector", TEXTOID, true, PM_SQL_1_0) \
	COLUMN(ADDRESS, "address", TEXTOID, true, PM_SQL_1_0) \
	COLUMN(SENT_AT, "sent_at", TIMESTAMPTZOID, true, PM_SQL_1_0) \
	COLUMN(ID, "id", INT8OID, true, PM_SQL_1_0) \
	COLUMN(USAGE_TYPE, "usage_type", TEXTOID, true, PM_SQL_1_0) \
	COLUMN(UNTIL, "until", TIMESTAMPTZOID, true, PM_SQL_1_0)

#define PM_ATTEMPTS_COLUMNS(COLUMN) \
	COLUMN(COUNTER, "counter", BYTEAOID, true, PM_SQL_1_0) \
	COLUMN(ATTEMPTS, "attempts", INT4OID, true, PM_SQL_1_0) \
	COLUMN(SINCE, "since", TIMESTAMPTZOID, true, PM_SQL_1_0) \
	COLUMN(UNTIL, "until", TIMESTAMPTZOID, true, PM_SQL_1_0)

#define PM_FEEDBACK_COLUMNS(COLUMN) \
	COLUMN(ID, "id", INT8OID, true, PM_SQL_1_1) \
	COLUMN(CREATED_AT, "created_at", TIMESTAMPTZOID, true, PM_SQL_1_1) \
	COLUMN(DELIVERED_AT, "delivered_at", TIMESTAMPTZOID, false, PM_SQL_1_1) \
	COLUMN(STANDING, "standing", INT2OID, true, PM_SQL_1_1) \
	COLUMN(EVENT_AT, "event_at", TIMESTAMPTZOID, true, PM_SQL_1_1) \
	COLUMN(FEEDBACK, "feedback", TEXTOID, true, PM_SQL_1_1)

#define PM_SUPPRESSED_COLUMNS(COLUMN) \
	COLUMN(CONNECTOR, "connector", TEXTOID, true, PM_SQL_1_1) \
	COLUMN(MESSAGE_STREAM, "message_stream", TEXTOID, true, PM_SQL_1_1) \
	COLUMN(ADDRESS, "address", TEXTOID, true, PM_SQL_1_1) \
	COLUMN(EMAIL, "email", TEXTOID, true, PM_SQL_1_1) \
	COLUMN(REASON, "reason", TEXTOID, false, PM_SQL_1_1) \
	COLUMN(ORIGIN, "origin", TEXTOID, false, PM_SQL_1_1) \
	COLUMN(SINCE, "since", TIMESTAMPTZOID, true, PM_SQL_1_1) \
	COLUMN(LIFTED, "lifted", BOOLOID, true, PM_SQL_1_1) \
	COLUMN(KEY, "key", INT8OID, true, PM_SQL_1_1)

#define PM_INQUIRIES_COLUMNS(COLUMN) \
	COLUMN(CONNECTOR, "connector", TEXTOID, true, PM_SQL_1_1) \
	COLUMN(MESSAGE_STREAM, "message_stream", TEXTOID, true, PM_SQL_1_1) \
	COLUMN(ADDRESS, "address", TEXTOID, true, PM_SQL_1_1) \
	COLUMN(NOTED_AT, "noted_at", TIMESTAMPTZOID, true, PM_SQL_1_1)

#define PM_PROGRESS_COLUMNS(COLUMN) \
	COLUMN(CONNECTOR, "connector", TEXTOID, true, PM_SQL_1_1) \
	COLUMN(MESSAGE_STREAM, "message_stream", TEXTOID, true, PM_SQL_1_1) \
	COLUMN(BOUNCES_UNTIL, "bounces_until", TIMESTAMPTZOID, true, PM_SQL_1_1) \
	COLUMN(SUPPRESSIONS_UNTIL, "suppressions_until", TIMESTAMPTZOID, true, PM_SQL_1_1)

#define PM_FORGOTTEN_COLUMNS(COLUMN) \
	COLUMN(ADDRESS_HASH, "address_hash", BYTEAOID, true, PM_SQL_1_1) \
	COLUMN(FORGOTTEN_AT, "forgotten_at", TIMESTAMPTZOID, true, PM_SQL_1_1)

#define PM_CAPTURES_COLUMNS(COLUMN) \
	COLUMN(MESSAGE_ID, "message_id", UUIDOID, true, PM_SQL_1_1) \
	COLUMN(ID, "id", INT8OID, false, PM_SQL_1_1) \
	COLUMN(CONNECTOR, "connector", TEXTOID, true, PM_SQL_1_1) \
	COLUMN(EMAIL, "email", TEXTOID, true, PM_SQL_1_1) \
	COLUMN(USAGE_TYPE, "usage_type", TEXTOID, true, PM_SQL_1_1) \
	COLUMN(TEMPLATE_ALIAS, "template_alias", TEXTOID, true, PM_SQL_1_1) \
	COLUMN(TEMPLATE_MODEL, "template_model", JSONBOID, true, PM_SQL_1_1) \
	COLUMN(CAPTURED_AT, "captured_at", TIMESTAMPTZOID, true, PM_SQL_1_1)

#define PM_DEDUP_KEYS_COLUMNS(COLUMN) \
	COLUMN(CONNECTOR, "connector", TEXTOID, true, PM_SQL_1_1) \
	COLUMN(DEDUP_KEY, "dedup_key", TEXTOID, true, PM_SQL_1_1) \
	COLUMN(ID, "id", INT8OID, true, PM_SQL_1_1) \
	COLUMN(ADDRESS, "address", TEXTOID, true, PM_SQL_1_1) \
	COLUMN(EXPIRES_AT, "expires_at", TIMESTAMPTZOID, true, PM_SQL_1_1)

/* For an enum of a table's columns, counted from 0 */
#define PM_COLUMN_ENUM(identifier, name, type, not_null, since) \
	COL_##identifier,

extern int	pm_column_count(PmObject which);
extern const char *pm_sign_up_function(const char *name);
extern void pm_check_table(PmObject which);
extern void pm_check_plan(SPIPlanPtr plan);
extern const char *pm_tables_fault(const char **hint);

#endif							/* PM_TABLES_H */
