// Between a notebook on the page and files: .ipynb (nbformat 4.5) and .py. Pure.

import { Cell, newCellId, Run } from "./notebook.js";
import { Screen } from "./text.js";

const lines = (text) => text.split(/(?<=\n)/);

export function toIpynb(notebook, { kernel = "python3", language = "python" } = {}) {
  const cells = notebook.order.map((id) => {
    const cell = notebook.cells.get(id);
    const base = { id: cell.id, cell_type: cell.kind, metadata: {}, source: lines(cell.code) };
    if (cell.kind !== "code") return base;
    return { ...base, execution_count: cell.run?.count ?? null, outputs: (cell.run?.outputs ?? []).map(toOutput(cell.run)).filter(Boolean) };
  });
  const metadata = { kernelspec: { name: kernel, display_name: kernel, language }, language_info: { name: language } };
  return { nbformat: 4, nbformat_minor: 5, metadata, cells };
}

const toOutput = (run) => (output) => {
  if (output.kind === "text") return { output_type: "stream", name: output.stream, text: lines(output.screen.text) };
  if (output.kind === "error") return { output_type: "error", ename: output.name, evalue: output.value, traceback: output.traceback };
  if (output.kind !== "rich") return null;
  const { data, metadata } = output;
  if (output.isResult) return { output_type: "execute_result", execution_count: run.count, data, metadata };
  return { output_type: "display_data", data, metadata };
};

// Cells with their outputs; throws with a sentence for what is no notebook.
export function fromIpynb(text) {
  let file;
  try {
    file = JSON.parse(text);
  } catch {
    throw new Error("This file is no notebook: it is not JSON.");
  }
  if (file?.nbformat !== 4 || !Array.isArray(file.cells)) throw new Error("This is no notebook of format 4; Jupyter can convert it.");
  return file.cells.map((found) => {
    const source = Array.isArray(found.source) ? found.source.join("") : String(found.source ?? "");
    const cell = new Cell(newCellId(), source, found.cell_type === "code" ? "code" : "markdown");
    cell.isRendered = cell.kind === "markdown" && source !== "";
    if (cell.kind === "code" && found.outputs?.length) {
      cell.run = Object.assign(new Run(`${cell.id}.0`, 0), { phase: "imported", count: found.execution_count, outputs: found.outputs.map(fromOutput).filter(Boolean) });
    }
    return cell;
  });
}

const joined = (value) => (Array.isArray(value) ? value.join("") : String(value ?? ""));

function fromOutput(output) {
  if (output.output_type === "stream") {
    const screen = new Screen();
    screen.write(joined(output.text));
    return { kind: "text", stream: output.name === "stderr" ? "stderr" : "stdout", screen };
  }
  if (output.output_type === "error") return { kind: "error", name: output.ename, value: output.evalue, traceback: output.traceback ?? [] };
  if (output.data) return { kind: "rich", data: output.data, metadata: output.metadata ?? {}, version: 0, isResult: output.output_type === "execute_result" };
  return null;
}

export function toScript(notebook) {
  const parts = notebook.order.map((id) => notebook.cells.get(id)).filter((cell) => cell.code.trim());
  return parts.map(({ kind, code }) => (kind === "code" ? `# %%\n${code}\n` : `# %% [markdown]\n${code.replace(/^/gm, "# ")}\n`)).join("\n");
}

