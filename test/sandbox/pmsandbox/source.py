"""The raw source of a message, as it would go over the wire."""
import base64
import email.message
import email.policy
import email.utils

_SET_BELOW = {"from", "to", "cc", "bcc", "reply-to", "subject", "date", "message-id", "mime-version",
              "content-type", "content-transfer-encoding"}


def source_of(store, position):
    """The message of a position in RFC 5322 form, as text."""
    item, rendered = store.item(position), store.rendered(position)
    message_id = store.message_id(position)
    built = email.message.EmailMessage(policy=email.policy.SMTP)
    for name, value in (("From", item.get("From")), ("To", item.get("To")), ("Cc", item.get("Cc")),
                        ("Reply-To", item.get("ReplyTo")), ("Subject", rendered["Subject"] or ""),
                        ("Date", email.utils.formatdate(store.submission(position).received_us / 1e6)),
                        ("Message-ID", f"<{message_id}@mtasv.net>"), ("X-PM-Message-Id", message_id),
                        ("X-PM-Tag", item.get("Tag"))):
        _add(built, name, value)
    for name, value in (item.get("Metadata") or {}).items():
        _add(built, f"X-PM-Metadata-{name}", value)
    for header in item.get("Headers") or ():
        if header["Name"].lower() not in _SET_BELOW:
            _add(built, header["Name"], header["Value"])
    if rendered["TextBody"] is not None or rendered["HtmlBody"] is None:
        built.set_content(_encodable(rendered["TextBody"] or ""), cte="quoted-printable")
    if rendered["HtmlBody"] is not None:
        add = built.add_alternative if built.get_content_maintype() == "text" and rendered["TextBody"] is not None \
            else built.set_content
        add(_encodable(rendered["HtmlBody"]), subtype="html", cte="quoted-printable")
    for attachment in item.get("Attachments") or ():
        kind, _, subkind = attachment["ContentType"].partition(";")[0].strip().partition("/")
        built.add_attachment(base64.b64decode(attachment["Content"]), maintype=kind or "application",
                             subtype=subkind or "octet-stream", filename=attachment["Name"])
    for number, part in enumerate(part for part in built.walk() if part.is_multipart()):
        part.set_boundary(f"mk-{message_id}-{number}")
    return built.as_bytes().decode(errors="replace")


def _encodable(text):
    return text.encode(errors="replace").decode()


def _add(built, name, value):
    """A header, where there is something to it; what cannot be one is shown without its line ends."""
    if value:
        built[name] = " ".join(_encodable(value).split("\r\n")).replace("\n", " ").replace("\r", " ")
