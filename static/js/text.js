// What a stream of text looks like on a terminal: lines, overwritten by carriage returns, with the colours of ANSI
// sequences. Pure: no DOM.

const SPECIAL = /[\r\b\x1b]/;
const TOKENS = /\n|\r|\x08|\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b.?|[^\n\r\x08\x1b]+/g;

// Lines of text that grow at the end. `lines` holds text with its colour sequences; all other sequences are gone.
export class Screen {
  constructor() {
    this.lines = [""];
    this.row = 0;
    this.column = 0; // in characters of the line as it is kept; only heeded after a carriage return
    this.isOverwriting = false;
    this.rest = ""; // of a sequence that has not come whole
  }

  write(text) {
    text = this.rest + text;
    this.rest = "";
    if (!this.isOverwriting && this.row === this.lines.length - 1 && !SPECIAL.test(text)) {
      const [first, ...others] = text.split("\n");
      this.lines[this.row] += first;
      for (const line of others) this.lines.push(line);
      this.row = this.lines.length - 1;
      return;
    }
    const cut = text.lastIndexOf("\x1b");
    if (cut >= 0 && text.length - cut < 64 && /^\x1b(\[[0-9;?]*|\][^\x07]*)?$/.test(text.slice(cut))) {
      this.rest = text.slice(cut);
      text = text.slice(0, cut);
    }
    for (const [token] of text.matchAll(TOKENS)) this.#take(token);
  }

  #take(token) {
    if (token === "\n") {
      this.row += 1;
      if (this.row === this.lines.length) this.lines.push("");
      this.isOverwriting = this.lines[this.row] !== "";
      this.column = 0;
    } else if (token === "\r") {
      this.isOverwriting = true;
      this.column = 0;
    } else if (token === "\b") {
      if (!this.isOverwriting) {
        this.column = this.lines[this.row].length;
        this.isOverwriting = true;
      }
      this.column = Math.max(0, this.column - 1);
    } else if (token[0] === "\x1b") {
      this.#obey(token);
    } else {
      this.#put(token);
    }
  }

  #obey(sequence) {
    const count = Number.parseInt(sequence.slice(2), 10) || 1;
    if (sequence.endsWith("m")) this.#put(sequence);
    else if (sequence.endsWith("A")) this.#go(this.row - count);
    else if (sequence.endsWith("B")) this.#go(this.row + count);
    else if (sequence.endsWith("K")) {
      const column = this.isOverwriting ? this.column : this.lines[this.row].length;
      this.lines[this.row] = sequence === "\x1b[2K" ? "" : this.lines[this.row].slice(0, column);
    }
  }

  #go(row) {
    this.column = this.isOverwriting ? this.column : this.lines[this.row].length;
    this.row = Math.min(Math.max(0, row), this.lines.length - 1);
    this.isOverwriting = true;
  }

  #put(text) {
    const line = this.lines[this.row];
    if (!this.isOverwriting) {
      this.lines[this.row] = line + text;
    } else if (line.includes("\x1b") || text.includes("\x1b")) {
      // Columns cannot be told apart from colours cheaply; whoever draws a coloured bar draws the whole of it.
      this.lines[this.row] = this.column === 0 ? text : line.slice(0, this.column) + text;
      this.column += text.length;
    } else {
      this.lines[this.row] = line.slice(0, this.column).padEnd(this.column) + text + line.slice(this.column + text.length);
      this.column += text.length;
    }
  }

  get text() {
    return this.lines.join("\n");
  }
}

export const plain = (line) => line.replace(/\x1b\[[0-9;?]*[ -/]*[@-~]/g, "");

// -- colours ------------------------------------------------------------------------------------------------------

const NAMES = ["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"];

// One line as [text, classes, style] pieces; `state` goes on from one line to the next.
export function colours(line, state = {}) {
  const pieces = [];
  let at = 0;
  for (const found of line.matchAll(/\x1b\[([0-9;]*)m/g)) {
    if (found.index > at) pieces.push([line.slice(at, found.index), { ...state }]);
    apply(found[1], state);
    at = found.index + found[0].length;
  }
  if (at < line.length) pieces.push([line.slice(at), { ...state }]);
  return pieces;
}

function apply(codes, state) {
  const numbers = codes.split(";").map((code) => Number(code || 0));
  while (numbers.length) {
    const code = numbers.shift();
    if (code === 0) for (const key of Object.keys(state)) delete state[key];
    else if (code === 1) state.bold = true;
    else if (code === 2) state.faint = true;
    else if (code === 3) state.italic = true;
    else if (code === 4) state.underline = true;
    else if (code === 7) state.inverse = true;
    else if (code === 22) delete state.bold, delete state.faint;
    else if (code === 23) delete state.italic;
    else if (code === 24) delete state.underline;
    else if (code === 27) delete state.inverse;
    else if (code === 39) delete state.fg;
    else if (code === 49) delete state.bg;
    else if (code === 38 || code === 48) state[code === 38 ? "fg" : "bg"] = extended(numbers);
    else if (code >= 30 && code <= 37) state.fg = NAMES[code - 30];
    else if (code >= 40 && code <= 47) state.bg = NAMES[code - 40];
    else if (code >= 90 && code <= 97) state.fg = `bright-${NAMES[code - 90]}`;
    else if (code >= 100 && code <= 107) state.bg = `bright-${NAMES[code - 100]}`;
  }
}

function extended(numbers) {
  const kind = numbers.shift();
  if (kind === 2) return `rgb(${numbers.splice(0, 3).map((n) => Math.min(255, n || 0)).join(",")})`;
  const n = Math.min(255, numbers.shift() || 0);
  if (n < 8) return NAMES[n];
  if (n < 16) return `bright-${NAMES[n - 8]}`;
  if (n >= 232) return `rgb(${Array(3).fill(8 + (n - 232) * 10).join(",")})`;
  const level = (k) => (k ? 55 + k * 40 : 0);
  return `rgb(${level(Math.floor((n - 16) / 36))},${level(Math.floor((n - 16) / 6) % 6)},${level((n - 16) % 6)})`;
}
