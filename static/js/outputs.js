// Draws what a cell said. Text and pictures stand in the page; whatever may carry code (HTML, Markdown, LaTeX) goes into
// a frame whose origin is nobody's, so that it can neither read this page nor reach the server.

import { bytes, download, el } from "./dom.js";
import { Frame } from "./frames.js";
import { fragment, TextView } from "./texts.js";

const PICTURES = ["image/svg+xml", "image/png", "image/jpeg", "image/gif", "image/webp"];
const FRAMED = ["text/html", "text/markdown", "text/latex"];
// What wants a library that this page does not bring: it is said so, and the text that came along is shown.
const NOT_HERE = [
  [/^application\/vnd\.plotly\./, "Plotly is not installed in this page. fig.to_image() makes a picture, where kaleido is installed."],
  [/^application\/vnd\.vega(lite)?\./, "Vega is not installed in this page. Altair makes a picture with chart.save('chart.svg')."],
  [/^application\/vnd\.jupyter\.widget-view/, "Widgets are not installed in this page; this is their text. For progress, tqdm without .notebook works."],
  [/^application\/vnd\.bokehjs/, "Bokeh is not installed in this page. bokeh.io.export_svg makes a picture."],
  [/^application\/javascript$/, "JavaScript of a kernel does not run in this page."],
];
const EXTENSIONS = {
  "image/svg+xml": "svg", "image/png": "png", "image/jpeg": "jpg", "image/gif": "gif", "image/webp": "webp",
  "text/html": "html", "text/markdown": "md", "text/latex": "tex", "application/json": "json", "text/plain": "txt",
};
const MAX_OUTPUTS = 500; // drawn of one cell; the rest is told

export class OutputsView {
  constructor() {
    this.node = el("div.outputs", { role: "group", "aria-label": "Output" });
    this.views = [];
  }

  update(outputs) {
    const shown = outputs.slice(0, MAX_OUTPUTS);
    if (this.views.length > shown.length || this.views.some((view, n) => view.output !== shown[n])) {
      this.node.replaceChildren();
      this.views = [];
    }
    for (const view of this.views) view.update();
    for (const output of shown.slice(this.views.length)) {
      const view = viewOf(output);
      view.output = output;
      this.views.push(view);
      this.node.append(view.node);
    }
    this.rest?.remove();
    if (outputs.length > MAX_OUTPUTS)
      this.node.append((this.rest = el("p.notice", {}, `${outputs.length - MAX_OUTPUTS} further outputs are not drawn.`)));
  }
}

function viewOf(output) {
  if (output.kind === "text") return new TextView(output.screen, output.stream);
  if (output.kind === "error") return new ErrorView(output);
  if (output.kind === "notice") return new NoticeView(output);
  return new RichView(output);
}

class RichView {
  constructor(output) {
    this.richOutput = output;
    this.node = el("div.rich");
    this.update();
  }

  update() {
    if (this.version === this.richOutput.version) return;
    this.version = this.richOutput.version;
    const { data, metadata } = this.richOutput;
    const [type, body] = chosen(data);
    const save = type && el("button.quiet.save", {
      type: "button", title: "Download this output", "aria-label": "Download this output",
      onclick: () => download(`output.${EXTENSIONS[type] ?? "txt"}`, blobOf(type, data[type])),
    }, "⤓");
    if (this.frame && FRAMED.includes(type)) return this.frame.show(type, data[type]);
    this.frame = null;
    this.node.replaceChildren(body(data, metadata, this), save ?? "");
  }
}

// What of a bundle is shown, and how. The richest that this page can show.
function chosen(data) {
  if (lacking(data)) return [data["text/plain"] === undefined ? null : "text/plain", (all) => missing(all)];
  for (const type of FRAMED.slice(0, 2)) if (data[type] !== undefined) return [type, framed(type)];
  for (const type of PICTURES) if (data[type] !== undefined) return [type, picture(type)];
  if (data["text/latex"] !== undefined) return ["text/latex", framed("text/latex")];
  if (data["application/json"] !== undefined) return ["application/json", (all) => tree(all["application/json"])];
  if (data["text/plain"] !== undefined) return ["text/plain", (all) => plain(all)];
  return [null, (all) => el("p.notice", {}, `Nothing here can show ${Object.keys(all).join(", ") || "this"}.`)];
}

const asText = (value) => (Array.isArray(value) ? value.join("") : typeof value === "string" ? value : JSON.stringify(value));

function lines(value) {
  const all = asText(value).split("\n");
  return [fragment(all, 0, all.length)];
}

