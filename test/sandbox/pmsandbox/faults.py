"""Rules that make the sandbox misbehave.

A Rule says which requests it concerns and what to do with them.  For each
request the RuleBook makes a Plan: all matching rules together.  The server
carries the Plan out; the API knows of it only that some messages are refused
and some results edited.
"""
import email.utils
import fnmatch
import http
import json
import random
import time

from .addresses import addresses_of
from .errors import ControlError

DROPS = ("before_body", "before_accept", "after_accept")
GARBLES = ("truncated", "cut", "not_json", "not_utf8", "empty", "endless", "slow")
RULE_KEYS = {"path", "method", "token", "recipient", "reused", "times", "skip", "action"}
_NUMBER = (int, float)
ACTION_TYPES = {
    "latency": (*_NUMBER, list), "latency_after": (*_NUMBER, list),
    "status": (int,), "error_code": (int, str), "message": (str,), "errors": (list,),
    "body": (dict, list, str), "headers": (dict,), "retry_after": _NUMBER,
    "retry_after_date": _NUMBER, "accept": (bool,),
    "drop": (str,), "close": (str,),
    "refuse": (dict,), "drop_results": (int,), "extra_results": (int,),
    "without_error_code": (bool,), "string_error_code": (bool,),
    "garble": (str,), "interval": _NUMBER, "close_after": (bool,),
}
REFUSE_KEYS = {"error_code", "message", "errors", "index"}

# What Postmark says with a status when the rule does not: (ErrorCode, Message).
_DEFAULT_ANSWERS = {
    401: (10, "The Server Token you provided in the X-Postmark-Server-Token request header was "
              "invalid. Please verify that you are using a valid token."),
    402: (402, "Invalid JSON."),
    403: (403, "Forbidden."),
    422: (300, "Invalid email request."),
    429: (429, "Rate limit exceeded."),
    503: (100, "The Postmark API is offline for maintenance."),
}


# Those that Python 3.13 has renamed: what is said must not depend on who says it.
_PHRASES = {413: "Request Entity Too Large", 416: "Requested Range Not Satisfiable",
            422: "Unprocessable Entity"}


def phrase(status):
    """What HTTP calls a status, as servers in front of an API say it."""
    known = http.HTTPStatus(status).phrase if status in set(http.HTTPStatus) else "Error"
    return _PHRASES.get(status, known)


class Rule:
    """One rule, and how often it matched and was used."""

    def __init__(self, number, document):
        _check_rule(document)
        self.number = number
        self.document = document
        self.action = document["action"]
        self.recipient = document.get("recipient", "").lower() or None
        self._left = document.get("times")
        self._skip = document.get("skip", 0)
        self.used = 0

    def as_json(self):
        return {"id": self.number, "used": self.used, **self.document}

    def concerns(self, call):
        """Whether the rule is about such a request, its recipients left aside."""
        wanted = self.document
        return (self._left != 0
                and fnmatch.fnmatchcase(call.path, wanted.get("path", "*"))
                and wanted.get("method", call.method) == call.method
                and wanted.get("token", call.token) == call.token
                and wanted.get("reused", call.reused) == call.reused)

    def indexes(self, recipients_by_item):
        """The items of a request that the rule is about; None means the request as a whole."""
        if self.recipient is None:
            return None
        return [i for i, recipients in enumerate(recipients_by_item)
                if any(fnmatch.fnmatchcase(r.lower(), self.recipient) for r in recipients)]

    def use(self):
        """Count a match against skip and times; False if it is to be passed over."""
        if self._skip > 0:
            self._skip -= 1
            return False
        if self._left is not None:
            self._left -= 1
        self.used += 1
        return True


def _check_rule(document):
    """A misspelt rule must fail its test, not do nothing."""
    if not isinstance(document, dict) or not isinstance(document.get("action"), dict):
        raise ControlError("a rule is an object with an action")
    unknown = document.keys() - RULE_KEYS
    action = document["action"]
    unknown |= action.keys() - ACTION_TYPES.keys()
    unknown |= action.get("refuse", {}).keys() - REFUSE_KEYS if "refuse" in action else set()
    if unknown:
        raise ControlError(f"unknown key in the rule: {', '.join(sorted(unknown))}")
    for key, value in action.items():
        if not isinstance(value, ACTION_TYPES[key]):
            raise ControlError(f"{key} has the wrong type")
    if action.get("drop", DROPS[0]) not in DROPS:
        raise ControlError(f"drop is one of {', '.join(DROPS)}")
    if action.get("garble", GARBLES[0]) not in GARBLES:
        raise ControlError(f"garble is one of {', '.join(GARBLES)}")
    if action.get("close", "reset") not in ("reset", "fin"):
        raise ControlError("close is reset or fin")
    if action.get("drop") == "before_body" and "recipient" in document:
        raise ControlError("a recipient is not known before the body is read")
    for key in ("times", "skip"):
        if not isinstance(document.get(key, 0), int):
            raise ControlError(f"{key} is a number")


