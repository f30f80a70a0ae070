"""The templates a fresh sandbox has: those that postmark_install_templates
puts into a Postmark server, for each of Logto's default aliases."""
import json
import pathlib
import re

TEXTS = pathlib.Path(__file__).resolve().parents[3] / "templates"
LAYOUT_ALIAS = "postmark-connector-layout"
PRODUCT = "Shop"

# Logto's usage types have their names in its aliases
_WORD = re.compile(r"(?<!^)(?=[A-Z])")
_SLOT = re.compile(r"\[\[((?:\.\./)*)(\w+)\]\]")


def _read(name):
    return (TEXTS / name).read_text(encoding="ascii")


def _filled(text, words, above=""):
    """As src/postmark/template_text.c does it: see there."""
    def value(slot):
        path, name = above + slot[1], slot[2]
        if name == "product":
            key = path + "productName"
            return f"{{{{#{key}}}}}{{{{.}}}}{{{{/{key}}}}}{{{{^{key}}}}}{PRODUCT}{{{{/{key}}}}}"
        return _filled(words[name], words, path)
    return "".join(_SLOT.sub(value, line) for line in text.splitlines(keepends=True) if "[[support]]" not in line)


def default_templates():
    """Template documents, in the JSON shape of POST /templates."""
    yield {"Alias": LAYOUT_ALIAS, "Name": "Layout of the verification mails", "TemplateType": "Layout",
           "HtmlBody": _read("layout.html"), "TextBody": _read("layout.txt")}
    html, text = _read("body.html"), _read("body.txt")
    for usage_type, words in json.loads(_read("words.json")).items():
        yield {"Alias": "logto-" + _WORD.sub("-", usage_type).lower(), "Name": words["name"],
               "Subject": _filled(words["subject"], words), "LayoutTemplate": LAYOUT_ALIAS,
               "HtmlBody": _filled(html, words), "TextBody": _filled(text, words)}
