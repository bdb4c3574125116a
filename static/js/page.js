// One session on the page: its notebook, its socket and the views of its cells. Whoever opened it owes a `close`.

import * as api from "./api.js";
import { CellView } from "./cells.js";
import * as drafts from "./drafts.js";
import { el } from "./dom.js";
import { Cell, newCellId, Notebook } from "./notebook.js";
import { SessionSocket } from "./socket.js";

const SAVE_MS = 500;

export class SessionPage {
  constructor(info, place, { onStatus, onState, client, isObserver = false }) {
    this.info = info;
    this.place = place;
    this.onState = onState;
    this.isObserver = isObserver;
    this.notebook = new Notebook();
    if (!isObserver) drafts.load(this.notebook, info.id);
    this.views = new Map();
    this.dirty = new Set();
    this.deleted = [];
    this.isCaughtUp = false;
    this.#layout();
    this.socket = new SessionSocket(info.id, {
      client, role: isObserver ? "observer" : "driver", token: api.shareToken, onStatus,
      onEvent: (event) => this.#take(event),
    });
    this.clock = setInterval(() => this.views.forEach((view) => view.cell.run?.phase === "running" && view.drawStatus()), 1000);
  }

  close() {
    clearInterval(this.clock);
    this.#save();
    this.socket.close();
    this.views.forEach((view) => view.close());
    this.place.replaceChildren();
  }

  get language() {
    return this.info.language ?? "python";
  }

  // -- what the editors ask -------------------------------------------------------------------------------------

  complete(code, cursor) {
    return this.socket.ask("complete", { code, cursor }).catch(() => null);
  }

  inspect(code, cursor) {
    return this.socket.ask("inspect", { code, cursor, detail: 0 }).catch(() => null);
  }

  validate(code) {
    return code.trim() && !this.isObserver ? api.validate(code, this.language, this.info.policy).catch(() => null) : { findings: [] };
  }

  // -- what people do -------------------------------------------------------------------------------------------

  run(view, then = "stay") {
    const { cell } = view;
    if (this.isObserver) return;
    if (cell.kind === "markdown") {
      cell.isRendered = true;
      view.update();
      view.node.focus();
    } else if (cell.code.trim() && !["waiting", "running"].includes(cell.run?.phase)) {
      const run = this.notebook.nextRun(cell);
      cell.isEdited = false;
      this.socket.execute({ id: run.id, code: cell.code, stdin: true });
      this.#touch(cell);
    }
    this.#saveSoon();
    if (then === "insert") this.insert(view, 1);
    else if (then === "next") this.#next(view);
  }

  runAll() {
    for (const id of this.notebook.order) this.run(this.views.get(id));
  }

  interrupt() {
    return this.socket.ask("interrupt").catch(() => null);
  }

  restart() {
    return this.socket.ask("restart");
  }

  keep() {
    return this.socket.ask("touch").catch(() => null);
  }

  // What ran and what it said leaves the page; the server keeps its own record.
  clear() {
    for (const id of this.notebook.order) {
      const { run } = this.notebook.cells.get(id);
      if (run && run.phase !== "running") run.outputs = [];
    }
    this.notebook.cells.forEach((cell) => this.#touch(cell));
  }

  answer(view, value) {
    this.socket.tell("input", { cell: view.cell.run.id, value });
  }

  insert(view, after, kind = "code") {
    if (this.isObserver) return null;
    const at = view ? this.notebook.order.indexOf(view.cell.id) + after : this.notebook.order.length;
    const cell = this.notebook.add(new Cell(newCellId(), "", kind), at);
    this.#layout();
    this.views.get(cell.id).focus();
    this.#saveSoon();
    return cell;
  }

  remove(view) {
    if (this.isObserver) return;
    const at = this.notebook.order.indexOf(view.cell.id);
    this.deleted.push(this.notebook.remove(view.cell.id));
    this.notebook.removed ??= new Set();
    this.notebook.removed.add(view.cell.id);
    if (view.cell.run?.phase === "waiting") this.socket.ask("cancel", { cell: view.cell.run.id }).catch(() => null);
    this.#layout();
    this.views.get(this.notebook.order[Math.min(at, this.notebook.order.length - 1)])?.focus();
    this.#saveSoon();
  }

  undoRemove() {
    const last = this.deleted.pop();
    if (!last) return;
    this.notebook.removed.delete(last.cell.id);
    this.notebook.add(last.cell, Math.min(last.at, this.notebook.order.length));
    this.#layout();
    this.views.get(last.cell.id).focus();
    this.#saveSoon();
  }

  move(view, by) {
    if (this.isObserver || !this.notebook.move(view.cell.id, by)) return;
    this.#layout();
    view.focus();
    this.#saveSoon();
  }

  go(view, by) {
    const next = this.views.get(this.notebook.order[this.notebook.order.indexOf(view.cell.id) + by]);
    if (!next) return false;
    next.focus();
    return true;
  }

  changed() {
    this.#saveSoon();
  }

  add(cells) {
    for (const cell of cells) this.notebook.add(cell);
    this.#layout();
    this.#saveSoon();
  }

  // -- what the server tells ------------------------------------------------------------------------------------

  #take(event) {
    if (event.event === "caught_up") {
      const last = this.notebook.cells.get(this.notebook.order.at(-1));
      if (!this.isCaughtUp && (!last || last.run)) this.insert(null, 0);
      this.isCaughtUp = true;
      performance.mark("interactive");
      this.onState(this.notebook);
      return;
    }
    if (event.event === "refused") {
      const [cell, run] = this.notebook.runs.get(event.cell) ?? [];
      if (!run) return;
      run.phase = "finished";
      run.outputs.push({ kind: "notice", note: event.code, text: event.message, facts: event.facts });
      return this.#touch(cell);
    }
    const changed = this.notebook.apply(event);
    if (changed === null) this.#layoutSoon();
    else changed.forEach((cell) => this.#touch(cell));
    if (["attached", "state", "notice", "gap", "started", "finished", "accepted"].includes(event.event)) this.onState(this.notebook, event);
  }

  #touch(cell) {
    this.dirty.add(cell);
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      const cells = [...this.dirty];
      this.dirty.clear();
      for (const one of cells) this.views.get(one.id)?.update();
    });
  }

  #layoutSoon() {
    this.isLaidOut ??= requestAnimationFrame(() => {
      this.isLaidOut = null;
      this.#layout();
      this.notebook.cells.forEach((cell) => this.#touch(cell));
    });
  }

  #layout() {
    for (const [id, view] of this.views) {
      if (this.notebook.cells.has(id)) continue;
      view.close();
      this.views.delete(id);
    }
    let before = null;
    for (const id of this.notebook.order) {
      let view = this.views.get(id);
      if (!view) {
        view = new CellView(this.notebook.cells.get(id), { session: this, actions: this, language: this.language, isObserver: this.isObserver });
        this.views.set(id, view);
      }
      const next = before ? before.nextSibling : this.place.firstChild;
      if (view.node !== next) this.place.insertBefore(view.node, next);
      before = view.node;
    }
  }

  #next(view) {
    if (!this.go(view, 1)) this.insert(view, 1);
  }

  #saveSoon() {
    clearTimeout(this.saving);
    this.saving = setTimeout(() => this.#save(), SAVE_MS);
  }

  #save() {
    clearTimeout(this.saving);
    if (!this.isObserver) drafts.save(this.notebook, this.info.id);
  }
}

export const notice = (text, ...more) => el("p.notice", { role: "status" }, text, ...more);
