"""The HTML pages for a person who develops an application against the sandbox.

The list reloads itself by long-polling /_sandbox/wait, so a mail shows up the
moment it is sent.  A mail's own HTML is shown in a sandboxed frame: it comes
from an application under development and is not to be trusted.
"""
import html
import json
import urllib.parse

from .suppressions import timestamp

MAX_ROWS = 100

_PAGE = """\
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem;
       color: #18181b; }}
table {{ border-collapse: collapse; width: 100%; }}
th, td {{ text-align: left; padding: .4rem .6rem; border-bottom: 1px solid #e4e4e7;
         overflow-wrap: anywhere; }}
pre {{ background: #f4f4f5; padding: 1rem; white-space: pre-wrap; overflow-wrap: anywhere; }}
iframe {{ width: 100%; height: 26rem; border: 1px solid #e4e4e7; }}
small, .muted {{ color: #71717a; }}
</style></head><body>
{body}
</body></html>
"""

_RELOAD = """\
<script>
async function follow(seen) {{
  for (;;) {{
    try {{
      const answer = await fetch(`/_sandbox/wait?messages=${{seen + 1}}&timeout=60`);
      if ((await answer.json()).counts.accepted !== seen) return location.reload();
    }} catch {{
      await new Promise(resolve => setTimeout(resolve, 2000));
    }}
  }}
}}
follow({seen});
</script>
"""

_FILTER = """\
<form><input name="recipient" placeholder="recipient" value="{recipient}"> <button>Show</button></form>
"""


def _cell(text):
    return html.escape(str(text if text is not None else ""))


def list_page(store, recipient):
    """The newest mails, of one recipient or of all."""
    positions = store.newest_first(recipient or None)
    rows = "".join(_row(store, position) for position in positions[:MAX_ROWS])
    table = ("<table><tr><th>Received</th><th>To</th><th>Subject</th><th>Template</th></tr>"
             f"{rows}</table>" if rows else '<p class="muted">No mail yet.</p>')
    body = (f"<h1>Sandbox inbox</h1><p class=muted>{len(positions)} accepted, newest first; "
            "nothing left this machine.</p>" + _FILTER.format(recipient=_cell(recipient)) + table
            + _RELOAD.format(seen=len(store)))
    return _PAGE.format(title="Sandbox inbox", body=body)


def _row(store, position):
    item = store.item(position)
    link = "/_sandbox/view?id=" + urllib.parse.quote(store.message_id(position))
    return (f"<tr><td><small>{_received(store, position)}</small></td>"
            f"<td>{_cell(', '.join(store.recipients(position)))}</td>"
            f'<td><a href="{link}">{_cell(store.subject(position))}</a></td>'
            f"<td>{_cell(item.get('TemplateAlias') or item.get('TemplateId'))}</td></tr>")


def _received(store, position):
    return timestamp(store.submission(position).received_us)[:23].replace("T", " ")


def message_page(store, position):
    """One mail: both bodies and the request it came from."""
    item, rendered = store.item(position), store.rendered(position)
    facts = (("From", item.get("From")), ("To", ", ".join(store.recipients(position))),
             ("Received", _received(store, position)), ("MessageID", store.message_id(position)))
    rows = "".join(f"<tr><th>{name}</th><td>{_cell(value)}</td></tr>" for name, value in facts)
    frame = f'<iframe sandbox="" srcdoc="{_cell(rendered["HtmlBody"])}"></iframe>'
    request = json.dumps(item, indent=2, ensure_ascii=False)
    body = (f'<p><a href="/_sandbox/">Inbox</a></p><h1>{_cell(rendered["Subject"])}</h1>'
            f"<table>{rows}</table><h2>HTML</h2>{frame}"
            f"<h2>Text</h2><pre>{_cell(rendered['TextBody'])}</pre>"
            f"<h2>Request</h2><pre>{_cell(request)}</pre>")
    return _PAGE.format(title=_cell(rendered["Subject"]), body=body)
