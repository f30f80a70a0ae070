// Postmark's own client for Node.js, and nodemailer by a transport of its own, against the sandbox of SANDBOX_URL.
"use strict";
const { test, beforeEach } = require("node:test");
const assert = require("node:assert");
const { createServer } = require("node:http");
const postmark = require("postmark");
const nodemailer = require("nodemailer");
const postmarkTransport = require("nodemailer-postmark-transport");

const url = new URL(process.env.SANDBOX_URL);
const options = { requestHost: url.host, useHttps: false };
const client = new postmark.ServerClient("sandbox-token", options);
const mail = { From: "Shop <no-reply@shop.example>", To: "ann@example.com", Subject: "Hello", TextBody: "Text" };
const templated = { From: mail.From, To: mail.To, TemplateAlias: "logto-register", TemplateModel: { code: "493021" } };

async function control(method, path, document) {
  const answer = await fetch(`${url.origin}/_sandbox/${path}`, { method, body: document && JSON.stringify(document) });
  assert.equal(answer.status, 200, await answer.clone().text());
  return answer.json();
}

beforeEach(() => control("POST", "reset"));

test("a mail, a batch, a template, a batch of templates", async () => {
  const sent = await client.sendEmail(mail);
  assert.deepEqual([sent.ErrorCode, sent.Message, sent.To], [0, "OK", mail.To]);
  assert.deepEqual((await client.sendEmailBatch([mail, { ...mail, To: "nonsense" }])).map((r) => r.ErrorCode), [0, 300]);
  assert.equal((await client.sendEmailWithTemplate(templated)).ErrorCode, 0);
  assert.deepEqual((await client.sendEmailBatchWithTemplates([templated, templated])).map((r) => r.ErrorCode), [0, 0]);
  const { total, messages } = await control("GET", "messages");
  assert.equal(total, 5);
  assert.match(messages.at(-1).TextBody, /493021/);
});

test("errors are those that the client knows", async () => {
  const { Errors } = postmark;
  await assert.rejects(client.sendEmail({ ...mail, To: "nonsense" }), Errors.ApiInputError);
  await assert.rejects(new postmark.ServerClient("wrong", options).sendEmail(mail), Errors.InvalidAPIKeyError);
  await control("POST", "config", { inactive_recipients: ["ann@example.com"] });
  await assert.rejects(client.sendEmail(mail), (error) => {
    assert.ok(error instanceof Errors.InactiveRecipientsError);
    assert.deepEqual(error.recipients, ["ann@example.com"]);
    return true;
  });
  await control("POST", "rules", { times: 1, action: { status: 429 } });
  await assert.rejects(client.getServer(), Errors.RateLimitExceededError);
  await control("POST", "rules", { times: 1, action: { status: 503 } });
  await assert.rejects(client.getServer(), Errors.ServiceUnavailablerError);
});

test("templates: create, validate, edit, list, delete", async () => {
  const layout = await client.createTemplate({
    Name: "Around", Alias: "around", TemplateType: "Layout", HtmlBody: "<b>{{{@content}}}</b>", TextBody: "{{{@content}}}",
  });
  const made = await client.createTemplate({
    Name: "Mine", Alias: "mine", Subject: "{{s}}", TextBody: "{{#each l}}{{.}}{{/each}}", LayoutTemplate: "around",
  });
  assert.equal((await client.getTemplate("mine")).TemplateId, made.TemplateId);
  assert.equal((await client.editTemplate(made.TemplateId, { Name: "Renamed" })).Name, "Renamed");
  const valid = await client.validateTemplate({ Subject: "{{s}}", TextBody: "{{t}}", TestRenderModel: { t: "x" } });
  assert.deepEqual([valid.AllContentIsValid, valid.TextBody.RenderedContent], [true, "x"]);
  assert.equal((await client.getTemplates({ layoutTemplate: "around" })).TotalCount, 1);
  await assert.rejects(client.deleteTemplate("around"), (error) => error.code === 1130);
  await client.deleteTemplate("mine");
  await client.deleteTemplate(layout.TemplateId);
  assert.equal((await client.getTemplates({ templateType: "Layout" })).TotalCount, 1);
});

test("messages: search, details, the raw source", async () => {
  const { MessageID } = await client.sendEmail({ ...mail, Tag: "t", Metadata: { who: "ann" } });
  await client.sendEmail({ ...mail, From: "other@shop.example", Subject: "Other" });
  for (const query of [{ recipient: "ann@example.com", tag: "t" }, { fromEmail: "no-reply@shop.example" },
                       { subject: "hello" }, { metadata_who: "ann" }, { status: "sent", tag: "t" }]) {
    const found = await client.getOutboundMessages(query);
    assert.deepEqual(found.Messages.map((m) => m.MessageID), [MessageID], JSON.stringify(query));
  }
  const details = await client.getOutboundMessageDetails(MessageID);
  assert.deepEqual([details.TextBody, details.MessageEvents[0].Type], ["Text", "Delivered"]);
  assert.match((await client.getOutboundMessageDump(MessageID)).Body, /^From: Shop <no-reply@shop\.example>\r\n/);
});

