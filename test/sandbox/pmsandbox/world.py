"""Everything one sandbox knows, and the few steps that touch several parts of it."""
import collections
import time

from .errors import ControlError, PostmarkError
from .faults import RuleBook
from .feedback import Feedback
from .journal import Journal
from .mailbox import refusal
from .requestlog import Changes, RequestLog
from .settings import Settings
from .store import MessageStore
from .suppressions import Suppressions
from .templates import TemplateRegistry
from .validation import MessageChecker, Verdict, recipients_of
from .webhooks import Webhooks

DEFAULT_STREAM = "outbound"
MAX_REFUSALS = 1000


class World:
    """The state of a sandbox from its start to its end."""

    def __init__(self, tokens=None, senders=None, state_file=None, webhook_retries=None,
                 webhook_urls=(), webhook_headers=(), allow_remote=False):
        self._initial = {key: value for key, value in
                         (("tokens", tokens), ("senders", senders), ("webhook_retries", webhook_retries))
                         if value is not None}
        self.settings = Settings(**self._initial)
        self.templates = TemplateRegistry()
        self.suppressions = Suppressions(
            lambda *change: self.feedback.subscription_changed(*change))
        self.checker = MessageChecker(self.settings, self.templates, self.suppressions)
        self.store = MessageStore()
        self.rules = RuleBook()
        self.changes = Changes()
        self.log = RequestLog(self.settings.request_log_limit, self.changes)
        self.webhooks = Webhooks(self.settings, self.changes, webhook_urls, webhook_headers, allow_remote)
        self.feedback = Feedback(self.store, self.suppressions, self.webhooks)
        self.tested = 0
        self.refused = 0
        self.refusals = collections.deque(maxlen=MAX_REFUSALS)
        self._refusal_count = 0
        self._resets = 0
        self._journal = Journal(state_file) if state_file else None
        if self._journal:
            self._restore()

    def _restore(self):
        """Take over what an earlier run with the same state file accepted."""
        prefix, entries = self._journal.restore()
        if prefix is None:
            self._journal.begin(self.store.prefix)
            return
        self.store.clear(prefix)
        for submission, indexes in entries:
            items = submission.items()
            accepted = [(i, items[i], self._verdict(items[i])) for i in indexes]
            first = len(self.store)
            self.store.accept(submission, accepted)
            self._meet_fates(first, accepted, submission.received_us, restored=True)

    def _verdict(self, item):
        """The verdict of an earlier run, as far as the store needs it."""
        template = self.templates.find(item.get("TemplateAlias") or item.get("TemplateId"))
        return Verdict(recipients_of(item), template, item.get("MessageStream") or DEFAULT_STREAM, None)

    def accept(self, submission, accepted):
        """Keep accepted messages, in the state file first; return their MessageIDs."""
        if self._journal:
            self._journal.append(submission, [index for index, _, _ in accepted])
        first = len(self.store)
        ids = self.store.accept(submission, accepted)
        self._meet_fates(first, accepted, submission.received_us)
        self.changes.notify()
        return ids

    def _meet_fates(self, first, accepted, now_us, restored=False):
        for position, (_, item, verdict) in enumerate(accepted, first):
            self.feedback.accepted(position, item, verdict, now_us, restored)

    def refuse(self, entry, item, error_code, message):
        """Remember what was not accepted, for whoever looks for a mail that does not come."""
        self.refusals.append(refusal(entry.received_us, entry.path, item, error_code, message))
        self._refusal_count += 1
        self.changes.notify()

    def refuse_all(self, call, error_code, message):
        """The same of a request as a whole."""
        for item in (call.items or [call.document])[:MAX_REFUSALS]:
            self.refuse(call.entry, item, error_code, message)

    def news(self):
        """A word that changes with everything that the mailbox shows."""
        return ".".join(map(str, (self._resets, len(self.store), self._refusal_count, len(self.feedback.bounces),
                                  self.webhooks.ended.total(), self.suppressions.changes, self.rules.changes)))

    def reset(self):
        """Back to the state of a fresh start with the same command line."""
        self.settings.apply(vars(Settings(**self._initial)))
        self.templates.restore_defaults()
        self.suppressions.clear()
        self.feedback.clear()
        self.webhooks.clear()
        self.store.clear()
        self.rules.clear()
        self.log.clear()
        self.log.resize(self.settings.request_log_limit)
        self.tested = self.refused = self._refusal_count = 0
        self.refusals.clear()
        self._resets += 1
        if self._journal:
            self._journal.begin(self.store.prefix)
        self.changes.notify()

    def configure(self, document):
        """Apply a config document; one that is wrong in its settings changes nothing."""
        if not isinstance(document, dict):
            raise ControlError("the configuration is a JSON object")
        extras = {"inactive_recipients": (str, self._set_inactive),
                  "templates": (dict, self._upsert_templates),
                  "remove_templates": (str, self._remove_templates)}
        unknown = [key for key in document if key not in extras and not Settings.knows(key)]
        if unknown:
            raise ControlError(f"unknown key in the configuration: {', '.join(unknown)}")
        values = Settings.read({k: v for k, v in document.items() if k not in extras})
        for key, (kind, change) in extras.items():
            if key not in document:
                continue
            if not isinstance(document[key], list) \
                    or not all(isinstance(entry, kind) for entry in document[key]):
                raise ControlError(f"{key} is a list of {kind.__name__}")
            try:
                change(document[key])
            except PostmarkError as error:
                raise ControlError(f"{key}: {error.message}") from error
        self.settings.apply(values)
        self.log.resize(self.settings.request_log_limit)

    def _set_inactive(self, addresses):
        self.suppressions.replace(DEFAULT_STREAM, addresses, time.time_ns() // 1000)

    def _upsert_templates(self, documents):
        for document in documents:
            self.templates.upsert(document)

    def _remove_templates(self, keys):
        for key in keys:
            self.templates.delete(key)

    def counts(self):
        """The counters of GET /_sandbox/counts."""
        return {
            "accepted": len(self.store), "distinct": self.store.distinct(),
            "duplicates": self.store.duplicates,
            "without_postmark_id": self.store.without_postmark_id,
            "tested": self.tested, "refused": self.refused,
            "requests": dict(self.log.by_route), "in_flight": self.log.in_flight,
            "max_in_flight": self.log.max_in_flight,
            "events": {**self.webhooks.ended, "waiting": self.webhooks.waiting()},
        }
