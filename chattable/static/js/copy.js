// Copy a block of code, or a whole message, as it was written.
const FEEDBACK = 1_600; // ms

async function source(path) {
  const answer = await fetch(path);
  if (!answer.ok || answer.redirected) throw new Error(answer.statusText);
  return answer.text();
}

// navigator.clipboard exists on https and localhost only.
async function copy(text) {
  const blob = () => text.then((written) => new Blob([written], { type: "text/plain" }));
  // A promise, for Safari allows no copying once the click is over.
  if (globalThis.ClipboardItem && navigator.clipboard) {
    return navigator.clipboard.write([new ClipboardItem({ "text/plain": blob() })]);
  }
  if (navigator.clipboard) return navigator.clipboard.writeText(await text);
  const area = document.createElement("textarea");
  area.value = await text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

function textFor(button) {
  if (button.dataset.copy) return source(button.dataset.copy);
  return Promise.resolve(button.closest(".code").querySelector("pre").textContent);
}

async function onClick({ target }) {
  const button = target.closest(".code__copy, [data-copy]");
  if (!button || button.dataset.copied) return;
  button.dataset.copied = "true";
  const label = button.lastChild, before = label.textContent;
  label.textContent = await copy(textFor(button)).then(() => "Copied", () => "Not copied");
  setTimeout(() => { label.textContent = before; delete button.dataset.copied; }, FEEDBACK);
}

document.addEventListener("click", onClick);
