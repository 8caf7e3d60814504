// The plain page. Everything that comes from outside is set with textContent, never as HTML.

import { OURS, whoIsHere } from "./login.js";

const $ = (id) => document.getElementById(id);
const ENDS = ["turn.completed", "turn.failed", "turn.cancelled", "turn.denied"];
const TYPES = [
  "message.received", "message.completed", "turn.queued", "turn.started", "turn.waiting", "turn.resumed",
  "turn.cancel_requested", "step.finished", "model.started", "model.finished", "model.failed", "stream.reset",
  "tool.requested", "tool.denied", "tool.started", "tool.output", "tool.finished", "tool.failed", "tool.uncertain",
  "approval.requested", "approval.resolved", "plan.pending", "plan.resolved", "subagent.started", "subagent.finished",
  "memory.compressed", "input.steered", "text.delta", "reasoning.delta", ...ENDS,
];
const ROWS_MAX = 2000;

let at = { ns: "", agent: "", session: "" };
let source = null;      // the EventSource of the chosen session
let drafts = new Map(); // "seq kind" -> row of an answer that is being written
let calls = new Map();  // "turn call" -> name of the tool
let openTurn = "";      // the turn that is running or waiting
let pendingKey = null;  // Idempotency-Key of a message whose answer has not come yet
let olderSessions = "";

const path = (...parts) => "/v1/" + parts.map((part) => encodeURIComponent(part).replaceAll("%3A", ":")).join("/");
const sessionPath = (...more) => path("ns", at.ns, "agents", at.agent, "sessions", at.session, ...more);

class Problem extends Error {}

