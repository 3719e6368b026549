// The logic of the surface in ranking.js, as pure functions: order, filter, grid, keys, histogram and sentences.
// Tested by tests/browser/ranking_logic.test.mjs with node's own test runner.

export const clamp = (x, low, high) => Math.min(Math.max(x, low), high);
export const signed = (x) => (x < 0 ? "−" : "+") + Math.abs(x).toFixed(3);
export const counted = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;

/** A score as it is shown, with its deviation where there is one. */
export const scoreText = (score, deviation) => (deviation ? `${signed(score)} ± ${deviation.toFixed(3)}` : signed(score));

/** Rows from the highest score to the lowest; equal scores keep the order of the photos, as in the kernel. */
export function orderByScore(scores) {
  const bits = new Uint32Array(new Float32Array(scores).map((score) => score + 0).buffer), most = 2 ** 21; // rows
  // one number has the score, the highest first, and the row: sorting numbers needs no function
  const keys = new Float64Array(bits).map((b, row) => (b < 2 ** 31 ? 2 ** 31 - 1 - b : b) * most + row).sort();
  return new Uint32Array(keys.map((key) => key % most));
}

/** For each of n rows its place in `order`, or -1. */
export function placesIn(order, n) {
  const places = new Int32Array(n).fill(-1);
  order.forEach((row, place) => (places[row] = place));
  return places;
}

/** The range of the scores and how many fall into each of some bins of equal width, the least first. */
export function histogramOf(scores, bins) {
  let least = Infinity, most = -Infinity;
  for (const score of scores) (least = Math.min(least, score)), (most = Math.max(most, score));
  const width = most - least || 1, counts = new Uint32Array(bins);
  for (const score of scores) counts[Math.min(bins - 1, Math.floor(((score - least) / width) * bins))]++;
  return { least, most, width, counts };
}

/** Where in the range of the scores one of them lies: 0 the least, 1 the most. */
export const shareOf = (score, { least, width }) => (score - least) / width;

/** The rows of `order` whose scores the brush from share `low` to share `high` keeps. */
export function brushedRows(order, scores, histogram, low, high) {
  if (low <= 0 && high >= 1) return order;
  return order.filter((row) => {
    const share = shareOf(scores[row], histogram);
    return share >= low - 1e-9 && share <= high + 1e-9;
  });
}

/** The ends [low, high] of the brush after a key on its handle `end` (0 low, 1 high); null for any other key. */
export function brushAfterKey(key, end, [low, high], bins) {
  const step = { ArrowLeft: 1, ArrowUp: 1, ArrowRight: -1, ArrowDown: -1, PageUp: 6, PageDown: -6 }[key];
  const moved = (share) => (end ? [low, clamp(share, low, 1)] : [clamp(share, 0, high), high]);
  if (step) return moved((end ? high : low) + step / bins);
  if (key === "Home") return moved(1);
  if (key === "End") return moved(0);
  return key === "Escape" ? [0, 1] : null;
}

/**
 * The end that stays when the brush is grabbed at `share`: the other one of a set end that is near, else `share` itself,
 * or the edge near it, so that a drag from the edge selects what it passes.
 */
export function fixedEnd(share, [low, high], near) {
  if (low > 0 && Math.abs(share - low) < near) return high;
  if (high < 1 && Math.abs(share - high) < near) return low;
  return share < near ? 0 : share > 1 - near ? 1 : share;
}

/** The rows of `order` that are in every one of some sets; null in place of a set leaves all. */
export function rowsWithin(order, sets) {
  const known = sets.filter(Boolean);
  return known.length ? order.filter((row) => known.every((set) => set.has(row))) : order;
}

/** Rows by how many places they rise from one order to another, the most first; of equal rises the later place's order. */
export function orderByChange(from, to) {
  return Uint32Array.from(from.keys()).sort((a, b) => from[b] - to[b] - (from[a] - to[a]) || to[a] - to[b]);
}

