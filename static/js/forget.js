// Logging out, or deleting a chat or the account, removes what this browser kept for it.
import "./dialog.js";
import { forget } from "./store.js";

for (const { dataset } of document.querySelectorAll("[data-gone]")) forget(dataset.gone);
addEventListener("submit", ({ target }) => target.dataset.forget && forget(target.dataset.forget));
