// What follows a post of the composer: the text is cleared only when the server accepted it.
import { field, form, id, prefix, put } from "./draft.js";
import { keep } from "./outbox.js";

let posted = { text: "", id: "" };

// The message may be on the page before this answer is, and then the composer is another's already.
function accept(place) {
  const { value } = field;
  keep(posted.text, posted.id, place);
  if (id() === posted.id) put(value.startsWith(posted.text) ? value.slice(posted.text.length) : value);
  document.dispatchEvent(new Event("chattable:sent"));
}

// A new chat's text waits under the key of the chat it became, whose page htmx opens then.
function onAnswer({ detail: { ctx } }) {
  if (ctx.sourceElement !== form) return;
  const [chat] = ctx.hx.redirect?.match(/\d+$/) ?? [];
  if (chat) accept(`${prefix.replace(/new$/, chat)}:sent`);
  else if (ctx.response.status === 204) accept();
}

if (form) {
  addEventListener("htmx:before:request", ({ detail: { ctx } }) => {
    if (ctx.sourceElement === form) posted = { text: ctx.request.body.get("content"), id: id() };
  });
  addEventListener("htmx:after:request", onAnswer);
}
