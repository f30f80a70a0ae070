/*-------------------------------------------------------------------------
 *
 * template_text.c
 *		What the extension's own templates say.
 *
 * The texts are files in templates/, which the Makefile makes C strings of:
 * a server has no file to read, and no version of the library finds another
 * one's.  There is one layout, one body in HTML and one as text, and words for
 * each usage type.  A word's place in a body is a slot, [[name]]; what is in
 * braces is for Postmark to fill when a mail is sent.
 *
 * Braces are scopes: in {{#code}} the product's name is {{../productName}}.  A
 * slot that stands in one is written [[../name]], and all that comes into it
 * has its path lengthened.
 *
 * test/sandbox/pmsandbox/default_templates.py does the same for the sandbox.
 *
 * src/postmark/template_text.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"

#include "base/text.h"
#include "postmark/json.h"
#include "postmark/template_text.h"
#include "settings/connector.h"

static const char layout_html[] =
#include "templates/layout.html.inc"
;
static const char layout_text[] =
#include "templates/layout.txt.inc"
;
static const char body_html[] =
#include "templates/body.html.inc"
;
static const char body_text[] =
#include "templates/body.txt.inc"
;
static const char words_json[] =
#include "templates/words.json.inc"
;

#define GENERIC		"Generic"
#define SLOT_OPEN	"[["
#define SLOT_CLOSE	"]]"
#define UP			"../"
#define SUPPORT		SLOT_OPEN "support" SLOT_CLOSE

/* What the slots are filled with */
typedef struct Filling
{
	const PmJson *words;		/* of the usage type */
	const char *product;		/* for a model that names none */
	const char *support;		/* the same; NULL if there is none */
	bool		html;
} Filling;

/*
 * Append a name or an address of the connector's.  Braces would be read as the
 * template language, and in one of its scopes there is no escaping them.
 */
static void
append_value(StringInfo buf, const char *value, bool html)
{
	for (; *value; value++)
	{
		if (*value == '{')
			appendStringInfoChar(buf, '(');
		else if (*value == '}')
			appendStringInfoChar(buf, ')');
		else if (html && *value == '&')
			appendStringInfoString(buf, "&amp;");
		else if (html && *value == '<')
			appendStringInfoString(buf, "&lt;");
		else if (html && *value == '"')
			appendStringInfoString(buf, "&quot;");
		else
			appendStringInfoChar(buf, *value);
	}
}

/*
 * Append text with its slots filled.  above is the path from where it stands
 * to the model's root: "", "../" and so on.  A line that names the support's
 * address is left out where there is none.
 */
static void
fill(StringInfo buf, const char *text, const Filling *f, const char *above)
{
	while (*text)
	{
		const char *line_end = text + strcspn(text, "\n");
		const char *slot;

		if (*line_end)
			line_end++;
		slot = strstr(text, SUPPORT);
		if (f->support == NULL && slot && slot < line_end)
		{
			text = line_end;
			continue;
		}

		while ((slot = strstr(text, SLOT_OPEN)) != NULL && slot < line_end)
		{
			char	   *path = pstrdup(above);
			const char *close = strstr(slot, SLOT_CLOSE);
			char	   *name;

			appendBinaryStringInfo(buf, text, slot - text);
			slot += strlen(SLOT_OPEN);
			while (strncmp(slot, UP, strlen(UP)) == 0)
			{
				path = psprintf("%s" UP, path);
				slot += strlen(UP);
			}
			name = pnstrdup(slot, close - slot);
			if (strcmp(name, "product") == 0)
			{
				appendStringInfo(buf,
								 "{{#%sproductName}}{{.}}{{/%sproductName}}{{^%sproductName}}",
								 path, path, path);
				append_value(buf, f->product, f->html);
				appendStringInfo(buf, "{{/%sproductName}}", path);
			}
			else if (strcmp(name, "support") == 0)
				append_value(buf, f->support, f->html);
			else
				fill(buf, pm_json_string(f->words, name), f, path);
			text = close + strlen(SLOT_CLOSE);
		}
		appendBinaryStringInfo(buf, text, line_end - text);
		text = line_end;
	}
}

static const char *
filled(const char *text, Filling *f, bool html)
{
	StringInfoData buf;

	initStringInfo(&buf);
	f->html = html;
	fill(&buf, text, f, "");
	return buf.data;
}

/* The layout of all templates, into *template; all of it constant. */
void
pm_layout_text(PmTemplateText *template)
{
	template->alias = PM_LAYOUT_ALIAS;
	template->name = "Layout of the verification mails";
	template->layout = NULL;
	template->subject = NULL;
	template->html = layout_html;
	template->text = layout_text;
}

/*
 * The template for a usage type, into *template, in the current memory context
 * and the database's encoding.  One that is none of Logto's, or NULL for one
 * that stands for several, gets Generic's words.  alias is kept as it is.
 *
 * A mail names the product, and whom to ask, as the message's payload does,
 * else as the connector: by its sender's name or domain, and by replyTo.
 */
void
pm_template_text(const PmConnector *connector, const char *usage_type,
				 const char *alias, PmTemplateText *template)
{
	const PmJson *all = pm_json_parse(words_json, strlen(words_json));
	Filling		f = {0};

	if (usage_type)
		f.words = pm_json_get(all, usage_type);
	if (f.words == NULL)
		f.words = pm_json_get(all, GENERIC);
	f.product = pm_mailbox_name(connector->from_email);
	if (f.product == NULL)
		f.product = strchr(connector->from_email, '@') + 1;
	if (connector->reply_to)
		f.support = pm_mailbox_address(connector->reply_to);

	template->alias = alias;
	template->name = pm_json_string(f.words, "name");
	template->layout = PM_LAYOUT_ALIAS;
	template->subject = filled(pm_json_string(f.words, "subject"), &f, false);
	template->html = filled(body_html, &f, true);
	template->text = filled(body_text, &f, false);
}
