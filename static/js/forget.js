// Logging out, or deleting a chat, removes what this browser kept for it.
import "./dialog.js";
import { forget } from "./store.js";

addEventListener("submit", ({ target }) => target.dataset.forget && forget(target.dataset.forget));
