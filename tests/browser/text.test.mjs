import assert from "node:assert/strict";
import { test } from "node:test";
import { colours, plain, Screen } from "../../static/js/text.js";

const shown = (...texts) => {
  const screen = new Screen();
  texts.forEach((text) => screen.write(text));
  return screen.text;
};

test("lines are lines", () => assert.equal(shown("a\nb", "c\n"), "a\nbc\n"));
test("a carriage return writes over", () => assert.equal(shown("abc\rX"), "Xbc"));
test("what follows one that ended the last piece", () => assert.equal(shown("abc\r", "X"), "Xbc"));
test("a line of Windows", () => assert.equal(shown("a\r\nb\r\n"), "a\nb\n"));
test("a progress bar", () => assert.equal(shown(" 0%|  |", "\r50%|█ |", "\r100%|██|\n"), "100%|██|\n"));
test("a coloured bar", () => assert.equal(shown("\x1b[32m50%\x1b[0m", "\r\x1b[32m100%\x1b[0m"), "\x1b[32m100%\x1b[0m"));
test("two bars, one above the other", () =>
  assert.equal(shown("a 0\nb 0", "\x1b[A\ra 1", "\n\rb 1"), "a 1\nb 1"));
test("a backspace", () => assert.equal(shown("ab\bX"), "aX"));
test("the rest of a line is cleared", () => assert.equal(shown("abcdef\r\x1b[Kxy"), "xy"));
test("a sequence that comes in two pieces", () => assert.equal(plain(shown("a\x1b", "[31mb")), "ab"));
test("sequences that mean nothing here are gone", () => assert.equal(shown("a\x1b[?25lb\x1b]0;title\x07c"), "abc"));
test("a cursor that is sent above the first line stays", () => assert.equal(shown("a\x1b[99Ab"), "ab"));
test("whatever comes, in whatever pieces, is the same", () => {
  const pieces = ["a", "\n", "\r", "\b", "\x1b[A", "\x1b[31m", "\x1b[K", "xyz", "ü", "\x1b[2K", "\x1b[B"];
  let seed = 7;
  const dice = (n) => (seed = (seed * 48271) % 2147483647) % n;
  for (let round = 0; round < 500; round += 1) {
    const text = Array.from({ length: 20 }, () => pieces[dice(pieces.length)]).join("");
    const at = dice(text.length);
    assert.equal(shown(text.slice(0, at), text.slice(at)), shown(text));
  }
});
test("200,000 lines take no time to speak of", () => {
  const screen = new Screen();
  for (let n = 0; n < 2000; n += 1) screen.write("line\n".repeat(100));
  assert.equal(screen.lines.length, 200_001);
});
test("colours go on to the next line, and end", () => {
  const state = {};
  assert.deepEqual(colours("\x1b[1;31ma", state), [["a", { bold: true, fg: "red" }]]);
  assert.deepEqual(colours("b\x1b[0mc", state), [["b", { bold: true, fg: "red" }], ["c", {}]]);
  assert.deepEqual(colours("\x1b[38;5;196mx\x1b[48;2;1;2;300my"), [
    ["x", { fg: "rgb(255,0,0)" }], ["y", { fg: "rgb(255,0,0)", bg: "rgb(1,2,255)" }],
  ]);
});
