"""Webhooks, bounces and suppressions: what becomes of mail, and who is told."""
import base64
import datetime
import http.server
import json
import threading
import time
import urllib.parse

from harness import HEADERS, Running, SandboxTest, message

__all__ = ["Bounces", "Events", "WebhooksApi", "Suppressions", "GivenOnTheCommandLine"]

EVERYTHING = {name: {"Enabled": True} for name in
              ("Open", "Click", "Delivery", "Bounce", "SpamComplaint", "SubscriptionChange")}


class Receiver(http.server.ThreadingHTTPServer):
    """An application that is told of events; answers what `answers` says, then 200."""

    daemon_threads = True

    def __init__(self):
        self.received, self.answers = [], []
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/hook"
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self.shutdown()
        self.server_close()

    def kinds(self):
        return [event.get("Type") or event["RecordType"] for _, event in self.received]


class _Handler(http.server.BaseHTTPRequestHandler):

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append((self.headers, json.loads(body)))
        self.send_response(self.server.answers.pop(0) if self.server.answers else 200)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"done")

    def log_message(self, *_):
        pass


class EventTest(SandboxTest):

    def setUp(self):
        super().setUp()
        self.receiver = Receiver()
        self.addCleanup(self.receiver.close)
        self.sandbox.control("POST", "config", {"event_delay": 0, "webhook_retries": [0, 0.01]})

    def hook(self, **fields):
        status, hook = self.sandbox.call("POST", "/webhooks", {
            "Url": self.receiver.url, "Triggers": EVERYTHING, **fields})
        self.assertEqual(status, 200, hook)
        return hook

    def settled(self, **wanted):
        query = urllib.parse.urlencode({"settled": 1, "timeout": 10, **wanted})
        self.assertTrue(self.sandbox.control("GET", "wait?" + query)["reached"])

    def kinds(self):
        self.settled()
        return self.receiver.kinds()


