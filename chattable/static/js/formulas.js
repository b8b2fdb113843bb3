// What is selected and copied by hand has its formulas as the TeX they were written in, and its
// lists without blank lines, but for those between the paragraphs of an item.
const NOT_TEXT = "button, .code__head, .message__actions";
const ONLY_PARAGRAPH = "li > p:first-child:only-of-type";

function tex(formula) {
  const written = formula.querySelector("annotation").textContent;
  return formula.getAttribute("display") === "block" ? `\n$$${written}$$\n` : `$${written}$`;
}

// Half a formula is no TeX.
function wholeFormulas(range) {
  const around = (node) => (node.closest ? node : node.parentElement).closest("math");
  const first = around(range.startContainer), last = around(range.endContainer);
  if (first) range.setStartBefore(first);
  if (last) range.setEndAfter(last);
  return range;
}

function readable(element) {
  for (const formula of element.querySelectorAll("math")) formula.replaceWith(tex(formula));
  element.className = "chattable__copied";
  document.body.append(element);
  const text = element.innerText;
  element.remove();
  return text.trim();
}

function onCopy(event) {
  const selection = getSelection();
  if (!selection.rangeCount || event.target.closest?.("input, textarea")) return;
  const copy = document.createElement("div");
  copy.append(wholeFormulas(selection.getRangeAt(0).cloneRange()).cloneContents());
  if (!copy.querySelector(`math annotation, ${ONLY_PARAGRAPH}`)) return;
  copy.querySelectorAll(NOT_TEXT).forEach((element) => element.remove());
  copy.querySelectorAll(ONLY_PARAGRAPH).forEach((text) => text.replaceWith(...text.childNodes));
  event.clipboardData.setData("text/html", copy.innerHTML);
  event.clipboardData.setData("text/plain", readable(copy));
  event.preventDefault();
}

addEventListener("copy", onCopy);