async function api(method, url, body, headers = {}) {
  const response = await fetch(url, {
    method,
    headers: { Accept: "application/json", ...(method === "GET" ? {} : OURS), ...(body === undefined ? {} : { "Content-Type": "application/json" }), ...headers },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const data = response.status === 204 ? null : await response.json().catch(() => null);
  if (!response.ok) {
    const problem = new Problem(data?.detail ?? `the gateway answered ${response.status}`);
    problem.status = response.status;
    if (response.status === 401) await whoIsHere(guarded(go)); // the session has ended
    throw problem;
  }
  return data;
}

async function all(url, most = 2000) {
  const items = [];
  for (let cursor = ""; ; ) {
    const page = await api("GET", `${url}?limit=500${cursor && "&cursor=" + encodeURIComponent(cursor)}`);
    items.push(...page.items);
    if (!page.next_cursor || items.length >= most) return items;
    cursor = page.next_cursor;
  }
}

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function complain(error) {
  const box = $("problem");
  box.hidden = !error;
  box.textContent = error ? error.message : "";
  if (error && !(error instanceof Problem)) console.error(error);
}

function guarded(work) {
  return async (event) => {
    event?.preventDefault();
    complain(null);
    try {
      await work(event);
    } catch (error) {
      complain(error);
    }
  };
}

// --- where we are: #/ns/agent/session ---------------------------------------------------------------------------------

function readHash() {
  const [ns = "", agent = "", session = ""] = location.hash.replace(/^#\/?/, "").split("/").map((part) => {
    try { return decodeURIComponent(part); } catch { return ""; }
  });
  return { ns, agent, session };
}

const hashOf = (ns, agent, session) =>
  "#/" + [ns, agent, session].filter(Boolean).map((part) => encodeURIComponent(part).replaceAll("%3A", ":")).join("/");

const nameOf = (item) => item.name ?? item.metadata?.name ?? "";

function fill(select, names, chosen) {
  if (chosen && !names.includes(chosen)) names = [chosen, ...names];
  select.replaceChildren(...names.map((name) => {
    const option = make("option", "", name);
    option.value = name;
    option.selected = name === chosen;
    return option;
  }));
}

async function go() {
  if (location.hash && !location.hash.startsWith("#/")) return; // a place on this page, as the skip link's
  const want = readHash();
  const moved = { ns: want.ns !== at.ns, agent: want.ns !== at.ns || want.agent !== at.agent };
  if (!want.ns || moved.ns) {
    const names = (await all("/v1/namespaces")).map(nameOf);
    want.ns ||= names[0] ?? "";
    fill($("namespace"), names, want.ns);
  }
  if (want.ns && (!want.agent || moved.ns)) {
    const names = (await all(path("ns", want.ns, "agents"))).map(nameOf);
    want.agent ||= names[0] ?? "";
    fill($("agent"), names, want.agent);
  }
  $("agent").value = want.agent;
  const again = want.session === at.session && !moved.agent;
  at = want;
  await listSessions();
  await listApprovals();
  if (!again) openSession();
}

// --- sessions ---------------------------------------------------------------------------------------------------------

async function listSessions(cursor = "") {
  const list = $("sessions");
  if (!at.agent) { list.replaceChildren(make("li", "", "No agents yet: talon apply -f DIR")); return; }
  const url = path("ns", at.ns, "agents", at.agent, "sessions");
  const page = await api("GET", `${url}?limit=100${cursor && "&cursor=" + encodeURIComponent(cursor)}`);
  const items = page.items.map((session) => {
    const link = make("a", "", session.id);
    link.href = hashOf(at.ns, at.agent, session.id);
    if (session.id === at.session) link.setAttribute("aria-current", "page");
    link.append(make("small", "", `${session.state} · entry ${session.last_seq}`));
    const item = make("li");
    item.append(link);
    return item;
  });
  if (cursor) list.append(...items);
  else list.replaceChildren(...(items.length ? items : [make("li", "", "No sessions yet")]));
  olderSessions = page.next_cursor ?? "";
  $("more-sessions").hidden = !olderSessions;
}

function openSession() {
  source?.close();
  source = null;
  drafts = new Map();
  calls = new Map();
  openTurn = "";
  $("cancel").hidden = true;
  $("journal").replaceChildren();
  $("send").hidden = !at.session;
  $("session-title").textContent = at.session || "No session chosen";
  $("session-about").textContent = at.session ? `${at.ns} / ${at.agent}` : "Choose a session, or create one.";
  document.title = at.session ? `${at.session} · Talon` : "Talon";
  $("status").textContent = "";
  if (!at.session) return;
  // The browser resumes by itself: it sends the last id that it saw, and the journal goes on exactly there.
  const mine = source = new EventSource(sessionPath("stream") + "?after=0");
  mine.onopen = () => { $("status").textContent = "live"; };
  mine.onerror = async () => {
    if (mine !== source) return;
    $("status").textContent = mine.readyState === EventSource.CLOSED ? "closed" : "reconnecting …";
    if (mine.readyState !== EventSource.CLOSED) return;
    try {
      await api("GET", sessionPath());
      setTimeout(() => { if (mine === source) openSession(); }, 2000); // it exists: the server was away, or a new session has its name
    } catch (error) {
      if (mine === source) complain(error);
    }
  };
  for (const type of TYPES) mine.addEventListener(type, (event) => { if (mine === source) show(JSON.parse(event.data)); });
}

// --- the journal ------------------------------------------------------------------------------------------------------

function row(seq, type, text, className, time) {
  const item = make("li", className);
  const kind = make("span", "type", type);
  if (time) {
    const when = make("time", "", " " + new Date(time).toLocaleTimeString());
    when.dateTime = time;
    kind.append(when);
  }
  item.append(make("span", "seq", String(seq)), kind, make("span", "text", text));
  return item;
}

function add(item) {
  const journal = $("journal");
  const follow = journal.scrollHeight - journal.scrollTop - journal.clientHeight < 40;
  journal.append(item);
  while (journal.childElementCount > ROWS_MAX) journal.firstElementChild.remove();
  if (follow) journal.scrollTop = journal.scrollHeight;
}

function show(event) {
  const { seq, turn_id: turn, type, at: time, payload } = event;
  if (type === "text.delta" || type === "reasoning.delta") return showDelta(seq, turn, type, payload, time);
  if (type === "tool.requested") calls.set(`${turn} ${payload.call}`, payload.name);
  if (type === "turn.started" || type === "turn.resumed" || type === "turn.waiting") setTurn(turn);
  if (ENDS.includes(type) && turn === openTurn) setTurn("");
  if (type === "stream.reset") forget(payload.model_seq);
  if (type === "message.completed") forget(payload.model_seq);
  if (ENDS.includes(type) || (type === "model.failed" && !payload.kept)) forgetTurn(turn);
  let className = type === "message.received" ? "user" : "";
  if (type === "turn.completed") className = "end-good";
  else if (ENDS.includes(type)) className = "end-bad";
  else if (["tool.failed", "tool.denied", "tool.uncertain", "model.failed", "stream.reset"].includes(type)) className = "warn";
  const item = row(seq, type, describe(type, payload, turn), className, time);
  if (Array.isArray(payload.content)) item.lastElementChild.append(...pictures(seq, payload.content));
  add(item);
  if (type.startsWith("approval.") || type === "tool.uncertain" || ENDS.includes(type)) refreshSoon();
}

function pictures(seq, parts) {
  return parts.flatMap((part, number) => {
    if (part.type !== "image") return [];
    const image = make("img");
    image.loading = "lazy";
    image.alt = `${part.media_type}, ${part.size} bytes`;
    image.src = sessionPath("messages", String(seq), "images", String(number));
    return [image];
  });
}

function showDelta(seq, turn, type, payload, time) {
  const key = `${seq} ${type}`;
  let draft = drafts.get(key);
  if (!draft) {
    draft = { turn, text: "", item: row(seq, type === "text.delta" ? "answering" : "reasoning", "", "draft", time) };
    drafts.set(key, draft);
    add(draft.item);
  }
  // Offsets count code points: what lies before the offset stays, so a piece that comes again changes nothing.
  const have = Array.from(draft.text);
  draft.text = have.slice(0, payload.offset).join("") + payload.text;
  draft.item.lastElementChild.textContent = draft.text;
  const journal = $("journal");
  if (journal.scrollHeight - journal.scrollTop - journal.clientHeight < 80) journal.scrollTop = journal.scrollHeight;
}

const forget = (model) => dropDrafts((key) => key.startsWith(`${model} `));
const forgetTurn = (turn) => dropDrafts((_, draft) => draft.turn === turn);

function dropDrafts(which) {
  for (const [key, draft] of drafts) {
    if (which(key, draft)) { draft.item.remove(); drafts.delete(key); }
  }
}

function setTurn(turn) {
  openTurn = turn;
  $("cancel").hidden = !turn;
}

const textOf = (content) =>
  Array.isArray(content) ? content.filter((part) => part.type === "text").map((part) => part.text).join("\n") : content;

function describe(type, payload, turn) {
  const tool = payload.call ? calls.get(`${turn} ${payload.call}`) ?? `call ${payload.call}` : "";
  switch (type) {
    case "message.received":
    case "message.completed": return textOf(payload.content);
    case "tool.requested": return `${payload.name} ${payload.arguments}`;
    case "tool.finished": return `${tool}: ${payload.output}`;
    case "tool.failed":
    case "tool.denied": return `${tool}: ${payload.message}`;
    case "tool.output": return `${tool}: ${payload.text}`;
    case "tool.started": return tool;
    case "model.started": return `${payload.provider}/${payload.model}, call ${payload.iteration}`;
    case "turn.started": return `${payload.agent}, revision ${payload.revision}, on ${payload.worker ?? "?"}`;
    default: {
      const text = Object.entries(payload).map(([key, value]) => `${key}: ${typeof value === "object" ? JSON.stringify(value) : value}`);
      return text.join("\n");
    }
  }
}

// --- approvals --------------------------------------------------------------------------------------------------------

let refreshing = 0;
function refreshSoon() {
  clearTimeout(refreshing);
  refreshing = setTimeout(guarded(async () => { await listApprovals(); await listSessions(); }), 300);
}

async function listApprovals() {
  if (!at.ns) return;
  const page = await api("GET", path("ns", at.ns, "approvals") + "?state=open&limit=100");
  $("approvals-box").hidden = page.items.length === 0;
  $("approvals").replaceChildren(...page.items.map(approvalItem));
}

function approvalItem(approval) {
  const item = make("li");
  const title = make("strong", "", `${approval.name}: nobody knows whether this call happened`);
  const where = make("a", "", `${approval.agent} / ${approval.session_id}`);
  where.href = hashOf(approval.namespace, approval.agent, approval.session_id);
  const result = make("input");
  result.placeholder = "result (for done, failed)";
  result.setAttribute("aria-label", `Result of ${approval.name}`);
  const buttons = [["retry", "It did not happen: retry"], ["done", "It happened"], ["failed", "It failed"]].map(([outcome, text]) => {
    const button = make("button", "", text);
    button.type = "button";
    button.addEventListener("click", guarded(async () => {
      button.disabled = true;
      try {
        const body = outcome === "retry" ? { outcome } : { outcome, result: result.value };
        await api("POST", path("ns", approval.namespace, "approvals", approval.id), body);
      } finally {
        button.disabled = false;
        await listApprovals();
      }
    }));
    return button;
  });
  const line = make("span", "row");
  line.append(result, ...buttons);
  item.append(title, " ", where, make("pre", "", approval.arguments), line);
  return item;
}

// --- acting -----------------------------------------------------------------------------------------------------------

$("namespace").addEventListener("change", () => { location.hash = hashOf($("namespace").value); });
$("agent").addEventListener("change", () => { location.hash = hashOf(at.ns, $("agent").value); });
$("where").addEventListener("submit", (event) => event.preventDefault());
$("more-sessions").addEventListener("click", guarded(() => listSessions(olderSessions)));

$("create").addEventListener("submit", guarded(async () => {
  const id = $("new-id").value.trim();
  const session = await api("POST", path("ns", at.ns, "agents", at.agent, "sessions"), id ? { id } : {});
  $("new-id").value = "";
  location.hash = hashOf(at.ns, at.agent, session.id);
}));

async function contentOf(text, files) {
  if (!files.length) return text;
  const images = await Promise.all(Array.from(files, async (file) => ({ type: "image", media_type: file.type, data: await base64Of(file) })));
  return text.trim() ? [{ type: "text", text }, ...images] : images;
}

function base64Of(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(new Problem(`${file.name} cannot be read`));
    reader.readAsDataURL(file);
  });
}

const needsText = () => { $("content").required = !$("images").files.length; };
$("images").addEventListener("change", needsText);

$("send").addEventListener("submit", guarded(async () => {
  const content = await contentOf($("content").value, $("images").files);
  const strategy = $("strategy").value;
  const body = JSON.stringify([sessionPath(), content, strategy]);
  // A message that is sent again after a lost answer keeps its key, so that it is accepted once.
  if (pendingKey?.body !== body) pendingKey = { body, key: newKey() };
  try {
    await api("POST", sessionPath("message"), { content, strategy }, { "Idempotency-Key": pendingKey.key });
  } catch (error) {
    if (error instanceof Problem && error.status < 500) pendingKey = null;
    throw error;
  }
  pendingKey = null;
  $("content").value = "";
  $("images").value = "";
  needsText();
  $("content").focus();
}));

$("content").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("send").requestSubmit();
});

$("cancel").addEventListener("click", guarded(() => api("POST", sessionPath("turns", openTurn, "cancel"))));

function newKey() {
  // randomUUID exists in secure contexts only; a gateway in a local network may be plain HTTP.
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

window.addEventListener("hashchange", guarded(go));
guarded(async () => { if (await whoIsHere(guarded(go))) await go(); })();