class Events(EventTest):

    def test_a_delivery(self):
        self.hook()
        answer = self.send(message(Tag="t"))[1]
        self.settled(events=1)
        [(headers, event)] = self.receiver.received
        self.assertEqual(headers["Content-Type"], "application/json")
        self.assertEqual(headers["X-PM-Retries-Remaining"], "2")
        self.assertLess(abs(time.time() - time.mktime(time.strptime(
            event.pop("DeliveredAt")[:19], "%Y-%m-%dT%H:%M:%S")) + time.timezone), 60)
        self.assertEqual(event, {
            "RecordType": "Delivery", "MessageStream": "outbound", "ServerID": 1, "Tag": "t",
            "MessageID": answer["MessageID"], "Recipient": "ann@example.com",
            "Metadata": {"postmark_id": "1", "postmark_batch": "b1"},
            "Details": "250 2.0.0 OK, kept by the sandbox"})

    def test_addresses_that_say_how_they_end(self):
        self.hook()
        for local, expected in (
            ("hardbounce", ["HardBounce", "SubscriptionChange"]), ("SoftBounce", ["SoftBounce"]),
            ("soft_bounce+ann", ["SoftBounce"]), ("autoresponder", ["AutoResponder", "Delivery"]),
            ("transient", ["Delivery", "Transient"]), ("blocked", ["Blocked"]),
            ("spamcomplaint", ["Delivery", "SpamComplaint", "SubscriptionChange"]),
            ("bea", ["Delivery"])):
            with self.subTest(local=local):
                self.receiver.received.clear()
                self.assertEqual(self.send(message(local + "@example.com"))[0], 200)
                self.assertEqual(sorted(self.kinds()), expected)

    def test_a_hard_bounce(self):
        self.hook()
        self.send(message("hardbounce@example.com", Tag="t"))
        self.settled()
        bounce, change = (event for _, event in sorted(self.receiver.received, key=lambda r: r[1]["RecordType"]))
        wanted = {"RecordType": "Bounce", "Type": "HardBounce", "TypeCode": 1, "Name": "Hard bounce", "ID": 1,
                  "Tag": "t", "Metadata": {"postmark_id": "1", "postmark_batch": "b1"}, "Inactive": True,
                  "CanActivate": True, "Email": "hardbounce@example.com", "From": "no-reply@shop.example",
                  "MessageStream": "outbound", "DumpAvailable": True}
        self.assertEqual({key: bounce[key] for key in wanted}, wanted)
        self.assertEqual(bounce["Subject"], "Your sign-up code for Shop")
        self.assertNotIn("Content", bounce)
        wanted = {"SuppressSending": True, "SuppressionReason": "HardBounce", "Origin": "Recipient",
                  "Recipient": "hardbounce@example.com", "MessageID": bounce["MessageID"]}
        self.assertEqual({key: change[key] for key in wanted}, wanted)

    def test_content_where_it_was_asked_for(self):
        self.hook(Triggers={"Bounce": {"Enabled": True, "IncludeContent": True}})
        self.send(message("softbounce@example.com"))
        self.settled()
        self.assertIn("MAILER-DAEMON", self.receiver.received[0][1]["Content"])

    def test_only_what_was_asked_for(self):
        self.hook(Triggers={"Bounce": {"Enabled": True}})
        self.hook(MessageStream="broadcast")
        self.send(message())
        self.send(message("hardbounce@example.com"))
        self.assertEqual(self.kinds(), ["HardBounce"])

    def test_headers_and_passwords(self):
        self.hook(HttpHeaders=[{"Name": "X-Secret", "Value": "s"}], HttpAuth={"Username": "u", "Password": "p"})
        self.hook(Url=self.receiver.url.replace("http://", "http://a%40b:c@"))
        self.send(message())
        self.settled(events=2)
        first, second = sorted((headers for headers, _ in self.receiver.received),
                               key=lambda headers: headers["X-Secret"] is None)
        self.assertEqual((first["X-Secret"], first["Authorization"]),
                         ("s", "Basic " + base64.b64encode(b"u:p").decode()))
        self.assertEqual(second["Authorization"], "Basic " + base64.b64encode(b"a@b:c").decode())

    def test_it_comes_again_until_it_is_answered_with_200(self):
        self.hook()
        self.receiver.answers += [500, 202]
        self.send(message())
        self.settled(events=1)
        received = self.receiver.received
        self.assertEqual([headers["X-PM-Retries-Remaining"] for headers, _ in received], ["2", "1", "0"])
        self.assertEqual(len({headers["X-PM-Webhook-Trace-Id"] for headers, _ in received}), 1)
        self.assertEqual(received[0][1], received[2][1])
        [event] = self.sandbox.control("GET", "events")["events"]
        self.assertEqual((event["state"], [a["status"] for a in event["attempts"]]), ("answered", [500, 202, 200]))

    def test_403_ends_it_and_so_does_the_last_retry(self):
        self.hook()
        for answers, state, times in (([403], "stopped", 1), ([500, 401, 404], "given up", 3)):
            self.receiver.received.clear()
            self.receiver.answers[:] = answers
            self.send(message())
            self.settled()
            self.assertEqual(self.sandbox.control("GET", "events")["events"][-1]["state"], state)
            self.assertEqual(len(self.receiver.received), times)

    def test_an_application_that_is_not_there(self):
        self.hook(Url="http://127.0.0.1:9/hook")
        self.send(message())
        self.settled(events=1)
        [event] = self.sandbox.control("GET", "events")["events"]
        self.assertEqual((event["state"], len(event["attempts"])), ("given up", 3))

    def test_nothing_is_posted_to_another_machine(self):
        self.hook(Url="http://192.0.2.1/hook")
        self.send(message())
        self.settled(events=1)
        self.assertEqual(self.sandbox.control("GET", "events")["events"][0]["state"], "not posted")

    def test_held_back_turned_round_and_doubled(self):
        self.hook(Triggers={"Delivery": {"Enabled": True}})
        self.sandbox.control("POST", "events/hold", {})
        for number in range(3):
            self.send(message(number=number))
        self.settled()
        self.assertEqual(self.receiver.received, [])
        self.assertEqual(self.sandbox.control("POST", "events/release", {"copies": 2})["posted"], 6)
        self.settled(events=6)
        ids = [event["Metadata"]["postmark_id"] for _, event in self.receiver.received]
        self.assertEqual(sorted(ids), list("001122"))
        self.assertEqual(self.sandbox.control("POST", "events/release", {})["posted"], 0)
        self.assertEqual(self.sandbox.control(
            "POST", "events/release", {"again": True, "order": "newest_first"})["posted"], 6)
        self.settled(events=12)
        self.assertEqual(len(self.receiver.received), 12)

    def test_events_on_command(self):
        self.hook()
        message_id = self.send(message())[1]["MessageID"]
        self.settled(events=1)
        self.receiver.received.clear()
        for what in ("Open", "Click", "spamcomplaint"):
            made = self.sandbox.control("POST", "events", {"type": what, "recipient": "ann@example.com"})
            self.assertEqual(made["MessageID"], message_id)
            self.settled()
        self.assertEqual(sorted(self.kinds()), ["Click", "Open", "SpamComplaint", "SubscriptionChange"])
        self.assertTrue(all(event["Metadata"]["postmark_id"] == "1" for _, event in self.receiver.received))
        self.assert_refused(self.send(message()), 406)
        for wrong in ({"type": "Nothing", "MessageID": message_id}, {"type": "Open", "recipient": "x@example.com"},
                      {"type": "Open", "MessageID": "x"}, {"typ": "Open"}, {"type": 1}):
            self.assertEqual(self.sandbox.call("POST", "/_sandbox/events", wrong, headers={})[0], 400, wrong)

    def test_a_batch_of_many(self):
        self.hook()
        self.send_batch(*(message(f"u{n}@example.com", n) for n in range(100)))
        self.settled(events=100)
        self.assertEqual({event["Recipient"] for _, event in self.receiver.received},
                         {f"u{n}@example.com" for n in range(100)})

    def test_reset_forgets_webhooks(self):
        self.hook()
        self.sandbox.control("POST", "reset")
        self.assertEqual(self.sandbox.call("GET", "/webhooks")[1], {"Webhooks": []})


