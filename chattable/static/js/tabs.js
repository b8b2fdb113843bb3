// Tab passes by code, tables and formulas that have their place: there is nothing to scroll.
const fits = ({ scrollWidth, clientWidth, parentElement }) => scrollWidth <= Math.min(clientWidth, parentElement.clientWidth);

// Only while the key is down: the rest of the time the page is as it was sent.
function onTab({ type, key }) {
  if (key !== "Tab") return;
  for (const stop of document.querySelectorAll(".message__body [tabindex]")) stop.tabIndex = type === "keydown" && fits(stop) ? -1 : 0;
}

for (const type of ["keydown", "keyup"]) addEventListener(type, onTab);
