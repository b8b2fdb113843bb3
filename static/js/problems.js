// What went wrong, said in one sentence above the composer.
const UNREACHABLE = "The server could not be reached. Your text is kept; try again.";
const SIGNED_OUT = "You are signed out. Your text is kept; log in again and send it.";
const REFUSED = "The server did not accept this. Your text is kept; try again.";
const NO_FILES = "Files cannot be sent here yet. Paste their text instead.";
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

// A browser would open a dropped file in the place of the chat.
function onFiles(event) {
  const { types } = event.dataTransfer ?? event.clipboardData;
  if (!types.includes("Files") || types.includes("text/plain")) return;
  event.preventDefault();
  if (event.type !== "dragover") say(NO_FILES);
}

if (place) {
  for (const name of ["dragover", "drop", "paste"]) document.addEventListener(name, onFiles);
  const clear = () => place.replaceChildren();
  document.addEventListener("input", clear);
  document.addEventListener("htmx:before:request", clear);
  document.addEventListener("htmx:after:request", onAnswer);
  document.addEventListener("htmx:error", ({ detail: { ctx } }) => ctx && !ctx.response && say(UNREACHABLE));
}
