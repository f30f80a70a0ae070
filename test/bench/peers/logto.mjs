// logto.mjs COUNT   sends COUNT messages with Logto's connector, 16 at a time
//
// The connector itself is called as Logto calls it. It makes a client for
// every message and offers no way to set the client's host; see localPostmark
// for how it comes to call the local server all the same.

import { createRequire } from "node:module";
import createConnector from "@logto/connector-postmark";
import { localPostmark, ready } from "./common.mjs";

const IN_FLIGHT = 16;
const WARM = 500;
const count = Number(process.argv[2]);
const require = createRequire(import.meta.url);

localPostmark(require.resolve("@logto/connector-postmark"));

const config = {
  serverToken: "token",
  fromEmail: "bench@example.com",
  templates: ["Register", "SignIn", "ForgotPassword", "Generic"].map((usageType) => ({
    usageType,
    templateAlias: "logto-sign-in",
  })),
};
const { sendMessage } = await createConnector({ getConfig: async () => config });

async function send(name, messages) {
  let next = 0;

  async function sender() {
    while (next < messages) {
      const i = next++;
      const code = String(i % 1000000).padStart(6, "0");
      await sendMessage({ to: `${name}-${i}@example.com`, type: "SignIn", payload: { code } });
    }
  }
  await Promise.all(Array.from({ length: IN_FLIGHT }, sender));
}

await send("warm", WARM);
await ready();
await send("mail", count);
console.log(JSON.stringify({ messages: count }));
