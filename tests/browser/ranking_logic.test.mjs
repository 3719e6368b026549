// node --test tests/browser/ranking_logic.test.mjs: the logic of notebook 06's surface, without a browser.
import assert from "node:assert/strict";
import test from "node:test";
import * as logic from "../../pcclip/ranking/widget/ranking_logic.js";

const rows = (array) => [...array];

test("equal scores keep the order of the photos", () => {
  assert.deepEqual(rows(logic.orderByScore(Float32Array.of(0.1, 0.5, 0.1, 0.9, 0.5))), [3, 1, 4, 0, 2]);
  assert.deepEqual(rows(logic.placesIn(Uint32Array.of(2, 0), 3)), [1, -1, 0]);
});

test("a histogram counts every score once, the largest in the last bin", () => {
  const { least, most, width, counts } = logic.histogramOf(Float32Array.of(0, 1, 2, 3, 4), 4);
  assert.deepEqual([least, most, width], [0, 4, 4]);
  assert.deepEqual(rows(counts), [1, 1, 1, 2]);
  assert.deepEqual(rows(logic.histogramOf(Float32Array.of(2, 2), 3).counts), [2, 0, 0], "equal scores have a width, too");
});

test("the brush keeps the scores between its ends", () => {
  const scores = Float32Array.of(0, 1, 2, 3, 4), order = logic.orderByScore(scores), data = logic.histogramOf(scores, 4);
  assert.equal(logic.brushedRows(order, scores, data, 0, 1), order);
  assert.deepEqual(rows(logic.brushedRows(order, scores, data, 0.25, 0.75)), [3, 2, 1]);
  assert.deepEqual(rows(logic.brushedRows(order, scores, data, 0.8, 0.9)), []);
});

test("keys move an end of the brush, never past the other one", () => {
  assert.deepEqual(logic.brushAfterKey("ArrowLeft", 0, [0, 1], 64), [1 / 64, 1]);
  assert.deepEqual(logic.brushAfterKey("PageDown", 1, [0.5, 0.52], 64), [0.5, 0.5]);
  assert.deepEqual(logic.brushAfterKey("Home", 0, [0.1, 0.6], 64), [0.6, 0.6]);
  assert.deepEqual(logic.brushAfterKey("End", 1, [0.1, 0.6], 64), [0.1, 0.1]);
  assert.deepEqual(logic.brushAfterKey("Escape", 1, [0.1, 0.6], 64), [0, 1]);
  assert.equal(logic.brushAfterKey("x", 1, [0, 1], 64), null);
});

test("the brush is grabbed at a near end, or begun anew", () => {
  assert.deepEqual([0.21, 0.79, 0.5].map((share) => logic.fixedEnd(share, [0.2, 0.8], 0.02)), [0.8, 0.2, 0.5]);
  assert.deepEqual([0.01, 0.99, 0.5].map((share) => logic.fixedEnd(share, [0, 1], 0.02)), [0, 1, 0.5], "a drag from the edge selects");
});

test("what is taken away: the ticked photos, else the shown ones, best first", () => {
  const all = Uint32Array.of(3, 1, 0, 2), shown = all.slice(0, 2);
  assert.deepEqual(logic.chosenRows(all, shown, new Set([2, 3])), { rows: [3, 2], text: "2 ticked photos" });
  assert.deepEqual(logic.chosenRows(all, shown, new Set()), { rows: [3, 1], text: "the 2 shown photos" });
  assert.deepEqual(logic.chosenRows(all, all, new Set()), { rows: null, text: "all 4 photos" });
  assert.deepEqual(logic.rowsBetween(all, 0, 3), [3, 1, 0]);
  assert.deepEqual(logic.rowsBetween(shown, 0, 1), [1], "the other end is not shown any more");
});

test("a bar is as high as its count, and an empty bin has none", () => {
  assert.equal(logic.barPath(0, 9, 0, 4, 64), "");
  assert.match(logic.barPath(9, 9, 10, 4, 64), /^M10\.6 64v-5[0-9.]+q/);
});

