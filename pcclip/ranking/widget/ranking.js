// The surface of notebook 06: a gallery that flows into the order of an axis, and learns from votes.
// The kernel holds photos, models and votes; the page has only scores, the few thumbnails in sight, and the drawing.
// Texts reach the page as text nodes alone, so that a caption or a file name can never be markup.
import {
  answerOfKey, barPath, brushAfterKey, brushedRows, changeText, chosenRows, clamp, comingText, counted, factTexts, fixedEnd, gridOf,
  histogramOf, isTickKey, learntText, likesOfKey, orderByChange, orderByScore, placeAfterKey, placesIn, placeText, plainColour, pointOf, rangeOf,
  rowsBetween, rowsInBox, rowsInSight, rowsToAsk, rowsToForget, rowsWithin, scatterOf, scoreText, scrollFor, shareOf, signed,
} from "./ranking_logic.js";

const LAYOUT = { gap: 10, smallest: 124, strip: 9 }; // pixels: between tiles, of the smallest tile, of its score strip
const FLOW = 620, PATIENCE = 6000, PAUSE = 450, TWICE = 300; // milliseconds; TWICE: of a double click
const KEPT = 1200, BATCH = 12; // thumbnails
const BINS = 64, TALL = 64;
const FULL = 2 ** 14; // pixels of a photo at full size, at most
const QUIET = "data-lm-suppress-shortcuts";

function el(tag, settings = {}, ...children) {
  const svg = ["svg", "path", "rect", "line", "g"].includes(tag);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(settings)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  // JupyterLab's one-letter commands look at the focused element itself before anything around it
  if ("tabindex" in settings || ["button", "input", "select"].includes(tag)) node.setAttribute(QUIET, "true");
  node.append(...children.filter((child) => child != null));
  return node;
}

const still = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
const floats = (view) => new Float32Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));

/** The colour of a photo's corners, or null where they differ: a photo on a plain ground is shown whole on it. */
function backdrop(image) {
  const side = 16, canvas = el("canvas", { width: side, height: side }).getContext("2d", { willReadFrequently: true });
  canvas.drawImage(image, 0, 0, side, side);
  const corners = [[0, 0], [side - 1, 0], [0, side - 1], [side - 1, side - 1]]
    .map(([x, y]) => [...canvas.getImageData(x, y, 1, 1).data.slice(0, 3)]);
  return plainColour(corners);
}

/** Thumbnails and captions, fetched for what is in sight, a bounded number of them kept. */
class Thumbnails {
  constructor(send) {
    this.send = send;
    this.kept = new Map();
    this.wanted = new Map(); // who wants -> rows
    this.asked = new Set();
    this.listeners = new Set();
  }
  get(row) {
    const found = this.kept.get(row);
    if (found) this.kept.delete(row), this.kept.set(row, found);
    return found;
  }
  want(who, rows) {
    this.wanted.set(who, rows);
    this.ask();
  }
  ask() {
    if (this.asked.size > BATCH) return; // rows scrolled past meanwhile are never asked for
    const rows = rowsToAsk([...this.wanted.values()], this.kept, this.asked, BATCH);
    if (!rows.length) return;
    rows.forEach((row) => this.asked.add(row));
    this.send({ do: "thumbnails", rows });
    this.ask();
  }
  take(items, buffers) {
    items.forEach((item, k) => {
      const url = item.problem ? null : URL.createObjectURL(new Blob([buffers[k]], { type: "image/jpeg" }));
      if (!this.kept.has(item.row)) this.kept.set(item.row, { ...item, url });
      else if (url) URL.revokeObjectURL(url);
      this.asked.delete(item.row);
    });
    const visible = new Set([...this.wanted.values()].flat());
    for (const row of rowsToForget(this.kept, visible, KEPT)) {
      URL.revokeObjectURL(this.kept.get(row).url);
      this.kept.delete(row);
    }
    this.listeners.forEach((listener) => listener());
    this.ask();
  }
  close() {
    this.kept.forEach((item) => URL.revokeObjectURL(item.url));
    this.kept.clear();
  }
}

