/** What was found: asks the server, shows the moments, and every state between nothing and the last page. */

import { search } from "./api.js";
import { cardOf } from "./card.js";
import { byId, fill, h } from "./dom.js";
import { problemCard } from "./problems.js";
import { asks, body, inWords } from "./query.js";
import { learnFolders } from "./search.js";
import { closed, go, now } from "./state.js";
import { count } from "./words.js";

const PAGE = 24;
const SLOW = 1500; // milliseconds after which an unready server is said to be warming up
const IDEAS = [
  "a dog running on grass", "children playing in the water", "a man speaks into a microphone",
  "a red car -night", "people sit around a table", "someone climbs a rock, then stands on top",
];

/** @type {any[]} */
let hits = [];
let shown = ""; // the question that `hits` answer
let stop = new AbortController();

/** The hits on the page, in their order. */
export const found = () => hits;

/** Bring the results in line with the state; asks only if the question is another one. @param {import("./state.js").State} state @param {any} library */
export function showResults(state, library) {
  const question = JSON.stringify(body(state));
  if (question === shown) return;
  stop.abort();
  shown = question;
  hits = [];
  if (asks(state)) void first(state, library);
  else showNothing(library, state);
}

/** Ask again, though the question is the same: the library has changed, or the server is back. @param {any} library */
export function askAgain(library) {
  shown = "";
  showResults(now(), library);
}

async function first(state, library) {
  stop = new AbortController();
  const { signal } = stop;
  const place = byId("found");
  place.setAttribute("aria-busy", "true");
  fill(place, skeleton());
  say("Searching …");
  const slow = setTimeout(() => say("Still searching. The first search after a start takes longer, while the model warms up."), SLOW);
  try {
    const answer = await search({ ...body(state), limit: PAGE }, signal);
    hits = answer.hits;
    show(place, state, answer);
  } catch (problem) {
    if (signal.aborted) return;
    shown = "";
    say("");
    fill(place, problemCard(problem, () => askAgain(library), ...waysOut(problem, state)));
  } finally {
    clearTimeout(slow);
    if (!signal.aborted) place.removeAttribute("aria-busy");
  }
}

function waysOut(problem, state) {
  const way = (text, changes) => h("button", { type: "button", onclick: () => go({ ...closed(state), ...changes }) }, text);
  if (problem.code === "unknown-upload") return [way("Search without it", { image: "", video: "" })];
  if (problem.code === "unknown-segment") return [way("Search without it", { like: "" })];
  if (problem.code === "not-calibrated") return [way("Show all", { sure: false })];
  if (problem.code === "not-indexed") return [h("a", { class: "button", href: "#/library" }, "To the library")];
  return [];
}

function show(place, state, answer) {
  if (!hits.length) {
    say("Nothing found.");
    fill(place, nothingFound(state));
    return;
  }
  say(spoken(answer));
  const grid = h("ol", { class: "grid" });
  const more = h("div", { class: "after" });
  fill(place, verdict(state, answer), (answer.notes ?? []).map((note) => h("p", { class: "note" }, note)), grid, more);
  grid.classList.toggle("dim", answer.match === "none");
  add(grid, answer.hits, 0);
  showMore(more, grid, state, answer);
}

function add(grid, fresh, before) {
  fresh.forEach((hit, n) => grid.append(cardOf(hit, before + n, now())));
  learnFolders(fresh.map((hit) => hit.video.folder));
  byId("found").dispatchEvent(new Event("found")); // the player may wait for its neighbours
}

/** What the list is worth, before it is read: the best may be no match at all. */
function verdict(state, answer) {
  if (answer.match === "none") {
    return h("div", { class: "state verdict" },
      h("h2", {}, "No good match"),
      h("p", {}, `Nothing in this library seems to show ${inWords(state)}. Below is what comes nearest, though it is probably something else.`));
  }
  if (answer.match === "weak") return h("p", { class: "note" }, "No sure match; some of these may be what you mean.");
  return null;
}

function spoken(answer) {
  const all = count(answer.total, "moment");
  const some = hits.length < answer.total ? `${hits.length} of ${all}` : all;
  const best = answer.match === "none" ? "No good match. Nearest: " : "";
  const seconds = Object.values(answer.seconds ?? {}).reduce((sum, one) => sum + one, 0);
  return `${best}${some}${seconds > 0 ? `, found in ${seconds < 0.95 ? `${Math.max(1, Math.round(seconds * 1000))} ms` : `${seconds.toFixed(1)} s`}` : ""}`;
}

function showMore(place, grid, state, answer) {
  if (!answer.cursor) {
    fill(place, hits.length > PAGE ? h("p", { class: "quiet" }, "That is all.") : null);
    return;
  }
  const button = h("button", { type: "button", id: "show-more" }, `Show more (${answer.total - hits.length})`);
  button.addEventListener("click", async () => {
    button.disabled = true;
    const { signal } = stop;
    try {
      const next = await search({ ...body(state), limit: PAGE, cursor: answer.cursor }, signal);
      if (signal.aborted) return;
      const before = hits.length;
      hits = [...hits, ...next.hits];
      add(grid, next.hits, before);
      say(spoken({ ...next, total: answer.total, seconds: {} }));
      showMore(place, grid, state, { ...next, total: answer.total });
      grid.children[before]?.querySelector("a")?.focus(); // where the reader was, one further
    } catch (problem) {
      if (signal.aborted) return;
      fill(place, problemCard(problem, problem.code.startsWith("cursor") ? () => askAgain(null) : () => showMore(place, grid, state, answer)));
    }
  });
  fill(place, button);
}

function nothingFound(state) {
  const narrowed = Object.keys(body(state)).some((name) => ["where", "then", "min_confidence", "spoken"].includes(name));
  return h("div", { class: "state" },
    h("h2", {}, "Nothing found"),
    h("p", {}, narrowed ? "Nothing is left by what the question is narrowed to. Remove some of the chips above." : "The library has nothing to show yet."),
    narrowed ? null : h("a", { class: "button", href: "#/library" }, "To the library"));
}

/** Before anything is asked: what can be asked, or, where nothing is indexed, how to begin. */
function showNothing(library, state) {
  const place = byId("found");
  place.removeAttribute("aria-busy");
  say("");
  if (library && !library.segments) {
    fill(place, h("div", { class: "state" },
      h("h2", {}, "Nothing is indexed yet"),
      h("p", {}, `Let Rushes look at the videos in “${library.name}” once; then you can ask for what is in them.`),
      h("a", { class: "button main", href: "#/library" }, "Index this folder")));
    return;
  }
  const idea = (text) => h("li", {}, h("button", { type: "button", class: "idea", onclick: () => go({ ...closed(state), q: text }) }, text));
  fill(place, h("div", { class: "ideas" },
    h("h2", {}, "For example"),
    h("ul", { class: "row centre" }, IDEAS.map(idea)),
    h("p", { class: "quiet" }, h("code", {}, "-night"), " or ", h("code", {}, "not at night"), " avoids something, ",
      h("code", {}, "then"), " asks for what comes next, quotes keep a phrase as it is. You can drop or paste a picture or a clip, too.")));
}

function skeleton() {
  return h("ol", { class: "grid", "aria-hidden": "true" },
    Array.from({ length: 8 }, () => h("li", { class: "card ghost" }, h("div", { class: "thumb" }), h("p", {}), h("p", { class: "short" }))));
}

const say = (text) => fill(byId("said"), text);