const plain = (data) => el("pre.text", {}, ...lines(data["text/plain"]));

// A picture that came along is as good as what is lacking.
const lacking = (data) => !PICTURES.some((type) => data[type] !== undefined)
  && NOT_HERE.find(([wanted]) => Object.keys(data).some((type) => wanted.test(type)))?.[1];

const missing = (data) => el("div", {}, data["text/plain"] === undefined ? "" : plain(data), el("p.notice", {}, lacking(data)));

const framed = (type) => (data, metadata, view) => {
  view.frame = new Frame();
  view.frame.show(type, asText(data[type]));
  return view.frame.node;
};

// As the source of an <img>, where an SVG runs no script and loads nothing.
const picture = (type) => (data, metadata) => {
  const node = el("img.picture", { alt: asText(data["text/plain"] ?? "A picture"), decoding: "async" });
  const size = metadata[type] ?? {};
  if (size.width > 0) node.width = size.width;
  if (size.height > 0) node.height = size.height;
  const url = URL.createObjectURL(blobOf(type, data[type]));
  node.addEventListener("load", () => URL.revokeObjectURL(url), { once: true });
  node.src = url;
  return node;
};

function blobOf(type, value) {
  if (!PICTURES.includes(type) || type === "image/svg+xml") return new Blob([asText(value)], { type });
  const raw = atob(asText(value).replace(/\s/g, ""));
  return new Blob([Uint8Array.from(raw, (c) => c.charCodeAt(0))], { type });
}

// JSON, opened where somebody looks.
function tree(value, name = "") {
  const label = name === "" ? "" : `${name}: `;
  if (value === null || typeof value !== "object") return el("div.leaf", {}, label, el("span.value", {}, JSON.stringify(value)));
  const entries = Object.entries(value);
  const what = Array.isArray(value) ? `[${entries.length}]` : `{${entries.length}}`;
  const node = el("details.tree", {}, el("summary", {}, label, what));
  node.addEventListener("toggle", () => {
    if (node.open && node.children.length === 1) {
      node.append(...entries.slice(0, 200).map(([key, child]) => tree(child, key)));
      if (entries.length > 200) node.append(el("div.leaf", {}, `… ${entries.length - 200} more`));
    }
  });
  if (name === "") node.open = true;
  return node;
}

// The frames of the user's own code first; those of libraries folded.
class ErrorView {
  constructor({ name, value, traceback }) {
    const all = traceback.length ? traceback : [`${name}: ${value}`];
    const parts = all.join("\n").split("\n");
    if (RULE.test(parts[0])) parts.shift(); // its border says the same, and fits any width
    const own = ownLines(parts);
    this.node = el("div.error", { role: "alert" });
    const pre = el("pre.text", {}, fragment(own, 0, own.length));
    this.node.append(pre);
    if (own.length < parts.length) {
      const more = el("button.quiet", { type: "button", onclick: () => {
        pre.replaceChildren(fragment(parts, 0, parts.length));
        more.remove();
      } }, `Show all frames (${parts.length - own.length} more lines)`);
      this.node.append(more);
    }
  }

  update() {}
}

const RULE = /^(?:\x1b\[[0-9;]*m)*-{20,}(?:\x1b\[[0-9;]*m)*$/;
const FRAME_START = /^(?:\x1b\[[0-9;]*m)*(?:File |Cell |Input In)/;

function ownLines(parts) {
  const blocks = [[]];
  for (const line of parts) {
    if (FRAME_START.test(line)) blocks.push([]);
    blocks.at(-1).push(line);
  }
  if (blocks.length <= 3) return parts;
  const last = blocks.at(-1);
  const blank = last.findIndex((line) => line === "");
  const message = blank >= 0 ? last.slice(blank) : last.slice(-1);
  const isOwn = (block) => /Cell|Input In/.test(block[0].slice(0, 60));
  const kept = blocks.slice(1).filter((block) => isOwn(block)).flatMap((block) => (block === last ? block.slice(0, blank >= 0 ? blank : -1) : block));
  return kept.length ? [...blocks[0], ...kept, ...message] : parts;
}

class NoticeView {
  constructor({ note, text, facts }) {
    this.node = el("p.notice", { "data-note": note }, text);
    if (note === "output_truncated")
      this.node.replaceChildren(
        `The limit of this cell's output cut ${Number(facts.dropped_messages).toLocaleString("en")} messages `
        + `(${bytes(facts.dropped_bytes)}) here; what came before and after is kept.`);
  }

  update() {}
}
