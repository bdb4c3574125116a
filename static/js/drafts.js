// What the server does not know of a notebook: cells that were never run, their order, Markdown. Kept in this browser by
// session; what was run comes back from the server, in any browser.

import { Cell } from "./notebook.js";

const KEPT = 20; // sessions; the oldest are forgotten
const key = (sessionId) => `cellgate:draft:${sessionId}`;

export function load(notebook, sessionId) {
  let kept;
  try {
    kept = JSON.parse(localStorage.getItem(key(sessionId)) ?? "null");
  } catch {
    return;
  }
  for (const { id, code, kind, isEdited, isRendered } of kept?.cells ?? [])
    notebook.add(Object.assign(new Cell(id, code, kind), { isEdited, isRendered }));
  notebook.removed = new Set(kept?.removed ?? []);
}

export function save(notebook, sessionId) {
  const cells = notebook.order.map((id) => {
    const { code, kind, isEdited, isRendered } = notebook.cells.get(id);
    return { id, code, kind, isEdited, isRendered };
  });
  try {
    localStorage.setItem(key(sessionId), JSON.stringify({ at: Date.now(), cells, removed: [...(notebook.removed ?? [])].slice(-200) }));
    forgetOldest();
  } catch { /* full or forbidden: drafts live as long as the page */ }
}

function forgetOldest() {
  const names = Object.keys(localStorage).filter((name) => name.startsWith("cellgate:draft:"));
  if (names.length <= KEPT) return;
  const at = (name) => JSON.parse(localStorage.getItem(name) ?? "{}").at ?? 0;
  names.sort((a, b) => at(a) - at(b)).slice(0, names.length - KEPT).forEach((name) => localStorage.removeItem(name));
}
