// Ctrl or Cmd with K searches, from any page; arrow keys go through what was found.
import "./dialog.js";

const dialog = document.getElementById("search");
const field = document.getElementById("search-field");

function open() {
  if (dialog && !dialog.open) dialog.showModal();
  field.focus();
  field.select();
}

function onKey(event) {
  const { key, ctrlKey, metaKey, shiftKey, altKey, isComposing } = event;
  const step = { ArrowDown: 1, ArrowUp: -1 }[key];
  if (key.toLowerCase() === "k" && (ctrlKey || metaKey) && !shiftKey && !altKey) event.preventDefault(), open();
  if (!step || isComposing || !event.target.closest(".search, .search__results")) return;
  const stops = [field, ...document.querySelectorAll("#search-results a")];
  stops[stops.indexOf(document.activeElement) + step]?.focus();
  event.preventDefault();
}

// The page is asked for with its message, however far up and in whichever branch that is.
function onClick({ target }) {
  const link = target.closest("#search-results a");
  const [, message] = link?.hash.match(/^#message-(\d+)$/) ?? [];
  if (message) link.search = `?message=${message}`;
}

if (field) {
  document.addEventListener("keydown", onKey);
  document.addEventListener("click", onClick);
}
