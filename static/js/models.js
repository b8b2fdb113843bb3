// One of many models is found by a part of its name: the list keeps what matches, and the first is picked.
import { field, form } from "./draft.js";

const NONE = "No model has this in its name.";
const find = document.getElementById("find");
const models = form?.elements.model;

function narrow() {
  const words = find.value.toLowerCase().split(" ");
  for (const model of models.options) {
    model.hidden = model.disabled = !words.every((word) => model.value.toLowerCase().includes(word));
  }
  const first = models.querySelector("option:enabled");
  find.setCustomValidity(first ? "" : NONE);
  if (first && find.value) first.selected = true;
}

function settle() {
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

if (find) {
  find.hidden = false;
  find.addEventListener("input", narrow);
  find.addEventListener("keydown", onKey);
  models.addEventListener("change", settle);
  models.addEventListener("keydown", ({ key, ctrlKey, metaKey }) => /^\S$/.test(key) && !ctrlKey && !metaKey && find.focus());
}
