// The sidebar keeps its place from page to page, the open chat in view; one menu serves every row.

const list = document.querySelector(".sidebar__chats");
const here = location.pathname.match(/.*\/chats\/\d+/)?.[0];
const menu = document.getElementById("chat-menu"), rename = document.getElementById("chat-rename");
const dialog = document.getElementById("chat-delete");
let row;

const remember = (name, value) => (document.cookie = `${name}=${value};path=/;max-age=31536000;samesite=lax`);
const links = () => list.querySelectorAll(`[href="${here}"]`);

function place() {
  list.scrollTop = list.dataset.top;
  links()[0]?.scrollIntoView({ block: "nearest" });
}

// What has just come from the server is any reader's.
function mark() {
  const [first, ...more] = links();
  if (more.length) first.closest(".sidebar__apart")?.remove();
  for (const link of links()) if (!link.ariaCurrent) link.ariaCurrent = "page";
}

// So many rows as were seen are asked for with the next page, before this one is left.
function keepPlace() {
  if (!list.offsetHeight) return;
  const end = list.getBoundingClientRect().bottom;
  const seen = [...list.querySelectorAll(".sidebar__row")].filter((each) => each.getBoundingClientRect().top < end);
  remember(list.dataset.cookie, `${seen.length}-${Math.round(list.scrollTop)}`);
}

function take(button) {
  row = button.closest(".sidebar__row");
  const link = row.querySelector("a"), title = link.textContent, { dataset } = dialog.querySelector("form");
  for (const form of document.querySelectorAll("[data-chat]")) form.setAttribute("hx-post", link.pathname + form.dataset.chat);
  const { pinned } = menu.elements, isPinned = "pinned" in row.dataset;
  pinned.value = isPinned ? 0 : 1;
  pinned.lastElementChild.textContent = isPinned ? "Unpin" : "Pin";
  rename.elements.title.value = title;
  dialog.querySelector("bdi").textContent = title;
  dataset.forget = `${dataset.prefix}${row.id.slice(5)}:`;
}

function begin() {
  const { top, left, width } = row.getBoundingClientRect();
  Object.assign(rename.style, { top: `${top}px`, left: `${left}px`, width: `${width}px` });
  menu.hidePopover();
  rename.showPopover();
  rename.elements.title.select();
}

if (list) {
  remember("zone", -new Date().getTimezoneOffset());
  addEventListener("click", keepPlace, { capture: true });
  document.getElementById("sidebar").addEventListener("toggle", place);
  new MutationObserver(mark).observe(list, { childList: true, subtree: true, attributeFilter: ["aria-current"] });
  list.addEventListener("click", ({ target }) => target.closest(".sidebar__more") && take(target.closest(".sidebar__more")));
  document.getElementById("chat-rename-begin").addEventListener("click", begin);
  document.addEventListener("htmx:before:request", ({ detail: { ctx } }) => {
    if (!ctx.sourceElement.matches("[data-chat]")) return;
    for (const each of [menu, rename]) each.hidePopover();
    dialog.close();
  });
  place();
}
