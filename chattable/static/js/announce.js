// One polite line tells a screen reader that a model thinks and how its reply ended, not every word of it.
const ENDINGS = { complete: "Reply complete", stopped: "Reply stopped", failed: "Reply failed" };
const messages = document.querySelector("#messages[role=log]");
const line = document.getElementById("announcer");

function onChange(records) {
  for (const { target } of records) line.textContent = ENDINGS[target.dataset.status] ?? line.textContent;
  const busy = messages.querySelector(":scope > :is([data-status=pending], [data-status=streaming])");
  messages.ariaBusy = !!busy;
  if (busy) line.textContent = "thinking" in busy.dataset ? "Thinking" : "";
}

if (messages && line) {
  new MutationObserver(onChange).observe(messages, { childList: true });
  new MutationObserver(onChange).observe(messages, { subtree: true, attributeFilter: ["data-status", "data-thinking"] });
  onChange([]);
}
