/** Says numbers in words that people read: times, sizes, lengths, confidence, reasons. Pure functions. */

/** Seconds as on a player: 75 is 1:15, 3671 is 1:01:11. @param {number} seconds */
export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds + 1e-6));
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (n) => String(n).padStart(2, "0");
  return hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}

/** From when to when. What is shorter than a second still has two ends: 0:03–0:04. @param {number} start @param {number} end */
export function span(start, end) {
  const last = Math.max(Math.ceil(end - 1e-6), Math.floor(start) + 1);
  return `${clock(start)}–${clock(last)}`;
}

/** "1:30", "90" or "1:02:03" as seconds; null where nothing is said, NaN where it is no time. @param {string} text */
export function secondsOf(text) {
  const said = text.trim();
  if (!said) return null;
  if (!/^\d+(:\d{1,2}){0,2}$/.test(said)) return NaN;
  return said.split(":").reduce((sum, part) => 60 * sum + Number(part), 0);
}

/** @param {number} bytes */
export function size(bytes) {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (bytes >= 1000 && unit < units.length - 1) {
    bytes /= 1000;
    unit += 1;
  }
  return `${unit && bytes < 10 ? bytes.toFixed(1) : Math.round(bytes)} ${units[unit]}`;
}

/** A length of time as one says it: 40 seconds, 5 minutes, 2.5 hours. @param {number} seconds */
export function duration(seconds) {
  const say = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;
  if (seconds < 90) return say(Math.max(1, Math.round(seconds)), "second");
  if (seconds < 5400) return say(Math.round(seconds / 60), "minute");
  return say(Math.round(seconds / 360) / 10, "hour");
}

/** @param {number} n @param {string} one @param {string} [many] */
export const count = (n, one, many = `${one}s`) => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;

/** How sure the search is, in a word; null where the model cannot tell. @param {number | null | undefined} confidence */
export function sureness(confidence) {
  if (confidence === null || confidence === undefined) return null;
  if (confidence >= 0.8) return "very likely";
  if (confidence >= 0.5) return "likely";
  if (confidence >= 0.1) return "perhaps";
  return "unlikely";
}

/** The same as a number of full steps, 1 to 5; "perhaps" has two. @param {number} confidence */
export const steps = (confidence) => 1 + [0.1, 0.3, 0.5, 0.8].filter((least) => confidence >= least).length;

/** A date as the reader's own language writes it. @param {string | null | undefined} date an ISO date or time */
export function day(date) {
  const at = date ? new Date(date) : null;
  return at && !Number.isNaN(at.getTime()) ? at.toLocaleDateString(undefined, { dateStyle: "medium" }) : "";
}

const REASONS = {
  "empty": "The file is empty: nothing was copied into it.",
  "not-a-file": "This is no ordinary file.",
  "missing": "The file went away while it was being read.",
  "unreadable": "The file cannot be opened; it may belong to another user.",
  "not-a-video": "This is no video, whatever its name says, or its beginning is damaged.",
  "no-video-stream": "There is sound in it, but no picture.",
  "no-decoder": "It is coded in a way that is not understood here.",
  "no-frames": "It says that it is a video, but not one picture could be read.",
  "timeout": "Reading it took far too long, so it was left.",
  "crashed": "Reading it failed in a way that a damaged file causes.",
};

/** Why something could not be indexed; the ledger's own words where we have no plainer ones. @param {string} code @param {string} reason */
export const reasonOf = (code, reason) => REASONS[code] ?? reason;
