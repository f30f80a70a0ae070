// The mailbox: lists what the sandbox has, shows one mail, and follows what is new.
"use strict";

const COUNT = 50;
const PARTS = ["HTML", "Text", "Headers", "Source", "Request", "What became of it"];
const FATES = {
  429: { status: 429 }, 500: { status: 500 },
  // and what nobody waits for any more is not accepted in the end
  timeout: { latency: 600, drop: "before_accept" }, drop: { drop: "before_accept" },
};
const $ = (id) => document.getElementById(id);

let view = "mail";      // what is listed
let chosen = null;      // the MessageID of the mail that is shown
let offset = 0;
let part = "HTML";
let mail = null;        // what is known of the mail shown
let rows = [];          // the MessageIDs listed
let asked = 0;          // the number of the last question, so that a late answer is dropped

async function call(path, query = {}, body = undefined, method = body === undefined ? "GET" : "POST") {
  const answer = await fetch(path + "?" + new URLSearchParams(query), {
    method, body: body === undefined ? undefined : JSON.stringify(body),
  });
  const document = await answer.json();
  if (!answer.ok) throw new Error(document.error);
  return document;
}

/** An element with text or other elements in it. */
function make(tag, attributes = {}, ...inner) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== null) element.setAttribute(name, value);
  element.append(...inner.filter((each) => each !== null));
  return element;
}

function when(us) {
  const at = new Date(us / 1000);
  const today = at.toDateString() === new Date().toDateString();
  return today ? at.toLocaleTimeString() : at.toLocaleString();
}

let silence;

function say(text, bad = false) {
  clearTimeout(silence);
  silence = setTimeout(() => { $("said").textContent = ""; }, 10000);
  $("said").textContent = text;
  $("said").className = bad ? "bad" : "good";
}

async function attempt(action) {
  try {
    await action();
  } catch (error) {
    say(error.message, true);
  }
}

// The lists

const LISTED = {
  mail(row) {
    const bad = row.state !== "delivered";
    return make("a", { class: "row", href: "#mail/" + row.MessageID, "data-id": row.MessageID,
                       "aria-current": row.MessageID === chosen ? "true" : null },
      make("span", { class: "who" }, row.to), make("span", { class: "when" }, when(row.at_us)),
      make("span", { class: "what" }, row.subject || "(no subject)"),
      make("span", { class: "state " + (bad ? "bad" : "good") }, row.state),
      row.tag ? make("span", { class: "more" }, row.tag) : null);
  },
  refused(row) {
    return make("div", { class: "row" },
      make("span", { class: "who" }, row.to || row.path), make("span", { class: "when" }, when(row.at_us)),
      make("span", { class: "reason bad" }, row.error_code === null ? row.message : `${row.error_code}: ${row.message}`));
  },
  bounces(row) {
    return make("a", { class: "row", href: "#mail/" + row.MessageID },
      make("span", { class: "who" }, row.to), make("span", { class: "when" }, when(row.at_us)),
      make("span", { class: "what" }, `${row.type}: ${row.description}`),
      make("span", { class: "state bad" }, row.inactive ? "inactive" : ""));
  },
  suppressions(row) {
    return make("div", { class: "row" },
      make("span", { class: "who" }, row.address), make("span", { class: "when" }, when(row.at_us)),
      make("span", { class: "what" }, `${row.reason}, ${row.origin}, stream ${row.stream}`));
  },
  rules(row) {
    const { id, used, ...rest } = row;
    const remove = make("button", {}, "Remove");
    remove.onclick = () => attempt(async () => { await call("rules", { id }, undefined, "DELETE"); await list(); });
    return make("div", { class: "row" },
      make("span", { class: "who reason" }, JSON.stringify(rest)), make("span", { class: "more" }, `used ${used} times`), remove);
  },
};
const NONE = {
  mail: "No mail. What was refused is under Refused, with the reason.", refused: "Nothing was refused.",
  bounces: "Nothing bounced.", suppressions: "Every address gets its mail.", rules: "The sandbox behaves.",
};

