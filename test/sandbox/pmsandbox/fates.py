"""How messages end: which addresses bounce, and as what.

Postmark's own test addresses, `softbounce@bounce-testing.postmarkapp.com`,
work as Postmark documents them. So that an application's tests may use the
domains they like, the same local parts mean the same at every other domain,
`softbounce@example.com`, and may carry a suffix to make addresses of their
own, `softbounce+ann@example.com`.
"""
import collections

BOUNCE_TESTING = "bounce-testing.postmarkapp.com"
BLACK_HOLE = "blackhole.postmarkapp.com"
BOUNCE_HEADER = "x-pm-bounce-type"

# `ends`: the mail does not arrive; `inactive`: the address gets no mail any more
BounceType = collections.namedtuple("BounceType", "name code title description ends inactive")

BOUNCE_TYPES = {row[0]: BounceType(*row) for row in (
    ("HardBounce", 1, "Hard bounce", "The server was unable to deliver your message (ex: unknown "
     "user, mailbox not found).", True, True),
    ("Transient", 2, "Message delayed/Undeliverable", "The server could not temporarily deliver "
     "your message (ex: Message is delayed due to network troubles).", False, False),
    ("Unsubscribe", 16, "Unsubscribe request", "Unsubscribe or Remove request.", False, False),
    ("Subscribe", 32, "Subscribe request", "Subscribe request from someone wanting to get added "
     "to the mailing list.", False, False),
    ("AutoResponder", 64, "Auto responder", "Automatic email responder (ex: \"Out of Office\" or "
     "\"On Vacation\").", False, False),
    ("AddressChange", 128, "Address change", "The recipient has requested an address change.",
     False, False),
    ("DnsError", 256, "DNS error", "A temporary DNS error.", True, False),
    ("SpamNotification", 512, "Spam notification", "The message was delivered, but was either "
     "blocked by the user, or classified as spam, bulk mail, or had rejected content.", True, False),
    ("OpenRelayTest", 1024, "Open relay test", "The NDR is actually a test email message to see "
     "if the mail server is an open relay.", False, False),
    ("Unknown", 2048, "Unknown", "Unable to classify the NDR.", True, False),
    ("SoftBounce", 4096, "Soft bounce", "Unable to temporarily deliver message (i.e. mailbox full, "
     "account disabled, exceeds quota, out of disk space).", True, False),
    ("VirusNotification", 8192, "Virus notification", "The bounce is actually a virus notification "
     "warning about a virus/code infected message.", True, False),
    ("ChallengeVerification", 16384, "Spam challenge verification", "The bounce is a challenge "
     "asking for verification you actually sent the email.", False, False),
    ("BadEmailAddress", 100000, "Invalid email address", "The address is not a valid email address.",
     True, True),
    ("SpamComplaint", 100001, "Spam complaint", "The subscriber explicitly marked this message as "
     "spam.", False, True),
    ("ManuallyDeactivated", 100002, "Manually deactivated", "The email was manually deactivated.",
     True, True),
    ("Unconfirmed", 100003, "Registration not confirmed", "The subscriber has not clicked on the "
     "confirmation link upon registration or import.", True, False),
    ("Blocked", 100006, "ISP block", "Blocked from this ISP due to content or blacklisting.",
     True, False),
    ("SMTPApiError", 100007, "SMTP API error", "An error occurred while accepting an email through "
     "the SMTP API.", True, False),
    ("InboundError", 100008, "Processing failed", "Unable to deliver inbound message to destination "
     "inbound hook.", False, False),
    ("DMARCPolicy", 100009, "DMARC Policy", "Email rejected due DMARC Policy.", True, False),
    ("TemplateRenderingFailed", 100010, "Template rendering failed", "An error occurred while "
     "attempting to render your template.", True, False),
)}
_BY_WORD = {name.lower(): kind for name, kind in BOUNCE_TYPES.items()}


def bounce_type(word):
    """The BounceType of a name in any letter case, with or without underscores, or None."""
    return _BY_WORD.get(word.replace("_", "").lower())


def fate_of(recipient, item):
    """What becomes of a mail to this address: a BounceType, None for delivery, False for nothing."""
    local, _, domain = recipient.partition("@")
    kind = _BY_WORD.get(local) or bounce_type(local.partition("+")[0])
    if domain[-16:].lower() != ".postmarkapp.com":
        return kind
    domain = domain.lower()
    if domain == BOUNCE_TESTING:
        return _tested_bounce(kind, item)
    return False if domain == BLACK_HOLE else kind


def _tested_bounce(kind, item):
    """Of Postmark's own test addresses the header decides, else the local part; a complaint
    cannot be asked for there."""
    for header in item.get("Headers") or ():
        if header["Name"].lower() == BOUNCE_HEADER:
            kind = bounce_type(header["Value"])
    return BOUNCE_TYPES["HardBounce"] if kind is None or kind.name == "SpamComplaint" else kind
