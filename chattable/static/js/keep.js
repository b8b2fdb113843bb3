// What a page has is changed in place: what is selected, focused, scrolled or open stays so.
let since;

// hx-ws always connects to its first address: what has come since is not asked for again.
globalThis.WebSocket = class extends WebSocket {
  constructor(url, ...more) {
    super(since ? url.replace(/(\?since=)\d+$/, `$1${since}`) : url, ...more);
  }
};

document.addEventListener("htmx:before:ws:message", ({ detail }) => (since = detail.message.json?.since ?? since));

function htmx_before_swap(_, { tasks }) {
  for (const task of tasks.filter(({ swapSpec }) => swapSpec.style === "upsert")) {
    for (const article of [...task.fragment.children]) {
      const target = document.getElementById(article.id), fragment = new DocumentFragment();
      if (target) fragment.append(article), tasks.push({ ...task, fragment, target, swapSpec: { style: "outerMorph" } });
    }
  }
}

htmx.config.morphIgnore.push("open");
htmx.registerExtension("chattable", { htmx_before_swap });
