// The operator's page: what /v1/admin and /v1/stats tell, drawn again every few seconds.

import { ask, json } from "./api.js";
import { bytes, duration, el } from "./dom.js";
import { plot } from "./plots.js";

const LOOK_MS = 5000; // as often as the server takes a sample
const $ = (id) => document.getElementById(id);
const number = (n) => n.toLocaleString("en", { maximumFractionDigits: n < 10 ? 2 : 0 });
const each = (words) => (n) => `${words(n)}/s`;

// What of the last hour is drawn: the sample's column, its title, and how a value reads. Memory and CPU are of all sandboxes;
// the delay is how late the gateway's loop was at worst.
const PLOTS = [
  ["cells_per_second", "Cells", each(number)],
  ["starts_per_second", "Kernel starts", each(number)],
  ["output_bytes_per_second", "Output", each((n) => bytes(n) || "0 B")],
  ["failures_per_second", "Cells that failed", each(number)],
  ["sessions", "Sessions", number],
  ["cells_running", "Running cells", number],
  ["cells_waiting", "Waiting cells", number],
  ["memory_bytes", "Memory", bytes],
  ["cpu_cores", "CPU", (n) => `${number(n)} cores`],
  ["loop_lag_seconds", "Delay", duration],
];

let before = new Map(); // session -> [CPU seconds, when]: of the last look

async function look() {
  if (document.hidden) return;
  try {
    const [told, stats] = await Promise.all([json("GET", "v1/admin"), json("GET", "v1/stats")]);
    $("trouble").textContent = "";
    drawServer(told, stats);
    $("plots").replaceChildren(...PLOTS.map(([name, title, words]) => plot(title, stats.history[name], stats.history.at, words)));
    drawSessions(told.sessions);
    drawDeaths(told.deaths, stats.counts.kernels_ended);
  } catch (error) {
    $("trouble").textContent = `The server does not answer as it should: ${error.message}`;
  }
}

function drawServer({ server, sessions }, { now }) {
  const pool = server.pool_size ? `pool of ${server.pool_size}` : "no pool";
  const parts = [
    `${sessions.length} sessions`, `${now.clients} clients`, `driver ${server.driver}`, server.tier && `tier ${server.tier}`,
    `profile ${server.profile}`, pool, now.starts_waiting && `${now.starts_waiting} kernels wait to be started`,
    server.is_draining && "draining: no new sessions",
  ];
  $("server").textContent = parts.filter(Boolean).join(" · ");
}

// -- sessions -----------------------------------------------------------------------------------------------------------

function drawSessions(sessions) {
  const now = performance.now() / 1000;
  const seen = new Map();
  const focused = document.activeElement?.dataset?.of; // a button that is drawn anew keeps the focus
  $("sessions").replaceChildren(...sessions.map((one) => {
    const former = before.get(one.id);
    seen.set(one.id, former?.[0] === one.cpu_seconds ? former : [one.cpu_seconds, now, former]);
    return row(one, cpuOf(seen.get(one.id)));
  }));
  before = seen;
  if (!sessions.length) $("sessions").replaceChildren(el("tr", {}, el("td.hint", { colSpan: 10 }, "There are none.")));
  if (focused) document.querySelector(`[data-of="${CSS.escape(focused)}"]`)?.focus();
}

// Percent of one processor, between the two samples seen last.
function cpuOf([used, at, former]) {
  const isKnown = typeof used === "number" && typeof former?.[0] === "number";
  return isKnown && at > former[1] ? Math.max(0, (100 * (used - former[0])) / (at - former[1])) : null;
}

function row(one, cpu) {
  const part = one.memory_bytes ? Math.min(1, one.memory_bytes / one.limits.memory_bytes) : 0;
  const meter = el("span.meter", { "aria-hidden": "true" });
  meter.style.setProperty("--part", part);
  const title = one.name || one.id.slice(0, 8);
  return el("tr", { "data-session": one.id },
    el("td", {}, one.principal), el("td", {}, title), el("td", {}, one.kernel),
    el("td", {}, el("span.state", { "data-state": one.is_running ? "busy" : one.state }, one.is_running ? "busy" : one.state)),
    el("td", {}, one.waiting || ""),
    el("td", {}, meter, one.memory_bytes ? `${bytes(one.memory_bytes)} of ${bytes(one.limits.memory_bytes)}` : "not sampled yet"),
    el("td", {}, cpu === null ? "" : `${Math.round(cpu)} %`), el("td", {}, one.clients || ""),
    el("td", {}, left(one.expires)),
    el("td", {},
      el("button", { type: "button", "data-of": `show ${one.id}`, "aria-label": `Details of ${title}`, onclick: () => inspect(one) }, "Details"), " ",
      el("button", { type: "button", "data-of": `end ${one.id}`, "aria-label": `End ${title}`, onclick: () => end(one) }, "End")));
}

const left = ({ at, why }) => `${duration(Math.max(0, Date.parse(at) / 1000 - Date.now() / 1000))} (${why})`;

function inspect(one) {
  $("session-title").textContent = `${one.name || one.id.slice(0, 8)}, of ${one.principal}`;
  const { limits, expires, ...facts } = one;
  const said = (name, value) => (name.endsWith("_bytes") && value !== null ? bytes(value) : String(value ?? "not known"));
  const shown = { ...facts, ends: `${left(expires)}` };
  const rows = [...Object.entries(shown), ...Object.entries(limits).map(([name, value]) => [`limit ${name}`, value])];
  $("facts").replaceChildren(...rows.map(([name, value]) => el("tr", {}, el("th", { scope: "row" }, name.replaceAll("_", " ")), el("td", {}, said(name, value)))));
  $("session").showModal();
}

async function end(one) {
  if (!confirm(`End “${one.name || one.id.slice(0, 8)}” of ${one.principal}? Its variables and files are lost.`)) return;
  await ask("DELETE", `v1/admin/sessions/${one.id}`).catch((error) => ($("trouble").textContent = error.message));
  look();
}

// -- deaths -------------------------------------------------------------------------------------------------------------

function drawDeaths(deaths, counts) {
  const parts = counts.map(({ reason, count }) => `${reason.replaceAll("_", " ")} ${number(count)}`);
  $("reasons").textContent = parts.length ? `Since the gateway began: ${parts.join(", ")}.` : "None has since the gateway began.";
  $("deaths").replaceChildren(...deaths.map((one) => el("tr", {},
    el("td", {}, new Date(one.at * 1000).toLocaleTimeString()), el("td", {}, one.principal), el("td", {}, one.session.slice(0, 8)),
    el("td", {}, one.reason.replaceAll("_", " ")), el("td", {}, duration(one.cpu_seconds)), el("td", {}, bytes(one.memory_peak_bytes)))));
}

look();
setInterval(look, LOOK_MS);
addEventListener("visibilitychange", look);
