// A sent text is kept until its message, with the same client id, is on the page.
import { field, form, id, prefix, put, unchanged } from "./draft.js";
import { read, write } from "./store.js";

const PATIENCE = 10_000, QUIET = 1_500, CHECK = 1_000; // ms
const LATE = "This message has not appeared yet. You can send it again; it will not be stored twice.";
const messages = document.querySelector("#messages[role=log]");
const note = document.getElementById("outbox");
let connected = null; // since when, ms

const shown = (clientId) => messages?.querySelector(`:scope > [data-client-id="${CSS.escape(clientId)}"]`);

// Read anew each time: another tab of the same chat writes here, too.
function change(edit, place = `${prefix}:sent`) {
  const texts = read(place) ?? {}; // client id -> { text, at }
  edit(texts);
  write(place, Object.keys(texts).length ? texts : null);
  return Object.entries(texts);
}

export function keep(text, clientId, place) {
  if (!shown(clientId)) change((texts) => (texts[clientId] = { text, at: Date.now() }), place);
  if (!place) check();
}

function say(sentence, waiting = sentence) {
  if (note.textContent !== sentence) note.textContent = sentence;
  note.hidden = !waiting;
}

function giveBack(clientId, text) {
  change((texts) => delete texts[clientId]);
  put(text, clientId, text);
  say(LATE);
}

function check() {
  if (shown(id())) put(unchanged() ? "" : field.value);
  const [oldest] = change((texts) => Object.keys(texts).filter(shown).forEach((clientId) => delete texts[clientId]));
  if (!oldest) return say(note.textContent === LATE && field.value ? LATE : "");
  const [clientId, { text, at }] = oldest, now = Date.now();
  if (connected && now - Math.max(at, connected) > PATIENCE && !field.value) giveBack(clientId, text);
  else say(now - at > QUIET ? `Sending: ${text}` : "", true);
}

if (form && messages) {
  document.addEventListener("chattable:connection", ({ detail }) => (connected = detail ? (connected ?? Date.now()) : null));
  new MutationObserver(check).observe(messages, { childList: true });
  setInterval(check, CHECK);
  check();
}
