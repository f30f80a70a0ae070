"""What Postmark checks in a message before it accepts it.

Two layers, because they fail differently in a batch: a field of the wrong type
spoils the whole request (`check_types`), anything else refuses the one message
(`MessageChecker.check`).
"""
import base64
import json

from .addresses import is_address, parse_list, parse_mailbox
from .errors import PostmarkError

MAX_BATCH = 500
MAX_MESSAGE_BYTES = 10 * 1024 * 1024
MAX_BATCH_BYTES = 50 * 1024 * 1024
MAX_BODY_BYTES = 5 * 1024 * 1024
MAX_RECIPIENTS = 50
MAX_TAG = 1000
MAX_METADATA_FIELDS = 10
MAX_METADATA_NAME = 20
MAX_METADATA_VALUE = 80
FORBIDDEN_ATTACHMENTS = frozenset(
    "vbs exe bin bat chm com cpl crt hlp hta inf ins isp jse lnk mdb pcd pif reg scr sct shs vbe vba wsf wsh wsl msc "
    "msi msp mst".split())
INACTIVE = ("Inactive recipients are ones that have generated a hard bounce, a spam complaint, or a manual "
            "suppression.")
TRACK_LINKS = ("None", "HtmlAndText", "HtmlOnly", "TextOnly")

_FIELD_TYPES = {
    "From": str, "To": str, "Cc": str, "Bcc": str, "ReplyTo": str, "Subject": str, "Tag": str,
    "HtmlBody": str, "TextBody": str, "TrackOpens": bool, "TrackLinks": str, "Headers": list,
    "Metadata": dict, "Attachments": list, "MessageStream": str, "TemplateId": int,
    "TemplateAlias": str, "TemplateModel": dict, "InlineCss": bool,
}
_NOT_WITH_TEMPLATE = ("Subject", "HtmlBody", "TextBody")


def check_types(item):
    """Refuse the request if a field of this message has the wrong JSON type."""
    if type(item) is not dict:
        raise PostmarkError(402, "Each message must be a JSON object.")
    for field, value in item.items():
        expected = _FIELD_TYPES.get(field)
        if expected is not None and value is not None and type(value) is not expected:
            raise PostmarkError(403, f"The field '{field}' has the wrong type.")


class Verdict:
    """What checking an acceptable message found out about it."""

    __slots__ = ("recipients", "template", "stream", "note")

    def __init__(self, recipients, template, stream, note):
        self.recipients = recipients
        self.template = template
        self.stream = stream
        self.note = note


class MessageChecker:
    """Checks messages against the settings, templates and suppressions of now."""

    def __init__(self, settings, templates, suppressions):
        self._settings = settings
        self._templates = templates
        self._suppressions = suppressions

    def check(self, item, templated):
        """Return a Verdict, or raise PostmarkError for this one message."""
        try:
            self._check_sender(item)
            recipients = recipients_of(item)
            _check_options(item)
            _check_metadata(item)
            _check_attachments(item)
            stream = self._check_stream(item)
            template = self._check_template(item) if templated else _check_content(item)
        except PostmarkError as error:
            raise self._with_the_others(error, item, templated) from None
        note = self._check_active(stream, recipients)
        return Verdict(recipients, template, stream, note)

    def _with_the_others(self, first, item, templated):
        """An error, or ErrorCode 11 for it and those that would come after it."""
        errors = []
        for check in (self._check_sender, recipients_of, _check_options, _check_metadata, _check_attachments,
                      self._check_stream, self._check_template if templated else _check_content):
            try:
                check(item)
            except PostmarkError as error:
                errors.append(error)
        if len(errors) < 2:
            return first
        return PostmarkError(11, "Multiple errors occurred. Inspect the 'Errors' property for more information.",
                             errors=errors)

    def _check_sender(self, item):
        sender = item.get("From") or ""
        try:
            address = parse_mailbox(sender)[1].lower()
        except ValueError:
            raise PostmarkError(300, _wrong_address("From", sender)) from None
        if self._settings.unconfirmed.match(address):
            raise PostmarkError(401, f"The Sender Signature for '{address}' is not confirmed.")
        if not self._settings.confirmed.match(address):
            raise PostmarkError(400, f"The 'From' address you supplied ({address}) is not a Sender "
                                     "Signature on your account. Please add and confirm this address "
                                     "in order to be able to use it in the 'From' field of your "
                                     "messages.")

    def _check_stream(self, item):
        name = item.get("MessageStream") or "outbound"
        stream = self._settings.streams.get(name)
        if stream is None:
            raise PostmarkError(1235, "The 'MessageStream' provided does not exist on this server.")
        if stream["ArchivedAt"] or stream["MessageStreamType"] == "Inbound":
            raise PostmarkError(1236, "The 'MessageStream' provided cannot be used for sending.")
        return name

    def _check_template(self, item):
        for field in _NOT_WITH_TEMPLATE:
            if item.get(field) is not None:
                raise PostmarkError(1123, f"The field '{field}' is not allowed with a template.")
        alias, template_id = item.get("TemplateAlias"), item.get("TemplateId")
        if not alias and template_id is None:
            raise PostmarkError(1101, "The Template's 'TemplateId' or 'Alias' associated with this request is "
                                      "not valid or was not found.")
        if item.get("TemplateModel") is None:
            raise PostmarkError(1120, "The field 'TemplateModel' is required.")
        template = self._templates.get(alias or template_id)
        if not template.active or template.template_type != "Standard":
            raise PostmarkError(1101, "The Template associated with this request is not active or is "
                                      "a layout.")
        return template

    def _check_active(self, stream, recipients):
        inactive = self._suppressions.inactive(stream, recipients)
        if not inactive:
            return None
        listed = ", ".join(inactive).lower()
        if len(inactive) == len(recipients):
            raise PostmarkError(406, "You tried to send to recipient(s) that have been marked as "
                                     f"inactive. Found inactive addresses: {listed}. {INACTIVE}")
        return f"Message OK, but will not deliver to these inactive addresses: {listed}. {INACTIVE}"


