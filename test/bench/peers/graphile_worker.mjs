// graphile_worker.mjs jobs|batches|records COUNT   drains COUNT messages
// graphile_worker.mjs latency                      sends what comes, one by one, until it is ended
//
// "jobs" is a job a message, as a sign-up's transaction queues it: the task
// gathers what runs at the same time into requests of 500. "batches" is what
// its documentation calls batch jobs, 500 messages a job, which only a
// transaction that queues 500 messages at once can make. It keeps nothing of a
// message, neither that it was sent nor its MessageID, without which a bounce
// cannot be told to whom it belongs; "records" is the same with a row for each.

import { fork } from "node:child_process";
import { availableParallelism } from "node:os";
import pg from "pg";
import { Logger, run, runMigrations } from "graphile-worker";
import { batchSender, localPostmark, mailsSql, message, ready } from "./common.mjs";

const BATCH = 500;
const WARM = 10000;
const [mode, argument] = process.argv.slice(2);

// As its page on performance has it: several instances, each a process, a
// localQueue, completions in batches. Tried with 100,000 messages on two cores
// that others used as well, so that a setting's runs differ by a third; in
// 1,000 messages/s, the best run of each:
//   jobs, instances x concurrentJobs, localQueue as large, delay 0:
//     1 x 1000 56, 1 x 2000 55, 1 x 4000 52, 2 x 1000 60, 2 x 2000 57,
//     3 x 1000 55, 4 x 500 54, 4 x 1000 51
//   2 x 1000 in other runs: localQueue 500 55, 1000 54, 2000 56;
//     completeJobBatchDelay 2 51, 10 51, 50 54
//   batches: 1 x 2 242, 1 x 4 288, 1 x 8 297, 2 x 2 292, 2 x 4 293, 2 x 8 323,
//     3 x 4 254; in other runs 2 x 8 281, with a delay of 5 261, with a
//     localQueue of 32 196, 2 x 16 203
// For jobs the one with the best median over five rounds, for batches the one
// with the fastest run.
const INSTANCES = Math.min(4, availableParallelism());
const CONCURRENCY = { jobs: 1000, batches: 8, records: 8 };

function tuned(task) {
  return {
    concurrentJobs: CONCURRENCY[task],
    localQueue: { size: CONCURRENCY[task] },
    completeJobBatchDelay: 0,
    failJobBatchDelay: 0,
  };
}

// Its advice is a pool larger than concurrentJobs; few of it are opened.
function openPool(max) {
  const pool = new pg.Pool({ max });
  const complain = (error) => console.error(error.message);
  pool.on("error", complain);
  pool.on("connect", (client) => client.on("error", complain));
  return pool;
}

function options(pgPool, taskList, worker = {}) {
  const logger = new Logger(() => (level, text) => {
    if (level === "error" || level === "warning") console.error(text);
  });
  return { preset: { worker: { ...worker, logger } }, pgPool, taskList };
}

// The function that sends one message with those that others send meanwhile.
function gatherer(send) {
  let waiting = [];
  let timer = null;

  function flush() {
    const batch = waiting;
    clearTimeout(timer);
    timer = null;
    waiting = [];
    send(batch.map(({ mail }) => mail)).then(
      () => batch.forEach(({ resolve }) => resolve()),
      (error) => batch.forEach(({ reject }) => reject(error)),
    );
  }
  return (mail) =>
    new Promise((resolve, reject) => {
      waiting.push({ mail, resolve, reject });
      if (waiting.length === BATCH) flush();
      else timer ??= setTimeout(flush, 5);
    });
}

// What became of each message, in one statement a batch.
const RECORDS = `CREATE TABLE mails_sent (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  email text NOT NULL,
  message_id uuid NOT NULL,
  sent_at timestamptz NOT NULL DEFAULT now()
)`;

async function record(mails, results, helpers) {
  await helpers.query(
    "INSERT INTO mails_sent (email, message_id) SELECT * FROM unnest($1::text[], $2::uuid[])",
    [mails.map(({ email }) => email), results.map(({ MessageID }) => MessageID)],
  );
}

// An instance: runs from "start" to "stop", and tells what it has sent.
function instance(task) {
  const send = batchSender((messages) => process.send({ messages }));
  const ways = {
    jobs: gatherer(send),
    batches: send,
    records: async (mails, helpers) => record(mails, await send(mails), helpers),
  };
  const tasks = { [task]: ways[task] };
  const pgPool = openPool(CONCURRENCY[task] + 2);
  let runner = null;

  process.on("disconnect", () => process.exit(1)); // the first process has gone
  process.on("message", async (word) => {
    if (word === "start") runner = await run(options(pgPool, tasks, tuned(task)));
    else if (word === "stop") await runner.stop();
    process.send({ done: word });
  });
}

function startInstance(task) {
  const child = fork(import.meta.filename, ["instance", task]);
  let done = null;

  child.sent = 0;
  child.on("message", (news) => {
    if (news.messages) child.sent += news.messages;
    else done(news.done);
  });
  child.on("exit", (code) => process.exit(code || 1));
  child.say = (word) => {
    child.send(word);
    return new Promise((resolve) => (done = resolve));
  };
  return child;
}

async function queue(pgPool, task, name, messages) {
  const payloads =
    task !== "jobs"
      ? `SELECT json_agg(json_build_object('email', email, 'code', code)) AS payload
           FROM (SELECT *, (row_number() OVER () - 1) / ${BATCH} AS batch FROM mails) m GROUP BY batch`
      : `SELECT json_build_object('email', email, 'code', code) AS payload FROM mails`;
  await pgPool.query(
    `WITH mails AS (${mailsSql(name, messages)}), payloads AS (${payloads})
     SELECT count(*) FROM graphile_worker.add_jobs((
       SELECT array_agg(json_populate_record(NULL::graphile_worker.job_spec,
         json_build_object('identifier', '${task}', 'payload', payload))) FROM payloads))`,
  );
}

async function drain(task, count) {
  const pgPool = openPool(2);
  const instances = Array.from({ length: INSTANCES }, () => startInstance(task));
  const all = (word) => Promise.all(instances.map((child) => child.say(word)));

  async function go(messages) {
    instances.forEach((child) => (child.sent = 0));
    await all("start");
    while (instances.reduce((sum, child) => sum + child.sent, 0) < messages) {
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    await all("stop");
  }

  await runMigrations(options(pgPool, {}));
  await pgPool.query(RECORDS);
  await queue(pgPool, task, "warm", WARM);
  await go(WARM);
  await queue(pgPool, task, "mail", count);
  await ready();
  await go(count);
  console.log(JSON.stringify({ messages: instances.map((child) => child.sent) }));
  process.exit(0);
}

// With all options as they come: a job at a time, woken by LISTEN.
async function latency() {
  const { ServerClient } = localPostmark();
  const client = new ServerClient("token");

  await run(options(openPool(10), { jobs: (mail) => client.sendEmailWithTemplate(message(mail)) }));
  console.log("ready");
}

if (mode === "instance") instance(argument);
else if (mode === "latency") await latency();
else await drain(mode, Number(argument));