/** By how many places a photo rises or falls from one order to another. */
export const changeText = (from, to) => (from === to ? "=" : `${from > to ? "▲" : "▼"}${Math.abs(from - to)}`);

/** Pixels [x, y] of each photo in a square of two scores; photos without a first score have NaN. The most is right and up. */
export function scatterOf(xs, ys, side, edge) {
  const spans = [xs, ys].map((scores) => histogramOf(scores, 1)), inner = side - 2 * edge;
  return Array.from(ys, (y, row) => [edge + inner * shareOf(xs[row] ?? NaN, spans[0]), side - edge - inner * shareOf(y, spans[1])]);
}

/** The rows whose points lie between two corners of a box. */
export function rowsInBox(points, [x1, y1], [x2, y2]) {
  const between = (value, a, b) => value >= Math.min(a, b) && value <= Math.max(a, b);
  return points.flatMap(([x, y], row) => (between(x, x1, x2) && between(y, y1, y2) ? [row] : []));
}

/** The rows of `order` from one row to another, in either direction. */
export function rowsBetween(order, from, to) {
  const ends = [from, to].map((row) => order.indexOf(row)).sort((a, b) => a - b);
  return ends[0] < 0 ? [to] : [...order.slice(ends[0], ends[1] + 1)];
}

/** The rows that are taken away, best first: the ticked ones, else the shown ones; and in words which these are. */
export function chosenRows(all, shown, ticked) {
  if (ticked.size) return { rows: [...all].filter((row) => ticked.has(row)), text: `${counted(ticked.size, "ticked photo")}` };
  if (shown.length < all.length) return { rows: [...shown], text: `the ${counted(shown.length, "shown photo")}` };
  return { rows: null, text: `all ${counted(all.length, "photo")}` };
}

/** SVG path of one bar with round corners, or "" for an empty bin. */
export function barPath(count, most, left, step, height) {
  if (!count) return "";
  const tall = Math.max(1.5, (count / most) * (height - 4)), r = Math.min(2, step / 3, tall), w = Math.max(0.8, step - 1.2);
  return `M${left + 0.6} ${height}v${-(tall - r)}q0 ${-r} ${r} ${-r}h${w - 2 * r}q${r} 0 ${r} ${r}v${tall - r}z`;
}

/** Columns, and pixels of a tile's side and of a row's height, of a gallery of this width. */
export function gridOf(width, { gap, smallest, strip }) {
  const columns = Math.max(2, Math.floor((width + gap) / (smallest + gap)));
  const side = (width - gap * (columns - 1)) / columns;
  return { columns, side, tall: side + strip + gap, gap };
}

/** Pixels [x, y] of the k-th tile. */
export const pointOf = (k, { columns, side, tall, gap }) => [(k % columns) * (side + gap), Math.floor(k / columns) * tall];

/** The rows of `order` in sight, and one line of tiles above and below. */
export function rowsInSight(order, { columns, tall }, scrollTop, height) {
  const first = Math.max(0, Math.floor(scrollTop / tall) - 1), last = Math.ceil((scrollTop + height) / tall) + 1;
  return order.slice(first * columns, last * columns);
}

/** Where the gallery must scroll so that the line of tiles at `y` is in sight. */
export function scrollFor(y, tall, scrollTop, height) {
  if (y < scrollTop) return y;
  return y + tall > scrollTop + height ? y + tall - height : scrollTop;
}

/** The place that a key moves to from place `at` of n (not yet clamped), or undefined for a key that does not move. */
export function placeAfterKey(key, at, { columns, tall }, height, n) {
  const page = columns * Math.max(1, Math.floor(height / tall));
  return { ArrowLeft: at - 1, ArrowRight: at + 1, ArrowUp: at - columns, ArrowDown: at + columns, PageUp: at - page,
    PageDown: at + page, Home: 0, End: n - 1 }[key];
}

/** More (1) or less (-1) like the photo, by key; undefined for any other key. */
export const likesOfKey = (key) => ({ "+": 1, "=": 1, "-": -1 })[key];

