// The panel of a session's files: look around, bring files and take them away.

import { files } from "./api.js";
import { bytes, el, icon } from "./dom.js";

const PREVIEW_BYTES = 256 << 10;
const PICTURES = /\.(png|jpe?g|gif|webp|svg)$/i;

export class FilesPanel {
  constructor(node) {
    this.node = node;
    this.path = "";
    const pick = el("input", { type: "file", multiple: true, hidden: true, onchange: () => {
      const chosen = [...pick.files];
      pick.value = ""; // or the same file, changed since, could not be chosen again
      this.#upload(chosen);
    } });
    this.crumbs = el("nav.crumbs", { "aria-label": "Folder" });
    this.list = el("ul.files");
    this.news = el("div", { role: "status" });
    this.preview = el("div.preview");
    node.append(
      el("header", {}, el("h2", {}, "Files"),
        el("button.quiet", { type: "button", title: "Read again", "aria-label": "Read again", onclick: () => this.show() }, icon("again")),
        el("button.quiet", { type: "button", onclick: () => pick.click() }, "Upload"), pick),
      this.crumbs, this.list, this.news, this.preview, el("p.hint", {}, "Drop files here to upload them."));
    node.addEventListener("dragover", (event) => (event.preventDefault(), node.classList.add("over")));
    node.addEventListener("dragleave", () => node.classList.remove("over"));
    node.addEventListener("drop", (event) => {
      event.preventDefault();
      node.classList.remove("over");
      this.#upload([...event.dataTransfer.files]);
    });
  }

  use(sessionId) {
    this.session = sessionId;
    this.path = "";
    this.preview.replaceChildren();
    if (!this.node.hidden) this.show();
  }

  async show() {
    if (!this.session) return;
    try {
      const { entries } = await files.list(this.session, this.path);
      this.#draw(entries);
    } catch (error) {
      this.list.replaceChildren(el("li.notice", {}, error.message));
    }
  }

  #draw(entries) {
    const parts = this.path ? this.path.split("/") : [];
    const crumb = (name, path) => el("button.quiet", { type: "button", onclick: () => this.#go(path) }, name);
    this.crumbs.replaceChildren(crumb("work", ""), ...parts.flatMap((part, n) => [" / ", crumb(part, parts.slice(0, n + 1).join("/"))]));
    const rows = [...entries].sort((a, b) => (b.type === "directory") - (a.type === "directory") || a.name.localeCompare(b.name));
    this.list.replaceChildren(...rows.map((entry) => this.#row(entry)));
    if (!rows.length) this.list.replaceChildren(el("li.hint", {}, "Nothing here yet."));
  }

  #row({ name, type, size }) {
    const path = this.path ? `${this.path}/${name}` : name;
    if (type === "directory") return el("li", {}, el("button.name", { type: "button", onclick: () => this.#go(path) }, icon("folder"), name));
    const remove = async () => {
      await files.remove(this.session, path).catch((error) => this.#say(error.message));
      this.show();
    };
    return el("li", {},
      el("button.name", { type: "button", onclick: () => this.#preview(path, size) }, icon("file"), name),
      el("span.size", {}, bytes(size)),
      el("a.quiet", { href: files.url(this.session, path), download: name, title: "Download", "aria-label": `Download ${name}` }, icon("down")),
      el("button.quiet", { type: "button", title: "Delete", "aria-label": `Delete ${name}`, onclick: remove }, icon("trash")));
  }

  #go(path) {
    this.path = path;
    this.preview.replaceChildren();
    this.show();
  }

  async #preview(path, size) {
    const close = el("button.quiet", { type: "button", onclick: () => this.preview.replaceChildren() }, "Close");
    if (size > PREVIEW_BYTES) return this.preview.replaceChildren(close, el("p.hint", {}, "Too large to look at here; download it."));
    try {
      const blob = await files.blob(this.session, path);
      if (PICTURES.test(path)) {
        const url = URL.createObjectURL(new Blob([blob], { type: path.endsWith(".svg") ? "image/svg+xml" : "" }));
        this.preview.replaceChildren(close, el("img.picture", { src: url, alt: path, onload: () => URL.revokeObjectURL(url) }));
      } else {
        const text = await blob.text();
        this.preview.replaceChildren(close, el("pre.text", {}, text.includes("\0") ? "This is no text." : text));
      }
    } catch (error) {
      this.#say(error.message);
    }
  }

  async #upload(list) {
    for (const file of list) {
      const bar = el("progress", { max: 1, value: 0 });
      const row = el("p", {}, `${file.name} `, bar);
      this.news.append(row);
      try {
        await files.put(this.session, this.path ? `${this.path}/${file.name}` : file.name, file, (part) => (bar.value = part));
        row.remove();
      } catch (error) {
        row.replaceChildren(`${file.name}: ${error.message}`);
      }
    }
    this.show();
  }

  #say(text) {
    this.news.replaceChildren(el("p.notice", {}, text));
  }
}
