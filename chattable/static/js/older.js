// Earlier messages appear above without moving what is being read.
import { goToPlace, notePlace } from "./follow.js";

const messages = document.querySelector("#messages[role=log]");
const isOlder = ({ ctx }) => ctx.target === messages && ctx.swap === "afterbegin";

document.addEventListener("htmx:before:swap", ({ detail }) => {
  if (isOlder(detail)) notePlace();
});

document.addEventListener("htmx:after:swap", ({ detail }) => {
  if (!isOlder(detail)) return;
  goToPlace();
  const first = messages.querySelector(".message");
  first.tabIndex = -1;
  first.focus({ preventScroll: true });
});
