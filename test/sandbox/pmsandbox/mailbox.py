"""What the mailbox shows: lists, one mail, and its page.

The page is in mailbox/, three files that load nothing from elsewhere. A mail's
own HTML is shown in a sandboxed frame: it comes from an application under
development and is not to be trusted.
"""
import asyncio
import inspect
import pathlib
import re

from .addresses import addresses_of
from .source import source_of
from .suppressions import timestamp

FILES = {"": ("index.html", "text/html"), "mailbox.css": ("mailbox.css", "text/css"),
         "mailbox.js": ("mailbox.js", "text/javascript")}
FOLDER = pathlib.Path(__file__).resolve().parent / "mailbox"
PAGE_POLICY = ("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; frame-src 'self'; "
               "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
MAIL_POLICY = ("sandbox allow-popups allow-popups-to-escape-sandbox; default-src 'none'; img-src http: https: data:; "
               "style-src 'unsafe-inline'; font-src data:; form-action 'none'")
# How many mails a search looks into: each has to be rendered
MAX_SEARCHED = 20000
# and after how many of them whoever else asks has a turn
AT_ONCE = 100
MAX_COUNT = 500
_CODE = re.compile(r"(?<![\w-])\d{4,10}(?![\w-])")


class Mailbox:
    """The lists of the mailbox over the state of the sandbox."""

    def __init__(self, world):
        self._world = world
        self._lists = {"mail": self._mails, "refused": self._refused, "bounces": self._bounces,
                       "suppressions": self._suppressions, "rules": self._rules}

    def views(self):
        return tuple(self._lists)

    async def listing(self, view, search, offset, count):
        """One page of a list, newest first; `total` is of what was found."""
        world = self._world
        answer = self._lists[view](search.lower(), offset, min(count, MAX_COUNT))
        rows, total, searched_all = await answer if inspect.isawaitable(answer) else answer
        return {"rows": rows, "total": total, "searched_all": searched_all, "counts": {
            "mail": len(world.store), "refused": len(world.refusals), "bounces": len(world.feedback.bounces),
            "suppressions": len(world.suppressions.listing()), "rules": len(world.rules.as_json())}}

    async def _mails(self, search, offset, count):
        store = self._world.store
        positions = store.newest_first()
        if not search:
            return [self._row(p) for p in positions[offset:offset + count]], len(positions), True
        found, prefix = [], store.prefix
        for number, position in enumerate(positions[:MAX_SEARCHED]):
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)
                if store.prefix != prefix:
                    return [], 0, True              # all is forgotten meanwhile
            if search in self._text_of(position):
                found.append(position)
        return [self._row(p) for p in found[offset:offset + count]], len(found), len(positions) <= MAX_SEARCHED

    def _text_of(self, position):
        store = self._world.store
        item, rendered = store.item(position), store.rendered(position)
        return "\n".join(str(part or "") for part in (
            ",".join(store.recipients(position)), rendered["Subject"], rendered["TextBody"], rendered["HtmlBody"],
            item.get("Tag"), item.get("TemplateAlias"), item.get("From"), store.message_id(position))).lower()

    def _row(self, position):
        store = self._world.store
        item = store.item(position)
        return {"MessageID": store.message_id(position), "at_us": store.submission(position).received_us,
                "to": ", ".join(store.recipients(position)), "subject": store.subject(position),
                "tag": " · ".join(filter(None, (item.get("TemplateAlias"), item.get("Tag")))),
                "state": self._state(position)}

    def _state(self, position):
        return self._world.feedback.state(position)

    def _refused(self, search, offset, count):
        return _page([row for row in reversed(self._world.refusals) if search in str(row).lower()], offset, count)

    def _bounces(self, search, offset, count):
        store = self._world.store
        found = [b for b in reversed(self._world.feedback.bounces)
                 if search in f"{b.recipient} {b.kind.name}".lower()]
        return _page(found, offset, count, lambda b: {
            "MessageID": store.message_id(b.position), "at_us": b.at_us, "to": b.recipient, "type": b.kind.name,
            "description": b.kind.description, "inactive": b.inactive})

    def _suppressions(self, search, offset, count):
        found = [(stream, s) for stream, s in self._world.suppressions.listing() if search in s.address.lower()]
        found.sort(key=lambda entry: -entry[1].since_us)
        return _page(found, offset, count, lambda entry: {
            "stream": entry[0], "address": entry[1].address, "reason": entry[1].reason,
            "origin": entry[1].origin, "at_us": entry[1].since_us})

    def _rules(self, search, offset, count):
        return _page([rule for rule in self._world.rules.as_json() if search in str(rule).lower()], offset, count)

    def mail(self, position):
        """All there is to know of one mail."""
        store = self._world.store
        item, rendered = store.item(position), store.rendered(position)
        facts = [("From", item.get("From")), ("To", item.get("To")), ("Cc", item.get("Cc")), ("Bcc", item.get("Bcc")),
                 ("Reply-To", item.get("ReplyTo")), ("Template", item.get("TemplateAlias") or item.get("TemplateId")),
                 ("Tag", item.get("Tag")), ("Stream", store.stream(position)),
                 ("Received", timestamp(store.submission(position).received_us)),
                 ("MessageID", store.message_id(position))]
        return {"MessageID": store.message_id(position), "subject": rendered["Subject"],
                "facts": [[name, str(value)] for name, value in facts if value is not None],
                "code": _code(item, rendered), "text": rendered["TextBody"], "has_html": bool(rendered["HtmlBody"]),
                "source": source_of(store, position), "request": item, "life": self._life(position)}

    def _life(self, position):
        """What became of a mail, and what the webhooks answered."""
        world = self._world
        accepted_us = world.store.submission(position).received_us
        events = [{"at_us": accepted_us, "what": "Accepted", "words": f"by {world.store.submission(position).path}"}]
        events += [{"at_us": at_us, "what": what, "words": " ".join(filter(None, (recipient, words)))}
                   for what, recipient, at_us, words in world.feedback.life(position)]
        for post in world.webhooks.of(position):
            words = f"{post.record} to {post.webhook.target()[0]}"
            if not post.attempts:
                events.append({"at_us": accepted_us, "what": "Webhook waits", "words": words})
            for attempt in post.attempts:
                said = attempt["status"] if attempt["status"] is not None else attempt["answer"]
                events.append({"at_us": attempt["at_us"], "what": "Webhook", "words": f"{words}: {said} ({post.state})"})
        return sorted(events, key=lambda event: event["at_us"])

    def html(self, position):
        """A mail's HTML for the frame: its links open in a new tab, its inline images are in it."""
        store = self._world.store
        text = store.rendered(position)["HtmlBody"] or ""
        for attachment in store.item(position).get("Attachments") or ():
            content_id = (attachment.get("ContentID") or "").removeprefix("cid:")
            if content_id:
                text = text.replace(f"cid:{content_id}",
                                    f"data:{attachment['ContentType']};base64,{attachment['Content']}")
        return '<base target="_blank">' + text


def _page(found, offset, count, shown=lambda row: row):
    return [shown(row) for row in found[offset:offset + count]], len(found), True


def _code(item, rendered):
    """The code of a mail, or what looks like one, or None."""
    code = (item.get("TemplateModel") or {}).get("code")
    if isinstance(code, (str, int)) and not isinstance(code, bool) and code != "":
        return str(code)
    for part in (rendered["Subject"], rendered["TextBody"]):
        found = _CODE.search(re.sub(r"https?://\S+", "", part or ""))
        if found:
            return found[0]
    return None


def refusal(at_us, path, item, error_code, message):
    """A row of what was refused; `item` may be anything a client sent."""
    to = ", ".join(addresses_of(item)) or str(item.get("To") or "") if isinstance(item, dict) else ""
    return {"at_us": at_us, "path": path, "to": to, "error_code": error_code, "message": message}
