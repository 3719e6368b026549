
// A page that `pcclip export-page` wrote: the same surface, answered by this code from the data in the file.
const data = JSON.parse(document.getElementById("data").textContent);
const bytes = (text) => {
  const letters = atob(text), array = new Uint8Array(letters.length);
  for (let k = 0; k < array.length; k++) array[k] = letters.charCodeAt(k);
  return array;
};
const view = (array) => new DataView(array.buffer, array.byteOffset, array.byteLength);
const vectors = new Int8Array(bytes(data.vectors).buffer), width = vectors.length / data.photos.length;
const listeners = new Set(), votes = [], none = new Uint8Array();
let unsaved = 0; // answers, since they were last downloaded; without them the browser lets go of the page at once
addEventListener("beforeunload", (event) => unsaved && event.preventDefault());

/** Prior covariance of two photos' scores, in squared logits. */
const kernel = (a, b) => {
  let sum = 0;
  for (let k = 0; k < width; k++) sum += vectors[a * width + k] * vectors[b * width + k];
  return data.width ** 2 * data.scales[a] * data.scales[b] * sum + (a === b ? data.own ** 2 : 0);
};
const counts = () => votes.filter(({ choice }) => choice !== "skip");
const preferring = () => votes.filter(({ choice }) => choice === "first" || choice === "second");

const scores = () => {
  const outcomes = counts().map(({ choice }) => ({ first: 1, second: 0, tie: 0.5 })[choice]);
  const logits = learntScores(data.logits, kernel, counts().map(({ pair }) => pair), outcomes);
  return Float32Array.from(logits, (logit) => logit / data.length);
};

const answers = {
  hello: () => {
    const now = scores(), agree = preferring().filter(({ pair: [a, b], choice }) => now[a] > now[b] === (choice === "first")).length;
    const state = { ...data.state, votes: counts().length, preferred: preferring().length, agree };
    return [{ is: "ranking", ...state }, [now, none, none].map(view)];
  },
  thumbnails: ({ rows }) => [{ is: "thumbnails", items: rows.map(item) }, rows.map(picture)],
  look: ({ row }) => [{ is: "photo", item: item(row) }, [picture(row)]],
  search: ({ text }) => {
    const names = data.photos.map(({ caption, path }) => `${caption}\n${path}`.toLowerCase());
    return [{ is: "found", rows: [...names.keys()].filter((row) => names[row].includes(text.toLowerCase())) }];
  },
  pair: () => {
    const pair = freshPair(data.photos.length, votes.map((vote) => vote.pair), Math.random);
    if (!pair) return [{ is: "pair", problem: "every pair was asked" }];
    return [{ is: "pair", items: pair.map(item), said: `Left: ${item(pair[0]).caption}. Right: ${item(pair[1]).caption}.` }, pair.map(picture)];
  },
  vote: ({ first, second, choice }) => void (unsaved = votes.push({ pair: [first, second], choice, time: new Date().toISOString() })),
  undo: () => void (votes.pop(), (unsaved = votes.length)),
  export: ({ kind, rows }) => {
    const now = scores(), order = [...orderByScore(now)], chosen = new Set(rows ?? order), { more, less, panels, estimator } = data.state;
    const records = order.map((row, k) => ({ rank: k + 1, path: data.photos[row].path, caption: data.photos[row].caption,
      score: now[row], more, less, model: panels[0], estimator, row })).filter(({ row }) => chosen.has(row));
    const own = votes.map(({ pair: [a, b], choice, time }) => ({ first: data.photos[a].path, second: data.photos[b].path, choice,
      first_content: data.photos[a].content, second_content: data.photos[b].content, attribute: data.attribute, time }));
    const text = tableText(kind, kind === "votes" ? own : records.map(({ row, ...record }) => record));
    if (kind === "votes") unsaved = 0;
    return [{ is: "file", name: `${data.name}.${kind === "csv" ? "csv" : "jsonl"}`, type: "text/plain" }, [new TextEncoder().encode(text)]];
  },
};
const item = (row) => ({ row, caption: data.photos[row].caption, path: data.photos[row].path, problem: data.photos[row].problem });
const picture = (row) => view(bytes(data.photos[row].jpeg));
const answer = (content) => {
  const [said, buffers] = answers[content.do](content) ?? [];
  if (said) return listeners.forEach((listener) => listener(said, buffers ?? []));
  answer({ do: "hello" });
  answer({ do: "pair" });
};

// the first photos are in the page itself, above the data, until a tile has its own picture
const main = document.querySelector("main"), first = document.getElementById("first");
main.addEventListener("load", ({ target }) => target.closest(".tile") && first.remove(), { capture: true });
setTimeout(() => first.remove(), 2000); // a photo that cannot be read has no picture
page.render({
  model: {
    send: (content) => queueMicrotask(() => answer(content)),
    on: (_, listener) => listeners.add(listener),
    off: (_, listener) => listeners.delete(listener),
  },
  el: main,
});
