/** A strip along the whole video that shows where it matches: to be clicked, or walked from match to match by arrow keys. */

import { frameOf } from "./api.js";
import { h, svg } from "./dom.js";
import { clock, sureness } from "./words.js";

const [WIDE, HIGH] = [1000, 40];

/**
 * How high each segment stands, in [0, 1]: its confidence, or, where the model has none, its place between the
 * video's worst and best score.
 * @param {{score: number, confidence: number | null}[]} matches
 */
export function levels(matches) {
  if (matches.every((match) => typeof match.confidence === "number")) return matches.map((match) => match.confidence);
  const scores = matches.map((match) => match.score);
  const [low, high] = [Math.min(...scores), Math.max(...scores)];
  return scores.map((score) => (high > low ? (score - low) / (high - low) : 1));
}

/**
 * The places worth jumping to: of each run of segments that reach 60 % of the best, the highest one.
 * @param {{start: number}[]} matches in order of time @param {number[]} heights
 * @returns {number[]} positions in `matches`
 */
export function peaks(matches, heights) {
  const least = 0.6 * Math.max(...heights);
  const found = [];
  let run = -1; // the highest of the run at hand
  for (let n = 0; n <= matches.length; n += 1) {
    if (n < matches.length && heights[n] >= least) run = run < 0 || heights[n] > heights[run] ? n : run;
    else if (run >= 0) {
      found.push(run);
      run = -1;
    }
  }
  return found;
}

/** The time to jump to from `time`: the next of `times` in this direction, or null. @param {number[]} times ascending */
export function nextOf(times, time, direction) {
  const further = direction > 0 ? times.filter((one) => one > time + 0.3) : times.filter((one) => one < time - 1).reverse();
  return further[0] ?? null;
}

/**
 * @param {{id: string, seconds: number}} video
 * @param {{start: number, end: number, score: number, confidence: number | null}[]} matches in order of time; may be empty
 * @param {(seconds: number) => void} onSeek
 * @returns {{element: HTMLElement, update: (seconds: number) => void}}
 */
export function stripOf(video, matches, onSeek) {
  const length = Math.max(video.seconds, matches.at(-1)?.end ?? 0, 0.001);
  const heights = matches.length ? levels(matches) : [];
  const tops = matches.length ? peaks(matches, heights) : [];
  const times = tops.map((n) => matches[n].start);
  const head = h("div", { class: "head" });
  const tip = h("div", { class: "tip", hidden: true, "aria-hidden": "true" });
  const slider = h("div", {
    class: "strip", role: "slider", tabindex: "0", "aria-valuemin": 0, "aria-valuemax": length.toFixed(1), "aria-valuenow": 0,
    "aria-label": matches.length ? "Where it matches. Arrow keys go from match to match" : "Position in the video. Arrow keys go 5 seconds",
  }, drawing(matches, heights, new Set(tops), length), head, tip);

  const update = (seconds) => {
    head.style.left = `${(100 * Math.min(seconds, length)) / length}%`;
    const here = matches.findIndex((match) => seconds >= match.start && seconds < match.end);
    const said = here < 0 ? null : (sureness(matches[here].confidence) ?? `match ${Math.round(100 * heights[here])} of 100`);
    slider.setAttribute("aria-valuenow", seconds.toFixed(1));
    slider.setAttribute("aria-valuetext", `${clock(seconds)} of ${clock(length)}${said ? `, ${said}` : ""}`);
    slider.dataset.time = seconds.toFixed(2);
  };
  const seek = (seconds) => {
    update(seconds);
    onSeek(seconds);
  };
  const secondsAt = (event) => {
    const { left, width } = slider.getBoundingClientRect();
    return (Math.min(Math.max(event.clientX - left, 0), width) / width) * length;
  };

  slider.addEventListener("click", (event) => seek(secondsAt(event)));
  slider.addEventListener("keydown", (event) => {
    const time = Number(slider.dataset.time ?? 0);
    const steps = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 };
    const to = event.key in steps
      ? (matches.length ? nextOf(times, time, steps[event.key]) : Math.min(Math.max(time + 5 * steps[event.key], 0), length))
      : ({ Home: 0, End: times.at(-1) ?? length - 1, PageUp: Math.max(time - 10, 0), PageDown: Math.min(time + 10, length) }[event.key] ?? undefined);
    if (to === undefined) return;
    event.preventDefault();
    event.stopPropagation(); // the dialog's own arrow keys go from result to result
    if (to !== null) seek(to);
  });
  hover(slider, tip, video, secondsAt);
  update(0);
  return { element: slider, update };
}

/** One bar a segment, as high as it fits, and a mark over those that arrow keys go to. */
function drawing(matches, heights, tops, length) {
  const picture = svg("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  matches.forEach((match, n) => {
    const [x, end] = [(WIDE * match.start) / length, (WIDE * match.end) / length];
    const high = Math.max(2, Math.sqrt(heights[n]) * (HIGH - 6)); // the root: small ones must be told apart, too
    const width = Math.max(1.5, end - x - 1.5);
    picture.append(svg("rect", { x: x.toFixed(2), y: (HIGH - high).toFixed(2), width: width.toFixed(2), height: high.toFixed(2), class: tops.has(n) ? "top" : "" }));
    if (tops.has(n)) picture.append(svg("rect", { x: x.toFixed(2), y: 0, width: width.toFixed(2), height: 2.5, class: "mark" }));
  });
  return picture;
}

/** The picture and the time under the pointer. */
function hover(slider, tip, video, secondsAt) {
  let timer = 0;
  slider.addEventListener("pointermove", (event) => {
    if (event.pointerType !== "mouse") return;
    const seconds = secondsAt(event);
    tip.hidden = false;
    tip.style.left = `${(100 * seconds) / video.seconds}%`;
    tip.replaceChildren(clock(seconds));
    clearTimeout(timer);
    timer = setTimeout(() => {
      const image = h("img", { src: frameOf(video.id, Math.min(seconds, Math.max(0, video.seconds - 0.1)), 160), alt: "" });
      image.addEventListener("error", () => image.remove());
      tip.replaceChildren(image, clock(seconds));
    }, 180);
  });
  slider.addEventListener("pointerleave", () => {
    clearTimeout(timer);
    tip.hidden = true;
  });
}
