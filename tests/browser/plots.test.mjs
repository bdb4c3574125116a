import assert from "node:assert/strict";
import { test } from "node:test";
import { line, roof } from "../../static/js/plots.js";

test("a line goes from the left to the right, and its highest point is at the top", () => {
  assert.equal(line([0, 5, 10], 10), "M0.0 59.0L150.0 30.0L300.0 1.0");
  assert.equal(line([7], 7), "M0.0 1.0");
  assert.equal(line([], 1), "");
});
test("a plot ends at a round number that nothing exceeds", () => {
  assert.deepEqual([[], [0, 0], [0.03], [7], [10], [10.5], [199]].map(roof), [1, 1, 0.05, 10, 10, 20, 200]);
});
