// Copy a block of code, or a whole message as it reads.
const FEEDBACK = 1_600; // ms

// Selecting is what leaves out what is not selectable: the heads of code blocks.
function readable(element) {
  const selection = getSelection();
  selection.selectAllChildren(element);
  const text = selection.toString();
  selection.removeAllRanges();
  return text.trim();
}

// navigator.clipboard exists on https and localhost only.
async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = document.createElement("textarea");
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

function textFor(button) {
  if (button.dataset.copy) return readable(document.getElementById(button.dataset.copy));
  return button.closest(".code").querySelector("pre").textContent;
}

async function onClick({ target }) {
  const button = target.closest(".code__copy, [data-copy]");
  if (!button || button.dataset.copied) return;
  const label = button.lastChild, before = label.textContent;
  label.textContent = await copy(textFor(button)).then(() => "Copied", () => "Not copied");
  button.dataset.copied = "true";
  setTimeout(() => { label.textContent = before; delete button.dataset.copied; }, FEEDBACK);
}

document.addEventListener("click", onClick);
