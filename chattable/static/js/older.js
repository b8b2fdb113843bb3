// Earlier messages appear above without moving what is being read.
import { goToPlace, notePlace } from "./follow.js";

const messages = document.querySelector("#messages[role=log]");
const isOlder = ({ ctx }) => ctx.target === messages && ctx.swap === "afterbegin";

addEventListener("htmx:before:swap", ({ detail }) => isOlder(detail) && notePlace());

addEventListener("htmx:after:swap", ({ detail }) => {
  if (!isOlder(detail)) return;
  goToPlace();
  if (messages.contains(document.activeElement)) return;
  const first = messages.querySelector(".message");
  first.tabIndex = -1;
  first.focus({ preventScroll: true });
});
