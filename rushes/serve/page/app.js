/** The page: joins its parts, and shows what the address says. */

import * as api from "./api.js";
import { byId, fill, h, icon, isTyping } from "./dom.js";
import { showLibrary } from "./library.js";
import { showPlayer, startPlayer } from "./player.js";
import { plain } from "./problems.js";
import { asks, inWords } from "./query.js";
import { askAgain, found, showResults } from "./results.js";
import { showQuestion, startSearch } from "./search.js";
import { closed, now, onChange, start, write } from "./state.js";
import { startTheme } from "./theme.js";
import { drop, startUpload } from "./upload.js";

/** What GET /v1/library said last. @type {any} */
let library = null;

function show(state, before) {
  const searching = state.tab === "search";
  byId("search-tab").hidden = !searching;
  byId("library-tab").hidden = searching;
  document.body.classList.toggle("idle", searching && !asks(state));
  for (const [id, here] of [["to-search", searching], ["to-library", !searching]]) {
    if (here) byId(id).setAttribute("aria-current", "page");
    else byId(id).removeAttribute("aria-current");
  }
  if (searching) {
    byId("to-search").href = write(closed(state)); // so that the tabs keep the question
    showQuestion(state);
    showResults(state, library);
  } else if (before.tab !== state.tab || !library) {
    void showLibrary(learn);
  }
  showPlayer(state, before);
  document.title = searching ? (asks(state) ? `${inWords(state)} – Rushes` : "Rushes") : "Library – Rushes";
}

/** Take in what the library holds; what is on the page may say something else now. */
function learn(told) {
  const grew = library?.segments !== told.segments;
  const tick = byId("search").elements.sure.closest("label");
  tick.hidden = told.calibrated === false;
  library = told;
  const waits = told.indexed && !told.ready;
  fill(byId("warming"), waits ? (told.reason === "the model is being loaded" || !told.reason ? "Warming up: the model is being loaded. You can ask already." : `Not ready: ${told.reason}`) : "");
  byId("warming").hidden = !waits;
  if (waits) setTimeout(() => api.library().then(learn, () => {}), 1000);
  if (grew && (!asks(now()) || !found().length) && now().tab === "search") askAgain(library);
}

/** A server that is gone, or a page that is locked, is said at the top; when it is back, all is asked again. */
function lost(problem) {
  const notice = byId("notice");
  const locked = problem?.code === "session";
  notice.hidden = problem === null;
  if (problem === null) {
    refresh();
    return;
  }
  const { title, hint } = plain(problem);
  fill(notice, h("p", {}, h("b", {}, `${title}. `), hint), locked ? unlocking() : h("button", { type: "button", onclick: refresh }, "Try again"));
}

/** A field for the token, which the server turns into a cookie. */
function unlocking() {
  const field = h("input", { type: "password", autocomplete: "off", required: true });
  const form = h("form", { class: "row" }, h("label", {}, "Or give the token here ", field), h("button", { type: "submit", class: "main" }, "Open"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    location.assign(`/?token=${encodeURIComponent(field.value.trim())}`);
  });
  return form;
}

function refresh() {
  api.library().then((told) => {
    byId("notice").hidden = true;
    learn(told);
    if (now().tab === "library") void showLibrary(learn);
    else if (asks(now()) && !found().length) askAgain(library);
  }, () => {});
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target) || document.querySelector("dialog[open]")) return;
  if (event.key === "/" && now().tab === "search") {
    event.preventDefault();
    byId("q").focus();
    byId("q").select();
  }
}

byId("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address is ours
  (now().tab === "search" ? byId("found") : byId("library-tab")).focus();
});
byId("search").querySelector(".box").prepend(icon("search"));
startTheme(byId("theme"));
startSearch(drop);
startUpload();
startPlayer();
addEventListener("keydown", onKey);
api.onLost(lost);
onChange(show);
start();
if (now().tab === "search") api.library().then(learn, () => {}); // the other tab asks for it itself
// where there is no mouse, focus would bring up the keyboard over half of the page
if (now().tab === "search" && !now().play && matchMedia("(hover: hover)").matches) byId("q").focus();
