// All that a live chat needs in the browser, beside htmx.
import "./live.js";
import "./keep.js";
import "./follow.js";
import "./older.js";
import "./versions.js";
import "./announce.js";
import "./thinking.js";
import "./copy.js";
import "./formulas.js";
import "./tabs.js";