/** How the scores are spread; a brush over it keeps the photos between two scores. */
class Histogram {
  constructor(name, changed) {
    this.changed = changed;
    this.low = 0;
    this.high = 1;
    this.bars = el("path", { class: "bars" });
    this.inside = el("path", { class: "inside" });
    this.tick = el("line", { class: "tick", y1: 0, y2: TALL, visibility: "hidden" });
    this.spread = el("rect", { class: "spread", y: 0, height: TALL, visibility: "hidden" });
    this.handles = ["lowest", "highest"].map((end, k) => el("g", {
      class: "handle", role: "slider", tabindex: 0, "aria-label": `${end} score shown, ${name}`, "aria-valuemin": 0,
      "aria-valuemax": 100, onkeydown: (event) => this.key(event, k),
    }, el("rect", { class: "grip", x: -7, width: 14, y: 0, height: TALL }), el("line", { y1: 0, y2: TALL }),
    el("rect", { class: "knob", x: -3, width: 6, y: TALL / 2 - 9, height: 18, rx: 3 })));
    this.svg = el("svg", { class: "histogram", role: "group", "aria-label": `Histogram of scores, ${name}`, height: TALL },
      this.bars, this.spread, this.inside, this.tick, ...this.handles);
    this.svg.addEventListener("pointerdown", (event) => this.grab(event));
    this.svg.addEventListener("dblclick", () => this.set(0, 1));
    this.ends = [el("span"), el("span")];
    this.count = el("span", { class: "count" });
    this.node = el("div", { class: "spread-of-scores" }, this.svg,
      el("div", { class: "ends", "aria-hidden": "true" }, this.ends[0], this.count, this.ends[1]));
  }
  show(scores) {
    this.data = histogramOf(scores, BINS);
    this.draw();
  }
  get brushed() {
    return this.low > 0 || this.high < 1;
  }
  x(share) {
    return (1 - share) * this.wide; // the most on the left, as the gallery begins with the most
  }
  draw() {
    this.wide = this.svg.clientWidth;
    if (!this.data || !this.wide) return;
    const { counts, least, width } = this.data, top = Math.max(...counts), step = this.wide / BINS;
    const bar = (n, k) => barPath(n, top, this.x((k + 1) / BINS), step, TALL);
    const middle = (k) => (k + 0.5) / BINS;
    const paths = [...counts].map((n, k) => [bar(n, k), middle(k) >= this.low && middle(k) <= this.high]);
    this.inside.setAttribute("d", paths.filter(([, within]) => within).map(([path]) => path).join(""));
    this.bars.setAttribute("d", paths.map(([path]) => path).join(""));
    [this.low, this.high].forEach((at, k) => {
      const handle = this.handles[k];
      handle.setAttribute("transform", `translate(${clamp(this.x(at), 3, this.wide - 3)} 0)`);
      handle.setAttribute("aria-valuenow", Math.round(at * 100));
      handle.setAttribute("aria-valuetext", `score ${signed(least + at * width)}`);
    });
    this.svg.classList.toggle("brushed", this.brushed);
    this.ends[0].textContent = `most: score ${signed(least + width)}`;
    this.ends[1].textContent = `least: score ${signed(least)}`;
  }
  set(low, high, most = Infinity) {
    [this.low, this.high] = [clamp(Math.min(low, high), 0, 1), clamp(Math.max(low, high), 0, 1)];
    this.draw();
    this.changed(most);
  }
  grab(event) {
    if (event.button) return;
    event.preventDefault();
    const place = (e) => clamp(1 - (e.clientX - this.svg.getBoundingClientRect().left) / this.wide, 0, 1);
    const from = place(event), fixed = fixedEnd(from, [this.low, this.high], 8 / this.wide);
    let moved = false;
    const move = (e) => {
      moved = moved || Math.abs(place(e) - from) * this.wide > 3;
      if (moved) this.set(fixed, place(e));
    };
    const drop = () => {
      this.svg.removeEventListener("pointermove", move);
      if (!moved && fixed === from && this.brushed) this.set(0, 1);
    };
    this.svg.setPointerCapture(event.pointerId);
    this.svg.addEventListener("pointermove", move);
    this.svg.addEventListener("pointerup", drop, { once: true });
  }
  key(event, k) {
    const ends = brushAfterKey(event.key, k, [this.low, this.high], BINS);
    if (!ends) return;
    event.preventDefault();
    this.set(...ends);
  }
  mark(score, deviation) {
    const on = score === undefined || !this.wide ? "hidden" : "visible";
    this.tick.setAttribute("visibility", on);
    this.spread.setAttribute("visibility", deviation ? on : "hidden");
    if (on === "hidden") return;
    const x = this.x(shareOf(score, this.data)), half = ((deviation || 0) / this.data.width) * this.wide;
    const [left, right] = [x - half, x + half].map((end) => clamp(end, 0, this.wide));
    this.tick.setAttribute("x1", x), this.tick.setAttribute("x2", x);
    this.spread.setAttribute("x", left), this.spread.setAttribute("width", right - left);
  }
}

/** One photo of a gallery. */
class Tile {
  constructor(row, gallery) {
    this.row = row;
    this.image = el("img", { alt: "", draggable: "false" });
    this.problem = el("span", { class: "broken" });
    this.photo = el("button", { class: "photo", type: "button", tabindex: -1, "aria-keyshortcuts": "Enter + - x Shift+x",
      onclick: (event) => event.shiftKey || event.ctrlKey || event.metaKey ? gallery.tick(row, event.shiftKey) : gallery.open(row) },
    this.image, this.problem);
    this.box = el("input", { class: "tick", type: "checkbox", tabindex: -1, title: "Tick (x, or shift-click for many)",
      onclick: (event) => gallery.tick(row, event.shiftKey) });
    this.place = el("span", { class: "place", "aria-hidden": "true" });
    this.caption = el("span", { class: "caption" });
    this.score = el("span", { class: "score" });
    const mark = (likes, sign, text) => el("button", { class: "mark", type: "button", tabindex: -1, title: text,
      onclick: () => gallery.like(row, likes) }, sign);
    this.more = mark(1, "+", "More like this");
    this.less = mark(-1, "−", "Less like this");
    this.band = el("i", { class: "band" });
    this.dot = el("i", { class: "dot" });
    this.node = el("div", { class: "tile", role: "listitem" }, this.photo, this.place, this.box,
      el("div", { class: "marks" }, this.more, this.less),
      el("div", { class: "told", "aria-hidden": "true" }, this.caption, this.score),
      el("div", { class: "strip", "aria-hidden": "true" }, this.band, this.dot));
    this.node.addEventListener("pointerenter", () => gallery.point(row));
    this.node.addEventListener("pointerleave", () => gallery.point(null));
    this.node.addEventListener("focusin", () => gallery.point(row));
  }
  move(x, y) {
    this.node.style.transform = `translate(${x}px, ${y}px)`;
  }
  fill(item, gallery) {
    const { scores, deviations, places, histogram, likes, ticked } = gallery;
    const score = scores[this.row], sd = deviations ? deviations[this.row] : 0, place = places[this.row] + 1;
    const told = scoreText(score, sd), range = rangeOf(gallery.ranks, this.row);
    this.place.textContent = gallery.before ? `${place} ${changeText(gallery.before[this.row], place - 1)}` : place;
    this.score.textContent = range ? `${told}, place ${range[0]} to ${range[1]}` : told;
    this.caption.textContent = item ? item.caption : "";
    this.photo.setAttribute("aria-label", `${place}. ${item ? item.caption : "photo"}, score ${told}`);
    this.node.setAttribute("aria-posinset", place);
    this.node.setAttribute("aria-setsize", scores.length);
    this.box.checked = ticked.has(this.row);
    const name = `${place}. ${item ? item.caption : "photo"}`;
    this.box.setAttribute("aria-label", `tick ${name}`);
    this.more.setAttribute("aria-label", `more like ${name}`);
    this.less.setAttribute("aria-label", `less like ${name}`);
    this.node.classList.toggle("ticked", this.box.checked);
    const at = shareOf(score, histogram.data), half = sd / histogram.data.width;
    this.dot.style.left = `${100 * (1 - at)}%`;
    this.band.style.left = `${100 * clamp(1 - at - half, 0, 1)}%`;
    this.band.style.right = `${100 * clamp(at - half, 0, 1)}%`;
    const liked = likes.get(this.row) || 0;
    this.more.setAttribute("aria-pressed", liked > 0);
    this.less.setAttribute("aria-pressed", liked < 0);
    this.node.classList.toggle("liked", liked > 0);
    this.node.classList.toggle("disliked", liked < 0);
    if (!item) return;
    if (item.url && this.image.src !== item.url) {
      this.image.onload = () => {
        const shape = this.image.naturalWidth / this.image.naturalHeight, ground = backdrop(this.image);
        this.image.classList.toggle("whole", ground !== null || shape > 1.8 || shape < 0.55);
        this.photo.style.backgroundColor = ground ?? "";
        this.node.classList.add("ready");
      };
      this.image.src = item.url;
    }
    this.problem.textContent = item.problem ? `cannot be shown: ${item.problem}` : "";
    if (item.problem) this.node.classList.add("ready");
  }
}

