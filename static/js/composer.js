// The composer's keys and height.
import { field, form } from "./draft.js";

const IME_KEYCODE = 229; // Safari ends a composition before its Enter; the key code still tells
const touch = matchMedia("(pointer: coarse)");

function sends(event) {
  const plain = event.key === "Enter" && !event.shiftKey && !event.altKey && !event.ctrlKey && !event.metaKey;
  return plain && !event.isComposing && event.keyCode !== IME_KEYCODE && !touch.matches;
}

function onKey(event) {
  const commanded = event.key === "Enter" && (event.ctrlKey || event.metaKey);
  if (!sends(event) && !commanded) return;
  event.preventDefault();
  if (field.value.trim() && !event.repeat) form.requestSubmit();
}

function grow() {
  field.style.blockSize = "auto";
  field.style.blockSize = `${field.scrollHeight}px`;
}

if (form) {
  field.addEventListener("keydown", onKey);
  if (!CSS.supports("field-sizing", "content")) field.addEventListener("input", grow);
}