def recipients_of(item):
    """Every address of To, Cc and Bcc; refuses a message with none, too many or a malformed one."""
    found = []
    for field in ("To", "Cc", "Bcc"):
        value = item.get(field)
        if not value:
            continue
        try:
            found.extend(address for _, address in parse_list(value))
        except ValueError as error:
            raise PostmarkError(300, _wrong_address(field, str(error))) from None
    if not found or not item.get("To"):
        raise PostmarkError(300, "Zero recipients specified")
    if len(found) > MAX_RECIPIENTS:
        raise PostmarkError(300, f"At most {MAX_RECIPIENTS} recipients are allowed in one message.")
    return found


def _wrong_address(field, text):
    """What Postmark says of it: what it can't parse, and what it can and does not take."""
    address = text.rpartition("<")[2].partition(">")[0].strip() if "<" in text else text.strip()
    if "@" not in address:
        return f"Error parsing '{field}': Illegal email address '{address}'. It must contain the '@' symbol."
    domain = address.rpartition("@")[2]
    if not is_address(f"a@{domain}"):
        return f"Error parsing '{field}': Illegal email domain '{domain}' in address '{address}'."
    return f"Invalid '{field}' address: '{text}'."


def _check_attachments(item):
    for attachment in item.get("Attachments") or ():
        if not isinstance(attachment, dict) or not all(
                isinstance(attachment.get(key), str) and attachment[key] for key in ("Name", "Content", "ContentType")):
            raise PostmarkError(300, "Each of 'Attachments' has a 'Name', 'Content' and 'ContentType'.")
        if attachment["Name"].rpartition(".")[2].lower() in FORBIDDEN_ATTACHMENTS:
            raise PostmarkError(411, f"The attachment file type of '{attachment['Name']}' is not allowed.")
        try:
            base64.b64decode(attachment["Content"], validate=True)
        except ValueError:
            raise PostmarkError(300, f"The 'Content' of the attachment '{attachment['Name']}' is not base64.") from None


def _check_options(item):
    reply_to = item.get("ReplyTo")
    if reply_to:
        try:
            parse_list(reply_to)
        except ValueError as error:
            raise PostmarkError(300, _wrong_address("Reply-To", str(error))) from None
    tag = item.get("Tag")
    if tag and len(tag) > MAX_TAG:
        raise PostmarkError(300, f"'Tag' may have at most {MAX_TAG} characters.")
    track_links = item.get("TrackLinks")
    if track_links is not None and track_links not in TRACK_LINKS:
        raise PostmarkError(300, f"'TrackLinks' is one of {', '.join(TRACK_LINKS)}.")
    for header in item.get("Headers") or ():
        if not isinstance(header, dict) or not isinstance(header.get("Name"), str) \
                or not isinstance(header.get("Value"), str):
            raise PostmarkError(300, "Each of 'Headers' has a 'Name' and a 'Value'.")


def _check_metadata(item):
    metadata = item.get("Metadata")
    if not metadata:
        return
    if len(metadata) > MAX_METADATA_FIELDS:
        raise PostmarkError(300, f"'Metadata' may have at most {MAX_METADATA_FIELDS} fields.")
    for name, value in metadata.items():
        if type(value) is not str:
            raise PostmarkError(300, f"The value of the Metadata field '{name}' must be a string.")
        if not name or len(name) > MAX_METADATA_NAME:
            raise PostmarkError(300, f"A Metadata name has 1 to {MAX_METADATA_NAME} characters: '{name}'.")
        if len(value) > MAX_METADATA_VALUE:
            raise PostmarkError(300, "A Metadata value may have at most "
                                     f"{MAX_METADATA_VALUE} characters: '{name}'.")


def _check_content(item):
    """The bodies of a message that has no template; such a message has no Template."""
    for field in ("TemplateId", "TemplateAlias", "TemplateModel"):
        if item.get(field) is not None:
            raise PostmarkError(1123, f"The field '{field}' is not allowed without a template.")
    bodies = [item.get("HtmlBody"), item.get("TextBody")]
    if not any(bodies):
        raise PostmarkError(300, "Provide either email TextBody or HtmlBody or both.")
    if any(body and len(body.encode(errors="replace")) > MAX_BODY_BYTES for body in bodies):
        raise PostmarkError(300, "HtmlBody and TextBody may have at most 5 MB each.")


def check_size(item):
    """Refuse one message of a batch that is larger than a message may be."""
    if len(json.dumps(item, ensure_ascii=False).encode(errors="replace")) > MAX_MESSAGE_BYTES:
        raise PostmarkError(300, "A message may have at most 10 MB.")
