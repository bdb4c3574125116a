// One cell on the page: its editor, what goes on with it, and its outputs.

import { el, duration, icon } from "./dom.js";
import { Editor } from "./editor.js";
import { Frame } from "./frames.js";
import { OutputsView } from "./outputs.js";

// What a cell's end is called, where `finished` says more than ok or error.
const ENDS = {
  interrupted: "interrupted",
  cancelled: "not run",
  timeout_wall: "stopped: it took longer than a cell may",
  timeout_cpu: "stopped: it used more CPU time than a cell may",
  oom: "the kernel was killed: it used more memory than it may have",
  kernel_exit: "the kernel ended by itself",
  kernel_signal: "the kernel was killed by a signal",
  kernel_unresponsive: "the kernel did not answer any more",
  policy_denied: "not run: the policy of this session denies it",
  queue_full: "not run: too many cells were waiting",
  quota_used_up: "not run: you have used what you may today",
  session_deleted: "the session was ended",
  supervisor_lost: "the sandbox was lost",
  backend_error: "the server failed",
};

export class CellView {
  // `actions`: run, remove, move, above, below, answer; `session` as Editor wants it.
  constructor(cell, { session, actions, language, isObserver }) {
    this.cell = cell;
    this.actions = actions;
    this.editor = new Editor({
      code: cell.code, language: cell.kind === "code" ? language : "", session, label: "Cell", hint: cell.kind === "code" ? "Type code, Shift-Enter runs it" : "Markdown",
      keys: {
        "Shift-Enter": () => actions.run(this, "next"),
        "Mod-Enter": () => actions.run(this, "stay"),
        "Alt-Enter": () => actions.run(this, "insert"),
        "Alt-ArrowUp": () => actions.move(this, -1),
        "Alt-ArrowDown": () => actions.move(this, 1),
        "Mod-Shift-Backspace": () => actions.remove(this),
        "Mod-Shift-a": () => actions.insert(this, 0),
        "Mod-Shift-b": () => actions.insert(this, 1),
        "ArrowUp": () => this.editor.isAtTop && actions.go(this, -1),
        "ArrowDown": () => this.editor.isAtEnd && actions.go(this, 1),
        "Escape": () => (this.editor.view.contentDOM.blur(), this.node.focus(), true),
      },
      onChange: (code) => {
        cell.code = code;
        cell.isEdited = true;
        this.#drawFindings([]);
        actions.changed(this);
      },
    });
    if (isObserver) this.editor.setReadOnly(true);
    this.outputs = new OutputsView();
    this.count = el("button.count", { type: "button", title: "Run this cell (Shift-Enter)", disabled: isObserver, onclick: () => actions.run(this, "stay") });
    this.status = el("span.status", { role: "status" });
    this.findings = el("ul.findings", { "aria-label": "Findings" });
    this.input = el("div.input");
    const tool = (name, title, act) => el("button.quiet", { type: "button", title, "aria-label": title, onclick: act }, icon(name));
    this.tools = el("div.tools", { role: "toolbar", "aria-label": "Cell" },
      tool("play", "Run (Shift-Enter)", () => actions.run(this, "stay")),
      tool("up", "Move up (Alt-↑)", () => actions.move(this, -1)),
      tool("down", "Move down (Alt-↓)", () => actions.move(this, 1)),
      tool("trash", "Delete (Ctrl-Shift-Backspace)", () => actions.remove(this)));
    this.body = el("div.body", {}, this.editor.node, this.tools);
    this.node = el("section.cell", { tabindex: "-1", "data-cell": cell.id, "aria-label": "Cell" },
      el("div.side", {}, this.count), el("div.main", {}, this.body, this.findings, this.status, this.outputs.node, this.input));
    if (cell.kind === "markdown") this.node.classList.add("markdown");
    this.update();
  }

  update() {
    const { cell } = this;
    const { run } = cell;
    if (!this.editor.view.hasFocus) this.editor.code = cell.code;
    if (cell.kind === "markdown") return this.#drawMarkdown();
    this.node.dataset.phase = run?.phase ?? "new";
    this.count.textContent = run?.phase === "running" ? "●" : run?.phase === "waiting" ? "…" : (run?.count ?? "▷");
    this.count.setAttribute("aria-label", run?.count ? `Run ${run.count}; run again` : "Run");
    this.drawStatus();
    this.#drawFindings(cell.isEdited ? [] : (run?.findings ?? []));
    this.outputs.update(run?.outputs ?? []);
    this.#drawInput(run);
  }

  // Also once a second while it runs.
  drawStatus() {
    const { run } = this.cell;
    this.status.className = "status";
    if (run?.phase === "running") this.status.textContent = run.startedAt ? `running for ${duration(Math.max(0, Date.now() / 1000 - run.startedAt))}` : "running";
    else if (run?.phase === "waiting") this.status.textContent = "waiting";
    else if (run?.finished) this.#drawEnd(run.finished);
    else this.status.textContent = "";
  }

  // What the policy found in the code that was run. What it finds while somebody types is the editor's to show.
  #drawFindings(findings) {
    if (findings === this.found || (!findings.length && !this.found?.length)) return;
    this.found = findings;
    this.editor.showFindings(findings);
    this.findings.replaceChildren(...findings.map((one) => el(`li.${one.severity}`, {},
      el("button.quiet", { type: "button", title: "Go to this line", onclick: () => this.editor.goTo(one.line, one.column) }, `line ${one.line}`),
      el("span", {}, el("b", {}, one.message), one.hint ? ` ${one.hint}` : ""))));
  }

  #drawEnd({ reason, sentence, metrics }) {
    const isSaid = reason === "policy_denied" && this.cell.run.findings.length; // by the findings
    const time = metrics?.wall === undefined || isSaid ? "" : duration(metrics.wall);
    const words = ENDS[reason];
    const parts = words ? [words[0].toUpperCase() + words.slice(1), isSaid ? "" : sentence, time] : [time];
    this.status.textContent = parts.filter(Boolean).join(" · ");
    if (words) this.status.classList.add("bad");
  }

  #drawInput(run) {
    const asked = run?.input ?? null;
    if (asked === this.asked) return;
    this.asked = asked;
    if (!asked) return this.input.replaceChildren();
    const field = el("input", { type: asked.isPassword ? "password" : "text", "aria-label": asked.prompt || "Input", autocomplete: "off" });
    const form = el("form", { onsubmit: (event) => {
      event.preventDefault();
      this.actions.answer(this, field.value);
      run.input = null;
      this.update();
    } }, el("label", {}, asked.prompt), field, el("button", {}, "Send"));
    this.input.replaceChildren(form);
    field.focus();
  }

  #drawMarkdown() {
    const isShown = this.cell.isRendered;
    this.body.hidden = isShown;
    if (!isShown) return this.rendered?.node.remove();
    if (this.rendered?.source !== this.cell.code) {
      this.rendered?.node.remove();
      const frame = new Frame();
      frame.show("text/markdown", this.cell.code);
      this.rendered = { node: frame.node, source: this.cell.code };
    }
    this.outputs.node.before(this.rendered.node);
  }

  focus() {
    if (this.cell.kind === "markdown" && this.cell.isRendered) this.node.focus();
    else this.editor.focus();
    this.node.scrollIntoView({ block: "nearest" });
  }

  close() {
    this.editor.close();
    this.node.remove();
  }
}