async function list() {
  const number = ++asked;
  const answer = await call("mailbox", { view, search: $("search").value, offset, count: COUNT });
  if (number !== asked) return;
  if (offset > 0 && answer.rows.length === 0) {
    offset = 0;
    return list();
  }
  rows = view === "mail" ? answer.rows.map((row) => row.MessageID) : [];
  const focused = document.activeElement?.dataset?.id;
  $("rows").replaceChildren(...answer.rows.map((row) => make("li", {}, LISTED[view](row))));
  if (focused) document.querySelector(`#rows a[data-id="${focused}"]`)?.focus();
  $("none").hidden = answer.rows.length > 0;
  $("none").textContent = $("search").value ? "Nothing found." : NONE[view];
  $("newer").disabled = offset === 0;
  $("older").disabled = offset + COUNT >= answer.total;
  $("where").textContent = `${Math.min(offset + 1, answer.total)}–${Math.min(offset + COUNT, answer.total)} of ` +
    answer.total + (answer.searched_all ? "" : " found among the newest");
  $("pages").hidden = answer.total <= COUNT && answer.searched_all;
  for (const [name, count] of Object.entries(answer.counts))
    document.querySelector(`[data-count="${name}"]`).textContent = count || "";
  for (const link of document.querySelectorAll("#views a"))
    link.toggleAttribute("aria-current", link.getAttribute("href") === "#" + view);
  document.title = answer.counts.mail ? `(${answer.counts.mail}) Sandbox mailbox` : "Sandbox mailbox";
}

// One mail

async function show() {
  const answer = await call("mail", { id: chosen });
  if (answer.MessageID !== chosen) return;
  mail = answer;
  $("mail").hidden = false;
  document.body.classList.add("reading");
  $("subject").textContent = mail.subject || "(no subject)";
  $("facts").replaceChildren(...mail.facts.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
  $("code").hidden = mail.code === null;
  $("digits").textContent = mail.code ?? "";
  $("parts").replaceChildren(...PARTS.map((name) => {
    const tab = make("button", { role: "tab", "aria-selected": String(name === part) }, name);
    tab.onclick = () => { part = name; showPart(); };
    return tab;
  }));
  showPart();
}

let shown = "";         // what the panel has, so that a frame is not loaded again for nothing

function showPart() {
  for (const tab of $("parts").children) tab.setAttribute("aria-selected", String(tab.textContent === part));
  const content = JSON.stringify([chosen, part, part === "HTML" ? 0 : mail]);
  if (content === shown) return;
  shown = content;
  $("part").replaceChildren({
    "HTML": htmlPart, "Text": () => linked(mail.text ?? "This mail has no text."),
    "Headers": () => make("pre", {}, mail.source.split("\r\n\r\n")[0]),
    "Source": () => make("pre", {}, mail.source),
    "Request": () => make("pre", {}, JSON.stringify(mail.request, null, 2)),
    "What became of it": life,
  }[part]());
}

function htmlPart() {
  if (!mail.has_html) return make("p", {}, "This mail has no HTML.");
  return make("iframe", { title: "The mail as HTML", src: "html?" + new URLSearchParams({ id: chosen }),
                          sandbox: "allow-popups allow-popups-to-escape-sandbox", referrerpolicy: "no-referrer" });
}

/** Text whose addresses of pages can be followed. */
function linked(text) {
  const pre = make("pre");
  let end = 0;
  for (const found of text.matchAll(/https?:\/\/[^\s<>"]+[^\s<>".,;:!?)\]}']/g)) {
    pre.append(text.slice(end, found.index),
               make("a", { href: found[0], target: "_blank", rel: "noopener noreferrer" }, found[0]));
    end = found.index + found[0].length;
  }
  pre.append(text.slice(end));
  return pre;
}