/** Whether a key ticks a photo. */
export const isTickKey = (key) => key === "x" || key === "X";

/** What a key does while two photos are compared: a choice, 'undo', 'close', or undefined. */
export function answerOfKey(key) {
  return { ArrowLeft: "first", ArrowRight: "second", ArrowDown: "tie", s: "skip", z: "undo", u: "undo", Escape: "close" }[
    key.length === 1 ? key.toLowerCase() : key];
}

/** The next rows to ask the kernel for: wanted, neither kept nor asked for already, at most `batch`. */
export function rowsToAsk(wanted, kept, asked, batch) {
  return [...new Set(wanted.flat())].filter((row) => !kept.has(row) && !asked.has(row)).slice(0, batch);
}

/** The kept rows to forget, oldest first, so that `most` are left; rows in sight are not forgotten. */
export function rowsToForget(kept, visible, most) {
  const spare = [...kept.keys()].filter((row) => !visible.has(row));
  return spare.slice(0, Math.max(0, kept.size - most));
}

/** One colour for a photo whose corners are alike, as on a plain ground, else null. Corners are [red, green, blue]. */
export function plainColour(corners) {
  const range = (c) => Math.max(...corners.map((p) => p[c])) - Math.min(...corners.map((p) => p[c]));
  return [0, 1, 2].every((c) => range(c) < 24) ? `rgb(${corners[0].join(" ")})` : null;
}

/** The solution of a small linear system, by Gauss's elimination with pivots. */
export function solved(matrix, right) {
  const rows = matrix.map((row, k) => [...row, right[k]]), n = rows.length;
  for (let k = 0; k < n; k++) {
    const pivot = rows.reduce((best, row, i) => (i >= k && Math.abs(row[k]) > Math.abs(rows[best][k]) ? i : best), k);
    [rows[k], rows[pivot]] = [rows[pivot], rows[k]];
    for (let i = k + 1; i < n; i++) {
      const share = rows[i][k] / rows[k][k];
      if (share) for (let j = k; j <= n; j++) rows[i][j] -= share * rows[k][j];
    }
  }
  const x = new Array(n).fill(0);
  for (let k = n - 1; k >= 0; k--) x[k] = (rows[k][n] - x.reduce((sum, value, j) => (j > k ? sum + rows[k][j] * value : sum), 0)) / rows[k][k];
  return x;
}

/**
 * Scores in logits after votes: the mode of Bradley and Terry's model with a Gaussian process as the prior, whose mean is
 * `prior` and whose covariance is `kernel(row, row)`. Outcomes are 1 where the first of a pair has more, 0 or 0.5 (a tie).
 */
export function learntScores(prior, kernel, pairs, outcomes) {
  const ahead = (row, [a, b]) => kernel(row, a) - kernel(row, b);
  const gram = pairs.map(([a, b]) => pairs.map((pair) => ahead(a, pair) - ahead(b, pair)));
  const chances = (dual) => pairs.map(([a, b], i) => 1 / (1 + Math.exp(-(prior[a] - prior[b] + gram[i].reduce((s, g, j) => s + g * dual[j], 0)))));
  const missOf = (dual) => chances(dual).map((chance, i) => outcomes[i] - chance - dual[i]);
  const norm = (miss) => Math.hypot(...miss);
  let dual = pairs.map(() => 0), miss = missOf(dual);
  for (let k = 0; k < 100 && norm(miss) > 1e-9; k++) {
    const slopes = chances(dual).map((chance) => chance * (1 - chance));
    const step = solved(gram.map((row, i) => row.map((g, j) => slopes[i] * g + (i === j ? 1 : 0))), miss);
    let size = 1;
    const moved = () => dual.map((value, i) => value + size * step[i]);
    while (size > 1e-6 && norm(missOf(moved())) > norm(miss)) size /= 2;
    dual = moved();
    miss = missOf(dual);
  }
  return prior.map((value, row) => pairs.reduce((sum, pair, j) => sum + dual[j] * ahead(row, pair), value));
}

