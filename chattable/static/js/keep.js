// What a page has is changed in place: what is selected, focused, scrolled or open stays so.
let since, socket;

// hx-ws always connects to its first address: what has come since is not asked for again.
globalThis.WebSocket = class extends WebSocket {
  constructor(url, ...more) {
    socket = super(url.replace(/(?<=\?since=)\d+$/, (first) => since ?? first), ...more);
  }
};

htmx.config.morphIgnore.push("open");
htmx.registerExtension("chattable", {
  htmx_before_ws_message: (_, { message }) => void (since = message.json?.since ?? since),
  htmx_before_swap(_, { tasks }) {
    // Where something else has changed what is ours, the server sends it whole.
    if (tasks.some(({ target }) => !target)) socket?.close();
    for (const task of tasks) {
      for (const article of task.swapSpec.style === "upsert" ? [...task.fragment.children] : []) {
        const target = document.getElementById(article.id), fragment = new DocumentFragment();
        if (target) fragment.append(article), tasks.push({ ...task, fragment, target, swapSpec: { style: "outerMorph" } });
      }
    }
  },
  htmx_before_morph_node(shown, { newNode }) {
    const length = newNode.getAttribute?.("hx-morph-skip-children"); // of the body's text, which is not sent
    if (length && length != shown.textContent.length) socket.close();
    return !length;
  },
});