function life() {
  return make("ol", { class: "life" }, ...mail.life.map((event) =>
    make("li", {}, make("b", {}, event.what), ` ${when(event.at_us)} `, event.words)));
}

async function choose(id) {
  chosen = id;
  if (id === null) {
    mail = null;
    $("mail").hidden = true;
    document.body.classList.remove("reading");
  } else {
    await show();
  }
  for (const row of document.querySelectorAll("#rows a[data-id]"))
    row.toggleAttribute("aria-current", row.dataset.id === chosen);
}

async function copy() {
  if (mail?.code == null) return;
  try {
    await navigator.clipboard.writeText(mail.code);
  } catch {
    getSelection().selectAllChildren($("digits"));      // a browser that asks first, or never lets
    document.execCommand("copy");
  }
  say(`Copied ${mail.code}`);
}

// Moving about

async function go() {
  const [wanted, id] = location.hash.slice(1).split("/");
  const next = wanted in LISTED ? wanted : "mail";
  if (next !== view) offset = 0;
  view = next;
  await list();
  try {
    await choose(id ? decodeURIComponent(id) : null);
  } catch {
    location.hash = "#mail";                            // a mail that is gone
  }
}

function move(step) {
  if (view !== "mail" || rows.length === 0) return;
  const at = chosen === null ? (step > 0 ? -1 : rows.length) : rows.indexOf(chosen);
  const next = rows[Math.max(0, Math.min(rows.length - 1, at + step))];
  location.hash = "#mail/" + next;
  document.querySelector(`#rows a[data-id="${next}"]`)?.scrollIntoView({ block: "nearest" });
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape") {
    if (document.activeElement === $("search")) $("search").blur();
    else location.hash = "#" + view;
    return;
  }
  if (/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
  const keys = { "/": () => { $("search").focus(); }, j: () => move(1), k: () => move(-1), c: copy };
  if (keys[event.key]) {
    event.preventDefault();
    keys[event.key]();
  }
});

// The tabs of a mail, by arrow keys
$("parts").addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  part = PARTS[(PARTS.indexOf(part) + step + PARTS.length) % PARTS.length];
  showPart();
  $("parts").children[PARTS.indexOf(part)].focus();
});

let typing;
$("search").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => { offset = 0; attempt(list); }, 150);
});
$("newer").onclick = () => { offset = Math.max(0, offset - COUNT); attempt(list); };
$("older").onclick = () => { offset += COUNT; attempt(list); };
$("copy").onclick = copy;
$("clear").onclick = () => {
  if (confirm("Forget every mail, request, bounce and rule?"))
    attempt(async () => { await call("reset", {}, {}); location.hash = "#mail"; say("All is forgotten."); });
};
$("make").onclick = () => attempt(async () => {
  await call("events", {}, { type: $("end").value, MessageID: chosen });
  part = "What became of it";
  await show();
});
for (const button of document.querySelectorAll("[data-fate]")) {
  button.onclick = () => attempt(async () => {
    const times = Math.max(1, Number($("times").value) || 1);
    await call("rules", {}, { path: "/email*", times, action: FATES[button.dataset.fate] });
    say(`The next ${times}: ${button.textContent}`);
    await list();
  });
}
addEventListener("hashchange", () => attempt(go));

async function follow() {
  let news = "";
  for (;;) {
    try {
      const answer = await call("news", { since: news, timeout: 60 });
      if (answer.news !== news) {
        const first = news === "";
        news = answer.news;
        if (!first) {
          await list();
          if (chosen !== null) await show().catch(() => { location.hash = "#mail"; });
        }
      }
      await new Promise((done) => setTimeout(done, 300));       // many mails are one change
    } catch {
      await new Promise((done) => setTimeout(done, 2000));
    }
  }
}

const recipient = new URLSearchParams(location.search).get("recipient");
if (recipient) $("search").value = recipient;
attempt(go).then(follow);
