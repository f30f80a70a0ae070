"""The syntax of addresses, as far as Postmark looks at it."""
import re

# Postmark's own pattern has no "?" in it
_ATOM = r"[A-Za-z0-9!#$%&'*+/=^_`{|}~-]+"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_ADDRESS = re.compile(rf"{_ATOM}(?:\.{_ATOM})*@(?:{_LABEL}\.)+{_LABEL}")
_MAILBOX = re.compile(r"\s*(?P<name>.*?)\s*<(?P<address>[^<>]*)>\s*", re.DOTALL)


# A name that needs no quotes, or has them: Postmark takes punctuation for the
# end of an address otherwise
_PHRASE = re.compile(r'(?:[^\x00-\x1f\x7f()<>\[\]:;@\\,."]|"(?:[^"\\]|\\.)*")*')


def is_address(text):
    """True for one bare address and nothing else."""
    return (len(text) <= 254
            and _ADDRESS.fullmatch(text) is not None
            and text.index("@") <= 64)


def parse_mailbox(text):
    """Split `Full Name <a@b>` or `a@b` into (name, address).

    Raises ValueError, with the offending text, for anything else.
    """
    if is_address(text):
        return "", text
    match = _MAILBOX.fullmatch(text)
    name, address = (match["name"], match["address"]) if match else ("", text.strip())
    if not is_address(address) or not _PHRASE.fullmatch(name):
        raise ValueError(text)
    return re.sub(r'"((?:[^"\\]|\\.)*)"', lambda quoted: re.sub(r"\\(.)", r"\1", quoted[1]), name), address


def split_list(text):
    """Split a list at its commas, except those in quotes or in <>."""
    parts, start, quoted, angled, escaped = [], 0, False, False, False
    for position, char in enumerate(text):
        if escaped:
            escaped = False
        elif char == "\\" and quoted:
            escaped = True
        elif char == '"':
            quoted = not quoted
        elif char == "<":
            angled = True
        elif char == ">":
            angled = False
        elif char == "," and not quoted and not angled:
            parts.append(text[start:position])
            start = position + 1
    parts.append(text[start:])
    return [part for part in parts if part.strip()]


def parse_list(text):
    """All (name, address) pairs of a comma-separated list."""
    if is_address(text):            # by far the most frequent case
        return [("", text)]
    return [parse_mailbox(part) for part in split_list(text)]


def addresses_of(item):
    """Every address a request item would be sent to; malformed ones are left out.

    Serves the fault rules, which have to recognise a recipient even in a
    message that validation will refuse.
    """
    found = []
    for field in ("To", "Cc", "Bcc"):
        value = item.get(field)
        if not isinstance(value, str):
            continue
        if is_address(value):
            found.append(value)
            continue
        for part in split_list(value):
            try:
                found.append(parse_mailbox(part)[1])
            except ValueError:
                continue
    return found
