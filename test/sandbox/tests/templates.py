"""Templates: their language, their layouts, and what Postmark refuses."""
import pathlib
import sys
import unittest
import urllib.parse

from harness import SandboxTest, message

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from pmsandbox.mustachio import RenderError, Template, TemplateError  # noqa: E402

__all__ = ["Language", "Layouts", "Validation", "DefaultTemplates"]


class Language(unittest.TestCase):

    def test_what_a_template_gives(self):
        for source, model, expected in (
            ("a {{ x }} b", {"x": "1"}, "a 1 b"), ("{{x.y.z}}", {"x": {"y": {"z": "deep"}}}, "deep"),
            ("{{x}}|{{{x}}}|{{&x}}", {"x": "<"}, "[<]|<|<"), ("{{none}}{{x.none}}", {"x": "1"}, ""),
            ("{{x}} {{y}} {{z}}", {"x": True, "y": 1.5, "z": 0}, "True 1.5 0"),
            # a section is a scope: nothing of around it is seen in it, but for ../
            ("{{#p}}{{n}}{{o}}{{../o}}{{/p}}", {"p": {"n": "in"}, "o": "out"}, "inout"),
            ("{{#x}}{{.}}{{x}}{{/x}}", {"x": "value"}, "value"),
            ("{{#x}}yes{{/x}}{{^x}}no{{/x}}", {"x": False}, "no"), ("{{#x}}yes{{^x}}no{{/x}}", {"x": 1}, "yes"),
            ("{{^x}}a{{/x}}{{^y}}b{{/y}}{{^z}}c{{/z}}{{^l}}d{{/l}}", {"x": 0, "y": "", "l": []}, "abcd"),
            ("{{^x}}{{../y}}{{/x}}", {"y": "up"}, "up"),
            ("{{#a.b}}{{../c}}{{../../d}}{{/a.b}}", {"a": {"b": 1, "c": 2}, "d": 3}, "23"),
            ("{{#each l}}<{{n}}>{{/each}}", {"l": [{"n": 1}, {"n": 2}]}, "<1><2>"),
            ("{{#each l}}{{.}},{{/each}}", {"l": ["a", "b"]}, "a,b,"),
            ("{{#each l}}{{.}}{{../../x}} {{/each}}", {"l": [1, 2], "x": "-"}, "1- 2- "),
            ("{{#each a.b}}{{#each c}}{{.}}{{/each}};{{/each}}", {"a": {"b": [{"c": [1, 2]}, {"c": [3]}]}}, "12;3;"),
            ("{{#each none}}x{{/each}}{{#each empty}}x{{/each}}", {"empty": []}, ""),
            ("{{#l}}once {{/l}}", {"l": [1, 2]}, "once "), ("a{{! a comment }}b", {}, "ab"),
            ("{ {x} {{", {"x": 1}, "{ {x} {{"), ("{{../../x}}", {"x": 1}, "1")):
            with self.subTest(source=source):
                self.assertEqual(Template(source).render(model, lambda text: text.replace("<", "[<]")), expected)

    def test_what_is_no_template(self):
        for source, words, line, character in (
            ("{{#x}}", "'x'", 1, 1), ("a\n b {{#each l}}", "'l'", 2, 4), ("{{/x}}", "mismatched", 1, 1),
            ("{{#a}}{{#b}}{{/a}}{{/b}}", "mismatched", 1, 13), ("{{#each}}", "each", 1, 1), ("{{/each}}", "each", 1, 1),
            ("{{#each x}}{{/each x}}", "{{/each}}", 1, 12), ("x{{a b}}", "'a b'", 1, 2), ("{{a...b}}", "'a...b'", 1, 1),
            ("{{a/b}}", "'a/b'", 1, 1), ("{{@content}}", "'@content'", 1, 1), ("{{>partial}}", "'>partial'", 1, 1)):
            with self.subTest(source=source), self.assertRaises(TemplateError) as raised:
                Template(source)
            self.assertIn(words, raised.exception.errors[0][0])
            self.assertEqual(raised.exception.errors[0][1:], (line, character))

    def test_what_is_no_list(self):
        for value in ("text", {"a": 1}, 5):
            with self.assertRaises(RenderError):
                Template("{{#each x}}{{/each}}").render({"x": value})

    def test_the_model_that_it_suggests(self):
        self.assertEqual(
            Template("{{a}}{{b.c}}{{#each d}}{{e}}{{/each}}{{#each f}}{{.}}{{/each}}{{#g}}{{h}}{{/g}}").suggested_model(),
            {"a": "a_Value", "b": {"c": "c_Value"}, "d": [{"e": "e_Value"}], "f": ["f_1", "f_2", "f_3"],
             "g": {"h": "h_Value"}})


