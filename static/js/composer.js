// The composer's keys and height; and the focus, which comes back to it.
import { field, form } from "./draft.js";
import "./models.js";

const IME_KEYCODE = 229; // Safari ends a composition before its Enter; the key code still tells
const touch = matchMedia("(pointer: coarse)");
const stop = document.querySelector(".chattable__stop");

export const composing = ({ isComposing, keyCode }) => isComposing || keyCode === IME_KEYCODE;

export function onKey(event) {
  const { key, target, shiftKey, altKey, ctrlKey, metaKey } = event;
  if (key !== "Enter" || composing(event)) return;
  if ((shiftKey || altKey || touch.matches) && !ctrlKey && !metaKey) return;
  event.preventDefault();
  if (target.value.trim() && !event.repeat) target.form.requestSubmit();
}

function onEscape(event) {
  if (event.key !== "Escape" || event.defaultPrevented || composing(event) || !stop.offsetWidth) return;
  if (!event.target.closest("select, #find") && !document.querySelector(":popover-open, dialog[open]")) stop.click();
}

function grow({ target }) {
  if (!target.matches(".composer__text")) return;
  target.style.blockSize = "auto";
  target.style.blockSize = `${target.scrollHeight}px`;
}

if (form) {
  if (!touch.matches) field.enterKeyHint = "send";
  field.addEventListener("keydown", onKey);
  if (!CSS.supports("field-sizing", "content")) document.addEventListener("input", grow);
  // What was pressed is gone as soon as it has worked. A finger's keyboard stays away.
  addEventListener("htmx:before:request", ({ detail: { ctx } }) => {
    if (ctx.request.method === "POST" && ctx.sourceElement.closest("main") && !ctx.sourceElement.closest(".versions, .edit")) (touch.matches ? form : field).focus({ preventScroll: true });
  });
}
if (stop) {
  addEventListener("keydown", onEscape);
  // The second click of two on Send is not meant for Stop.
  stop.addEventListener("click", (event) => event.detail > 1 && event.preventDefault());
}
