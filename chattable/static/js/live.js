// No page with a dead socket: a silent one is asked whether it lives, and replaced. Where none gets
// through, the page asks for the same frames over HTTP. What is wrong is said quietly.
const PATIENCE = 3, OFTEN = 2, RARELY = 15; // s: before anything is said; between questions over HTTP
const BUSY = 4, IDLE = 30, ANSWER = 5, OPENING = 30; // s of silence: then it is asked; then it is dead
const AWAITED = '#messages > :is([data-status="pending"], [data-status="streaming"]), #outbox:not([hidden])';
const banner = document.getElementById("connection") ?? document.createElement("p");
const REFUSED = {
  1008: `You are logged out here${document.querySelector("#messages[role=log]") ? ", or this chat is no longer yours" : ""}. <a href="">Reload the page</a>`,
  gone: `This chat was deleted. <a href="${banner.dataset.chats ?? "/"}">Leave this page</a>`,
};
let connection, polled, heard, asked, reached, refused, query, said;
let quiet = 0, doubt = 0, tried = 0, failures = 0, wait = 0, hurry = 0, last = Date.now();

const busy = () => document.querySelector(AWAITED);
const tell = (detail) => document.dispatchEvent(new CustomEvent("chattable:connection", { detail }));

function say(html) {
  if (html === said) return;
  banner.innerHTML = said = html;
  banner.hidden = !html;
}

function refuse(code) {
  if (REFUSED[code]) say(REFUSED[(refused = code)]);
  return refused;
}

function onMessage({ detail }) {
  if (polled) return; // over HTTP
  if (!heard) query = null, tell((heard = true));
  asked = reached = quiet = doubt = failures = 0;
  say("");
}

function onClose({ detail: { code } }) {
  if (refused || refuse(connection.socket?.reason || code)) return;
  if (!heard) connection.attempt = ++failures; // or htmx would try at once where one opens and closes
  heard = tried = 0;
  asked = failures > 0; // what has never spoken is not waited for so long
  doubt ||= 1;
  tell(false);
}

function ask() {
  wait = 1;
  hurry = 3;
  if (doubt || !connection) return;
  asked = doubt = 1;
  tried = 0;
  if (connection.socket.readyState === WebSocket.OPEN) connection.socket.send("?");
}

async function askOverHttp() {
  const before = query, [path, since] = connection.url.replace("ws", "http").split("?");
  wait = busy() || hurry-- > 0 ? OFTEN : RARELY;
  try {
    const answer = await fetch(`${path}?${query ?? since}`, { headers: { "HX-Request": "true" }, signal: AbortSignal.timeout(10_000) });
    if (refuse({ 401: 1008, 404: 1008, 410: "gone" }[answer.status])) return;
    const { frames, next } = await answer.json(), { socket } = connection;
    if (query !== before || heard) return;
    // htmx swaps what comes from its socket, whoever says that it did.
    polled = true;
    for (const data of frames) socket.dispatchEvent(new MessageEvent("message", { data }));
    polled = false;
    query = next;
    connection.config.reconnectMaxDelay = 30_000;
    tell((reached = true));
  } catch {
    reached = failures = 0; // the server is away
  }
}

function tick() {
  const { socket } = connection, slept = Date.now() - last > 5_000;
  last = Date.now();
  if (document.hidden || refused) return;
  if (!doubt && (slept || ++quiet >= (busy() ? BUSY : IDLE))) ask();
  if (!doubt) return;
  if (doubt++ > PATIENCE) say(!navigator.onLine ? "You are offline." : reached ? "Live updates are blocked here. This page asks now and then." : "Reconnecting…");
  if (failures > 1 && --wait <= 0) askOverHttp();
  if (socket.readyState === WebSocket.CLOSED) tried = 0;
  // As if the browser had noticed: htmx makes another.
  else if (++tried > (asked ? ANSWER : OPENING)) socket.dispatchEvent(new CloseEvent("close", { code: 1006 }));
}

function on(events, listener) {
  for (const event of events.split(" ")) addEventListener(event, listener);
}

on("htmx:before:ws:connection", (event) => {
  // It retries after every close code, a refusal too.
  if (refused) return event.preventDefault();
  if (!connection) setInterval(tick, 1_000);
  ({ connection } = event.detail);
});
on("htmx:before:ws:message", onMessage);
on("htmx:ws:close", onClose);
on("htmx:before:request visibilitychange online offline", ask);
on("offline", () => (doubt = PATIENCE + 1));
on("pageshow", ({ persisted }) => persisted && location.reload());
