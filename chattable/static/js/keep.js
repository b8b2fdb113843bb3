// What a page has is changed in place: what is selected, focused, scrolled or open stays so.
const SINCE = /(?<=\?since=)\d+$/;
let since, socket;

// hx-ws always connects to its first address: what has come since is not asked for again.
globalThis.WebSocket = class extends WebSocket {
  constructor(url, ...more) {
    super(`${url}`.replace(SINCE, (first) => since ?? first), ...more);
    if (SINCE.test(url)) socket = this;
  }
};

htmx.config.morphIgnore.push("open");
htmx.registerExtension("chattable", {
  htmx_before_ws_message: (_, { message }) => void (since = message.json?.since ?? since),
  htmx_before_swap(source, { tasks }) {
    // Where something else has changed what is ours, the server sends it whole.
    if (source.matches("[hx-ws\\:connect]") && tasks.some(({ target }) => !target)) socket?.close();
    for (const task of tasks) {
      for (const article of task.swapSpec.style === "upsert" ? [...task.fragment.children] : []) {
        const target = document.querySelector(`${task.target} > #${article.id}`), fragment = new DocumentFragment();
        if (target) fragment.append(article), tasks.push({ ...task, fragment, target, swapSpec: { style: "outerMorph" } });
      }
    }
  },
  htmx_before_morph_node(shown, { newNode }) {
    const length = newNode.getAttribute?.("hx-morph-skip-children"); // of the body's text, which is not sent
    if (length && length != shown.textContent.length) socket?.close();
    return !length;
  },
});