test("tiles fill the width in equal columns", () => {
  const grid = logic.gridOf(1000, { gap: 10, smallest: 124, strip: 9 });
  assert.equal(grid.columns, 7);
  assert.ok(Math.abs(7 * grid.side + 60 - 1000) < 1e-9);
  assert.deepEqual(logic.pointOf(8, grid), [grid.side + 10, grid.tall]);
  assert.equal(logic.gridOf(50, { gap: 10, smallest: 124, strip: 9 }).columns, 2);
});

test("only tiles in sight are drawn, and a line above and below", () => {
  const order = Uint32Array.from({ length: 100 }, (_, k) => k), grid = { columns: 4, tall: 100 };
  assert.deepEqual(rows(logic.rowsInSight(order, grid, 0, 150)), rows(order.slice(0, 12)));
  assert.deepEqual(rows(logic.rowsInSight(order, grid, 1000, 200)), rows(order.slice(36, 52)));
  assert.deepEqual([250, 900, 400].map((y) => logic.scrollFor(y, 100, 300, 400)), [250, 600, 300]);
});

test("keys walk the gallery", () => {
  const grid = { columns: 4, tall: 100 }, to = (key) => logic.placeAfterKey(key, 10, grid, 250, 50);
  const keys = ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "PageUp", "PageDown", "Home", "End", "Enter"];
  assert.deepEqual(keys.map(to), [9, 11, 6, 14, 2, 18, 0, 49, undefined]);
  assert.deepEqual(["+", "=", "-", "*"].map(logic.likesOfKey), [1, 1, -1, undefined]);
});

test("keys answer a comparison, in either case", () => {
  const keys = ["ArrowLeft", "ArrowRight", "ArrowDown", "S", "z", "U", "Escape", "q"];
  const answers = ["first", "second", "tie", "skip", "undo", "undo", "close", undefined];
  assert.deepEqual(keys.map(logic.answerOfKey), answers);
});

test("thumbnails are asked for once, and the oldest out of sight are forgotten", () => {
  assert.deepEqual(logic.rowsToAsk([[1, 2, 3], [3, 4, 5]], new Map([[2, {}]]), new Set([3]), 2), [1, 4]);
  const kept = new Map([7, 8, 9, 10].map((row) => [row, {}]));
  assert.deepEqual(logic.rowsToForget(kept, new Set([7]), 2), [8, 9]);
  assert.deepEqual(logic.rowsToForget(kept, new Set(), 9), []);
});

test("a photo on a plain ground is known by its corners", () => {
  assert.equal(logic.plainColour([[250, 250, 250], [255, 250, 240], [250, 249, 250], [251, 250, 250]]), "rgb(250 250 250)");
  assert.equal(logic.plainColour([[250, 250, 250], [10, 250, 240], [250, 249, 250], [251, 250, 250]]), null);
});

test("an exported page asks for fresh pairs, and writes tables that start no formula", () => {
  const draws = [0, 0, 0, 0.4, 0.9, 0.1], random = () => draws.shift();
  assert.deepEqual(logic.freshPair(3, [[1, 0]], random), [2, 0]);
  assert.equal(logic.freshPair(2, [[1, 0]], random), null);
  const records = [{ rank: 1, path: '=a"b,c' }, { rank: 2, path: "d" }];
  assert.equal(logic.tableText("csv", records), 'rank,path\n1,"\'=a""b,c"\n2,d\n');
  assert.equal(logic.tableText("jsonl", records).split("\n").length, 3);
  assert.deepEqual(logic.solved([[0, 2], [4, 0]], [2, 8]), [2, 1]);
});