class TemplateTest(SandboxTest):
    PLAIN = {"Name": "Plain", "Alias": "plain", "Subject": "S", "TextBody": "T {{x}}", "HtmlBody": "<p>{{x}}</p>"}
    AROUND = {"Name": "Around", "Alias": "around", "TemplateType": "Layout", "TextBody": "[{{{ @content }}}]",
              "HtmlBody": "<b>{{{@content}}}</b>"}

    def call(self, method, path, document=None):
        return self.sandbox.call(method, "/templates" + path, document)

    def create(self, document, **changes):
        return self.call("POST", "", {**document, **changes})

    def mail(self, model):
        self.assertEqual(self.send(message(TemplateAlias="plain", TemplateModel=model))[0], 200)
        return self.sandbox.control("GET", "messages")["messages"][-1]


class Layouts(TemplateTest):

    def test_a_layout_lies_around(self):
        self.assertEqual(self.create(self.AROUND)[0], 200)
        self.assertEqual(self.create(self.PLAIN, LayoutTemplate="around")[1]["LayoutTemplate"], "around")
        mail = self.mail({"x": "\\1 <"})
        self.assertEqual((mail["TextBody"], mail["HtmlBody"]), ("[T \\1 <]", "<b><p>\\1 &lt;</p></b>"))
        self.call("PUT", "/around", {"TextBody": "({{{@content}}})"})
        self.assertEqual(self.mail({"x": 1})["TextBody"], "(T 1)")
        self.assertEqual(self.sandbox.control("GET", "messages")["messages"][0]["TextBody"], "[T \\1 <]")
        self.call("PUT", "/plain", {"LayoutTemplate": None})
        self.assertEqual(self.mail({"x": 1})["TextBody"], "T 1")

    def test_what_is_refused(self):
        self.create(self.AROUND)
        self.create(self.PLAIN, LayoutTemplate="around")
        self.assert_refused(self.call("DELETE", "/around"), 1130)
        for code, document, changes in (
            (1131, self.AROUND, {"TextBody": "nothing"}), (1131, self.AROUND, {"TextBody": "{{{@content}}}{{{@content}}}"}),
            (1131, self.PLAIN, {"TextBody": "{{{@content}}}"}), (1123, self.AROUND, {"Subject": "S"}),
            (1123, self.AROUND, {"LayoutTemplate": "around"}), (1101, self.PLAIN, {"LayoutTemplate": "none"}),
            (1122, self.PLAIN, {"TemplateType": "Other"})):
            with self.subTest(changes=changes):
                self.assert_refused(self.create(document, **{"Alias": "new", **changes}), code)
        self.call("DELETE", "/plain")
        self.assertEqual(self.call("DELETE", "/around")[1]["ErrorCode"], 0)

    def test_lists_by_layout_and_type(self):
        self.create(self.AROUND)
        self.create(self.PLAIN, LayoutTemplate="around")
        for count, query in ((1, {"LayoutTemplate": "around"}), (9, {"layouttemplate": "postmark-connector-layout"}),
                             (2, {"TemplateType": "Layout"}), (10, {"TemplateType": "standard"}), (12, {})):
            query = urllib.parse.urlencode({"Count": 100, "Offset": 0, **query})
            self.assertEqual(self.call("GET", "?" + query)[1]["TotalCount"], count, query)
        self.assert_refused(self.call("GET", "?Count=1&Offset=0&TemplateType=x"), 1100)


