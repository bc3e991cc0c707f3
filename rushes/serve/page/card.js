/** One found moment as a card: picture, time, name, how sure, and what can be done with it. */

import { frameOf } from "./api.js";
import { copied, fill, h, hidden, icon } from "./dom.js";
import { previews } from "./preview.js";
import { call } from "./search.js";
import { NOTHING, address, closed, go, now, open, write } from "./state.js";
import { clock, count, day, span, steps, sureness } from "./words.js";

/** The seconds of a hit that matter most: its best moment, or all of it. @param {any} hit @returns {{start: number, end: number}} */
export const momentOf = (hit) => hit.moments?.[0] ?? { start: hit.start, end: hit.end };

/** What opens the player on a hit. @param {any} hit */
export function playing(hit) {
  const { start, end } = momentOf(hit);
  return { play: hit.video.id, segment: hit.segment, from: Number(start.toFixed(2)), to: Number(end.toFixed(2)) };
}

/** Search for what looks like a hit, and nothing else. @param {any} hit */
export function moreLike(hit) {
  call(hit.segment, `${hit.video.name} at ${clock(momentOf(hit).start)}`);
  const kept = { spoken: NOTHING.spoken, folder: now().folder, tags: now().tags, group: now().group };
  go({ ...NOTHING, ...kept, like: hit.segment });
  document.getElementById("found")?.focus({ preventScroll: true });
  scrollTo({ top: 0 });
}

/** Put a link to a hit on the clipboard and say so on the button. @param {any} hit @param {HTMLElement} button */
export async function copyLink(hit, button) {
  const link = address({ ...closed(now()), ...playing(hit) });
  const said = [...button.childNodes];
  fill(button, (await copied(link)) ? "Copied" : "Not allowed");
  setTimeout(() => fill(button, said), 1600);
}

/** @param {any} hit @param {number} place from 0 @param {import("./state.js").State} state @returns {HTMLLIElement} */
export function cardOf(hit, place, state) {
  const moment = momentOf(hit);
  const times = span(moment.start, moment.end);
  const said = sureness(hit.confidence);
  const alike = (hit.merged ?? 1) - 1;
  const link = h("a", { class: "thumb", href: write({ ...closed(state), ...playing(hit) }),
    "aria-label": `${hit.video.name}, ${times}${said ? `, ${said}` : ""}` },
    picture(hit, moment),
    h("span", { class: "badge time" }, times),
    alike > 0 && h("span", { class: "badge alike", title: `${count(alike, "moment")} beside it look much the same` }, `+${alike} alike`));
  link.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return; // a new tab is the browser's business
    event.preventDefault();
    open(playing(hit));
  });
  previews(link, hit, moment);
  const copy = h("button", { type: "button", class: "plain small", onclick: () => copyLink(hit, copy) }, icon("link"), "Copy link");
  return h("li", { class: "card", "data-place": place },
    link,
    h("p", { class: "name", title: `${hit.video.folder ?? ""}${hit.video.name}` }, hit.video.name),
    h("p", { class: "quiet about" }, [hit.video.folder?.replace(/\/$/, ""), day(hit.video.date)].filter(Boolean).join(" · ")),
    said && surenessBar(hit.confidence, said),
    hit.of_query && h("p", { class: "fact" }, `like ${span(hit.of_query.start, hit.of_query.end)} of your clip`),
    hit.then && h("p", { class: "fact" }, "then at ", h("b", {}, span(hit.then.start, hit.then.end))),
    cuesOf(hit),
    h("p", { class: "row acts" },
      h("button", { type: "button", class: "plain small", onclick: () => moreLike(hit) }, icon("like"), "More like this"), copy));
}

/** Confidence as a word and a bar of five steps. @param {number} confidence @param {string} said */
export function surenessBar(confidence, said) {
  const full = steps(confidence);
  return h("p", { class: "sure", title: `${Math.round(confidence * 100)} %` },
    h("span", { class: "steps", "aria-hidden": "true" }, Array.from({ length: 5 }, (_, n) => h("i", { class: n < full ? "full" : "" }))),
    said, hidden(`, ${Math.round(confidence * 100)} percent`));
}

/** The subtitle that matched, if any did. @param {any} hit */
export function cuesOf(hit) {
  const [cue] = hit.cues ?? [];
  return cue ? h("p", { class: "cue" }, `“${cue.text}”`, hidden(` said at ${clock(cue.start)}`)) : null;
}

/** The segment's own picture, or a frame of the moment where it has none; a plain field where neither can be had. */
function picture(hit, moment) {
  const frame = frameOf(hit.video.id, (moment.start + moment.end) / 2, 320);
  const image = h("img", { src: hit.thumbnail ?? frame, alt: "", loading: "lazy", decoding: "async", width: 320, height: 180 });
  image.addEventListener("error", () => {
    if (image.getAttribute("src") === frame) image.classList.add("broken");
    else image.src = frame;
  });
  return image;
}