class WebhooksApi(SandboxTest):

    def call(self, method, path, document=None):
        return self.sandbox.call(method, path, document)

    def test_create_list_edit_delete(self):
        status, made = self.call("POST", "/webhooks", {
            "Url": "https://shop.example/hook", "HttpHeaders": [{"Name": "X-Secret", "Value": "s"}],
            "Triggers": {"Bounce": {"Enabled": True}}})
        self.assertEqual((status, made["MessageStream"], made["Triggers"]["Bounce"]),
                         (200, "outbound", {"Enabled": True, "IncludeContent": False}))
        self.assertEqual(made["Triggers"]["Delivery"], {"Enabled": False})
        path = f"/webhooks/{made['ID']}"
        self.assertEqual(self.call("GET", path)[1], made)
        edited = self.call("PUT", path, {"Triggers": {"Delivery": {"Enabled": True}}})[1]
        self.assertEqual((edited["Triggers"]["Bounce"], edited["Triggers"]["Delivery"], edited["Url"]),
                         (made["Triggers"]["Bounce"], {"Enabled": True}, made["Url"]))
        self.assertEqual(self.call("GET", "/webhooks?MessageStream=outbound")[1], {"Webhooks": [edited]})
        self.assertEqual(self.call("GET", "/webhooks?MessageStream=broadcast")[1], {"Webhooks": []})
        self.assertEqual(self.call("DELETE", path)[1]["ErrorCode"], 0)
        self.assert_refused(self.call("GET", path), 1352)

    def test_what_is_refused(self):
        good = {"Url": "https://shop.example/hook"}
        for code, document in (
            (1354, {}  | {"Triggers": {}}), (1354, {"Url": "shop.example"}), (1354, {"Url": "ftp://x/"}),
            (1355, {}), (1356, {**good, "ID": 5}), (1226, {**good, "MessageStream": "none"}),
            (1351, {**good, "MessageStream": "inbound"}), (1363, {**good, "Status": "verified"}),
            (1358, {**good, "HttpHeaders": [{"Name": "a b", "Value": ""}]}),
            (1361, {**good, "Triggers": {"Nothing": {}}}), (1361, {**good, "Triggers": {"Open": {"On": True}}}),
            (1361, {**good, "HttpAuth": {"Username": "u"}}), (1361, {**good, "Trigger": {}})):
            with self.subTest(document=document):
                self.assert_refused(self.call("POST", "/webhooks", document), code)
        self.assert_refused(self.call("PUT", "/webhooks/99", good), 1352)
        self.assert_refused(self.call("POST", "/webhooks/1/verify"), 501, 501)


