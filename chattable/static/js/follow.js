// The page follows its end only while the reader is there, and comes back to where they were.
const NEAR = 80; // px
const page = document.scrollingElement;
const messages = document.querySelector("#messages[role=log]");
const jump = document.getElementById("jump");
const dock = document.querySelector(".dock"); // what stands before the end of the page, if anything does
const named = () => [location.hash.match(/^#(message-\d+)$/)?.[1], NEAR];
let place = history.state?.place ?? named(); // to go to: an element's id, its distance from the window's top
let landing = history.state?.place ? null : place[0]; // the message that an address has named, until it is there
let following = !place[0];
let last = 0; // where the page was scrolled to, px

const top = (message) => message.getBoundingClientRect().top;
const sought = () => document.getElementById(place[0]);
const gap = () => page.scrollHeight - page.scrollTop - page.clientHeight;

// Either the browser holds on to what is read or we do.
function show() {
  messages.style.overflowAnchor = following || place[0] ? "none" : "auto";
  if (jump) jump.hidden = following || gap() < NEAR;
}

function toEnd() {
  following = true;
  page.scrollTop = page.scrollHeight;
  last = page.scrollTop; // WebKit may tell of this and of a step up after it at once
}

// A step up is the reader leaving, however small; except where the page itself got shorter.
function onScroll() {
  if (page.scrollTop !== last && sought()) place = [];
  following = gap() < (page.scrollTop < last ? 2 : NEAR) || (following && page.scrollTop >= last);
  last = page.scrollTop;
  show();
}

function onResize() {
  if (dock) page.style.setProperty("--dock", `${dock.offsetHeight}px`);
  if (following) toEnd();
  else if (sought()) goToPlace();
  show();
}

export function notePlace() {
  const read = [...messages.querySelectorAll(":scope > [id]")].find((message) => top(message) + message.offsetHeight > NEAR);
  if (read && !place[0]) place = [read.id, top(read)];
}

// At pagehide Chromium keeps nothing of it, and Safari on a phone has no beforeunload.
function onLeave() {
  if (following) place = [];
  else notePlace();
  history.replaceState({ ...history.state, place }, "");
}

// A message that is not on the page yet is asked for. It may be in another branch, too.
export function goToPlace() {
  const message = sought(), older = document.querySelector("#older [hx-get]");
  if (!place[0]) return;
  following = false;
  if (!message && landing && !location.search) return location.replace(`?message=${landing.slice(8)}${location.hash}`);
  if (!message && older) return older.click();
  if (!message) return toEnd();
  if (landing === place[0]) land(message);
  page.scrollTop += top(message) - place[1];
  last = page.scrollTop;
}

// One that an address names is the page's target, also if it came later, and where the keyboard is.
function land(message) {
  landing = null;
  if (!message.matches(":target")) location.replace(location.href);
  message.tabIndex = -1;
  message.focus({ preventScroll: true });
}

// Keep an element where it is, whatever comes above; whoever has the end in sight still follows it.
export function hold(...kept) {
  place = kept;
  goToPlace();
  following = gap() < 2;
  show();
}

if (messages) {
  history.scrollRestoration = "manual";
  addEventListener("scroll", onScroll, { passive: true });
  addEventListener("beforeunload", onLeave);
  addEventListener("pagehide", onLeave);
  addEventListener("hashchange", () => (place = named(), landing = place[0], goToPlace()));
  addEventListener("DOMContentLoaded", goToPlace);
  jump?.addEventListener("click", toEnd);
  document.addEventListener("chattable:sent", toEnd);
  const sizes = new ResizeObserver(onResize);
  for (const element of [messages, dock]) if (element) sizes.observe(element);
  addEventListener("resize", onResize);
}
