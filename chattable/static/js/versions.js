// Arrow keys turn to other versions, too. What is read keeps its place then, and the pager the focus.
import { hold } from "./follow.js";

const TURNS = { ArrowLeft: "Previous version", ArrowRight: "Next version" };
const messages = document.querySelector("#messages[role=log]");
const line = document.getElementById("announcer");
const top = (element) => element.getBoundingClientRect().top;
let turned, held; // the id of the pager that was pressed; the name of its button, and what is where

function onKey(event) {
  const pager = event.target.closest(".versions__pager");
  const button = pager?.querySelector(`[aria-label="${TURNS[event.key]}"]`);
  if (!button || event.altKey || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  button.click();
}

const pager = () => document.getElementById(turned);

// The message holds still, or the pager where the message begins above the window.
function beforeSwap({ detail: { tasks } }) {
  if (!pager() || !tasks.some(({ target, swapSpec }) => target === messages && swapSpec.style === "innerMorph")) return;
  const begins = top(pager().closest(".message"));
  held = { name: document.activeElement.ariaLabel, begins, top: top(pager()) };
}

// A message that is not on the page yet is asked for, and comes with another swap: see older.js.
function afterSwap() {
  if (!held) return;
  const { name, begins, top, asked } = held, now = pager();
  if (!now && !asked) {
    held.asked = true;
    return hold(turned, top);
  }
  if (!now) return;
  held = null;
  if (begins >= 0) hold(now.closest(".message").id, begins);
  else hold(turned, top);
  line.textContent = now.ariaLabel;
  if (!now.contains(document.activeElement)) (now.querySelector(`[aria-label="${name}"]`) ?? now.firstChild).focus({ preventScroll: true });
  turned = null;
}

if (messages) {
  messages.addEventListener("keydown", onKey);
  addEventListener("htmx:before:request", ({ detail: { ctx } }) => (turned = ctx.sourceElement.closest(".versions")?.firstChild.id ?? turned));
  addEventListener("htmx:before:swap", beforeSwap);
  addEventListener("htmx:after:swap", afterSwap);
}