test("bounces and suppressions", async () => {
  await client.sendEmail({ ...mail, To: "hardbounce@example.com" });
  await client.sendEmail({ ...mail, To: "spamcomplaint@example.com" });
  const { TotalCount, Bounces } = await client.getBounces({ type: "HardBounce", inactive: true });
  assert.deepEqual([TotalCount, Bounces[0].Email], [1, "hardbounce@example.com"]);
  assert.equal((await client.getBounce(Bounces[0].ID)).Type, "HardBounce");
  assert.ok((await client.getBounceDump(Bounces[0].ID)).Body);
  assert.equal((await client.getDeliveryStatistics()).InactiveMails, 2);
  const dump = await client.getSuppressions("outbound", { emailAddress: "spamcomplaint@example.com" });
  assert.deepEqual(dump.Suppressions.map((s) => s.SuppressionReason), ["SpamComplaint"]);
  const lifted = await client.deleteSuppressions("outbound", {
    Suppressions: [{ EmailAddress: "hardbounce@example.com" }, { EmailAddress: "spamcomplaint@example.com" }],
  });
  assert.deepEqual(lifted.Suppressions.map((s) => s.Status), ["Deleted", "Failed"]);
  const made = await client.createSuppressions("outbound", { Suppressions: [{ EmailAddress: "nonsense" }] });
  assert.equal(made.Suppressions[0].Status, "Failed");
  assert.equal((await client.activateBounce(Bounces[0].ID)).Bounce.Inactive, false);
  await assert.rejects(client.getBounces({ count: -1 }), postmark.Errors.ApiInputError);
});

test("streams", async () => {
  await client.createMessageStream({ ID: "alerts", Name: "Alerts", MessageStreamType: "Transactional" });
  assert.equal((await client.editMessageStream("alerts", { Name: "New" })).Name, "New");
  assert.ok((await client.archiveMessageStream("alerts")).ExpectedPurgeDate);
  assert.equal((await client.getMessageStreams({ includeArchivedStreams: true })).TotalCount, 4);
  assert.equal((await client.unarchiveMessageStream("alerts")).ArchivedAt, null);
  assert.equal((await client.getMessageStream("alerts")).ID, "alerts");
});

test("webhooks are told what became of a mail", async (t) => {
  const told = [];
  const application = createServer(async (request, response) => {
    let body = "";
    for await (const part of request) body += part;
    told.push([request.headers["x-secret"], JSON.parse(body)]);
    response.end();
  });
  await new Promise((done) => application.listen(0, "127.0.0.1", done));
  t.after(() => application.close());
  const hook = await client.createWebhook({
    Url: `http://127.0.0.1:${application.address().port}/`, HttpHeaders: [{ Name: "X-Secret", Value: "s" }],
    Triggers: { Bounce: { Enabled: true, IncludeContent: false } },
  });
  await client.editWebhook(hook.ID, { Triggers: { Delivery: { Enabled: true } } });
  assert.equal((await client.getWebhooks({ messageStream: "outbound" })).Webhooks.length, 1);
  await client.sendEmail({ ...mail, Metadata: { who: "ann" } });
  await client.sendEmail({ ...mail, To: "softbounce@example.com" });
  await control("GET", "wait?events=2");
  assert.deepEqual(told.map(([secret, event]) => [secret, event.RecordType]).sort(), [["s", "Bounce"], ["s", "Delivery"]]);
  await client.deleteWebhook(hook.ID);
  await assert.rejects(client.getWebhook(hook.ID), (error) => error.code === 1352);
});

test("what the sandbox does not imitate is an error that says so", async () => {
  await assert.rejects(client.getOutboundOverview(), /does not imitate statistics/);
  await assert.rejects(client.getInboundMessages(), /does not imitate inbound mail/);
});

test("nodemailer, by its transport for Postmark", async () => {
  const transport = nodemailer.createTransport(postmarkTransport({
    auth: { apiKey: "sandbox-token" }, postmarkOptions: options,
  }));
  const info = await transport.sendMail({
    from: "Shop <no-reply@shop.example>", to: ["Ann <ann@example.com>", "bea@example.com"], subject: "Grüße",
    text: "Text", html: "<b>HTML</b>", attachments: [{ filename: "a.txt", content: "hi" }],
  });
  assert.deepEqual(info.accepted.length, 1);
  const template = await transport.sendMail({
    from: "no-reply@shop.example", to: "cid@example.com", templateAlias: "logto-generic", templateModel: { code: "1" },
  });
  assert.equal(template.rejected.length, 0);
  const { messages } = await control("GET", "messages");
  assert.deepEqual(messages.map((m) => m.Subject), ["Grüße", "Your verification code for Shop"]);
  assert.equal(messages[0].Recipients.join(), "ann@example.com,bea@example.com");
});