class Bounces(SandboxTest):

    def get(self, path, **query):
        return self.sandbox.call("GET", path + "?" + urllib.parse.urlencode(query))

    def bounces(self, **query):
        return self.get("/bounces", **{"count": 50, "offset": 0, **query})

    def test_filters_and_paging(self):
        for number, (local, tag) in enumerate((("hardbounce", "a"), ("softbounce", "b"), ("softbounce+x", "b"),
                                               ("ann", "b"))):
            message_id = self.send(message(f"{local}@example.com", number, Tag=tag))[1]["MessageID"]
            if local == "softbounce":
                wanted_id = message_id
        found = self.bounces()[1]
        self.assertEqual((found["TotalCount"], [b["Type"] for b in found["Bounces"]]),
                         (3, ["SoftBounce", "SoftBounce", "HardBounce"]))
        now = time.time()
        eastern = "%Y-%m-%dT%H:%M:%S"
        hour_ago, hour_ahead = (time.strftime(eastern, time.gmtime(now + shift)) + "Z" for shift in (-3600, 3600))
        for count, query in ((1, {"type": "HardBounce"}), (2, {"type": "SoftBounce"}), (0, {"type": "Blocked"}),
                             (1, {"inactive": "true"}), (2, {"inactive": "false"}), (2, {"tag": "b"}),
                             (1, {"emailFilter": "+X@"}), (1, {"messageID": wanted_id}),
                             (3, {"fromdate": hour_ago}), (0, {"fromdate": hour_ahead}),
                             (3, {"todate": hour_ahead}), (0, {"todate": hour_ago}),
                             (0, {"messagestream": "broadcast"})):
            with self.subTest(query=query):
                self.assertEqual(self.bounces(**query)[1]["TotalCount"], count)
        self.assertEqual([b["Type"] for b in self.bounces(count=1, offset=2)[1]["Bounces"]], ["HardBounce"])

    def test_times_without_a_zone_are_those_of_new_york(self):
        self.send(message("softbounce@example.com"))
        at = self.bounces()[1]["Bounces"][0]["BouncedAt"][:19]
        self.assertEqual(self.bounces(fromdate=at)[1]["TotalCount"], 0)
        self.assertEqual(self.bounces(fromdate=at + "Z", todate=at + "Z")[1]["TotalCount"], 1)

    def test_what_is_refused(self):
        for query in ({"count": -1}, {"count": 501}, {"count": 500, "offset": 9501}, {"type": "Bad"},
                      {"inactive": "x"}, {"fromdate": "soon"}, {"offset": ""}):
            with self.subTest(query=query):
                self.assert_refused(self.bounces(**query), 1000)
        self.assert_refused(self.get("/bounces/7"), 1001)

    def test_one_bounce(self):
        self.send(message("hardbounce@example.com"))
        bounce = self.get("/bounces/1")[1]
        self.assertIn("Content", bounce)
        self.assertEqual(self.get("/bounces/1/dump")[1]["Body"], bounce["Content"])
        self.assert_refused(self.send(message("hardbounce@example.com")), 406)
        answer = self.sandbox.call("PUT", "/bounces/1/activate")[1]
        self.assertEqual((answer["Message"], answer["Bounce"]["Inactive"]), ("OK", False))
        self.assertEqual(self.send(message("hardbounce@example.com"))[0], 200)
        self.send(message("softbounce@example.com"))
        self.assert_refused(self.sandbox.call("PUT", "/bounces/3/activate"), 1003)
        stats = self.get("/deliverystats")[1]
        self.assertEqual((stats["InactiveMails"], stats["Bounces"][0]), (1, {"Name": "All", "Count": 3}))

    def test_postmarks_own_addresses(self):
        for local, headers, kind in (("soft_bounce", None, "SoftBounce"), ("anybody", None, "HardBounce"),
                                     ("spamcomplaint", None, "HardBounce"), ("x", "Transient", "Transient")):
            address = f"{local}@Bounce-Testing.postmarkapp.com"
            more = {"Headers": [{"Name": "X-PM-Bounce-Type", "Value": headers}]} if headers else {}
            message_id = self.send(message(address, **more))[1]["MessageID"]
            self.assertEqual([b["Type"] for b in self.bounces(messageid=message_id)[1]["Bounces"]], [kind])
        self.send(message("hardbounce@blackhole.postmarkapp.com"))
        self.assertEqual(self.bounces()[1]["TotalCount"], 4)


