// Copy a block of code, or a whole message, as it was written.
const FEEDBACK = 1_600; // ms

// It exists on https and localhost only. A promise, for Safari allows no copying once the click is over.
async function copy(text) {
  const blob = async () => new Blob([await text], { type: "text/plain" });
  if (globalThis.ClipboardItem) return navigator.clipboard.write([new ClipboardItem({ "text/plain": blob() })]);
  const area = document.createElement("textarea");
  area.value = await text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

async function textFor(button) {
  if (!button.dataset.copy) return button.closest(".code").querySelector("pre").textContent;
  const answer = await fetch(button.dataset.copy);
  if (!answer.ok || answer.redirected) throw new Error(answer.statusText);
  return answer.text();
}

async function onClick({ target }) {
  const button = target.closest(".code__copy, [data-copy]");
  if (!button || button.dataset.copied) return;
  button.dataset.copied = "true";
  const label = button.lastChild, before = label.textContent;
  label.textContent = await copy(textFor(button)).then(() => "Copied", () => "Not copied");
  setTimeout(() => { label.textContent = before; delete button.dataset.copied; }, FEEDBACK);
}

addEventListener("click", onClick);
