// Puts the page together: the bar of sessions, the open session, its limits and its files.

import * as api from "./api.js";
import { bytes, download, duration, el } from "./dom.js";
import { FilesPanel } from "./filespanel.js";
import { fromIpynb, toIpynb, toScript } from "./ipynb.js";
import { SessionPage } from "./page.js";

const $ = (id) => document.getElementById(id);
const LOOK_MS = 3000; // how often to ask how much of its limits a session uses
const SOON = 120; // seconds before an end that are told
const client = (sessionStorage.client ??= `page-${crypto.randomUUID().slice(0, 8)}`);
const query = new URLSearchParams(location.search);
const isObserver = api.isShared || query.get("role") === "observer";
if (api.isShared) document.body.dataset.shared = "yes";
document.body.dataset.role = isObserver ? "observer" : "driver"; // app.css hides what an observer cannot do

let open = null; // the SessionPage
let known = []; // sessions, as the server lists them
const filesPanel = new FilesPanel($("files"));

// -- sessions ---------------------------------------------------------------------------------------------------------

async function list() {
  if (api.isShared) return [];
  known = (await api.sessions.list()).sessions ?? [];
  $("session").replaceChildren(...known.map((one) => el("option", { value: one.id, selected: one.id === open?.info.id }, titleOf(one))));
  return known;
}

const titleOf = ({ name, kernel, id }) => name || `${kernel ?? "python"} ${id.slice(0, 6)}`;

function show(info) {
  open?.close();
  $("welcome").hidden = true;
  if (!api.isShared) {
    const url = new URL(location.href);
    url.searchParams.set("session", info.id);
    history.replaceState(null, "", url);
    localStorage.setItem("cellgate:last", info.id);
  }
  open = new SessionPage(info, $("cells"), { client, isObserver, onStatus: connection, onState: state });
  document.title = `${titleOf(info)} · Cellgate`;
  document.body.dataset.open = "yes";
  filesPanel.use(info.id);
  list();
  look();
}

async function create(wish = {}) {
  busy("Starting a kernel…");
  try {
    show(await api.sessions.create(wish));
    busy("");
  } catch (error) {
    busy(error.message);
  }
}

async function end() {
  if (!open || !confirm(`End “${titleOf(open.info)}”? Its variables and files are lost.`)) return;
  await api.sessions.end(open.info.id).catch((error) => busy(error.message));
  leave();
}

function leave() {
  open?.close();
  open = null;
  delete document.body.dataset.open;
  $("welcome").hidden = false;
  list();
}

async function rename() {
  const name = prompt("A name for this session", open.info.name ?? "");
  if (name === null) return;
  try {
    open.info = { ...open.info, ...(await api.sessions.change(open.info.id, { name })) };
  } catch (error) {
    busy(error.message);
  }
  list();
}

// -- what is told -------------------------------------------------------------------------------------------------------

const CONNECTIONS = {
  connecting: "connecting…",
  open: "",
  waiting: "The connection broke; trying again. Nothing is lost.",
  gone: "This session has ended.",
};

function connection(status) {
  document.body.dataset.connection = status;
  $("connection").textContent = status === "connecting" ? "" : CONNECTIONS[status];
  if (status === "gone") list();
}

const DEATHS = {
  oom: "The kernel was killed: it used more than",
  kernel_exit: "The kernel ended by itself",
  kernel_signal: "The kernel was killed by a signal",
  kernel_unresponsive: "The kernel did not answer any more",
  session_expired: "The session ended, because its time was over",
  supervisor_lost: "The sandbox was lost",
};

function state(notebook, event) {
  const running = notebook.running;
  $("state").textContent = running ? "busy" : notebook.state;
  $("state").dataset.state = running ? "busy" : notebook.state;
  $("queue").textContent = notebook.waiting.length ? `${notebook.waiting.length} waiting` : "";
  $("interrupt").disabled = !running || isObserver;
  document.title = `${running ? "● " : ""}${titleOf(open?.info ?? { id: "" })} · Cellgate`;
  if (event?.event === "state" && event.reason && event.reason !== "restarted") {
    const words = DEATHS[event.reason] ?? event.sentence ?? event.reason;
    const limit = event.reason === "oom" ? ` ${bytes(open.info.limits.memory_bytes)}` : "";
    const isDead = event.state === "dead";
    const next = isDead ? ["Restart", () => open.restart()] : ["Run all", () => open.runAll()];
    news(`${words}${limit}. Variables are lost${isDead ? "" : "; a fresh kernel is ready"}.`, next);
  } else if (event?.event === "state" && event.reason === "restarted") {
    news("The kernel was restarted; variables are lost.");
  } else if (event?.event === "gap" || (event?.event === "notice" && event.cell === undefined)) {
    news(event.text ?? `${event.count} older messages are no longer kept.`, /idle|lifetime|end/.test(event.note ?? "") && ["Keep", () => open.keep()]);
  }
}

