// Earlier messages appear above without moving what is being read.
const page = document.scrollingElement;
const messages = document.querySelector("#messages[role=log]");
let fromEnd = null; // px

const isOlder = ({ ctx }) => ctx.target === messages && ctx.swap === "afterbegin";

document.addEventListener("htmx:before:swap", ({ detail }) => {
  if (isOlder(detail)) fromEnd = page.scrollHeight - page.scrollTop;
});

document.addEventListener("htmx:after:swap", ({ detail }) => {
  if (!isOlder(detail)) return;
  page.scrollTop = page.scrollHeight - fromEnd;
  const first = messages.querySelector(".message");
  first.tabIndex = -1;
  first.focus({ preventScroll: true });
});