class Suppressions(EventTest):
    BASE = "/message-streams/outbound/suppressions"

    def change(self, what, *addresses):
        answer = self.sandbox.call("POST", self.BASE + what,
                                   {"Suppressions": [{"EmailAddress": a} for a in addresses]})
        self.assertEqual(answer[0], 200, answer)
        return [(row["Status"], row["Message"]) for row in answer[1]["Suppressions"]]

    def dump(self, **query):
        return self.sandbox.call("GET", self.BASE + "/dump?" + urllib.parse.urlencode(query))

    def test_a_complaint_cannot_be_lifted(self):
        self.send(message("spamcomplaint@example.com"))
        self.send(message("hardbounce@example.com"))
        no_authority = "You do not have the required authority to change this suppression."
        bad = "An invalid email address was provided."
        self.assertEqual(self.change("/delete", "SpamComplaint@example.com", "hardbounce@example.com",
                                     "nobody@example.com", "nonsense"),
                         [("Failed", no_authority), ("Deleted", None), ("Deleted", None), ("Failed", bad)])
        self.assertEqual(self.change("", "spamcomplaint@example.com", "new@example.com", "nonsense"),
                         [("Failed", no_authority), ("Suppressed", None), ("Failed", bad)])
        self.assertEqual([r["EmailAddress"] for r in self.dump()[1]["Suppressions"]],
                         ["spamcomplaint@example.com", "new@example.com"])

    def test_the_dump_and_its_filters(self):
        self.send(message("spamcomplaint@example.com"))
        self.send(message("hardbounce@example.com"))
        self.change("", "gone@example.com")
        for count, query in ((3, {}), (1, {"EmailAddress": "Gone@example.com"}), (0, {"emailaddress": "gone@example.co"}),
                             (1, {"SuppressionReason": "HardBounce"}), (1, {"origin": "Customer"}),
                             (3, {"fromdate": "2020-01-01"}), (0, {"todate": "2020-01-01"}),
                             (1, {"SuppressionReason": "spamcomplaint", "Origin": "Recipient"})):
            with self.subTest(query=query):
                self.assertEqual(len(self.dump(**query)[1]["Suppressions"]), count)
        self.assert_refused(self.dump(SuppressionReason="x"), 1404)
        self.assert_refused(self.dump(Origin="x"), 1405)

    def test_what_is_refused(self):
        for code, document in ((1409, {}), (1409, []), (1409, {"Suppressions": []}), (1409, {"Suppressions": [1]}),
                               (1410, {"Suppressions": [{"EmailAddress": "a@example.com"}] * 51})):
            for what in ("", "/delete"):
                self.assert_refused(self.sandbox.call("POST", self.BASE + what, document), code)
        self.assert_refused(self.sandbox.call("GET", "/message-streams/none/suppressions/dump"), 1226)

    def test_many_at_once(self):
        self.sandbox.control("POST", "suppressions", {"count": 1000, "seconds": 86400})
        now = datetime.datetime.now(datetime.timezone.utc)
        counts = [len(self.sandbox.call("GET", f"{self.BASE}/dump?fromdate={since:%Y-%m-%dT%H:%M:%SZ}")[1]["Suppressions"])
                  for since in (now - datetime.timedelta(hours=h) for h in (48, 12))]
        self.assertEqual(counts[0], 1000)
        self.assertAlmostEqual(counts[1], 500, delta=5)

    def test_changes_by_hand_are_told(self):
        self.hook()
        self.change("", "gone@example.com")
        self.change("", "gone@example.com")
        self.change("/delete", "gone@example.com")
        self.settled()
        told = [{key: event[key] for key in ("SuppressSending", "SuppressionReason", "Origin", "MessageID", "Metadata")}
                for _, event in sorted(self.receiver.received, key=lambda r: r[1]["ChangedAt"])]
        self.assertEqual(told, [
            {"SuppressSending": True, "SuppressionReason": "ManualSuppression", "Origin": "Customer",
             "MessageID": None, "Metadata": {}},
            {"SuppressSending": False, "SuppressionReason": None, "Origin": "Customer", "MessageID": None,
             "Metadata": {}}])


class GivenOnTheCommandLine(EventTest):

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.other = Receiver()
        cls.addClassCleanup(cls.other.close)
        cls.given = Running(cls.directory, "--webhook", cls.other.url, "--webhook-header", "X-Secret: s",
                            "--webhook-retries", "0,0")
        cls.addClassCleanup(cls.given.stop)

    def test_a_webhook_of_the_command_line(self):
        self.given.control("POST", "reset")
        self.other.answers += [500]
        self.given.call("POST", "/email/withTemplate", message(), headers=HEADERS)
        self.assertTrue(self.given.control("GET", "wait?events=1&timeout=10")["reached"])
        self.assertEqual([headers["X-Secret"] for headers, _ in self.other.received], ["s", "s"])
