#!/usr/bin/python3
"""What the sandbox received, told to a person; test/demo's eyes.

    postbox.py URL wait N            until N mails have been accepted
    postbox.py URL request EMAIL     the request that carried the mail to EMAIL
    postbox.py URL mail EMAIL CODE   that mail as EMAIL reads it; it has to show CODE
    postbox.py URL count N           exactly N mails so far, none of them twice
    postbox.py URL none EMAIL        nothing was sent to EMAIL
    postbox.py URL delays            reads "email<TAB>microseconds since the epoch" lines and says
                                     how much later each one's request arrived

Exit status 1, with a sentence, if it is otherwise.
"""
import json
import statistics
import sys
import urllib.parse
import urllib.request

# a proxy in the environment is not meant for 127.0.0.1
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def ask(url, call, **query):
    with _opener.open(f"{url}/_sandbox/{call}?{urllib.parse.urlencode(query)}", timeout=60) as answer:
        return json.load(answer)


def mails_to(url, email):
    return ask(url, "messages", recipient=email)["messages"]


def the_mail_to(url, email):
    mails = mails_to(url, email)
    if len(mails) != 1:
        sys.exit(f"{email} has {len(mails)} mails instead of one")
    return mails[0]


def wait(url, number):
    if not ask(url, "wait", messages=number, timeout=30)["reached"]:
        counts = ask(url, "counts")
        sys.exit(f"after 30 s Postmark has {counts['accepted']} mails instead of {number}: {counts}")


def request(url, email):
    received = the_mail_to(url, email)["ReceivedUs"]
    entry = next(e for e in ask(url, "requests")["requests"] if e["received_us"] == received)
    print(f"{entry['method']} {entry['path']}")
    for name in ("Host", "Content-Type", "User-Agent"):
        if name in entry["headers"]:
            print(f"{name}: {entry['headers'][name]}")
    print(f"X-Postmark-Server-Token: {entry['token']}")
    print()
    print(json.dumps(entry["body"], indent=2, ensure_ascii=False))


def mail(url, email, code):
    shown = the_mail_to(url, email)
    print(f"From:    {shown['Request']['From']}")
    print(f"To:      {', '.join(shown['Recipients'])}")
    print(f"Subject: {shown['Subject']}")
    print()
    print(shown["TextBody"].strip())
    if code not in shown["TextBody"]:
        sys.exit(f"the mail does not show the code {code}")


def code(url, email):
    print(the_mail_to(url, email)["Request"]["TemplateModel"]["code"])


def template(url, token, alias, subject, text):
    document = {"Name": alias, "Alias": alias, "Subject": subject, "TextBody": text}
    _opener.open(urllib.request.Request(
        f"{url}/templates", json.dumps(document).encode(), method="POST",
        headers={"Content-Type": "application/json", "Accept": "application/json",
                 "X-Postmark-Server-Token": token}), timeout=60).close()


def count(url, number):
    counts = ask(url, "counts")
    if (counts["accepted"], counts["duplicates"]) != (int(number), 0):
        sys.exit(f"{number} mails were to be sent, each once; Postmark counts {counts}")


def none(url, email):
    if mails_to(url, email):
        sys.exit(f"{email} got a mail that was never to be sent")


def delays(url):
    committed = dict(line.split() for line in sys.stdin if line.strip())
    took = sorted((the_mail_to(url, email)["ReceivedUs"] - float(since)) / 1000
                  for email, since in committed.items())
    print(f"median {statistics.median(took):.2f} ms, fastest {took[0]:.2f} ms, slowest {took[-1]:.2f} ms")


if __name__ == "__main__":
    _, base, name, *arguments = sys.argv
    {"wait": wait, "request": request, "mail": mail, "code": code, "template": template, "count": count, "none": none,
     "delays": delays}[name](base, *arguments)
