"""Mustachio, the language of Postmark's templates.

It looks like Mustache and differs: a name is looked up in the present scope
only, `../` reaches out of it, `{{.}}` is the scope itself, a list is walked
by `{{#each list}}` alone, and there are neither partials nor lambdas.
"""
import functools
import json
import re

_TOKEN = re.compile(r"{{[^{}]+?}}|{{{[^{}]+?}}}")
_STEP = re.compile(r"\.\.[\\/]|[^.]+")
_BAD_PATH = re.compile(r"\.{3,}|[^\w./]+|(?<!\.\.)/|\.{2,}(?:$|[^/])")
CONTENT = re.compile(r"{{{\s*@content\s*}}}")


class TemplateError(Exception):
    """What is wrong with a template: [(message, line, character)], counted from 1."""

    def __init__(self, errors):
        super().__init__(errors[0][0])
        self.errors = errors


class RenderError(Exception):
    """A model does not fit its template."""


class _Scope:
    """A value of the model, and how it was reached."""

    __slots__ = ("value", "parent")

    def __init__(self, value, parent=None):
        self.value, self.parent = value, parent

    def find(self, path):
        scope = self
        for step in _STEP.findall(path):
            if step.startswith(".."):
                scope = scope.parent or scope
            else:
                value = scope.value.get(step) if isinstance(scope.value, dict) else None
                scope = _Scope(value, scope)
        return scope

    def exists(self):
        # 0, "", false, null, and what has nothing in it
        return bool(self.value)


class _Usage:
    """How a template uses a name, for the model that it suggests."""

    def __init__(self, name="", parent=None):
        self.name, self.parent, self.children, self.used_as = name, parent, {}, set()

    def find(self, path, used_as):
        usage = self
        for step in _STEP.findall(path):
            if step.startswith(".."):
                usage = usage.parent or usage
            else:
                usage = usage.children.setdefault(step, _Usage(step, usage))
        usage.used_as.add(used_as)
        return usage

    def model(self):
        below = {name: child.model() for name, child in self.children.items()}
        if self.used_as == {"value"} and not below:
            return f"{self.name}_Value"
        if "list" in self.used_as:
            return [below] if below else [f"{self.name}_{number}" for number in (1, 2, 3)]
        return below or (f"{self.name}_Value" if self.used_as else below)


class Template:
    """A parsed template; raises TemplateError where it cannot be one."""

    def __init__(self, source):
        self._source = source
        self._errors = []
        self._usage = _Usage()
        self._parts = self._parse()
        if self._errors:
            raise TemplateError(self._errors)

    def render(self, model, escape=str):
        """The text for a model; `escape` is applied to what {{name}} gives."""
        out = []
        _render(self._parts, _Scope(model), escape, out)
        return "".join(out)

    def suggested_model(self):
        """A model with everything in it that the template uses."""
        return self._usage.model() or {}

    def _wrong(self, index, message):
        line = self._source.count("\n", 0, index)
        self._errors.append((message, line + 1, index - self._source.rfind("\n", 0, index)))

    def _path(self, text, index):
        path = text.strip()
        if _BAD_PATH.search(path):
            self._wrong(index, f"The path '{path}' is not valid. Please see documentation for examples of "
                               "valid paths.")
        return path

    def _parse(self):
        """Nested lists of (kind, path or text, list); sections open are kept on a stack."""
        root = []
        # (what closes it, where it began, its path, the list around it, the usage around it)
        stack, parts, usage, end = [], root, self._usage, 0

        def opened(kind, path, name, index, used_as):
            nonlocal parts, usage
            inner = []
            parts.append((kind, path, inner))
            stack.append((name, index, path, parts, usage))
            parts, usage = inner, usage.find(path, used_as)

        def closed():
            nonlocal parts, usage
            _, _, _, parts, usage = stack.pop()

        for match in _TOKEN.finditer(self._source):
            index, token = match.start(), match[0]
            if index > end:
                parts.append(("text", self._source[end:index], None))
            end = match.end()
            body = token.strip("{}")
            if token.startswith("{{#each"):
                name = body[len("#each"):]
                if name.startswith(" ") and name.strip():
                    opened("each", self._path(name, index), "each", index, "list")
                else:
                    self._wrong(index, "The 'each' block being opened requires a model path to be specified in "
                                       "the form '{{#each <name>}}'.")
            elif token.startswith("{{/each"):
                if token != "{{/each}}":
                    self._wrong(index, "The syntax to close the 'each' block should be: '{{/each}}'.")
                elif stack and stack[-1][0] == "each":
                    closed()
                else:
                    self._wrong(index, "An 'each' block is being closed, but no corresponding opening element "
                                       "('{{#each <name>}}') was detected.")
            elif token.startswith(("{{#", "{{^")):
                path = self._path(body[1:], index)
                if stack and stack[-1][0] == "/" + path:
                    closed()            # {{#x}} … {{^x}} … {{/x}}
                opened("if" if token[2] == "#" else "unless", path, "/" + path, index, "condition")
            elif token.startswith("{{/"):
                if stack and stack[-1][0] == "/" + body[1:].strip():
                    closed()
                else:
                    self._wrong(index, "It appears that open and closing elements are mismatched.")
            elif not token.startswith("{{!"):
                raw = token.startswith(("{{{", "{{&"))
                path = self._path(body.lstrip("&"), index)
                usage.find(path, "value")
                parts.append(("raw" if raw else "value", path, None))
        if end < len(self._source):
            parts.append(("text", self._source[end:], None))
        for _, index, path, _, _ in stack:
            self._wrong(index, f"A scope block to the following path was opened but not closed: '{path}', please "
                               "close it using the appropriate syntax.")
        return root


def _render(parts, scope, escape, out):
    for kind, path, inner in parts:
        if kind == "text":
            out.append(path)
            continue
        found = scope.find(path)
        if kind in ("value", "raw"):
            if found.value is not None:
                text = _printed(found.value)
                out.append(text if kind == "raw" else escape(text))
        elif kind == "each":
            if not found.exists():
                continue
            if not isinstance(found.value, list):
                raise RenderError(f"'{path}' is used like an array by the template, but is a scalar value or object "
                                  "in your model.")
            for value in found.value:
                _render(inner, _Scope(value, found), escape, out)
        elif found.exists() == (kind == "if"):
            _render(inner, found, escape, out)


def _printed(value):
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value)               # True and False, as Postmark writes them
    return json.dumps(value, ensure_ascii=False)


@functools.lru_cache(maxsize=256)
def parse(source):
    """A Template, the same for the same source."""
    return Template(source)
