// Keys that work anywhere: a new chat, and "?" for all of them where nobody is writing.
import "./dialog.js";

const WRITING = "input, textarea, select, [contenteditable]";
const list = document.getElementById("shortcuts");

function onKey(event) {
  const { key, ctrlKey, metaKey, shiftKey, altKey, target } = event, control = (ctrlKey || metaKey) && !altKey;
  if (control && shiftKey && key.toLowerCase() === "o") document.querySelector(".sidebar__new").click();
  else if (key === "?" && !control && !target.matches(WRITING) && !document.querySelector("dialog[open]")) list.showModal();
  else return;
  event.preventDefault();
}

if (list) document.addEventListener("keydown", onKey);