function news(text, action) {
  const close = el("button.quiet", { type: "button", "aria-label": "Dismiss", onclick: () => node.remove() }, "×");
  const act = action && !isObserver && el("button", { type: "button", onclick: () => (action[1](), node.remove()) }, action[0]);
  const node = el("div.news", { role: "status" }, el("span", {}, text), act || "", close);
  for (const other of $("news").children) if (other.firstChild.textContent === text) other.remove();
  $("news").append(node);
  while ($("news").children.length > 3) $("news").firstChild.remove();
}

const busy = (text) => ($("progress").textContent = text);

// How much of its limits the open session uses.
async function look() {
  if (!open || document.hidden) return;
  const asked = open;
  const info = await api.sessions.get(open.info.id).catch(() => null);
  if (!info || asked !== open) return;
  open.info = info;
  const { limits, expires } = info;
  open.notebook.state = info.state; // a kernel that has come up says so with its first cell only
  state(open.notebook);
  const usage = info.usage ?? {};
  gauge("memory", usage.memory_bytes, limits.memory_bytes, bytes);
  gauge("cpu", cpuOf(usage), 100 * limits.cpu_cores, (n) => `${Math.round(n)} %`);
  const left = expires ? Date.parse(expires.at) / 1000 - Date.now() / 1000 : null;
  $("left").textContent = left === null ? "" : left < SOON ? `ends in ${duration(left)}` : `${duration(left)} left`;
  const isSoon = left !== null && left < SOON;
  $("left").classList.toggle("bad", isSoon);
  $("keep").hidden = !isSoon || expires.why !== "idle"; // nothing stops a lifetime
}

// Percent of one processor since the last look.
let before = null;
function cpuOf({ cpu_seconds: used }) {
  if (used === undefined) return null;
  const now = { of: open.info.id, used, at: performance.now() / 1000 };
  const share = before?.of === now.of ? Math.max(0, (100 * (used - before.used)) / (now.at - before.at)) : null;
  before = now;
  return share;
}

function gauge(name, value, limit, words) {
  const node = $(name);
  node.hidden = value === undefined || value === null;
  if (node.hidden) return;
  node.title = limit ? `${words(value)} of ${words(limit)}` : words(value);
  node.lastElementChild.textContent = words(value);
  node.style.setProperty("--part", limit ? Math.min(1, value / limit) : 0);
  node.classList.toggle("bad", limit && value / limit > 0.9);
}

// -- commands -------------------------------------------------------------------------------------------------------------

async function load(file) {
  try {
    const cells = fromIpynb(await file.text());
    if (!open) await create({ name: file.name.replace(/\.ipynb$/, "") });
    open?.add(cells); // `create` has said why there is none
  } catch (error) {
    busy(error.message);
  }
}

async function share() {
  const { url } = await api.sessions.share(open.info.id).catch((error) => ({ url: null, error: busy(error.message) }));
  if (!url) return;
  const isCopied = await navigator.clipboard?.writeText(url).then(() => true, () => false);
  news(`Whoever has this link can watch, until the session ends: ${url}${isCopied ? " (copied)" : ""}`);
}

