// A button opens and closes its dialog also where browsers know no `command` (Safari before 26.2).
function onClick({ target }) {
  const dialog = document.getElementById(target.closest("[commandfor]")?.getAttribute("commandfor"));
  if (dialog?.open) dialog.close();
  else dialog?.showModal();
}

if (!("command" in HTMLButtonElement.prototype)) addEventListener("click", onClick);
