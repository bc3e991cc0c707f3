/** The player: a dialog that plays on from the moment, with the strip, the reasons, and the way to the other results. */

import * as api from "./api.js";
import { copyLink, moreLike, playing } from "./card.js";
import { byId, fill, h, icon, isTyping } from "./dom.js";
import { explanationOf } from "./explain.js";
import { Film } from "./film.js";
import { end as endPreview } from "./preview.js";
import { plain, problemCard } from "./problems.js";
import { asks, body, parse } from "./query.js";
import { found } from "./results.js";
import { leave, now, open } from "./state.js";
import { stripOf } from "./strip.js";
import { clock, day, span, sureness } from "./words.js";

/** @type {Film} */
let film;
let strip = { element: null, update: () => {} };
let stop = new AbortController();
/** @type {Element | null} */
let opener = null; // what had the focus before
let stripped = ""; // the video and question that the strip is of

export function startPlayer() {
  const dialog = byId("player");
  film = new Film(byId("video"), (text) => {
    fill(byId("video-said"), text);
    byId("video-said").hidden = !text;
  });
  byId("player-close").append(icon("close"));
  byId("player-close").addEventListener("click", leave);
  dialog.addEventListener("cancel", (event) => {
    event.preventDefault(); // the address closes it, so that "back" and Esc are the same
    leave();
  });
  dialog.addEventListener("click", (event) => event.target === dialog && leave()); // beside the dialog
  dialog.addEventListener("keydown", onKey);
  byId("video").addEventListener("timeupdate", () => film.video && strip.update(film.time));
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  byId("player-like").addEventListener("click", () => moreLike(shownHit()));
  byId("player-link").addEventListener("click", () => copyLink(shownHit(), byId("player-link")));
  byId("why").addEventListener("toggle", () => byId("why").open && explain());
  byId("found").addEventListener("found", showWays);
}

/** Bring the player in line with the state. @param {import("./state.js").State} state @param {import("./state.js").State} before */
export function showPlayer(state, before) {
  const dialog = byId("player");
  const same = ["play", "segment", "from", "to"].every((name) => state[name] === before[name]);
  if (!state.play) {
    if (dialog.open) close(before);
  } else if (!same || !dialog.open) {
    endPreview();
    if (!dialog.open) {
      opener = document.activeElement;
      dialog.showModal();
      byId("player-title").focus();
    }
    void show(state);
  }
}

function close(before) {
  stop.abort();
  film.close();
  stripped = "";
  byId("player").close();
  const at = found().findIndex((hit) => is(hit, before));
  const card = document.querySelector(`#found [data-place="${at}"] a`);
  const back = card ?? (opener instanceof HTMLElement && opener.isConnected && opener !== document.body ? opener : byId("q"));
  back.focus();
  back.scrollIntoView({ block: "nearest" });
}

const is = (hit, state) => hit.video.id === state.play && hit.segment === state.segment;
const hitNow = () => found().find((hit) => is(hit, now()));

/** The hit that plays; a link may have led here without any search. */
function shownHit() {
  const state = now();
  return hitNow() ?? { segment: state.segment, start: state.from ?? 0, end: state.to ?? 0, video: film.video };
}

async function show(state) {
  stop.abort();
  stop = new AbortController();
  const { signal } = stop;
  const hit = hitNow();
  byId("why").open = false;
  fill(byId("why-body"));
  try {
    const video = hit?.video ?? (await api.video(state.play, signal));
    if (signal.aborted) return;
    head(video, hit, state);
    film.load(video, state.from ?? 0);
    await showStrip(video, state, signal);
  } catch (problem) {
    if (signal.aborted) return;
    film.close();
    const { title, hint } = plain(problem);
    fill(byId("player-title"), title);
    fill(byId("player-about"), hint);
    fill(byId("strip"));
    stripped = "";
  }
}

function head(video, hit, state) {
  fill(byId("player-title"), video.name);
  const times = state.from === null ? null : span(state.from, state.to ?? state.from);
  const said = sureness(hit?.confidence);
  fill(byId("player-about"),
    [times && `Moment ${times}`, `of ${clock(video.seconds)}`, video.folder?.replace(/\/$/, ""), day(video.date)].filter(Boolean).join(" · "),
    hit?.of_query && ` · like ${span(hit.of_query.start, hit.of_query.end)} of your clip`,
    hit?.then && [" · then at ", h("button", { type: "button", class: "plain small", onclick: () => film.seek(hit.then.start) }, span(hit.then.start, hit.then.end))],
    said && ` · ${said}`);
  const cues = hit?.cues ?? [];
  fill(byId("player-cues"), cues.map((cue) => h("button", { type: "button", class: "plain", onclick: () => film.seek(cue.start) }, h("b", {}, clock(cue.start)), ` “${cue.text}”`)));
  byId("player-cues").hidden = !cues.length;
  byId("why").hidden = !(parse(state.q).text && state.segment);
  byId("player-like").hidden = !state.segment;
  showWays();
}

function showWays() {
  const at = found().findIndex((hit) => is(hit, now()));
  byId("previous").disabled = at <= 0;
  byId("next").disabled = at < 0 || at >= found().length - 1;
}

/** Another result, without leaving the player. */
function step(by) {
  const at = found().findIndex((hit) => is(hit, now()));
  const hit = at < 0 ? undefined : found()[at + by];
  if (hit) open(playing(hit));
}

async function showStrip(video, state, signal) {
  const question = body(state);
  const wanted = JSON.stringify([video.id, question]);
  if (wanted === stripped) {
    strip.update(state.from ?? 0);
    return;
  }
  const show = (matches) => {
    strip = stripOf(video, matches, (seconds) => film.seek(seconds));
    fill(byId("strip"), strip.element, h("p", { class: "ends quiet", "aria-hidden": "true" }, h("span", {}, "0:00"),
      matches.length > 0 && h("span", {}, "the taller, the better it fits"), h("span", {}, clock(video.seconds))));
    strip.update(film.video ? Math.max(film.time, state.from ?? 0) : 0);
  };
  show([]);
  if (asks(state)) {
    const { matches } = await api.matches(video.id, question, signal);
    if (signal.aborted) return;
    show(matches);
  }
  stripped = wanted;
}

async function explain() {
  const state = now();
  const place = byId("why-body");
  const { signal } = stop;
  fill(place, h("p", { class: "quiet" }, "Comparing words and pictures …"));
  try {
    const told = await api.explain(state.segment, parse(state.q).text, signal);
    if (!signal.aborted) fill(place, explanationOf(told, (seconds) => film.seek(seconds)));
  } catch (problem) {
    if (!signal.aborted) fill(place, problemCard(problem, explain));
  }
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) return;
  const onVideo = event.target === byId("video"); // whose own keys are arrows and space
  const steps = { j: 1, k: -1, ...(onVideo ? {} : { ArrowRight: 1, ArrowLeft: -1 }) };
  if (event.key in steps && !event.target.closest(".sideways")) {
    event.preventDefault();
    step(steps[event.key]);
  } else if (event.key === " " && !onVideo && !event.target.closest("button, summary, a")) {
    event.preventDefault();
    film.toggle();
  }
}
