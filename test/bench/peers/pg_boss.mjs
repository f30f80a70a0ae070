// pg_boss.mjs drain COUNT   drains COUNT messages
// pg_boss.mjs latency       sends what comes, one by one, until it is ended

import { PgBoss } from "pg-boss";
import { batchSender, localPostmark, message, ready } from "./common.mjs";

const BATCH = 500;
const WARM = 10000;
const QUEUE = "mail";
const [mode, count] = [process.argv[2], Number(process.argv[3])];

// Full batches are fetched without a pause, by several workers at a time.
// Tried in the same way as with graphile_worker.mjs: 2 workers 33, 4 34, 8 36,
// but 20 in one run.
const TUNED = {
  batchSize: BATCH,
  localConcurrency: 4,
  burstWhenBatchFull: true,
  pollingIntervalSeconds: 0.5,
};

// The connection is libpq's environment, which pg reads.
const boss = new PgBoss({ max: 10 });
boss.on("error", (error) => console.error(error.message));

async function queue(name, messages) {
  for (let at = 0; at < messages; at += 10000) {
    const jobs = [];
    for (let i = at; i < Math.min(at + 10000, messages); i++) {
      const code = String(i % 1000000).padStart(6, "0");
      jobs.push({ data: { email: `${name}-${i}@example.com`, code } });
    }
    await boss.insert(QUEUE, jobs);
  }
}

async function drain() {
  let sent = 0;
  const send = batchSender((messages) => (sent += messages));

  async function go(messages) {
    sent = 0;
    await boss.work(QUEUE, TUNED, (jobs) => send(jobs.map(({ data }) => data)));
    while (sent < messages) await new Promise((resolve) => setTimeout(resolve, 5));
    await boss.offWork(QUEUE, { wait: true });
  }

  await queue("warm", WARM);
  await go(WARM);
  await queue("mail", count);
  await ready();
  await go(count);
  console.log(JSON.stringify({ messages: sent }));
  await boss.stop();
}

// With all options as they come: it looks every two seconds.
async function latency() {
  const { ServerClient } = localPostmark();
  const client = new ServerClient("token");

  await boss.work(QUEUE, async ([job]) => {
    await client.sendEmailWithTemplate(message(job.data));
  });
  console.log("ready");
}

await boss.start();
await boss.createQueue(QUEUE);
await (mode === "latency" ? latency() : drain());
