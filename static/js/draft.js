// The text in the composer and its client id, kept in this browser until the server has it: each tab its own.
import { keys, read, tabName, uuid, write } from "./store.js";

export const form = document.querySelector("form[data-draft]");
export const field = form?.elements.content;
export const prefix = form?.dataset.draft;
const drafts = `${prefix}:draft`;
let tab = tabName();
let tried = null; // the text last posted under the present client id

export function put(text, id = uuid(), posted = null) {
  field.value = text;
  form.elements.client_id.value = id;
  tried = posted;
  field.dispatchEvent(new Event("input", { bubbles: true }));
}

export const id = () => form.elements.client_id.value;
export const unchanged = () => field.value === tried;

const key = () => `${drafts}:${tab}`;
const save = () => write(key(), field.value ? { text: field.value, id: id(), tried } : null);

// An id that was posted stands for the text it was posted with: other text is another message.
function settleId() {
  if (tried !== null && tried !== field.value) form.elements.client_id.value = uuid();
  tried = field.value;
  save();
}

function take(key) {
  const kept = read(key);
  if (!kept || field.value) return;
  write(key, null);
  put(kept.text, kept.tried ? kept.id : uuid(), kept.tried);
}

// An open tab holds a lock of its name. Plain http has no locks: nothing is taken from other tabs there.
const hold = () => navigator.locks?.request(tab, () => new Promise(() => {})).catch(() => {});

async function takeWhatIsLeft() {
  const { held } = await navigator.locks.query();
  const left = keys(drafts).find((key) => !held.some(({ name }) => key.endsWith(name)));
  if (left) take(left);
}

hold();
if (form) {
  field.addEventListener("input", save);
  // A duplicated tab has the same name, until one of the two writes.
  addEventListener("storage", (event) => {
    if (event.key !== key() || event.newValue === null) return;
    tab = tabName(true);
    hold();
    save();
  });
  form.addEventListener("submit", settleId, { capture: true });
  take(key());
  if (!id()) put(field.value);
  if (!field.value) takeWhatIsLeft().catch(() => {});
}
