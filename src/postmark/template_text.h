/*-------------------------------------------------------------------------
 *
 * template_text.h
 *		What the extension's own templates say.
 *
 * src/postmark/template_text.h
 *
 *-------------------------------------------------------------------------
 */
#ifndef PM_TEMPLATE_TEXT_H
#define PM_TEMPLATE_TEXT_H

#include "settings/connector.h"

/* Alias of the layout that all of them have around them */
#define PM_LAYOUT_ALIAS "postmark-connector-layout"

/* A template as Postmark stores it, in Postmark's template language */
typedef struct PmTemplateText
{
	const char *alias;
	const char *name;			/* for Postmark's list of templates */
	const char *layout;			/* alias of its layout; NULL: it is one */
	const char *subject;		/* NULL for a layout */
	const char *html;
	const char *text;
} PmTemplateText;

extern void pm_layout_text(PmTemplateText *template);
extern void pm_template_text(const PmConnector *connector,
							 const char *usage_type, const char *alias,
							 PmTemplateText *template);

#endif							/* PM_TEMPLATE_TEXT_H */
