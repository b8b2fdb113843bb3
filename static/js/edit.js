// A message that was sent is edited in its place. What comes meanwhile leaves the text alone.
import { composing, onKey } from "./composer.js";
import { field, prefix } from "./draft.js";
import { keep } from "./outbox.js";
import { read, tabName, uuid, write } from "./store.js";

const messages = document.querySelector("#messages[role=log]");
const key = ({ id }) => `${prefix}:${id}:${tabName()}`;
let sent; // the client id of a text that was accepted and is not on the page yet

function open({ id, elements: { content } }) {
  content.value = read(key({ id })) ?? content.value;
  content.dispatchEvent(new Event("input", { bubbles: true }));
  content.focus();
  content.setSelectionRange(content.value.length, content.value.length);
}

function close(edit) {
  write(key(edit), null);
  const button = edit.parentElement.querySelector(".message__edit");
  edit.remove();
  button.focus();
}

function onKeyDown(event) {
  const { target, key } = event;
  if (target.matches(".edit textarea")) onKey(event);
  if (key !== "Escape" || composing(event) || !target.closest(".edit")) return;
  event.preventDefault();
  close(target.form ?? target.closest(".edit"));
}

// Up, in the empty composer, edits what one said last.
function onUp(event) {
  const last = [...messages.querySelectorAll(".message__edit")].at(-1);
  if (event.key !== "ArrowUp" || field.value || !last || composing(event)) return;
  event.preventDefault();
  const box = last.closest(".message").querySelector(".edit textarea");
  if (box) box.focus();
  else last.click();
}

function onClick(event) {
  if (!event.target.matches(".edit a")) return;
  event.preventDefault();
  close(event.target.closest(".edit"));
}

// A client id that was posted stands for the text it was posted with.
function onSubmit({ target: { elements: { client_id, content } } }) {
  if (content.tried !== content.value) client_id.value = uuid();
  content.tried = content.value;
}

function settle(edit, busy) {
  const button = edit.querySelector("button");
  edit.elements.content.readOnly = button.disabled = busy;
  button.textContent = busy ? "Sending…" : "Send";
}

function onAnswer({ detail: { ctx: { sourceElement: edit, response } } }) {
  if (!edit.matches(".edit")) return;
  if (response?.status !== 204) return settle(edit, false);
  write(key(edit), null);
  sent = edit.elements.client_id.value;
  keep(edit.elements.content.value, sent);
  if (edit.isConnected) field.focus({ preventScroll: true });
}

// What is swapped in has no form: it is given that of the page, which the morph then leaves alone.
function onSwap({ detail: { tasks } }) {
  for (const edit of messages.querySelectorAll(".edit")) {
    for (const { fragment } of tasks) fragment.querySelector?.(`#${edit.parentElement.id}`)?.append(edit.cloneNode(true));
  }
}

function onSwapped({ detail: { ctx } }) {
  const edit = ctx.sourceElement.matches(".message__edit") && ctx.target.querySelector(".edit");
  if (edit) open(edit);
  if (!sent || !messages.querySelector(`[data-client-id="${sent}"]`)) return;
  sent = null;
  document.dispatchEvent(new Event("chattable:sent"));
}

if (messages) {
  field.addEventListener("keydown", onUp);
  messages.addEventListener("keydown", onKeyDown);
  messages.addEventListener("click", onClick);
  messages.addEventListener("submit", onSubmit, { capture: true });
  messages.addEventListener("input", ({ target }) => target.form && write(key(target.form), target.value));
  addEventListener("htmx:before:request", ({ detail: { ctx } }) => ctx.sourceElement.matches(".edit") && settle(ctx.sourceElement, true));
  addEventListener("htmx:finally:request", onAnswer);
  addEventListener("htmx:before:swap", onSwap);
  addEventListener("htmx:after:swap", onSwapped);
}
