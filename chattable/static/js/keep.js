// What a page has is changed in place: what is selected, focused, scrolled or open stays so.
const SEEN = /(?<=[?&](since|listed)=)\d+/g;
const PAUSE = 5_000; // ms between two repairs
const seen = { since: null, listed: null };
let socket, mending, mendedAt = -PAUSE;

// hx-ws always connects to its first address: what has come since is not asked for again.
globalThis.WebSocket = class extends WebSocket {
  constructor(url, ...more) {
    super(`${url}`.replace(SEEN, (first, name) => seen[name] ?? first), ...more);
    if (`${url}`.includes("?since=")) socket = this;
    this.onclose = ({ reason }) => (this.reason = reason);
  }
};

// The server sends the whole again where something else has changed what is ours.
function mend() {
  mending ??= setTimeout(() => {
    mending = null;
    mendedAt = performance.now();
    socket?.close();
  }, mendedAt + PAUSE - performance.now());
}

htmx.config.morphIgnore.push("open");
htmx.registerExtension("chattable", {
  htmx_before_ws_message(_, { message }) {
    for (const name in seen) seen[name] = message.json?.[name] ?? seen[name];
    // A reply in a branch that is not looked at: only the frame that turns to another branch is.
    const away = document.querySelector("#elsewhere [data-message]")?.dataset.message;
    return !away || message.text.includes('"#elsewhere"') || !RegExp(`#?message-${away}\\b`).test(message.text);
  },
  htmx_before_swap(source, { tasks }) {
    if (source.matches("[hx-ws\\:connect]") && tasks.some(({ target }) => !target)) mend();
    for (const task of tasks) {
      for (const article of task.swapSpec.style === "upsert" ? [...task.fragment.children] : []) {
        const target = document.querySelector(`${task.target} > #${article.id}`), fragment = new DocumentFragment();
        if (target) fragment.append(article), tasks.push({ ...task, fragment, target, swapSpec: { style: "outerMorph" } });
      }
    }
  },
  htmx_before_morph_node(shown, { newNode }) {
    const length = newNode.getAttribute?.("hx-morph-skip-children"); // of the body's text, which is not sent
    if (length && length != shown.textContent.length) mend();
    return !length && !shown.id?.endsWith("-thoughts"); // the page asks for them itself
  },
});