class Plan:
    """Everything that is to go wrong with one request."""

    def __init__(self):
        self.latency = 0.0
        self.latency_after = 0.0
        self.answer = None
        self.accept = True
        self.drop = None
        self.reset = True
        self.garble = None
        self.interval = 0.05
        self.close_after = False
        self._item_actions = []
        self._resize = 0

    def add(self, action, indexes):
        """Take in the action of a rule that concerns the items of `indexes` (None: all)."""
        self.latency += _pick(action.get("latency", 0))
        self.latency_after += _pick(action.get("latency_after", 0))
        self.drop = self.drop or action.get("drop")
        self.reset = action.get("close", "reset") == "reset" and self.reset
        self.garble = self.garble or action.get("garble")
        self.interval = action.get("interval", self.interval)
        self.close_after = self.close_after or action.get("close_after", False)
        self._resize += action.get("extra_results", 0) - action.get("drop_results", 0)
        if self.answer is None and ("status" in action or "body" in action):
            self.answer = _answer(action)
            self.accept = action.get("accept", False)
        self._item_actions.append((action, indexes))

    def refusal(self, index):
        """The result that message `index` gets instead of being accepted, or None."""
        for action, indexes in self._item_actions:
            refuse = action.get("refuse")
            if refuse is None or (indexes is not None and index not in indexes):
                continue
            if refuse.get("index", index) == index:
                return _error(refuse.get("error_code", 300), refuse.get("message", "Refused."),
                              refuse.get("errors"))
        return None

    def edit(self, results):
        """The results as this plan wants them sent."""
        for action, indexes in self._item_actions:
            chosen = results if indexes is None else [results[i] for i in indexes if i < len(results)]
            for result in chosen:
                if action.get("without_error_code") and result.get("ErrorCode") == 0:
                    del result["ErrorCode"]
                    result["Message"] = "Message accepted, but delivery may be delayed."
                elif action.get("string_error_code") and "ErrorCode" in result:
                    result["ErrorCode"] = str(result["ErrorCode"])
        if self._resize < 0:
            return results[:self._resize]
        return results + [dict(results[-1]) for _ in range(self._resize)] if results else results


def _pick(duration):
    """A duration in seconds; of [low, high] any in between."""
    return random.uniform(*duration) if isinstance(duration, list) else duration


def _error(code, message, errors=None):
    body = {"ErrorCode": code, "Message": message}
    return body if errors is None else {**body, "Errors": errors}


def _answer(action):
    """(status, body bytes, headers) of an action that replaces the answer."""
    status = action.get("status", 200)
    headers = {str(k): str(v) for k, v in action.get("headers", {}).items()}
    if "retry_after" in action:
        headers["Retry-After"] = str(action["retry_after"])
    if "retry_after_date" in action:
        headers["Retry-After"] = email.utils.formatdate(
            time.time() + action["retry_after_date"], usegmt=True)
    body = action.get("body")
    if isinstance(body, str):
        return status, body.encode(), headers
    if body is None:
        code, message = _DEFAULT_ANSWERS.get(status, (None, ""))
        code = action.get("error_code", code)
        if code is None:
            return status, action.get("message", phrase(status)).encode(), {
                "Content-Type": "text/html", **headers}
        body = _error(code, action.get("message", message), action.get("errors"))
    return status, json.dumps(body, separators=(",", ":")).encode(), headers


class RuleBook:
    """The rules in force, oldest first."""

    def __init__(self):
        self._rules = []
        self._number = 0
        self._cleared = 0

    def add(self, document):
        rule = Rule(self._number + 1, document)
        self._number += 1
        self._rules.append(rule)
        return rule

    @property
    def changes(self):
        """How often there was another rule or one less, or one was used."""
        return self._number + self._cleared + sum(rule.used for rule in self._rules)

    def clear(self, number=None):
        self._cleared += sum(rule.used for rule in self._rules) + 1
        self._rules = [r for r in self._rules if number is not None and r.number != number]

    def as_json(self):
        return [rule.as_json() for rule in self._rules]

    def before_body(self, call):
        """A Plan if the connection is to be dropped before the body is read, else None."""
        for rule in self._rules:
            if rule.action.get("drop") == "before_body" and rule.concerns(call) and rule.use():
                plan = Plan()
                plan.add(rule.action, None)
                return plan
        return None

    def plan(self, call):
        """The Plan for a request whose body is known."""
        plan = Plan()
        recipients = None
        for rule in self._rules:
            if rule.action.get("drop") == "before_body" or not rule.concerns(call):
                continue
            if rule.recipient is not None and recipients is None:
                recipients = [addresses_of(i) if isinstance(i, dict) else [] for i in call.items or ()]
            indexes = rule.indexes(recipients)
            if indexes != [] and rule.use():
                plan.add(rule.action, indexes)
        return plan