/** The photos in the order of one model's scores; only those in sight are in the page. */
class Gallery {
  constructor(name, thumbnails, actions) {
    this.thumbnails = thumbnails;
    Object.assign(this, actions); // open, like, point, filtered, tick, and the set ticked
    this.most = Infinity; // photos shown
    this.name = name;
    this.tiles = new Map();
    this.likes = new Map();
    this.at = 0;
    this.canvas = el("div", { class: "canvas", role: "list", "aria-label": `Photos, ordered by ${name}` });
    this.scroller = el("div", { class: "scroller" }, this.canvas);
    this.histogram = new Histogram(name, (most) => this.filter(most));
    this.title = el("h3", {}, name);
    this.empty = el("p", { class: "empty", hidden: true }, "No photo is left.");
    this.node = el("section", { class: "gallery", "aria-label": name },
      this.title, this.histogram.node, this.empty, this.scroller);
    this.scroller.addEventListener("scroll", () => (this.draw(), this.scrolled(this.scroller.scrollTop)), { passive: true });
    this.scroller.addEventListener("keydown", (event) => this.key(event));
    this.scroller.addEventListener("focusin", (event) => {
      const tile = [...this.tiles.values()].find((t) => t.node.contains(event.target));
      if (tile && this.index[tile.row] >= 0) this.at = this.index[tile.row];
      this.rove();
    });
    this.observer = new ResizeObserver(() => this.measure());
    this.observer.observe(this.scroller);
  }
  close() {
    this.observer.disconnect();
    this.thumbnails.wanted.delete(this);
  }
  /** New scores; `arrange` lets the photos flow to their new places. */
  rank(scores, deviations, ranks, likes, fresh) {
    Object.assign(this, { scores, deviations, ranks, likes });
    this.all = orderByScore(scores);
    this.places = placesIn(this.all, scores.length);
    if (fresh) [this.histogram.low, this.histogram.high, this.most] = [0, 1, Infinity];
    this.histogram.show(scores);
    this.mark(this.pointed);
  }
  filter(most) {
    this.most = most;
    this.arrange(false);
    this.filtered(this);
  }
  /** Show the n highest photos, or all. */
  top(n) {
    const last = this.all[n - 1];
    if (last === undefined) this.histogram.set(0, 1);
    else this.histogram.set(shareOf(this.scores[last], this.histogram.data), 1, n);
  }
  arrange(toTop) {
    const { data, low, high } = this.histogram, before = this.order ? this.index : null;
    const among = rowsWithin(this.shared ?? this.all, this.within());
    this.order = brushedRows(among, this.scores, data, low, high).slice(0, this.most);
    const brushed = this.order.length < this.all.length;
    this.histogram.count.textContent = brushed ? `${this.order.length.toLocaleString("en")} of ${counted(this.all.length, "photo")}, scores ${signed(data.least + low * data.width)} to ${signed(data.least + high * data.width)}` : "";
    this.index = placesIn(this.order, this.scores.length);
    this.empty.hidden = this.order.length > 0;
    this.at = clamp(this.at, 0, Math.max(0, this.order.length - 1));
    this.flow(before, toTop);
  }
  measure() {
    const wide = this.canvas.clientWidth;
    if (!wide || !this.order) return;
    this.grid = gridOf(wide, { ...LAYOUT, smallest: this.size() });
    this.canvas.style.height = `${Math.ceil(this.order.length / this.grid.columns) * this.grid.tall}px`;
    this.canvas.style.setProperty("--side", `${this.grid.side}px`);
    this.histogram.draw();
    this.draw();
  }
  sight() {
    const { scrollTop, clientHeight } = this.scroller;
    return rowsInSight(this.order, this.grid, scrollTop, clientHeight);
  }
  flow(before, toTop) {
    const focused = this.scroller.contains(document.activeElement);
    if (toTop) (this.scroller.scrollTop = 0), (this.at = 0);
    if (!before || !this.grid || still()) {
      this.measure();
      if (focused) this.focus(this.at);
      return;
    }
    const top = this.scroller.scrollTop, bottom = top + this.scroller.clientHeight;
    const near = ([x, y]) => [x, clamp(y, top - this.grid.tall, bottom + this.grid.tall * 0.4)];
    const there = new Set(this.sight());
    for (const row of there) {
      if (this.tiles.has(row)) continue;
      const tile = this.add(row), was = before[row];
      tile.move(...(was >= 0 ? near(pointOf(was, this.grid)) : pointOf(this.index[row], this.grid)));
      tile.node.classList.add("coming");
    }
    this.canvas.getBoundingClientRect(); // the start must be laid out before the end is asked for
    this.canvas.classList.add("flowing");
    for (const [row, tile] of this.tiles) {
      tile.node.classList.remove("coming");
      if (there.has(row)) continue;
      this.tiles.delete(row);
      const to = this.index[row];
      if (to >= 0) tile.move(...near(pointOf(to, this.grid)));
      tile.node.classList.add("going");
      setTimeout(() => tile.node.remove(), FLOW);
    }
    this.measure();
    clearTimeout(this.rest);
    this.rest = setTimeout(() => this.canvas.classList.remove("flowing"), FLOW);
    if (focused) this.focus(this.at);
  }
  add(row) {
    const tile = new Tile(row, this);
    this.tiles.set(row, tile);
    this.canvas.append(tile.node);
    return tile;
  }
  draw() {
    if (!this.grid || !this.order) return;
    const rows = [...this.sight()], there = new Set(rows);
    for (const [row, tile] of this.tiles)
      if (!there.has(row)) {
        if (tile.node.contains(document.activeElement)) continue;
        tile.node.remove();
        this.tiles.delete(row);
      }
    for (const row of rows) (this.tiles.get(row) || this.add(row)).move(...pointOf(this.index[row], this.grid));
    this.thumbnails.want(this, rows);
    this.fill();
  }
  fill() {
    for (const tile of this.tiles.values()) tile.fill(this.thumbnails.get(tile.row), this);
    this.rove();
  }
  rove() {
    for (const tile of this.tiles.values()) tile.photo.tabIndex = this.index[tile.row] === this.at ? 0 : -1;
    if (![...this.tiles.values()].some((tile) => tile.photo.tabIndex === 0)) {
      const first = this.sight().find((row) => this.tiles.has(row));
      if (first !== undefined) this.tiles.get(first).photo.tabIndex = 0;
    }
  }
  focus(k) {
    if (!this.order.length) return;
    this.at = clamp(k, 0, this.order.length - 1);
    const y = pointOf(this.at, this.grid)[1], { scrollTop, clientHeight } = this.scroller;
    this.scroller.scrollTop = scrollFor(y, this.grid.tall, scrollTop, clientHeight);
    this.draw();
    this.tiles.get(this.order[this.at])?.photo.focus({ preventScroll: true });
  }
  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const to = placeAfterKey(event.key, this.at, this.grid, this.scroller.clientHeight, this.order.length);
    const likes = likesOfKey(event.key);
    if (to !== undefined) this.focus(to);
    else if (likes) this.like(this.order[this.at], likes);
    else if (isTickKey(event.key)) this.tick(this.order[this.at], event.shiftKey);
    else return;
    event.preventDefault();
  }
  mark(row) {
    this.pointed = row;
    this.histogram.mark(row == null ? undefined : this.scores[row], row != null && this.deviations?.[row]);
    for (const tile of this.tiles.values()) tile.node.classList.toggle("pointed", tile.row === row);
  }
}

