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
<p>%(before)s{{#code}}%(with_code)s {{/code}}{{#link}}%(with_link)s {{/link}}%(otherwise)s</p>
{{#code}}<p style="font-size:2rem;letter-spacing:.25rem"><strong>{{.}}</strong></p>{{/code}}
{{#link}}<p><a href="{{.}}">{{.}}</a></p>{{/link}}
"""

_TEXT = """\
%(title)s

%(before)s{{#code}}%(with_code)s {{/code}}{{#link}}%(with_link)s {{/link}}%(otherwise)s
{{#code}}

    {{.}}
{{/code}}
{{#link}}

{{.}}
{{/link}}
"""

_ORGANIZATION = "{{#organization.name}} to %s{{.}}{{/organization.name}}"
_NOT_YOU = "If that was not you, ignore this mail."

# alias, name, title, subject with a code, what comes first, what the code or the link is for, what comes last
_STANDARD = (
    ("logto-register", "Register", "Welcome", "is your sign-up code", "", "finish creating your account", ""),
    ("logto-sign-in", "Sign in", "Sign in", "is your sign-in code", "", "sign in", _NOT_YOU),
    ("logto-forgot-password", "Forgot password", "Reset your password", "is your password reset code", "",
     "choose a new password", _NOT_YOU),
    ("logto-generic", "Generic", "Your verification code", "is your verification code", "", "go on", ""),
    ("logto-organization-invitation", "Organization invitation", "You are invited",
     None, "Somebody invited you" + _ORGANIZATION % "join " + ". ", "accept", ""),
    ("logto-user-permission-validation", "User permission validation", "Confirm that it is you",
     "confirms that it is you", "", "confirm a change of your account", ""),
    ("logto-bind-new-identifier", "Bind new identifier", "Confirm your address",
     "confirms your address", "", "add this address to your account", ""),
    ("logto-mfa-verification", "MFA verification", "Second step", "is your second-step code", "",
     "take the second step of signing in", _NOT_YOU),
    ("logto-bind-mfa", "Bind MFA", "Turn on mail as second step", "turns on the second step", "",
     "turn on verification by mail", ""),
)


def default_templates():
    """Template documents, in the JSON shape of POST /templates."""
    yield {"Alias": LAYOUT_ALIAS, "Name": "Sandbox layout", "TemplateType": "Layout",
           "HtmlBody": _LAYOUT_HTML, "TextBody": _LAYOUT_TEXT}
    for alias, name, title, with_code, before, purpose, otherwise in _STANDARD:
        words = {"title": title, "before": before, "otherwise": otherwise,
                 "with_code": f"Use this code to {purpose}.", "with_link": f"Follow this link to {purpose}."}
        subject = f"{{{{#code}}}}{{{{.}}}} {with_code}{{{{/code}}}}{{{{^code}}}}{title}{{{{/code}}}}" \
            if with_code else title + _ORGANIZATION % ""
        yield {"Alias": alias, "Name": name, "Subject": subject, "LayoutTemplate": LAYOUT_ALIAS,
               "HtmlBody": _HTML % words, "TextBody": _TEXT % words}
