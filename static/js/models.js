// One of many models is found by a part of its name: the list keeps what matches, and the first is picked.
import { field, form } from "./draft.js";

const NONE = "No model has this in its name.";
const find = document.getElementById("find");
const models = form?.elements.model;
let chosen; // before the search, for who gives it up

function narrow() {
  const words = find.value.toLowerCase().split(" ");
  const matches = ({ value }) => words.every((word) => value.toLowerCase().includes(word));
  for (const model of models.options) model.hidden = model.disabled = !matches(model) && model.value !== chosen;
  const first = find.value && [...models.options].find(matches);
  find.setCustomValidity(find.value && !first ? NONE : "");
  models.value = first ? first.value : chosen;
}

function settle() {
  chosen = models.value;
  find.value = "";
  narrow();
}

function onKey(event) {
  if (event.key !== "Enter") return;
  event.preventDefault();
  if (!find.reportValidity()) return;
  settle();
  field.focus();
}

// Who asks again is shown whom: see .message__retry.
const show = () => document.documentElement.style.setProperty("--model", JSON.stringify(models.value));

if (models) {
  show();
  form.addEventListener("change", show);
}
if (find) {
  find.hidden = false;
  settle();
  form.addEventListener("focusin", ({ target }) => target !== find && target !== models && settle());
  find.addEventListener("input", narrow);
  find.addEventListener("keydown", onKey);
  models.addEventListener("change", settle);
  models.addEventListener("keydown", ({ key, ctrlKey, metaKey }) => /^\S$/.test(key) && !ctrlKey && !metaKey && find.focus());
}