/** The photos by two scores: an earlier attribute's and the present one's. A box drawn over them keeps the photos in it. */
class Scatter {
  constructor(keep) {
    this.keep = keep;
    this.side = 260;
    this.canvas = el("canvas", { role: "img", width: this.side, height: this.side });
    this.title = el("p");
    this.node = el("figure", { class: "scatter", hidden: true }, this.canvas, el("figcaption", {}, this.title));
    const at = (event) => {
      const { left, top } = this.canvas.getBoundingClientRect();
      return [event.clientX - left, event.clientY - top];
    };
    this.canvas.addEventListener("pointerdown", (event) => {
      this.canvas.setPointerCapture(event.pointerId);
      this.from = at(event);
    });
    this.canvas.addEventListener("pointermove", (event) => this.from && this.draw(at(event)));
    this.canvas.addEventListener("pointerup", (event) => {
      const [from, to] = [this.from, at(event)];
      this.from = null;
      const rows = rowsInBox(this.points, from, to);
      this.keep(Math.hypot(to[0] - from[0], to[1] - from[1]) < 4 || !rows.length ? null : new Set(rows));
    });
  }
  show(held, scores, more, kept, ticked) {
    this.node.hidden = !held;
    if (!held) return;
    Object.assign(this, { kept, ticked, points: scatterOf(held.scores, scores, this.side, 8) });
    this.canvas.setAttribute("aria-label", `${counted(scores.length, "photo")} by ${held.name} and ${more}`);
    this.title.replaceChildren("→ ", el("q", {}, held.name), " ↑ ", el("q", {}, more), " · draw a box to keep the photos in it");
    this.draw();
  }
  draw(to) {
    const context = this.canvas.getContext("2d"), style = getComputedStyle(this.node);
    context.clearRect(0, 0, this.side, this.side);
    this.points.forEach(([x, y], row) => {
      const chosen = this.ticked.has(row) || row === this.pointed, out = this.kept && !this.kept.has(row);
      context.fillStyle = style.getPropertyValue(chosen ? "--accent" : out ? "--line" : "--cool");
      context.fillRect(x - (chosen ? 3 : 1.5), y - (chosen ? 3 : 1.5), chosen ? 6 : 3, chosen ? 6 : 3);
    });
    context.strokeStyle = style.getPropertyValue("--accent");
    if (to) context.strokeRect(...this.from, to[0] - this.from[0], to[1] - this.from[1]);
  }
  mark(row) {
    this.pointed = row;
    if (!this.node.hidden && this.points.length < 5000) this.draw();
  }
}

/** Two photos, and which of them has more. */
class Duel {
  constructor(send, closed) {
    this.send = send;
    this.question = el("h3");
    this.sides = ["first", "second"].map((choice, k) => {
      const image = el("img", { alt: "" }), caption = el("span", { class: "caption" });
      const button = el("button", { class: "side", type: "button", "aria-keyshortcuts": k ? "ArrowRight" : "ArrowLeft",
        onclick: () => this.vote(choice) }, image, caption);
      return { image, caption, button };
    });
    const answer = (text, key, shortcut, act) => el("button", { type: "button", "aria-keyshortcuts": shortcut,
      onclick: act }, el("kbd", { "aria-hidden": "true" }, key), text);
    this.told = el("p", { class: "told" });
    this.meter = el("i");
    this.node = el("section", { class: "duel", "aria-label": "Compare two photos", tabindex: -1, hidden: true },
      el("header", {}, this.question,
        el("button", { class: "close", type: "button", "aria-label": "Stop comparing", onclick: closed }, "×")),
      el("div", { class: "pair" }, this.sides[0].button, this.sides[1].button),
      el("div", { class: "answers" }, answer("left", "←", "ArrowLeft", () => this.vote("first")),
        answer("about equal", "↓", "ArrowDown", () => this.vote("tie")),
        answer("right", "→", "ArrowRight", () => this.vote("second")),
        answer("skip", "S", "s", () => this.vote("skip")),
        answer("undo", "Z", "z u", () => this.undo())),
      el("div", { class: "learnt" }, el("div", { class: "meter", "aria-hidden": "true" }, this.meter), this.told));
    this.node.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const answer = answerOfKey(event.key);
      if (!answer) return;
      event.preventDefault();
      if (event.repeat) return;
      if (answer === "close") closed();
      else if (answer === "undo") this.undo();
      else this.vote(answer);
    });
  }
  vote(choice) {
    if (!this.pair) return; // the last answer is not saved yet
    const [first, second] = this.pair;
    this.last = this.pair;
    this.pair = null;
    this.node.classList.add("waiting");
    if (choice === "first" || choice === "second") this.sides[+(choice === "second")].button.classList.add("chosen");
    this.send({ do: "vote", first, second, choice });
  }
  undo() {
    if (!this.pair) return;
    this.last = this.pair;
    this.pair = null;
    this.send({ do: "undo" });
  }
  /** The last answer was not taken: it can be given again. */
  again() {
    this.pair ??= this.last;
    this.node.classList.remove("waiting");
    this.sides.forEach(({ button }) => button.classList.remove("chosen"));
  }
  show(items, buffers) {
    this.node.classList.remove("waiting");
    this.pair = items.map((item) => item.row);
    this.sides.forEach(({ image, caption, button }, k) => {
      URL.revokeObjectURL(image.src);
      button.classList.remove("chosen");
      image.hidden = Boolean(items[k].problem);
      if (!items[k].problem) image.src = URL.createObjectURL(new Blob([buffers[k]], { type: "image/jpeg" }));
      if (!still()) image.animate([{ opacity: 0 }, { opacity: 1 }], 220);
      caption.textContent = items[k].problem ? `${items[k].caption} (cannot be shown: ${items[k].problem})` : items[k].caption;
      button.setAttribute("aria-label", `${k ? "right" : "left"}: ${items[k].caption}`);
    });
  }
  tell({ more, votes, expected }, learnt) {
    this.question.replaceChildren("Which fits ", el("q", {}, more), " better?");
    this.told.textContent = learnt;
    this.meter.style.width = expected ? `${clamp((expected - 0.5) * 200, 0, 100)}%` : 0;
    this.node.dataset.votes = votes;
  }
}

