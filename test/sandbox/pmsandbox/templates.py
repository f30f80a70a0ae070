"""The templates of the server: look-up, creation, change, rendering.

A Template never changes: an edit puts a new one in its place, so that a stored
message still renders from the version it was accepted with.  Rendering happens
when somebody looks at a message, never when it is accepted.
"""
import dataclasses
import functools
import html
import re

import pystache

from .default_templates import default_templates
from .errors import PostmarkError

ALIAS = re.compile(r"[A-Za-z][A-Za-z0-9._-]*")
MAX_BODY = 5 * 1024 * 1024
CONTENT = "{{{@content}}}"
_OPENING = re.compile(r"{{\s*[#^]")
_CLOSING = re.compile(r"{{\s*/")
_TEXT_FIELDS = ("Alias", "Name", "Subject", "HtmlBody", "TextBody", "TemplateType",
                "LayoutTemplate")

# Without partials={} pystache would look for files.
_HTML_RENDERER = pystache.Renderer(escape=html.escape, partials={}, missing_tags="ignore")
_TEXT_RENDERER = pystache.Renderer(escape=lambda text: text, partials={}, missing_tags="ignore")


@functools.lru_cache(maxsize=256)
def _parsed(source):
    return pystache.parse(source)


@dataclasses.dataclass(frozen=True)
class Template:
    """One version of one template."""

    template_id: int
    name: str
    alias: str = None
    subject: str = None
    html_body: str = None
    text_body: str = None
    template_type: str = "Standard"
    layout: "Template" = None
    active: bool = True

    def summary(self):
        """The row of GET /templates."""
        return {"Active": self.active, "TemplateId": self.template_id, "Name": self.name,
                "Alias": self.alias, "TemplateType": self.template_type,
                "LayoutTemplate": self.layout.alias if self.layout else None}

    def details(self):
        """The answer of GET /templates/{idOrAlias}."""
        return {**self.summary(), "Subject": self.subject, "HtmlBody": self.html_body,
                "TextBody": self.text_body, "AssociatedServerId": 1}

    def render_subject(self, model):
        return _TEXT_RENDERER.render(_parsed(self.subject or ""), model)

    def render_html(self, model):
        return self._render(_HTML_RENDERER, "html_body", model)

    def render_text(self, model):
        return self._render(_TEXT_RENDERER, "text_body", model)

    def _render(self, renderer, part, model):
        source = getattr(self, part)
        if not source:
            return None
        around = getattr(self.layout, part) if self.layout else None
        if around:
            source = around.replace(CONTENT, source)
        return renderer.render(_parsed(source), model)


def _check_syntax(document):
    for field in ("Subject", "HtmlBody", "TextBody"):
        source = document.get(field)
        if not source:
            continue
        if len(source) > MAX_BODY:
            raise PostmarkError(1121, f"The template field '{field}' is too large.")
        # pystache takes the end of the text for the end of an open section.
        if len(_OPENING.findall(source)) > len(_CLOSING.findall(source)):
            raise PostmarkError(1122, f"The template field '{field}' has an open section.")
        try:
            _parsed(source.replace(CONTENT, ""))
        except pystache.parser.ParsingError as error:
            raise PostmarkError(1122, f"The template field '{field}' is invalid: {error}") from error


class TemplateRegistry:
    """All templates of the one server a sandbox is."""

    def __init__(self):
        self._by_id = {}
        self._by_alias = {}
        self._next_id = 1
        self.restore_defaults()

    def restore_defaults(self):
        self._by_id.clear()
        self._by_alias.clear()
        self._next_id = 1
        for document in default_templates():
            self.create(document)

    def find(self, key):
        """The template of an alias or an id (also an id written as text), or None."""
        template = self._by_alias.get(key)
        if template is None and str(key).isdecimal():
            template = self._by_id.get(int(key))
        return template

    def get(self, key):
        template = self.find(key)
        if template is None:
            raise PostmarkError(1101, "The Template's 'TemplateId' or 'Alias' associated with this "
                                      "request is not valid or was not found.")
        return template

    def listing(self, offset, count, kind):
        chosen = [t for t in self._by_id.values() if kind in ("All", t.template_type)]
        return {"TotalCount": len(chosen),
                "Templates": [t.summary() for t in chosen[offset:offset + count]]}

    def create(self, document, active=True):
        self._check(document)
        if not document.get("Name"):
            raise PostmarkError(1120, "The template field 'Name' is required.")
        template = Template(template_id=self._next_id, name=document["Name"], active=active)
        template = self._changed(template, document)
        self._check_complete(template)
        self._next_id += 1
        return self._put(template)

    def edit(self, key, document, active=None):
        self._check(document)
        old = self.get(key)
        template = self._changed(old, document)
        if active is not None:
            template = dataclasses.replace(template, active=active)
        self._check_complete(template)
        self._by_alias.pop(old.alias, None)
        return self._put(template)

    def upsert(self, document):
        """Create or change by Alias; for the control API, which also sets Active."""
        active = document.get("Active", True)
        if self.find(document.get("Alias")) is not None:
            return self.edit(document["Alias"], document, active)
        subject = document.get("Subject", "{{code}}")
        return self.create({"Name": document.get("Alias"), "Subject": subject,
                            "TextBody": "{{code}}", **document}, active)

    def delete(self, key):
        template = self.get(key)
        del self._by_id[template.template_id]
        self._by_alias.pop(template.alias, None)

    def _put(self, template):
        self._by_id[template.template_id] = template
        if template.alias:
            self._by_alias[template.alias] = template
        return template

    @staticmethod
    def _check(document):
        if not isinstance(document, dict):
            raise PostmarkError(1109, "No Template data was received.")
        for field in _TEXT_FIELDS:
            if not isinstance(document.get(field), (str, type(None))):
                raise PostmarkError(403, f"The field '{field}' must be a string.")
        _check_syntax(document)

    def _changed(self, template, document):
        """A copy of the template with the fields of the document."""
        layout = document.get("LayoutTemplate")
        changes = {name: document[field] for field, name in (
            ("Name", "name"), ("Subject", "subject"), ("HtmlBody", "html_body"),
            ("TextBody", "text_body"), ("TemplateType", "template_type"), ("Alias", "alias"),
        ) if document.get(field) is not None}
        if layout is not None:
            changes["layout"] = self._layout(layout)
        return dataclasses.replace(template, **changes)

    def _layout(self, alias):
        if alias == "":
            return None
        layout = self.find(alias)
        if layout is None or layout.template_type != "Layout":
            raise PostmarkError(1122, f"The layout '{alias}' was not found.")
        return layout

    def _check_complete(self, template):
        if template.template_type not in ("Standard", "Layout"):
            raise PostmarkError(1122, "The template field 'TemplateType' is Standard or Layout.")
        if template.template_type == "Standard" and not template.subject:
            raise PostmarkError(1120, "The template field 'Subject' is required.")
        if not template.html_body and not template.text_body:
            raise PostmarkError(1120, "One of the template fields 'HtmlBody' and 'TextBody' is required.")
        if template.alias is not None and not ALIAS.fullmatch(template.alias):
            raise PostmarkError(1122, "The template field 'Alias' is invalid.")
        owner = self._by_alias.get(template.alias)
        if owner is not None and owner.template_id != template.template_id:
            raise PostmarkError(1122, f"The alias '{template.alias}' is already in use.")