test("photos are searched, kept and held against another order", () => {
  const order = Uint32Array.of(3, 1, 0, 2);
  assert.deepEqual(rows(logic.rowsWithin(order, [null, new Set([0, 1]), new Set([1, 2])])), [1]);
  assert.equal(logic.rowsWithin(order, [null, undefined]), order);
  assert.deepEqual(rows(logic.orderByChange(Int32Array.of(0, 1, 2, 3), Int32Array.of(3, 1, 0, 2))), [2, 3, 1, 0]);
  assert.deepEqual([[5, 2], [2, 5], [4, 4]].map((ends) => logic.changeText(...ends)), ["▲3", "▼3", "="]);
  const points = logic.scatterOf(Float32Array.of(0, 1), Float32Array.of(2, 4, 3), 100, 10);
  assert.deepEqual(points, [[10, 90], [90, 10], [NaN, 50]], "a photo that came later has no first score");
  assert.deepEqual(logic.rowsInBox(points, [95, 0], [50, 60]), [1]);
  assert.deepEqual(logic.rowsInBox(points, [0, 0], [100, 100]), [0, 1]);
  assert.deepEqual(logic.rangeOf(Float32Array.of(1, 2, 3, 4), 1), [2, 4]);
  assert.equal(logic.rangeOf(null, 1), null);
});

test("what is told", () => {
  assert.deepEqual([logic.signed(0.25), logic.signed(-0.25), logic.scoreText(0.1, 0.02)], ["+0.250", "−0.250", "+0.100 ± 0.020"]);
  assert.deepEqual([1, 2000].map((n) => logic.counted(n, "photo")), ["1 photo", "2,000 photos"]);
  assert.match(logic.learntText({ votes: 0, examples: [] }), /^No answers yet: the words alone/);
  assert.match(logic.learntText({ votes: 0, examples: [[3, 1]] }), /^No answers yet: the words and 1 example make/);
  assert.match(logic.learntText({ votes: 0, examples: [], elsewhere: 2 }), /^No answers yet \(2 on photos that are not here\): the words/);
  assert.equal(logic.learntText({ votes: 0, examples: [], saved: { votes: 3, examples: 1 } }),
    "No answers yet: the saved order has 3 answers and 1 example in it.");
  assert.match(logic.learntText({ votes: 0, examples: [], saved: { votes: 0, examples: 0 } }), /the words alone/);
  assert.equal(logic.learntText({ votes: 1, learn: true, examples: [], saved: { votes: 3, examples: 0 } }),
    "1 answer; the saved order has 3 answers in it.");
  const begun = { time: 0, coming: 100 };
  assert.equal(logic.comingText(20, 100, begun, 5000), "20 of 120 photos looked at");
  assert.equal(logic.comingText(70, 50, begun, 5000), "70 of 120 photos looked at, 5 s left");
  assert.equal(logic.comingText(21, 99, begun, 5000), "21 of 120 photos looked at, 8 min left");
  const state = { votes: 3, preferred: 2, agree: 1, expected: 0.756, learn: true, examples: [] };
  assert.match(logic.learntText({ ...state, votes: 1, preferred: 0 }), /^1 answer\. The order expects/);
  assert.match(logic.learntText(state), /^3 answers; the order agrees with 1 of the 2 .* agree with 76% of further ones\.$/);
  assert.match(logic.learntText({ ...state, elsewhere: 2 }), /^3 answers \(2 more on photos that are not here\); the order/);
  assert.match(logic.learntText({ ...state, learn: false }), /not used now\.$/);
  const facts = logic.factTexts({ unreadable: 2, examples: [[1, 1]] }, [{ name: "base", shown: 9 }], 2);
  assert.deepEqual(facts, ["9 shown (base)", "2 cannot be read", "1 example"]);
  assert.equal(logic.placeText("base", 0, 24, 0.5, 0), "base: 1 of 24, score +0.500");
  assert.equal(logic.placeText("base", 0, 24, 0.5, 0.1, [1, 9]), "base: 1 of 24 (95%: 1 to 9), score +0.500 ± 0.100");
});
