/*-------------------------------------------------------------------------
 *
 * text.h
 *		Checks on text that users supply, cleaning of text that networks
 *		supply.
 *
 * src/base/text.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_TEXT_H
#define PM_TEXT_H

#include "lib/stringinfo.h"

/* Text from the network is cut to this many bytes wherever it is shown. */
#define PM_NETWORK_TEXT_MAX 300

/* RFC 5321 4.5.3.1: what a forward path leaves for the address itself. */
#define PM_ADDRESS_MAX 254
#define PM_LOCAL_PART_MAX 64

/* Characters for pm_is_made_of */
#define PM_LOWER "abcdefghijklmnopqrstuvwxyz"
#define PM_UPPER "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define PM_DIGITS "0123456789"

extern const char *pm_address_problem(const char *address, const char **hint);
extern const char *pm_mailbox_problem(const char *mailbox, const char **hint);
extern char *pm_mailbox_quoted(char *mailbox);
extern char *pm_mailbox_name(const char *mailbox);
extern char *pm_mailbox_address(const char *mailbox);
extern bool pm_has_line_break(const char *text);
extern bool pm_has_control(const char *text);
extern bool pm_is_made_of(const char *text, const char *characters,
						  size_t max);
extern bool pm_valid_connector_name(const char *name);
extern bool pm_valid_template_alias(const char *alias);
extern int	pm_utf8_char_length(const char *s, const char *end);
extern char *pm_network_text(const char *utf8, size_t len);
extern char *pm_to_utf8(const char *text);

#endif							/* PM_TEXT_H */
