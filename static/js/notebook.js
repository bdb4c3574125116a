// What the events of a session make of its cells. Pure: no DOM, no network; the page draws what is here.
//
//     event ──▶ Notebook.apply ──▶ Cell ── its newest Run ──▶ outputs: text | rich | error | notice
//
// A cell of the page runs under ids of its own, `<cell>.<run>`, so that whoever reads the events anew (a reload, another
// browser) finds which run belongs to which cell. Cells that others ran, over Jupyter or REST, are cells by themselves.

import { Screen } from "./text.js";

const OURS = /^(c-[0-9a-z]+)\.(\d+)$/;

export const newCellId = () => `c-${crypto.randomUUID().slice(0, 8)}`;

export class Run {
  constructor(id, number) {
    this.id = id;
    this.number = number;
    this.phase = "waiting"; // running, finished
    this.client = "";
    this.count = null;
    this.startedAt = null; // seconds since 1970, as the server tells
    this.finished = null; // the event
    this.input = null; // the request that waits for an answer
    this.outputs = [];
    this.findings = []; // of the policy, about the code that ran or was denied
    this.clearsNext = false;
  }
}

export class Cell {
  constructor(id, code = "", kind = "code") {
    this.id = id;
    this.code = code;
    this.kind = kind; // or markdown
    this.run = null;
    this.version = 0; // goes up with each change, for whoever draws it
  }
}

export class Notebook {
  constructor() {
    this.cells = new Map(); // by id, in no order that matters
    this.order = [];
    this.runs = new Map();
    this.displays = new Map(); // display_id -> [[cell, output]]
    this.state = "starting";
    this.notices = [];
    this.seq = 0;
  }

  // -- by people ----------------------------------------------------------------------------------------------

  add(cell, at = this.order.length) {
    this.cells.set(cell.id, cell);
    this.order.splice(at, 0, cell.id);
    return cell;
  }

  remove(id) {
    const at = this.order.indexOf(id);
    if (at < 0) return null;
    this.order.splice(at, 1);
    const cell = this.cells.get(id);
    this.cells.delete(id);
    return { cell, at };
  }

  move(id, by) {
    const at = this.order.indexOf(id);
    const to = at + by;
    if (at < 0 || to < 0 || to >= this.order.length) return false;
    this.order.splice(to, 0, ...this.order.splice(at, 1));
    return true;
  }

  // The id under which to run a cell next.
  nextRun(cell) {
    const run = new Run("", (cell.run?.number ?? 0) + 1);
    run.id = `${cell.id}.${run.number}`;
    cell.run = run;
    cell.version += 1;
    this.runs.set(run.id, [cell, run]);
    return run;
  }

  get running() {
    for (const id of this.order) if (this.cells.get(id).run?.phase === "running") return this.cells.get(id);
    return null;
  }

  get waiting() {
    return this.order.map((id) => this.cells.get(id)).filter((cell) => cell.run?.phase === "waiting");
  }

  // -- by events ----------------------------------------------------------------------------------------------

  // Returns the cells that look different now; null when the order of cells has changed too.
  apply(event) {
    if (event.seq) this.seq = Math.max(this.seq, event.seq);
    const take = this[`_${event.event}`];
    if (!take) return [];
    if (event.cell === undefined) return take.call(this, event) ?? [];
    const before = this.order.length;
    const [cell, run] = this.#find(event);
    if (!cell) return [];
    cell.version += 1;
    const others = take.call(this, event, cell, run) ?? [];
    return this.order.length === before ? [cell, ...others] : null;
  }

  #find(event) {
    const known = this.runs.get(event.cell);
    if (known) return known[0].run === known[1] || event.event === "update_display" ? known : [];
    const [, id = event.cell, number = "1"] = OURS.exec(event.cell) ?? [];
    let cell = this.cells.get(id);
    if (!cell) {
      if (this.removed?.has(id)) return [];
      cell = this.add(new Cell(id));
    }
    if ((cell.run?.number ?? 0) > Number(number)) return []; // an older run, of no interest any more
    const run = new Run(event.cell, Number(number));
    cell.run = run;
    this.runs.set(run.id, [cell, run]);
    return [cell, run];
  }

  _accepted(event, cell, run) {
    run.client = event.client;
    if (!cell.code || !cell.isEdited) cell.code = event.code ?? cell.code;
  }

  _started(event, cell, run) {
    run.phase = "running";
    this.state = "ready";
    run.count = event.count;
    run.startedAt = event.time;
  }

  _stdout(event, cell, run) {
    this.#text("stdout", event, cell, run);
  }

  _stderr(event, cell, run) {
    this.#text("stderr", event, cell, run);
  }

  #text(stream, event, cell, run) {
    this.#clear(run);
    let last = run.outputs.at(-1);
    if (last?.kind !== "text" || last.stream !== stream) {
      last = { kind: "text", stream, screen: new Screen() };
      run.outputs.push(last);
    }
    last.screen.write(event.text);
  }

  _display(event, cell, run) {
    this.#clear(run);
    const output = { kind: "rich", data: event.data, metadata: event.metadata ?? {}, version: 0 };
    run.outputs.push(output);
    if (event.display_id) {
      const shown = this.displays.get(event.display_id) ?? [];
      this.displays.set(event.display_id, [...shown, [cell, output]]);
    }
  }

  _update_display(event) {
    const changed = [];
    for (const [cell, output] of this.displays.get(event.display_id) ?? []) {
      output.data = event.data;
      output.metadata = event.metadata ?? {};
      output.version += 1;
      cell.version += 1;
      changed.push(cell);
    }
    return changed;
  }

  _result(event, cell, run) {
    this.#clear(run);
    run.count = event.count ?? run.count;
    run.outputs.push({ kind: "rich", data: event.data, metadata: event.metadata ?? {}, version: 0, isResult: true });
  }

  _error(event, cell, run) {
    this.#clear(run);
    run.outputs.push({ kind: "error", name: event.name, value: event.value, traceback: event.traceback });
  }

  _clear_output(event, cell, run) {
    if (event.wait) run.clearsNext = true;
    else run.outputs = [];
  }

  #clear(run) {
    if (run.clearsNext) run.outputs = [];
    run.clearsNext = false;
  }

  _input_request(event, cell, run) {
    run.input = { prompt: event.prompt, isPassword: event.password };
  }

  _finished(event, cell, run) {
    run.phase = "finished";
    run.finished = event;
    run.count = event.count ?? run.count;
    run.input = null;
    if (event.reason === "policy_denied" && event.facts?.findings?.length) {
      run.findings = event.facts.findings;
      run.outputs = run.outputs.filter(({ kind }) => kind !== "error"); // which says the same, as a traceback
    }
  }

  _notice(event, cell, run) {
    if (run && event.facts?.findings) run.findings = event.facts.findings;
    else if (run) run.outputs.push({ kind: "notice", note: event.note, text: event.text, facts: event.facts ?? {} });
    else this.notices.push(event);
  }

  _gap(event) {
    this.notices.push({ ...event, note: "gap", text: `${event.count} older messages of this session are no longer kept` });
  }

  _state(event) {
    if (!(event.seq <= this.attachedAt)) this.state = event.state; // else it is older than what `attached` said
  }

  _attached(event) {
    this.attachedAt = event.end;
    this.state = event.state;
  }
}
