// The state of the connection, said quietly; and no page with a dead socket.
const PATIENCE = 1_500; // ms without a connection before anything is said
const STEADY = 400; // ms a connection must hold: a server in trouble accepts and closes at once
const NOT_YOURS = 1008; // the close code of a refused socket
const LOST = "Reconnecting…";
const REFUSED = "You are signed out or this chat is no longer yours. Reload the page.";
const banner = document.getElementById("connection");
let refused = false;
let losing = null;
let steadying = null;

function say(sentence) {
  banner.textContent = sentence;
  banner.hidden = !sentence;
}

function hush() {
  clearTimeout(losing);
  losing = null;
}

function onOpen() {
  steadying = setTimeout(() => (hush(), say("")), STEADY);
}

function onClose({ detail: { code } }) {
  clearTimeout(steadying);
  if (code === NOT_YOURS) {
    hush();
    refused = true;
    say(REFUSED);
  } else if (!refused && !document.hidden) {
    losing ??= setTimeout(say, PATIENCE, LOST);
  }
}

if (banner) {
  document.addEventListener("htmx:after:ws:connection", onOpen);
  document.addEventListener("htmx:ws:close", onClose);
  // This extension retries after every close code, a refusal too.
  document.addEventListener("htmx:before:ws:connection", (event) => refused && event.preventDefault());
  addEventListener("pageshow", ({ persisted }) => persisted && location.reload());
}