/** Two photos of n that were not compared yet, or null. */
export function freshPair(n, asked, random) {
  const past = new Set(asked.map(([a, b]) => Math.min(a, b) * n + Math.max(a, b)));
  if (past.size >= (n * (n - 1)) / 2) return null;
  for (;;) {
    const pair = [Math.floor(random() * n), Math.floor(random() * n)];
    if (pair[0] !== pair[1] && !past.has(Math.min(...pair) * n + Math.max(...pair))) return pair;
  }
}

/** Records as CSV, or as JSON lines. A text that a spreadsheet would read as a formula gets an apostrophe. */
export function tableText(kind, records) {
  if (kind !== "csv") return records.map((record) => `${JSON.stringify(record)}\n`).join("");
  const cell = (value) => {
    const text = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return [Object.keys(records[0] ?? {}), ...records.map(Object.values)].map((row) => `${row.map(cell).join(",")}\n`).join("");
}

/**
 * What votes have taught, in a sentence. `elsewhere` counts the answers on photos that are not here, and `saved` the
 * answers and examples that a page without a kernel began with.
 */
export function learntText({ votes, preferred, agree, expected, learn, examples, elsewhere, saved }) {
  const had = [["answer", saved?.votes], ["example", saved?.examples]].filter(([, n]) => n).map(([noun, n]) => counted(n, noun));
  const began = had.length ? `the saved order has ${had.join(" and ")} in it.` : "";
  const makers = examples.length ? `the words and ${counted(examples.length, "example")} make the order.` : "the words alone make the order.";
  if (!votes) return `No answers yet${elsewhere ? ` (${elsewhere} on photos that are not here)` : ""}: ${began || makers}`;
  const agrees = preferred ? `; the order agrees with ${agree} of the ${preferred} that prefer a photo` : "";
  const known = counted(votes, "answer") + (elsewhere ? ` (${elsewhere} more on photos that are not here)` : "") + agrees;
  if (!learn) return `${known}, not used now.`;
  if (began) return `${known}; ${began}`;
  if (!expected) return `${known}.`;
  return `${known}. The order expects to agree with ${Math.round(100 * expected)}% of further ones.`;
}

/** What is shown beside the number of photos: of each brushed gallery (name, shown) the photos kept, and so on. */
export function factTexts({ unreadable, examples, encoder, kept, found }, brushed, galleries) {
  const shown = brushed.map(({ name, shown }) => `${shown.toLocaleString("en")} shown${galleries > 1 ? ` (${name})` : ""}`);
  if (encoder) shown.unshift(`model ${encoder}`);
  if (kept) shown.push(`among ${counted(kept.size, "kept photo")}`);
  if (found) shown.push(`${counted(found.size, "photo")} found`);
  if (unreadable) shown.push(`${unreadable} cannot be read`);
  if (examples.length) shown.push(counted(examples.length, "example"));
  return shown;
}

/** A photo's place and score under one model, and the best and the worst rank of its interval, if known. */
export const placeText = (name, place, n, score, deviation, range) =>
  `${name}: ${place + 1} of ${n.toLocaleString("en")}${range ? ` (95%: ${range[0]} to ${range[1]})` : ""}, score ${scoreText(score, deviation)}`;

/** The interval of a photo's rank out of the best ranks of all photos, followed by their worst; null without any. */
export const rangeOf = (ranks, row) => (ranks ? [ranks[row], ranks[ranks.length / 2 + row]] : null);

/** How many photos are encoded and how long the others will take, by the pace since `begun` (time and coming then). */
export function comingText(photos, coming, begun, now) {
  const done = begun.coming - coming, all = counted(photos + coming, "photo");
  const seconds = done > 0 ? ((now - begun.time) / 1000 / done) * coming : 0;
  const left = seconds > 90 ? `${Math.round(seconds / 60)} min` : `${Math.ceil(seconds)} s`;
  return `${photos.toLocaleString("en")} of ${all} looked at${done > 0 ? `, ${left} left` : ""}`;
}