const COMMANDS = {
  new: () => $("create").showModal(),
  end,
  rename,
  keep: () => open.keep().then(look),
  "run-all": () => open.runAll(),
  interrupt: () => open.interrupt(),
  restart: () => confirm("Restart the kernel? Variables are lost.") && open.restart().catch((error) => busy(error.message)),
  clear: () => open.clear(),
  undo: () => open.undoRemove(),
  "add-code": () => open.insert(null, 0),
  "add-markdown": () => open.insert(null, 0, "markdown"),
  "toggle-files": () => {
    $("files").hidden = !$("files").hidden;
    $("toggle-files").setAttribute("aria-expanded", String(!$("files").hidden));
    filesPanel.show();
  },
  "save-ipynb": () => download(`${titleOf(open.info)}.ipynb`, JSON.stringify(toIpynb(open.notebook), null, 1), "application/x-ipynb+json"),
  "save-py": () => download(`${titleOf(open.info)}.py`, toScript(open.notebook), "text/x-python"),
  load: () => $("pick").click(),
  share,
  help: () => $("help").showModal(),
  start: () => create(),
};

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-do]");
  if (!button) return;
  button.closest("details")?.removeAttribute("open");
  COMMANDS[button.dataset.do]();
});

// Keys that work wherever the focus is; a cell's own are in `cells.js`.
document.addEventListener("keydown", (event) => {
  if (!open || event.defaultPrevented) return;
  if (isObserver && !WATCHES.includes(event.key)) return;
  const isTyping = event.target.closest(".cm-content, input, textarea, select, dialog");
  const mod = event.ctrlKey || event.metaKey;
  if (event.key === "F8") mod ? COMMANDS["run-all"]() : open.interrupt();
  else if (isTyping || mod || event.altKey) return;
  else {
    const act = PAGE_KEYS[event.key] ?? cellKeys()[event.key];
    if (!act) return;
    event.preventDefault(); // else what gets the focus now gets the key too
    act();
  }
});

const WATCHES = ["ArrowUp", "ArrowDown", "j", "k", "?"]; // the keys that change nothing

const PAGE_KEYS = {
  i: () => open.interrupt(),
  0: () => COMMANDS.restart(),
  z: () => open.undoRemove(),
  "?": () => COMMANDS.help(),
};

// Of the cell that has the focus.
function cellKeys() {
  const view = [...open.views.values()].find((one) => one.node === document.activeElement);
  if (!view) return {};
  return {
    a: () => open.insert(view, 0),
    b: () => open.insert(view, 1),
    d: () => open.remove(view),
    m: () => (view.cell.kind = view.cell.kind === "code" ? "markdown" : "code", open.move(view, 0)),
    Enter: () => {
      view.cell.isRendered = false;
      view.update();
      view.editor.focus();
    },
    ArrowUp: () => neighbour(view, -1),
    ArrowDown: () => neighbour(view, 1),
    k: () => neighbour(view, -1),
    j: () => neighbour(view, 1),
  };
}

function neighbour(view, by) {
  const id = open.notebook.order[open.notebook.order.indexOf(view.cell.id) + by];
  open.views.get(id)?.node.focus();
}

// -- the start ------------------------------------------------------------------------------------------------------------

$("session").addEventListener("change", (event) => show(known.find(({ id }) => id === event.target.value)));
$("pick").addEventListener("change", ({ target }) => {
  const [file] = target.files;
  target.value = ""; // or the same file, changed since, could not be chosen again
  if (file) load(file);
});
$("create").addEventListener("close", () => {
  if ($("create").returnValue !== "ok") return;
  const form = new FormData($("create").querySelector("form"));
  const wish = Object.fromEntries([...form].filter(([, value]) => value));
  create(wish);
});
setInterval(look, LOOK_MS);
addEventListener("visibilitychange", look);

async function offer() {
  const fill = (id, names) => $(id).replaceChildren(...names.map((name) => el("option", { value: name === names[0] ? "" : name }, name)));
  const [all, profiles] = await Promise.all([api.languages().catch(() => null), api.profiles().catch(() => null)]);
  fill("kernel", (all?.languages ?? []).flatMap(({ kernels }) => kernels.map(({ name }) => name)));
  fill("profile", ["as the server", ...Object.keys(profiles?.profiles ?? {})]);
}

async function watch() {
  const info = await api.sessions.get(api.sharedSession ?? "none").catch(() => null);
  if (info) show(info);
  else busy("This link shows nothing: its session has ended, or it was not copied whole.");
}

async function begin() {
  if (api.isShared) return watch();
  const found = await list();
  const wanted = query.get("session") ?? localStorage.getItem("cellgate:last");
  const info = found.find(({ id }) => id === wanted) ?? (found.length === 1 ? found[0] : null);
  if (info) show(info);
  else if (!found.length && !isObserver) await create();
  else $("welcome").hidden = false;
  offer();
}

begin().catch((error) => busy(error.message));