class Validation(TemplateTest):

    def validate(self, **document):
        return self.call("POST", "/validate", document)

    def test_what_is_valid(self):
        status, answer = self.validate(Subject="{{a}}", HtmlBody="<p>{{b}}</p>", TextBody="{{#each c}}{{d}}{{/each}}",
                                       TestRenderModel={"b": "<"})
        self.assertEqual((status, answer["AllContentIsValid"]), (200, True))
        self.assertEqual(answer["SuggestedTemplateModel"],
                         {"a": "a_Value", "b": "b_Value", "c": [{"d": "d_Value"}]})
        self.assertEqual([answer[part]["RenderedContent"] for part in ("Subject", "HtmlBody", "TextBody")],
                         ["a_Value", "<p>&lt;</p>", "d_Value"])

    def test_what_is_not(self):
        answer = self.validate(Subject="S", TextBody="x\n{{#a}}", HtmlBody="{{#each l}}{{/each}}",
                               TestRenderModel={"l": "text"})[1]
        self.assertEqual((answer["AllContentIsValid"], answer["Subject"]["ContentIsValid"]), (False, True))
        [error] = answer["TextBody"]["ValidationErrors"]
        self.assertEqual((error["Line"], error["CharacterPosition"]), (2, 1))
        self.assertIn("array", answer["HtmlBody"]["ValidationErrors"][0]["Message"])
        self.assertFalse(self.validate(TextBody="{{#each l}}{{/each}}", TestRenderModel={"l": 1})[1]["AllContentIsValid"])

    def test_with_a_layout(self):
        self.create(self.AROUND)
        self.assertEqual(self.validate(TextBody="T", LayoutTemplate="around")[1]["TextBody"]["RenderedContent"], "[T]")
        self.assertTrue(self.validate(TextBody="{{{@content}}}", TemplateType="Layout")[1]["AllContentIsValid"])

    def test_what_is_refused(self):
        self.assert_refused(self.validate(), 1120)
        self.assert_refused(self.validate(TextBody=1), 403)
        self.assert_refused(self.validate(TextBody="", Subject="S", TestRenderModel=[]), 403)
        self.assert_refused(self.validate(TextBody="T", LayoutTemplate="none"), 1101)
        self.assert_refused(self.call("POST", "/validate", []), 1109)


class DefaultTemplates(TemplateTest):

    def mail_of(self, alias, model):
        self.send(message(TemplateAlias=alias, TemplateModel=model))
        return self.sandbox.control("GET", "messages")["messages"][-1]

    def test_they_speak_of_a_code_or_of_a_link(self):
        mail = self.mail_of("logto-forgot-password", {"code": "493021"})
        self.assertEqual(mail["Subject"], "Your password reset code for Shop")
        self.assertIn("Enter this code to choose a new password.\n\n    493021\n", mail["TextBody"])
        self.assertNotIn("link", mail["TextBody"])
        mail = self.mail_of("logto-forgot-password", {"link": "https://shop.example/reset?a=1&b=2"})
        self.assertEqual(mail["Subject"], "Reset your password for Shop")
        self.assertIn("\nUse this link to choose a new password.", mail["TextBody"])
        self.assertIn("https://shop.example/reset?a=1&b=2", mail["TextBody"])
        self.assertIn('href="https://shop.example/reset?a=1&amp;b=2"', mail["HtmlBody"])
        self.assertNotIn("code", mail["TextBody"])

    def test_there_is_one_for_each_alias_of_logto(self):
        listed = self.call("GET", "?Count=100&Offset=0")[1]["Templates"]
        self.assertEqual({template["Alias"] for template in listed if template["TemplateType"] == "Standard"}, {
            "logto-sign-in", "logto-register", "logto-forgot-password", "logto-organization-invitation", "logto-generic",
            "logto-user-permission-validation", "logto-bind-new-identifier", "logto-mfa-verification", "logto-bind-mfa"})
