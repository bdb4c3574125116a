// Draws a Screen: a few lines as they are; of many, the end, and all of them on demand, of which only what is in sight
// is in the document. 200,000 lines cost as much as sixty.

import { el, download } from "./dom.js";
import { colours, plain } from "./text.js";

const FEW = 400; // lines that are drawn as they are
const TAIL = 30; // of more, so many from the end, until somebody wants all
const LINE = 19; // pixels; `--line` in app.css
const AROUND = 20; // lines drawn beyond what is in sight
const WIDE = 20_000; // characters of one line that are drawn

export class TextView {
  constructor(screen, stream) {
    this.screen = screen;
    this.isWhole = false;
    this.pre = el("pre.text", { tabindex: "0" });
    this.bar = el("div.more");
    this.node = el(`div.stream.${stream}`, {}, this.bar, this.pre);
    this.pre.addEventListener("scroll", () => this.isWhole && this.#drawWindow());
    this.update();
  }

  update() {
    const { lines } = this.screen;
    const count = lines.at(-1) === "" ? lines.length - 1 : lines.length;
    this.count = count;
    if (count <= FEW) {
      this.#draw(0, count);
      this.bar.replaceChildren();
    } else if (this.isWhole) {
      this.#drawWindow();
    } else {
      this.#draw(count - TAIL, count);
      const all = `Show all (${count.toLocaleString("en")} lines)`;
      if (!this.button) {
        this.button = el("button.quiet", { type: "button", onclick: () => this.#open() });
        const save = () => download("output.txt", lines.map(plain).join("\n"), "text/plain");
        this.bar.replaceChildren(this.button, el("button.quiet", { type: "button", onclick: save }, "Download"));
      }
      this.button.textContent = all;
    }
  }

  #open() {
    this.isWhole = true;
    this.button.textContent = `${this.count.toLocaleString("en")} lines`;
    this.button.disabled = true;
    this.above = el("div");
    this.lines = el("div");
    this.below = el("div");
    this.pre.replaceChildren(this.above, this.lines, this.below);
    this.pre.classList.add("window");
    this.#drawWindow();
    this.pre.scrollTop = this.pre.scrollHeight;
  }

  #drawWindow() {
    const first = Math.max(0, Math.floor(this.pre.scrollTop / LINE) - AROUND);
    const last = Math.min(this.count, first + Math.ceil(this.pre.clientHeight / LINE) + 2 * AROUND);
    this.above.style.height = `${first * LINE}px`;
    this.below.style.height = `${(this.count - last) * LINE}px`;
    this.lines.replaceChildren(fragment(this.screen.lines, first, last));
  }

  #draw(first, last) {
    this.pre.replaceChildren(fragment(this.screen.lines, first, last));
  }
}

// Consecutive lines without colours are one text node.
export function fragment(lines, first, last) {
  const whole = document.createDocumentFragment();
  const state = {};
  let run = [];
  const flush = () => {
    if (run.length) whole.append(run.join(""));
    run = [];
  };
  for (let at = first; at < last; at += 1) {
    let line = lines[at];
    if (line.length > WIDE) line = `${line.slice(0, WIDE)}… (${line.length.toLocaleString("en")} characters)`;
    const end = at < last - 1 ? "\n" : "";
    if (!line.includes("\x1b") && !Object.keys(state).length) {
      run.push(line, end);
      continue;
    }
    for (const [text, style] of colours(line, state)) {
      if (!Object.keys(style).length) {
        run.push(text);
        continue;
      }
      flush();
      whole.append(span(text, style));
    }
    run.push(end);
  }
  flush();
  return whole;
}

function span(text, style) {
  const node = el("span", {}, text);
  let { fg, bg } = style;
  if (style.inverse) [fg, bg] = [bg ?? "paper", fg ?? "ink"];
  for (const [name, value] of [["fg", fg], ["bg", bg]]) {
    if (!value) continue;
    if (value.startsWith("rgb(")) node.style[name === "fg" ? "color" : "backgroundColor"] = value;
    else node.classList.add(`${name}-${value}`);
  }
  for (const name of ["bold", "faint", "italic", "underline"]) if (style[name]) node.classList.add(name);
  return node;
}
