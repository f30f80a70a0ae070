// What the peers have in common: the way to the local server, and the protocol
// by which the benchmark starts them.
//
// A peer prepares itself, goes through some messages that do not count so that
// its code is compiled and its connections are open, queues what it is to
// drain, and says "ready". At SIGUSR2 it drains, and ends when all of it is
// done. The clock is the benchmark's, and stops when the tables say so.

import { createRequire } from "node:module";
import dns from "node:dns";

const server = new URL(process.env.POSTMARK_URL ?? "");
if (server.protocol !== "http:" || !/^127\.\d+\.\d+\.\d+$/.test(server.hostname)) {
  throw new Error("POSTMARK_URL must be http and an address of 127.0.0.0/8");
}

// Nothing here needs a name to be looked up, so nothing can reach Postmark by
// mistake; nor is there a way around by a proxy.
dns.lookup = (name) => {
  throw new Error(`no name is looked up in this benchmark: ${name}`);
};
for (const name of Object.keys(process.env)) {
  if (/_proxy$/i.test(name)) delete process.env[name];
}

/**
 * Directs a copy of the npm package "postmark" to the local server, by the
 * defaults that its clients copy when they are made. A client then does
 * exactly what it does towards Postmark, but for TLS: host and scheme are all
 * that changes. Returns the package.
 *
 * from: the module whose copy of the package it is
 */
export function localPostmark(from = import.meta.url) {
  const require = createRequire(from);
  const { HttpClient } = require("postmark/dist/client/models/client/HttpClient.js");
  const postmark = require("postmark");

  Object.assign(HttpClient.DefaultOptions, { useHttps: false, requestHost: server.host });
  const { httpClient } = new postmark.ServerClient("token");
  if (httpClient.getBaseHttpRequestURL() !== server.origin) {
    throw new Error(`the client would call ${httpClient.getBaseHttpRequestURL()}`);
  }
  return postmark;
}

/** The request that our worker makes of a message, less its metadata. */
export function message({ email, code }) {
  return {
    From: "bench@example.com",
    TemplateAlias: "logto-sign-in",
    To: email,
    TemplateModel: { code },
    MessageStream: "outbound",
    TrackOpens: false,
    TrackLinks: "None",
  };
}

/**
 * A function that sends many messages, given as { email, code }, by one POST
 * /email/batchWithTemplates, then calls sent() with their number, and returns
 * Postmark's results.
 */
export function batchSender(sent) {
  const { ServerClient } = localPostmark();
  const client = new ServerClient("token");

  return async (mails) => {
    const results = await client.sendEmailBatchWithTemplates(mails.map(message));
    if (results.length !== mails.length || results.some((result) => result.ErrorCode !== 0)) {
      throw new Error("the server did not take a batch");
    }
    sent(mails.length);
    return results;
  };
}

/** SQL for count mails as rows (email, code), each address once. */
export function mailsSql(name, count) {
  return `SELECT '${name}-' || i || '@example.com' AS email,
    lpad((i % 1000000)::text, 6, '0') AS code FROM generate_series(1, ${Number(count)}) i`;
}

/** Says that everything is prepared, and waits for the signal. */
export async function ready() {
  const alive = setInterval(() => {}, 60000); // a handler alone keeps no process

  await new Promise((resolve) => {
    process.once("SIGUSR2", resolve);
    console.log("ready");
  });
  clearInterval(alive);
}
