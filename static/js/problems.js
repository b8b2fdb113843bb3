// What went wrong, said in one sentence above the composer.
const UNREACHABLE = "The server could not be reached. Your text is kept; try again.";
const REFUSED = "The server did not accept this. Your text is kept; try again.";
const NO_FILES = "Files cannot be sent here yet. Paste their text instead.";
const MARK = "data-problem"; // in the server's own sentence, messages/_error.html
const place = document.getElementById("composer-error");

function say(sentence) {
  place.innerHTML = '<p class="alert" role="alert"></p>';
  place.firstChild.textContent = sentence;
}

function onAnswer(event) {
  const { ctx } = event.detail, { status, raw } = ctx.response;
  if (status < 400 && !raw.redirected) return; // no answer of ours redirects a page that is open
  if (ctx.text.includes(MARK)) {
    ctx.target = place;
    ctx.swap = "innerHTML";
  } else {
    event.preventDefault();
    say(status < 500 ? REFUSED : UNREACHABLE);
  }
}

// A browser would open a dropped file in the place of the chat.
function onFiles(event) {
  const { types } = event.dataTransfer ?? event.clipboardData;
  if (!types.includes("Files") || types.includes("text/plain")) return;
  event.preventDefault();
  if (event.type !== "dragover") say(NO_FILES);
}

if (place) {
  for (const name of ["dragover", "drop", "paste"]) addEventListener(name, onFiles);
  const clear = () => place.replaceChildren();
  addEventListener("input", clear);
  addEventListener("htmx:before:request", ({ detail }) => detail.ctx.request.method !== "GET" && clear());
  document.addEventListener("chattable:connection", ({ detail }) => detail && place.textContent === UNREACHABLE && clear());
  addEventListener("htmx:after:request", onAnswer);
  addEventListener("htmx:error", ({ detail: { ctx } }) => ctx && !ctx.response && say(UNREACHABLE));
}
