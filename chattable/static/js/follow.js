// The page follows its end only while the reader is there.
const NEAR = 80; // px
const page = document.scrollingElement;
const messages = document.querySelector("#messages[role=log]");
const jump = document.getElementById("jump");
const dock = document.querySelector(".dock"); // what stands before the end of the page, if anything does
let following = true;
let last = 0; // where the page was scrolled to, px

const gap = () => page.scrollHeight - page.scrollTop - page.clientHeight;

function show() {
  if (jump) jump.hidden = following || gap() < NEAR;
}

function toEnd() {
  following = true;
  page.scrollTop = page.scrollHeight;
  show();
}

// A step up is the reader leaving, however small; except where the page itself got shorter.
function onScroll() {
  following = gap() < (page.scrollTop < last ? 2 : NEAR) || (following && page.scrollTop >= last);
  last = page.scrollTop;
  show();
}

function onResize() {
  if (dock) page.style.setProperty("--dock", `${dock.offsetHeight}px`);
  if (following) toEnd();
  else show();
}

if (messages) {
  history.scrollRestoration = "manual";
  addEventListener("scroll", onScroll, { passive: true });
  jump?.addEventListener("click", toEnd);
  document.addEventListener("chattable:sent", toEnd);
  const sizes = new ResizeObserver(onResize);
  [messages, dock].forEach((element) => element && sizes.observe(element));
  addEventListener("resize", onResize);
}
