// A sent text is kept until its message, with the same client id, is on the page.
import { field, form, id, prefix, put, unchanged } from "./draft.js";
import { read, uuid, write } from "./store.js";

const PATIENCE = 10_000, QUIET = 1_500, CHECK = 1_000; // ms
const LATE = "This message has not appeared yet. You can send it again; it will not be stored twice.";
const key = `${prefix}:sent`;
const note = document.getElementById("outbox");
const sent = read(key) ?? {}; // client id -> { text, at }
let connected = null; // since when, ms

const shown = (clientId) => document.querySelector(`#messages > [data-client-id="${CSS.escape(clientId)}"]`);

export function keep(text, clientId, place = key) {
  if (shown(clientId)) return;
  const kept = place === key ? sent : read(place) ?? {};
  kept[clientId] = { text, at: Date.now() };
  write(place, kept);
}

function say(sentence) {
  if (note.textContent !== sentence) note.textContent = sentence;
  note.hidden = !sentence;
}

function drop() {
  const done = Object.keys(sent).filter(shown);
  done.forEach((clientId) => delete sent[clientId]);
  if (done.length) write(key, Object.keys(sent).length ? sent : null);
  if (shown(id())) put(unchanged() ? "" : field.value, uuid());
}

function giveBack([clientId, { text }]) {
  delete sent[clientId];
  put(text, clientId, text);
  write(key, Object.keys(sent).length ? sent : null);
  say(LATE);
}

function check() {
  drop();
  const [oldest] = Object.entries(sent);
  if (!oldest) return say(note.textContent === LATE && field.value ? LATE : "");
  const { text, at } = oldest[1], now = Date.now();
  if (connected && now - Math.max(at, connected) > PATIENCE && !field.value) giveBack(oldest);
  else say(now - at > QUIET ? `Sending: ${text}` : "");
}

if (form && document.getElementById("messages")) {
  document.addEventListener("htmx:after:ws:connection", () => (connected = Date.now()));
  document.addEventListener("htmx:ws:close", () => (connected = null));
  new MutationObserver(check).observe(document.getElementById("messages"), { childList: true });
  setInterval(check, CHECK);
  check();
}
