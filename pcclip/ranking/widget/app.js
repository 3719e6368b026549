
// The page of `pcclip app`: messages go to the process that served it, one after the other, and answers come back.
const token = new URLSearchParams(location.search).get("token");
const listeners = new Set();
let queue = Promise.resolve();

async function ask(content) {
  const response = await fetch("/message", { method: "POST", body: JSON.stringify(content), headers: { "X-Token": token } });
  if (!response.ok) throw new Error(`the server refused: ${response.status}`);
  const data = await response.arrayBuffer(), size = new DataView(data).getUint32(0, true);
  let at = 4 + size;
  for (const [answer, sizes] of JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, size)))) {
    const buffers = sizes.map((n) => new DataView(data, (at += n) - n, n));
    listeners.forEach((listener) => listener(answer, buffers));
  }
}

page.render({
  model: {
    send: (content) => (queue = queue.then(() => ask(content)).catch(console.error)),
    on: (_, listener) => listeners.add(listener),
    off: (_, listener) => listeners.delete(listener),
  },
  el: document.querySelector("main"),
});
