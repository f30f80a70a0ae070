"""The templates a fresh sandbox has: one for each of Logto's default aliases."""

LAYOUT_ALIAS = "sandbox-layout"

_LAYOUT_HTML = """\
<!doctype html>
<html><head><meta charset="utf-8"></head>
<body style="margin:0;background:#f4f4f5;font-family:system-ui,sans-serif;color:#18181b">
<div style="max-width:32rem;margin:2rem auto;padding:2rem;background:#fff;border-radius:.5rem">
{{{@content}}}
<p style="color:#71717a;font-size:.875rem">Nobody outside this machine received this mail.</p>
</div></body></html>
"""

_LAYOUT_TEXT = """\
{{{@content}}}

Nobody outside this machine received this mail.
"""

_HTML = """\
<h1 style="font-size:1.25rem">%(title)s</h1>
<p>%(lead)s</p>
{{#code}}<p style="font-size:2rem;letter-spacing:.25rem"><strong>{{code}}</strong></p>{{/code}}
{{#link}}<p><a href="{{link}}">{{link}}</a></p>{{/link}}
"""

_TEXT = """\
%(title)s

%(lead)s
{{#code}}

    {{code}}
{{/code}}
{{#link}}

{{link}}
{{/link}}
"""

_STANDARD = (
    ("logto-register", "Register", "Welcome", "{{code}} is your sign-up code",
     "Use this code to finish creating your account."),
    ("logto-sign-in", "Sign in", "Sign in", "{{code}} is your sign-in code",
     "Use this code to sign in. If that was not you, ignore this mail."),
    ("logto-forgot-password", "Forgot password", "Reset your password",
     "{{code}} is your password reset code", "Use this code to choose a new password."),
    ("logto-generic", "Generic", "Your verification code", "{{code}} is your verification code",
     "Use this code to go on."),
    ("logto-organization-invitation", "Organization invitation", "You are invited",
     "You are invited{{#organization.name}} to {{organization.name}}{{/organization.name}}",
     "Somebody invited you{{#organization.name}} to join {{organization.name}}{{/organization.name}}."),
    ("logto-user-permission-validation", "User permission validation", "Confirm that it is you",
     "{{code}} confirms that it is you", "Use this code to confirm a change of your account."),
    ("logto-bind-new-identifier", "Bind new identifier", "Confirm your address",
     "{{code}} confirms your address", "Use this code to add this address to your account."),
    ("logto-mfa-verification", "MFA verification", "Second step", "{{code}} is your second-step code",
     "Use this code as the second step of signing in."),
    ("logto-bind-mfa", "Bind MFA", "Turn on mail as second step", "{{code}} turns on the second step",
     "Use this code to turn on verification by mail."),
)


def default_templates():
    """Template documents, in the JSON shape of POST /templates."""
    yield {"Alias": LAYOUT_ALIAS, "Name": "Sandbox layout", "TemplateType": "Layout",
           "HtmlBody": _LAYOUT_HTML, "TextBody": _LAYOUT_TEXT}
    for alias, name, title, subject, lead in _STANDARD:
        words = {"title": title, "lead": lead}
        yield {"Alias": alias, "Name": name, "Subject": subject, "LayoutTemplate": LAYOUT_ALIAS,
               "HtmlBody": _HTML % words, "TextBody": _TEXT % words}
