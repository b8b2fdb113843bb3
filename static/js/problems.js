// What went wrong, said in one sentence above the composer.
const UNREACHABLE = "The server could not be reached. Your text is kept; try again.";
const SIGNED_OUT = "You are signed out. Your text is kept; log in again and send it.";
const REFUSED = "The server did not accept this. Your text is kept; try again.";
const MARK = "data-problem"; // in the server's own sentence, messages/_error.html
const place = document.getElementById("composer-error");

function say(sentence) {
  const line = document.createElement("p");
  line.className = "alert";
  line.setAttribute("role", "alert");
  line.textContent = sentence;
  place.replaceChildren(line);
}

function onAnswer(event) {
  const { ctx } = event.detail, { status, raw } = ctx.response;
  if (event.defaultPrevented) return;
  if (raw.redirected && status < 400) return refuse(event, SIGNED_OUT);
  if (status < 400) return;
  if (!ctx.text.includes(MARK)) return refuse(event, status < 500 ? REFUSED : UNREACHABLE);
  ctx.target = place;
  ctx.swap = "innerHTML";
}

function refuse(event, sentence) {
  event.preventDefault();
  say(sentence);
}

if (place) {
  const clear = () => place.replaceChildren();
  document.addEventListener("input", clear);
  document.addEventListener("htmx:before:request", clear);
  document.addEventListener("htmx:after:request", onAnswer);
  document.addEventListener("htmx:error", ({ detail: { ctx } }) => ctx && !ctx.response && say(UNREACHABLE));
}
