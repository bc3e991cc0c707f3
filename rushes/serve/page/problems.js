/** Says what went wrong in plain words, with a way out. */

import { h } from "./dom.js";

/** The server speaks to programs; these are the same things said to a person: [title, hint]. */
const PLAIN = {
  "unknown-upload": ["The image or clip is no longer there", "It was kept for a while only. Choose it again."],
  "unknown-segment": ["This moment is no longer in the library", "The library has changed since. Search again."],
  "unknown-video": ["This video is no longer in the library", "It was removed or changed since. Search again."],
  "video-gone": ["The file of this video is gone", "It was moved or deleted. Index the library again to bring it up to date."],
  "video-changed": ["The file of this video has changed", "Index the library again to bring it up to date."],
  "outside": ["This video cannot be shown", "Its file lies outside the library's folder."],
  "not-indexed": ["Nothing is indexed yet", "Go to the library and start indexing; you can search as soon as the first videos are done."],
  "too-large": ["The file is too large", "Take a shorter clip or a smaller image."],
  "uploads-full": ["Too many files were sent lately", "Wait some minutes, then try again."],
  "not-media": ["This is neither an image nor a video", "Choose a picture (JPEG, PNG, WebP …) or a video clip."],
  "bad-media": ["This file cannot be used", "Choose a shorter clip or a smaller image."],
  "empty-query": ["What should it look for?", "Say what is to be seen; what to avoid is not enough by itself."],
  "not-calibrated": ["This model cannot tell likely from unlikely", "Untick “Likely ones only”."],
  "cursor-expired": ["This list has grown old", "Search again for a fresh one."],
  "cursor-mismatch": ["This list has grown old", "Search again for a fresh one."],
  "rate": ["That was a lot at once", "Wait a moment, then try again."],
  "busy": ["The server is busy", "Wait a moment, then try again."],
  "too-slow": ["It took too long", "Try again in a moment; the machine may be busy."],
  "not-ready": ["Still warming up", "Try again in a moment."],
  "no-clip": ["This moment could not be cut from its video", "The file may be damaged there. Try another result."],
  "no-frame": ["There is no picture at that time", ""],
  "job-running": ["Indexing runs already", ""],
  "internal": ["Something went wrong on the server", "Try again; its log says more."],
};

/** @param {any} problem a Problem, or an error of our own @returns {{title: string, hint: string, detail: string}} */
export function plain(problem) {
  const [title, hint] = PLAIN[problem.code] ?? [problem.title ?? "Something went wrong on this page", problem.hint ?? ""];
  const tells = !(problem.code in PLAIN) || ["bad-media", "too-large", "bad-query"].includes(problem.code);
  return { title, hint, detail: tells ? (problem.detail ?? problem.message ?? "") : "" };
}

/**
 * The problem as something to show. @param {any} problem @param {() => void} [again] what "try again" does
 * @param {...any} others further ways out
 */
export function problemCard(problem, again, ...others) {
  const { title, hint, detail } = plain(problem);
  return h("div", { class: "state problem", role: "alert" },
    h("h2", {}, title),
    detail && h("p", {}, detail),
    hint && h("p", { class: "quiet" }, hint),
    (again || others.length > 0) && h("p", { class: "row centre" },
      again && h("button", { type: "button", class: "main", onclick: again }, "Try again"), ...others));
}
