// What follows a post of the composer: the text is cleared only when the server accepted it.
import { field, form, id, prefix, put } from "./draft.js";
import { keep } from "./outbox.js";

const CHAT_PATH = /^\/chats\/(\d+)$/;
let posted = { text: "", id: "" };

const destination = ({ hx, response }) =>
  hx.redirect ?? (response.raw.redirected ? response.raw.url : null);

// The message may be on the page before this answer is, and then the composer is another's already.
function accept(place) {
  const { value } = field;
  keep(posted.text, posted.id, place);
  if (id() === posted.id) put(value.startsWith(posted.text) ? value.slice(posted.text.length) : value);
  document.dispatchEvent(new Event("chattable:sent"));
}

// A new chat's text waits under the key of the chat it became.
function follow(event, url) {
  const chat = url.pathname.match(CHAT_PATH)?.[1];
  if (!chat) return;
  accept(`${prefix.replace(/new$/, chat)}:sent`);
  event.preventDefault();
  location.assign(url);
}

function onAnswer(event) {
  const { ctx } = event.detail;
  if (ctx.sourceElement !== form) return;
  const to = destination(ctx);
  if (to) follow(event, new URL(to, location.href));
  else if (ctx.response.status === 204) accept();
}

if (form) {
  document.addEventListener("htmx:before:request", ({ detail: { ctx } }) => {
    if (ctx.sourceElement === form) posted = { text: ctx.request.body.get("content"), id: id() };
  });
  document.addEventListener("htmx:after:request", onAnswer);
}