/** One photo at its full caption and size, with its place under each model. */
class Viewer {
  constructor(act, step, look) {
    this.look = look;
    this.image = el("img", { alt: "" });
    this.frame = el("div", { class: "frame", tabindex: 0, role: "group", "aria-label": "the photo" }, this.image);
    this.zooms = el("button", { name: "zoom", type: "button", "aria-keyshortcuts": "z", onclick: () => this.zoom((this.scale + 1) % 3) });
    this.caption = el("p", { class: "caption" });
    this.facts = el("p", { class: "facts" });
    this.path = el("p", { class: "facts path" });
    const button = (text, does) => el("button", { type: "button", onclick: () => (this.node.close(), act(does, this.row)) }, text);
    this.node = el("dialog", { class: "viewer", "aria-label": "Photo", onclick: (event) =>
      event.target === this.node && this.node.close() },
      this.frame, this.caption, this.facts, this.path, el("div", { class: "answers" },
        el("button", { type: "button", onclick: () => step(-1) }, "← previous"), button("+ more like this", 1),
        button("− less like this", -1), el("button", { type: "button", onclick: () => step(1) }, "next →"), this.zooms, el("button", { type: "button", onclick: () => this.node.close() }, "close")));
  }
  show(row, facts) {
    this.row = row;
    this.path.textContent = "";
    this.facts.textContent = facts;
    this.caption.textContent = "";
    this.image.hidden = true;
    this.zoom(0);
    if (!this.node.open) this.node.showModal();
  }
  /** The whole photo in the window (0), or its own pixels, once (1) or twice (2) as large: more than fits is scrolled to. */
  zoom(scale) {
    if (scale === 1) this.look(this.row);
    this.scale = scale;
    this.zooms.textContent = ["full size", "200%", "fit"][scale];
    this.node.classList.toggle("full", scale > 0);
    this.image.style.width = scale && this.image.naturalWidth ? `${this.image.naturalWidth * scale}px` : "";
  }
  take(item, buffer) {
    if (item.row !== this.row || !this.node.open) return;
    this.caption.textContent = item.problem ? `${item.caption} (cannot be shown: ${item.problem})` : item.caption;
    this.path.textContent = item.path;
    this.image.hidden = Boolean(item.problem);
    if (item.problem) return;
    URL.revokeObjectURL(this.image.src);
    this.image.onload = () => this.scale && (this.image.style.width = `${this.image.naturalWidth * this.scale}px`);
    this.image.src = URL.createObjectURL(new Blob([buffer], { type: "image/jpeg" }));
  }
}

