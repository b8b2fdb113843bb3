// One polite line tells a screen reader how a reply ended, instead of every word of it.
const ENDINGS = { complete: "Reply complete", stopped: "Reply stopped", failed: "Reply failed" };
const RUNNING = '[data-status="pending"], [data-status="streaming"]';
const messages = document.querySelector("#messages[role=log]");
const line = document.getElementById("announcer");

function onChange(records) {
  for (const { target } of records) line.textContent = ENDINGS[target.dataset.status] ?? line.textContent;
  const busy = messages.querySelector(RUNNING) !== null;
  messages.setAttribute("aria-busy", busy);
  if (busy) line.textContent = "";
}

if (messages && line) {
  new MutationObserver(onChange).observe(messages, { childList: true });
  new MutationObserver(onChange).observe(messages, { subtree: true, attributeFilter: ["data-status"] });
  onChange([]);
}
