/** Plays a moment muted in its card while the pointer or the focus rests on it; one at a time. */

import { clipOf, streamOf } from "./api.js";
import { h, wantsCalm } from "./dom.js";

const REST = 250; // milliseconds that a pointer rests before anything is fetched
const LONGEST = 12; // seconds shown before it begins again
let timer = 0;
/** @type {HTMLVideoElement | null} */
let playing = null;

/** @param {HTMLElement} link @param {any} hit @param {{start: number, end: number}} moment */
export function previews(link, hit, moment) {
  const begin = () => {
    end();
    if (!wantsCalm()) timer = setTimeout(() => play(link, hit, moment), REST);
  };
  link.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && begin());
  link.addEventListener("pointerleave", end);
  link.addEventListener("focus", () => link.matches(":focus-visible") && begin());
  link.addEventListener("blur", end);
}

/** Stop whatever plays in a card. */
export function end() {
  clearTimeout(timer);
  const video = playing;
  playing = null; // first: its last events must not start it again
  if (!video) return;
  video.removeAttribute("src");
  video.load(); // lets go of the connection
  video.remove();
}

function play(link, hit, moment) {
  const last = Math.min(Math.max(moment.end, moment.start + 1), moment.start + LONGEST);
  const whole = hit.video.playable;
  const source = whole ? `${streamOf(hit.video.id)}#t=${moment.start},${last}` : clipOf(hit.video.id, moment.start, last);
  const video = h("video", { src: source, playsinline: true, loop: !whole, tabindex: "-1", "aria-hidden": "true", disablepictureinpicture: true });
  video.muted = true;
  const again = () => {
    video.currentTime = moment.start;
    void video.play().catch(end);
  };
  if (whole) {
    video.addEventListener("timeupdate", () => video.currentTime >= last && again());
    video.addEventListener("pause", () => video === playing && again()); // the fragment's end pauses it
  }
  video.addEventListener("playing", () => video.classList.add("on"), { once: true });
  video.addEventListener("error", end);
  playing = video;
  link.append(video);
  void video.play().catch(end);
}
