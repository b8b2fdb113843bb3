// The text in the composer and its client id, kept in this browser until the server has it.
import { read, uuid, write } from "./store.js";

export const form = document.querySelector("form[data-draft]");
export const field = form?.elements.content;
export const prefix = form?.dataset.draft;
const key = `${prefix}:draft`;
let displaced = false;
let tried = null; // the text last posted under the present client id

export function put(text, id = uuid(), posted = null) {
  field.value = text;
  form.elements.client_id.value = id;
  tried = posted;
  field.dispatchEvent(new Event("input", { bubbles: true }));
}

export const id = () => form.elements.client_id.value;
export const unchanged = () => field.value === tried;

const save = () => write(key, field.value ? { text: field.value, id: id(), tried } : null);

// An id that was posted stands for the text it was posted with: other text is another message.
function settleId() {
  if (tried !== null && tried !== field.value) form.elements.client_id.value = uuid();
  tried = field.value;
  save();
}

if (form) {
  const kept = read(key);
  field.addEventListener("input", save);
  // Another tab of the same chat keeps its own text in the place of this one's.
  addEventListener("storage", (event) => (displaced ||= event.key === key && event.newValue !== null));
  addEventListener("pagehide", () => displaced && field.value && save());
  form.addEventListener("submit", settleId, { capture: true });
  if (kept && !field.value) put(kept.text, kept.id, kept.tried);
  else if (!id()) put(field.value);
}
