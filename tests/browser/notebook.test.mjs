import assert from "node:assert/strict";
import { test } from "node:test";
import { fromIpynb, toIpynb, toScript } from "../../static/js/ipynb.js";
import { Cell, Notebook } from "../../static/js/notebook.js";

const after = (...events) => {
  const notebook = new Notebook();
  events.forEach((event, n) => notebook.apply({ seq: n + 1, ...event }));
  return notebook;
};
const cell = "c-1.1";
const RUN = [
  { event: "accepted", cell, client: "ada", code: "print(1)\n2" },
  { event: "started", cell, count: 3, time: 5 },
  { event: "stdout", cell, text: "1\n" },
  { event: "result", cell, data: { "text/plain": "2" }, count: 3 },
  { event: "finished", cell, status: "ok", reason: "ok", metrics: { wall: 0.1 } },
];

test("a run makes its cell", () => {
  const { cells, order } = after(...RUN);
  const made = cells.get(order[0]);
  assert.deepEqual([order.length, made.id, made.code, made.run.phase, made.run.count], [1, "c-1", "print(1)\n2", "finished", 3]);
  assert.deepEqual(made.run.outputs.map((output) => output.kind), ["text", "rich"]);
});

test("the same events after a reload make the same cells, and the newest run counts", () => {
  const second = RUN.map((event) => ({ ...event, cell: "c-1.2", ...(event.text && { text: "second\n" }) }));
  const { cells } = after(...RUN, ...second);
  assert.equal(cells.size, 1);
  assert.equal(cells.get("c-1").run.outputs[0].screen.text, "second\n");
  const other = after(...second, ...RUN);
  assert.equal(other.cells.get("c-1").run.outputs[0].screen.text, "second\n", "an older run comes to nothing");
});

test("what somebody types is not lost when their cell is run elsewhere", () => {
  const notebook = new Notebook();
  const mine = notebook.add(new Cell("c-1", "new code"));
  mine.isEdited = true;
  notebook.apply({ event: "accepted", cell, client: "x", code: "old" });
  assert.equal(mine.code, "new code");
});

test("cells of other clients are cells by themselves", () => {
  const { order } = after({ ...RUN[0], cell: "8c4f_17_3.1" }, { ...RUN[0], cell: "other" });
  assert.deepEqual(order, ["8c4f_17_3.1", "other"]);
});

test("a deleted cell stays deleted", () => {
  const notebook = new Notebook();
  notebook.removed = new Set(["c-1"]);
  assert.deepEqual(notebook.apply(RUN[0]), []);
  assert.equal(notebook.order.length, 0);
});

test("a display is changed wherever it stands", () => {
  const notebook = after(
    { event: "display", cell: "c-1.1", data: { "text/plain": "a" }, display_id: "d" },
    { event: "display", cell: "c-2.1", data: { "text/plain": "a" }, display_id: "d" },
  );
  const changed = notebook.apply({ event: "update_display", cell: "c-3.1", data: { "text/plain": "b" }, display_id: "d" });
  assert.equal(changed, null, "there is a new cell");
  for (const id of ["c-1", "c-2"]) assert.equal(notebook.cells.get(id).run.outputs[0].data["text/plain"], "b");
});

test("clear_output waits for what comes next, if it shall", () => {
  const notebook = after(...RUN.slice(0, 3), { event: "clear_output", cell, wait: true });
  const { run } = notebook.cells.get("c-1");
  assert.equal(run.outputs.length, 1);
  notebook.apply({ event: "stdout", cell, text: "2\n" });
  assert.equal(run.outputs[0].screen.text, "2\n");
});

test("a question is asked until its cell ends", () => {
  const notebook = after(...RUN.slice(0, 2), { event: "input_request", cell, prompt: "name?", password: false });
  const { run } = notebook.cells.get("c-1");
  assert.deepEqual(run.input, { prompt: "name?", isPassword: false });
  notebook.apply(RUN[4]);
  assert.equal(run.input, null);
});

test("events of kinds to come are passed over", () => assert.deepEqual(new Notebook().apply({ event: "news", cell }), []));

test("a notebook file comes back as it went", () => {
  const notebook = after(...RUN, { event: "error", cell: "c-2.1", name: "E", value: "v", traceback: ["t"] });
  const file = toIpynb(notebook);
  assert.equal(file.nbformat, 4);
  const cells = fromIpynb(JSON.stringify(file));
  assert.deepEqual(cells.map(({ code }) => code), ["print(1)\n2", ""]);
  assert.deepEqual(file.cells[0].outputs.map((output) => output.output_type), ["stream", "execute_result"]);
  const again = new Notebook();
  cells.forEach((one) => again.add(one));
  assert.deepEqual(toIpynb(again).cells.map(({ outputs }) => outputs), file.cells.map(({ outputs }) => outputs));
});

test("what is no notebook says so", () => {
  assert.throws(() => fromIpynb("{"), /not JSON/);
  assert.throws(() => fromIpynb('{"nbformat": 3}'), /format 4/);
});

test("a script has a mark for each cell", () => {
  const notebook = after(RUN[0]);
  notebook.add(Object.assign(new Cell("c-9", "# Title", "markdown")));
  assert.equal(toScript(notebook), "# %%\nprint(1)\n2\n\n# %% [markdown]\n# # Title\n");
});

test("what a policy found stands beside the code, and not twice", () => {
  const findings = [{ rule: "module", severity: "deny", line: 2, message: "no", hint: "" }];
  const denied = after(
    { event: "accepted", cell, client: "ada", code: "import socket" },
    { event: "error", cell, name: "PolicyDenied", value: "", traceback: ["..."] },
    { event: "finished", cell, status: "error", reason: "policy_denied", facts: { findings } },
  ).cells.get("c-1").run;
  assert.deepEqual([denied.findings, denied.outputs], [findings, []]);
  const warned = after(RUN[0], { event: "notice", cell, note: "policy_warnings", text: "...", facts: { findings } }).cells.get("c-1").run;
  assert.deepEqual([warned.findings, warned.outputs], [findings, []]);
  const refused = after(
    RUN[0], { event: "error", cell, name: "PolicyDenied", value: "too long", traceback: [] },
    { event: "finished", cell, status: "error", reason: "policy_denied", facts: { findings: [] } },
  ).cells.get("c-1").run;
  assert.equal(refused.outputs.length, 1, "without findings the error says why");
});