/** The whole surface in one output cell. */
class Surface {
  constructor(model, root) {
    this.model = model;
    this.galleries = new Map();
    this.thumbnails = new Thumbnails((content) => this.send(content));
    this.thumbnails.listeners.add(() => (this.galleries.forEach((gallery) => gallery.fill()), this.state && this.trays()));
    this.duel = new Duel((content) => this.send(content), () => this.stop());
    this.viewer = new Viewer((likes, row) => this.like(row, likes), (by) => this.step(by),
      (row) => this.state.offline || this.send({ do: "look", row, side: FULL }));
    this.scatter = new Scatter((rows) => this.narrow({ kept: rows }));
    this.viewer.node.addEventListener("keydown", (event) => {
      if (event.key === "z") this.viewer.zooms.click();
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (by) event.preventDefault(), this.step(by);
    });
    this.build();
    this.root = el("div", { class: "pcclip-ranking", role: "region", "aria-label": "Photos ranked by an attribute",
      [QUIET]: "true" }, this.form, this.problem, this.doubt, this.coming, this.bar, this.rankings, this.tray, this.duel.node, this.scatter.node, this.panels,
      this.away, this.placed, this.keys, this.live, this.viewer.node);
    this.root.addEventListener("contextmenu", (event) => event.target.closest("img") && event.stopPropagation());
    root.append(this.root);
    this.receive = (content, buffers) => this.take(content, buffers || []);
    model.on("msg:custom", this.receive);
    this.facts.textContent = "Run this cell to see the photos.";
    this.send({ do: "hello" });
  }
  build() {
    const later = () => {
      clearTimeout(this.typing);
      this.typing = setTimeout(() => this.rank(), PAUSE);
    };
    const text = (name, hint) => el("input", { name, type: "text", placeholder: hint, autocomplete: "off",
      spellcheck: "false", oninput: later });
    this.more = text("more", "in your words: looks more dangerous");
    this.less = text("less", "optional: looks harmless");
    this.estimator = el("select", { name: "estimator", onchange: () => this.rank() });
    this.models = el("div", { class: "models", role: "radiogroup", "aria-label": "model" });
    this.form = el("form", { class: "ask", onsubmit: (event) => (event.preventDefault(), this.rank()) },
      el("label", { class: "words" }, el("span", {}, "more"), this.more),
      el("label", { class: "words" }, el("span", {}, "less"), this.less),
      el("label", {}, el("span", {}, "asked by"), this.estimator), this.models,
      el("button", { type: "submit", hidden: true }, "rank"));
    this.problem = el("p", { class: "problem", role: "alert", hidden: true });
    this.doubt = el("p", { class: "doubt", role: "status", hidden: true });
    this.facts = el("p", { class: "facts" });
    const button = (name, label, act, more = {}) => el("button", { name, type: "button", onclick: act, ...more }, label);
    this.compare = button("compare", "compare pairs", () => (this.duel.node.hidden ? this.start() : this.stop()),
      { class: "main", "aria-expanded": "false" });
    this.learn = el("input", { name: "learn", type: "checkbox", onchange: () =>
      this.send({ do: "learn", on: this.learn.checked }) });
    this.learning = el("label", { class: "learn", hidden: true }, this.learn, "learn from my answers");
    this.tray = el("ul", { class: "tray", "aria-label": "examples", hidden: true });
    this.coming = el("p", { class: "coming", role: "status", hidden: true }, el("progress", { "aria-label": "photos encoded" }), el("span"));
    this.saved = el("select", { name: "rankings", "aria-label": "saved rankings", onchange: () =>
      this.saved.value && this.send({ do: "open", name: this.saved.value }) });
    this.name = el("input", { name: "name", type: "text", placeholder: "a name for this ranking", "aria-label": "name of the ranking",
      autocomplete: "off" });
    const act = (action) => () => this.send({ do: action, name: this.name.value });
    this.save = button("save", "save", act("save"));
    this.remove = button("delete", "delete", () => this.sure(this.remove, "really delete?") && this.send({ do: "delete" }),
      { onblur: () => (this.remove.textContent = "delete") });
    this.own = [button("rename", "rename", act("rename")), this.remove,
      button("json", "as JSON", () => this.send({ do: "export", kind: "json" }))];
    this.rankings = el("details", { class: "rankings" }, el("summary", {}, "saved rankings"),
      el("div", {}, this.saved, this.name, this.save, ...this.own));
    this.forget = button("forget", "forget examples", () => this.send({ do: "forget" }), { hidden: true });
    this.search = el("input", { name: "search", type: "text", placeholder: "search captions and files", "aria-label": "search captions and files",
      autocomplete: "off", oninput: () => (clearTimeout(this.searching), (this.searching = setTimeout(() => this.find(), PAUSE))) });
    this.keeps = button("keep", "keep shown", () => this.narrow({ kept: this.kept ? null : new Set(this.active.order) }));
    this.holds = button("hold", "hold as second axis", () => this.hold());
    this.change = el("input", { name: "change", type: "checkbox", onchange: () => this.flowAgain(true) });
    this.changes = el("label", { class: "learn", hidden: true }, this.change, "by change of rank");
    this.bar = el("div", { class: "bar" }, this.facts, this.search, this.changes, this.keeps, this.holds, this.learning, this.forget, this.compare);
    this.ticked = new Set();
    this.chosen = el("span", { class: "chosen" });
    this.top = el("input", { name: "top", type: "number", min: 1, "aria-label": "show only so many of the top", placeholder: "all",
      oninput: () => this.active.top(Number(this.top.value)) });
    this.kind = el("select", { name: "kind", "aria-label": "save as", onchange: () => this.takes() },
      ...[["csv", "CSV table"], ["votes", "my votes (JSON lines)"], ["jsonl", "JSON lines"], ["labels", "label column (CSV)"], ["png", "contact sheet"],
        ["copy", "copies of the files in"], ["link", "links to the files in"], ["move", "the files, moved to"]]
        .map(([value, text]) => el("option", { value }, text)));
    this.to = el("input", { name: "to", type: "text", "aria-label": "folder", hidden: true, autocomplete: "off", oninput: () => this.takes() });
    this.size = el("select", { name: "size", "aria-label": "size of the photos", onchange: () => this.galleries.forEach((gallery) => gallery.measure()) },
      ...[[84, "small"], [LAYOUT.smallest, "medium"], [240, "large"]].map(([value, text]) => el("option", { value, selected: text === "medium" }, text)));
    this.whole = el("input", { name: "whole", type: "checkbox", onchange: () => this.root.classList.toggle("wholes", this.whole.checked) });
    this.untick = button("untick", "untick", () => (this.ticked.clear(), this.tell()));
    this.placed = el("p", { class: "placed", role: "status" });
    this.go = el("button", { name: "take", type: "submit" }, "download");
    this.away = el("form", { class: "away", "aria-label": "Save photos", onsubmit: (event) => (event.preventDefault(), this.takeAway()),
      onfocusout: (event) => this.away.contains(event.relatedTarget) || this.takes() },
      this.size, el("label", {}, this.whole, " whole"), el("label", {}, "top ", this.top), button("tick", "tick all shown", () =>
        (this.active.order.forEach((row) => this.ticked.add(row)), this.tell())), this.untick,
      el("span", { class: "gap" }), "save ", this.chosen, " as ", this.kind, this.to, this.go);
    this.panels = el("div", { class: "panels" });
    this.keys = el("p", { class: "keys" });
    for (const [key, does] of [["← ↑ ↓ →", "walk the photos"], ["Enter", "look closer"], ["+ −", "more, less like it"],
      ["x", "tick"], ["z", "full size"], ["Shift x", "tick up to here"]])
      this.keys.append(el("kbd", {}, key), ` ${does}   `);
    this.live = el("p", { class: "hidden", role: "status", "aria-live": "polite" });
  }
  /** A page without a kernel takes no other words and no examples, and has fewer things to save. */
  offline() {
    this.root.classList.add("offline");
    for (const input of [this.more, this.less]) input.readOnly = true;
    for (const node of [this.estimator.parentNode, this.rankings]) node.hidden = true;
  }
  send(content) {
    if (!this.waiting) this.waiting = setTimeout(() => this.complain(
      "The kernel is busy, or gone: until it answers nothing is saved. If it was restarted, run this cell again."), PATIENCE);
    this.model.send(content);
  }
  complain(text) {
    this.problem.textContent = text;
    this.problem.hidden = !text;
  }
  rank() {
    clearTimeout(this.typing);
    const [more, less] = [this.more.value.trim(), this.less.value.trim()];
    const asked = { more, less, estimator: this.estimator.value, show: this.show };
    if (JSON.stringify(asked) === this.asked) return;
    this.asked = JSON.stringify(asked);
    this.send({ do: "rank", ...asked });
  }
  like(row, likes) {
    if (!this.state.offline) this.send({ do: "example", row, likes: this.state.likes.get(row) === likes ? 0 : likes });
  }
  /** Ask which photos have a text in their caption or their path. */
  find() {
    const text = this.search.value.trim();
    if (text) this.send({ do: "search", text });
    else this.narrow({ found: null });
  }
  /** Show only the photos that were kept, or found; null shows all again. Kept photos are no longer brushed. */
  narrow(sets) {
    Object.assign(this, sets);
    for (const gallery of this.galleries.values())
      if ("kept" in sets) gallery.histogram.set(0, 1);
      else gallery.filter(gallery.most);
    this.tell();
  }
  /** Keep the present scores as the first axis of a scatter, or let go of them. */
  hold() {
    this.held = this.held ? null : { name: this.state.more, scores: this.active.scores };
    this.tell();
  }
  /** Both models' photos in one order, those first that rise most from the first model to the second; or each in its own. */
  share() {
    const galleries = [...this.galleries.values()], on = this.change.checked && galleries.length > 1;
    const shared = on ? orderByChange(galleries[0].places, galleries[1].places) : null;
    galleries.forEach((gallery, k) => Object.assign(gallery, { shared, before: on && k ? galleries[0].places : null }));
  }
  flowAgain(toTop) {
    this.share();
    this.galleries.forEach((gallery) => gallery.arrange(toTop));
  }
  /** The panel that was filtered last, else the last one. */
  get active() {
    const last = [...this.galleries.values()].at(-1);
    return this.galleries.get(this.filtered) ?? last;
  }
  tick(row, range) {
    const on = !this.ticked.has(row);
    for (const other of range ? rowsBetween(this.active.order, this.lastTick ?? row, row) : [row])
      on ? this.ticked.add(other) : this.ticked.delete(other);
    this.lastTick = row;
    this.tell();
  }
  takes() {
    this.to.hidden = !["copy", "link", "move"].includes(this.kind.value);
    this.go.textContent = this.to.hidden ? "download" : this.kind.value;
  }
  takeAway() {
    const { name, all, order } = this.active, { rows } = chosenRows(all, order, this.ticked), n = (rows ?? all).length;
    if (this.kind.value === "move" && n && !this.sure(this.go, `really move ${counted(n, "photo")}?`)) return;
    this.takes();
    this.send({ do: "export", kind: this.kind.value, model: name, rows, to: this.to.hidden ? "" : this.to.value });
  }
  /** Whether a button asked before it was pressed, and not at once before: the first time its text becomes the question. */
  sure(button, question) {
    const asked = button.textContent === question, early = performance.now() - this.pressed < TWICE;
    this.pressed = performance.now();
    if (!asked) button.textContent = this.live.textContent = question;
    return asked && !early;
  }
  start() {
    this.duel.node.hidden = false;
    this.compare.setAttribute("aria-expanded", "true");
    this.duel.node.focus();
    this.send({ do: "pair" });
  }
  stop() {
    this.duel.node.hidden = true;
    this.compare.setAttribute("aria-expanded", "false");
    this.compare.focus();
  }
  open(row) {
    const places = [...this.galleries.values()].map(({ name, places, scores, deviations, ranks }) =>
      placeText(name, places[row], scores.length, scores[row], deviations?.[row], rangeOf(ranks, row)));
    this.viewer.show(row, places.join(" · "));
    this.send({ do: "look", row });
  }
  /** The photo before or after the one that is looked at. */
  step(by) {
    const { order, index } = this.active, row = order[index[this.viewer.row] + by];
    if (row !== undefined) this.open(row);
  }
  take(content, buffers) {
    if (this.waiting && this.problem.textContent.startsWith("The kernel is busy")) this.complain("");
    clearTimeout(this.waiting);
    this.waiting = null;
    if (content.is === "ranking") this.ranked(content, buffers);
    else if (content.is === "thumbnails") this.thumbnails.take(content.items, buffers);
    else if (content.is === "pair") this.paired(content, buffers);
    else if (content.is === "photo") this.viewer.take(content.item, buffers[0]);
    else if (content.is === "file") this.download(content, buffers[0]);
    else if (content.is === "placed") this.done(content.text);
    else if (content.is === "found") this.narrow({ found: new Set(content.rows) });
    else if (content.is === "progress") this.progress(content.coming);
    else if (content.is === "problem") this.done(""), this.complain(content.text), this.duel.again();
  }
  ranked(state, buffers) {
    const fresh = !this.state || ["more", "less", "estimator"].some((key) => this.state[key] !== state[key]);
    this.state = { ...state, likes: new Map(state.examples) };
    this.complain(state.problem);
    this.controls(state, fresh);
    for (const [name, gallery] of this.galleries)
      if (!state.panels.includes(name)) gallery.close(), gallery.node.remove(), this.galleries.delete(name);
    state.panels.forEach((name, k) => {
      if (!this.galleries.has(name)) this.galleries.set(name, new Gallery(name, this.thumbnails, {
        open: (row) => this.open(row), like: (row, likes) => this.like(row, likes),
        point: (row) => (this.scatter.mark(row), this.galleries.forEach((gallery) => gallery.mark(row))), ticked: this.ticked, size: () => Number(this.size.value),
        tick: (row, range) => ((this.filtered = name), this.tick(row, range)),
        filtered: () => ((this.filtered = name), this.tell()), within: () => [this.kept, this.found],
        scrolled: (top) => this.galleries.forEach((other) => other.scroller.scrollTop === top || (other.scroller.scrollTop = top)) }));
      const gallery = this.galleries.get(name);
      if (this.panels.children[k] !== gallery.node) this.panels.insertBefore(gallery.node, this.panels.children[k] ?? null);
      gallery.title.hidden = state.panels.length < 2;
      const columns = buffers.slice(3 * k, 3 * k + 3).map((column) => (column.byteLength ? floats(column) : null));
      gallery.rank(...columns, this.state.likes, fresh);
    });
    this.galleries = new Map(state.panels.map((name) => [name, this.galleries.get(name)])); // as they stand on the page
    this.panels.classList.toggle("two", state.panels.length > 1);
    this.changes.hidden = state.panels.length < 2;
    this.flowAgain(fresh);
    this.tell();
    if (fresh && state.said) this.live.textContent = state.said;
  }
  controls(state, fresh) {
    for (const [input, value] of [[this.more, state.more], [this.less, state.less]])
      if (document.activeElement !== input) input.value = value;
    this.show = state.show;
    this.asked = JSON.stringify({ more: state.more, less: state.less, estimator: state.estimator, show: state.show });
    if (this.estimator.options.length !== state.estimators.length)
      this.estimator.replaceChildren(...state.estimators.map(([name, label]) => el("option", { value: name }, label)));
    this.estimator.value = state.estimator;
    const shown = state.models.length > 1 ? [...state.models, "side by side"] : [];
    this.models.hidden = !shown.length;
    if (this.models.children.length !== shown.length)
      this.models.replaceChildren(...shown.map((name) => el("label", {}, el("input", { type: "radio", value: name,
        name: `model-${(this.serial ??= Math.random())}`, onchange: () => ((this.show = name), this.rank()) }),
        el("span", {}, name))));
    for (const input of this.models.querySelectorAll("input")) input.checked = input.value === state.show;
    this.progress(state.coming);
    this.trays();
    const summary = this.rankings.querySelector("summary"), title = state.ranking ? `saved ranking: ${state.ranking}` : "saved rankings";
    if (summary.textContent !== title) this.remove.textContent = "delete";
    summary.textContent = title;
    this.saved.replaceChildren(el("option", { value: "" }, "open …"), ...state.rankings.map((name) => el("option", { value: name }, name)));
    this.saved.value = state.ranking;
    this.saved.hidden = !state.rankings.length;
    if (document.activeElement !== this.name) this.name.value = state.ranking;
    this.own.forEach((button) => (button.hidden = !state.ranking));
    this.learning.hidden = state.offline || !state.votes && !state.examples.length;
    this.learn.checked = state.learn;
    this.forget.hidden = !state.examples.length;
    for (const option of this.kind.options) option.hidden = option.disabled = !state.kinds.includes(option.value);
    if (state.offline) this.offline();
    this.doubt.textContent = state.doubt;
    this.doubt.hidden = !state.doubt;
    if (fresh) this.to.value = state.folder;
    this.compare.disabled = state.photos < 2;
    this.duel.tell(state, learntText(state));
    if (fresh && !this.duel.node.hidden) this.send({ do: "pair" });
  }
  /** A bar while photos are still being encoded, and the next question how many there are. */
  progress(coming) {
    this.coming.hidden = !coming;
    clearTimeout(this.polling);
    if (!coming) return;
    const [bar, text] = this.coming.children, { photos } = this.state;
    this.begun ??= { time: Date.now(), coming };
    bar.max = photos + coming;
    bar.value = photos;
    text.textContent = comingText(photos, coming, this.begun, Date.now());
    this.polling = setTimeout(() => this.send({ do: "progress", photos }), 700);
  }
  /** The active examples, each of which can be taken back. */
  trays() {
    const rows = [...this.state.likes.keys()];
    this.thumbnails.want("tray", rows);
    const shown = JSON.stringify(rows.map((row) => [row, this.state.likes.get(row), this.thumbnails.get(row)?.url]));
    if (shown === this.inTray) return; // a button that has the focus keeps it
    this.inTray = shown;
    this.tray.hidden = !rows.length;
    this.tray.replaceChildren(...rows.map((row) => {
      const item = this.thumbnails.get(row), text = `${this.state.likes.get(row) > 0 ? "more" : "less"} like ${item?.caption ?? "this"}`;
      const take = () => this.send({ do: "example", row, likes: 0 });
      return el("li", {}, item?.url ? el("img", { src: item.url, alt: "" }) : null, el("span", {}, text),
        el("button", { type: "button", "aria-label": `take back: ${text}`, onclick: take }, "×"));
    }));
  }
  tell() {
    const { photos, more } = this.state, galleries = [...this.galleries.values()], { all, order, most } = this.active;
    this.chosen.textContent = chosenRows(all, order, this.ticked).text;
    if (document.activeElement !== this.top) this.top.value = most < Infinity ? most : "";
    this.untick.hidden = !this.ticked.size;
    galleries.forEach((gallery) => gallery.grid && gallery.fill());
    const brushed = galleries.filter((g) => g.histogram.brushed).map((g) => ({ name: g.name, shown: g.order.length }));
    this.keeps.textContent = this.kept ? `let go of ${counted(this.kept.size, "kept photo")}` : "keep shown";
    this.holds.textContent = this.held ? "let go of the second axis" : "hold as second axis";
    this.scatter.show(this.held, this.active.scores, more, this.kept, this.ticked);
    const parts = factTexts({ ...this.state, kept: this.kept, found: this.found }, brushed, galleries.length);
    this.facts.replaceChildren(`${counted(photos, "photo")} from most to least `, el("q", {}, more),
      parts.length ? ` · ${parts.join(" · ")}` : "");
  }
  paired({ items, problem, said }, buffers) {
    if (problem) return this.complain(problem), this.stop();
    this.duel.show(items, buffers);
    this.live.textContent = said;
  }
  download({ name, type }, buffer) {
    const url = URL.createObjectURL(new Blob([buffer], { type }));
    const link = el("a", { href: url, download: name });
    this.root.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
    this.done(`${name} is in this browser's downloads: ${this.chosen.textContent}`);
  }
  /** What the last save did; an earlier problem, or success, is over. */
  done(text) {
    this.complain("");
    this.placed.textContent = text;
  }
  close() {
    clearTimeout(this.waiting);
    clearTimeout(this.typing);
    clearTimeout(this.polling);
    clearTimeout(this.searching);
    this.model.off("msg:custom", this.receive);
    this.galleries.forEach((gallery) => gallery.close());
    this.thumbnails.close();
  }
}

export default {
  render({ model, el: root }) {
    const surface = new Surface(model, root);
    return () => surface.close();
  },
};
