"""The templates of the server: look-up, creation, change, rendering.

A Template never changes: an edit puts a new one in its place, so that a stored
message still renders from the version it was accepted with.  Rendering happens
when somebody looks at a message, never when it is accepted.
"""
import dataclasses
import html
import re

from .default_templates import default_templates
from .errors import PostmarkError
from .mustachio import CONTENT, RenderError, TemplateError, parse

ALIAS = re.compile(r"[A-Za-z][A-Za-z0-9._-]*")
MAX_BODY = 5 * 1024 * 1024
_TEXT_FIELDS = ("Alias", "Name", "Subject", "HtmlBody", "TextBody", "TemplateType",
                "LayoutTemplate")
_BODIES = (("HtmlBody", "html_body"), ("TextBody", "text_body"))


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
        return _rendered(self.subject or "", model, str)

    def render_html(self, model):
        return self._render("html_body", model, html.escape)

    def render_text(self, model):
        return self._render("text_body", model, str)

    def _render(self, part, model, escape):
        source = self.whole(part)
        return _rendered(source, model, escape) if source else None

    def whole(self, part):
        """The source of a body with its layout around it."""
        source = getattr(self, part)
        around = getattr(self.layout, part) if self.layout else None
        if not source or not around:
            return source
        # the replacement is text, not a pattern
        return CONTENT.sub(lambda _: source, around)


def _rendered(source, model, escape):
    """What the recipient reads; where the model does not fit, why (Postmark bounces such a mail)."""
    try:
        return parse(source).render(model, escape)
    except RenderError as error:
        return f"[The template could not be rendered: {error}]"


def _check_syntax(document):
    for field in ("Subject", "HtmlBody", "TextBody"):
        source = document.get(field)
        if not source:
            continue
        if len(source) > MAX_BODY:
            raise PostmarkError(1121, f"The template field '{field}' is too large.")
        try:
            parse(CONTENT.sub("", source))
        except TemplateError as error:
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

    def listing(self, offset, count, kind, layout=None):
        if kind.lower() not in ("all", "standard", "layout"):
            raise PostmarkError(1100, "'TemplateType' is All, Standard or Layout.")
        chosen = [t for t in self._by_id.values() if kind.lower() in ("all", t.template_type.lower())
                  and layout in (None, t.layout and t.layout.alias)]
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
        for other in [t for t in self._by_id.values() if t.layout is old]:
            self._put(dataclasses.replace(other, layout=template))
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
        if any(t.layout is template for t in self._by_id.values()):
            raise PostmarkError(1130, "The layout template cannot be deleted because dependent templates use it.")
        del self._by_id[template.template_id]
        self._by_alias.pop(template.alias, None)

    def _put(self, template):
        self._by_id[template.template_id] = template
        if template.alias:
            self._by_alias[template.alias] = template
        return template

    @staticmethod
    def _check_types(document):
        if not isinstance(document, dict):
            raise PostmarkError(1109, "No Template data was received.")
        for field in _TEXT_FIELDS:
            if not isinstance(document.get(field), (str, type(None))):
                raise PostmarkError(403, f"The field '{field}' must be a string.")

    def _check(self, document):
        self._check_types(document)
        _check_syntax(document)

    def _changed(self, template, document):
        """A copy of the template with the fields of the document."""
        changes = {name: document[field] for field, name in (
            ("Name", "name"), ("Subject", "subject"), ("HtmlBody", "html_body"),
            ("TextBody", "text_body"), ("TemplateType", "template_type"), ("Alias", "alias"),
        ) if document.get(field) is not None}
        if "LayoutTemplate" in document:
            changes["layout"] = self.layout(document["LayoutTemplate"])
        return dataclasses.replace(template, **changes)

    def layout(self, alias):
        """The layout of an alias, None where there is no alias."""
        if not alias:
            return None
        layout = self.find(alias)
        if layout is None or layout.template_type != "Layout":
            raise PostmarkError(1101, f"The 'LayoutTemplate' '{alias}' is not valid or was not found.")
        return layout

    def _check_complete(self, template):
        if template.template_type not in ("Standard", "Layout"):
            raise PostmarkError(1122, "The template field 'TemplateType' is Standard or Layout.")
        if template.template_type == "Layout":
            if template.subject or template.layout:
                raise PostmarkError(1123, "A layout template has neither a 'Subject' nor a 'LayoutTemplate'.")
        elif not template.subject:
            raise PostmarkError(1120, "The template field 'Subject' is required.")
        if not template.html_body and not template.text_body:
            raise PostmarkError(1120, "One of the template fields 'HtmlBody' and 'TextBody' is required.")
        for field, part in _BODIES:
            found = len(CONTENT.findall(getattr(template, part) or ""))
            if getattr(template, part) and found != (template.template_type == "Layout"):
                raise PostmarkError(1131, f"The '{field}' of a layout has the placeholder {{{{{{@content}}}}}} once, "
                                          "and that of a template does not have it.")
        if template.alias is not None and not ALIAS.fullmatch(template.alias):
            raise PostmarkError(1122, "The template field 'Alias' is invalid.")
        owner = self._by_alias.get(template.alias)
        if owner is not None and owner.template_id != template.template_id:
            raise PostmarkError(1122, f"The alias '{template.alias}' is already in use.")

    # POST /templates/validate

    def validate(self, document):
        """Whether contents are templates, what they give, and a model that would fit."""
        self._check_types(document)
        kind = document.get("TemplateType") or "Standard"
        if kind not in ("Standard", "Layout"):
            raise PostmarkError(1122, "The template field 'TemplateType' is Standard or Layout.")
        fields = ("Subject", "HtmlBody", "TextBody")
        if not any(document.get(field) for field in fields):
            raise PostmarkError(1120, "One of the template fields 'Subject', 'HtmlBody' and 'TextBody' is required.")
        given = document.get("TestRenderModel")
        if not isinstance(given, (dict, type(None))):
            raise PostmarkError(403, "The field 'TestRenderModel' must be an object.")
        probe = Template(0, "", subject=document.get("Subject"), html_body=document.get("HtmlBody"),
                         text_body=document.get("TextBody"), layout=self.layout(document.get("LayoutTemplate")))
        sources = {"Subject": probe.subject, **{field: probe.whole(part) for field, part in _BODIES}}
        if kind == "Layout":
            sources = {field: source and CONTENT.sub("", source) for field, source in sources.items()}
        model, errors = {}, {}
        for field, source in sources.items():
            try:
                model = _merged(model, parse(source or "").suggested_model())
            except TemplateError as error:
                errors[field] = error.errors
        test_model = _merged(model, given or {})
        verdicts = {field: _verdict(source, errors.get(field, []), test_model,
                                    html.escape if field == "HtmlBody" else str)
                    for field, source in sources.items()}
        return {"AllContentIsValid": all(verdict["ContentIsValid"] for verdict in verdicts.values()),
                "SuggestedTemplateModel": model, **verdicts}


def _verdict(source, errors, model, escape):
    rendered = None
    if source and not errors:
        try:
            rendered = parse(source).render(model, escape)
        except RenderError as error:
            errors = [(str(error), 0, 0)]
    return {"ContentIsValid": not errors, "RenderedContent": rendered, "ValidationErrors": [
        {"Message": message, "Line": line, "CharacterPosition": character} for message, line, character in errors]}


def _merged(model, other):
    """A model with the values of another in place of its own."""
    if not isinstance(model, dict) or not isinstance(other, dict):
        return other
    return {**model, **{name: _merged(model.get(name), value) for name, value in other.items()}}
