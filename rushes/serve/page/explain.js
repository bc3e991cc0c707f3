/** Why a moment was found: a table of the question's words against the pictures of the moment. */

import { h, hidden } from "./dom.js";
import { clock, span } from "./words.js";

/** Where each score stands between the table's lowest and highest, in [0, 1]. @param {number[][]} scores word x span */
export function heat(scores) {
  const all = scores.flat();
  const [low, high] = [Math.min(...all), Math.max(...all)];
  return scores.map((row) => row.map((score) => (high > low ? (score - low) / (high - low) : 0.5)));
}

/** A level in a word, for those who do not see the square. @param {number} level in [0, 1] */
export const strength = (level) => ["hardly", "a little", "some", "well", "very well"][Math.min(4, Math.floor(5 * level))];

/** The sentence over the table. @param {any} told what POST /v1/explain says; row `whole` is of all words together */
export function sentence(told) {
  const most = told.weights.indexOf(Math.max(...told.weights));
  const best = told.scores[most].indexOf(Math.max(...told.scores[most]));
  const what = most === told.whole ? "The sentence as a whole" : `“${told.words[most]}”`;
  return `${what} counts most, and fits best at ${span(...told.spans[best])}. The larger a square, the better the word fits the picture at that time.`;
}

/**
 * @param {{words: string[], weights: number[], spans: [number, number][], scores: number[][], whole?: number | null}} told
 * @param {(seconds: number) => void} onSeek
 */
export function explanationOf(told, onSeek) {
  if (!told.words.length || !told.spans.length) return h("p", { class: "quiet" }, "There is nothing to compare here.");
  const levels = heat(told.scores);
  const total = told.weights.reduce((sum, weight) => sum + weight, 0) || 1;
  const seek = (start) => h("button", { type: "button", class: "plain small", "aria-label": `Play at ${clock(start)}`, onclick: () => onSeek(start) }, clock(start));
  const rows = told.words.map((word, n) =>
    h("tr", {}, h("th", { scope: "row" }, n === told.whole ? h("em", {}, "the whole") : word, h("span", { class: "share" }, hidden(" counts "), `${Math.round((100 * told.weights[n]) / total)} %`)),
      levels[n].map((level, at) => cell(level, told.scores[n][at]))));
  return [
    h("p", {}, sentence(told)),
    h("div", { class: "sideways", tabindex: "0", role: "region", "aria-label": "Words against pictures" },
      h("table", { class: "heat" },
        h("caption", { class: "hidden" }, "How well each word fits each picture of the moment"),
        h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Word"), told.spans.map(([start]) => h("th", { scope: "col" }, seek(start))))),
        h("tbody", {}, rows))),
  ];
}

function cell(level, score) {
  const square = h("i", { "aria-hidden": "true" });
  square.style.setProperty("--level", level.toFixed(3));
  return h("td", { title: `${strength(level)} (${score.toFixed(2)})` }, square, hidden(strength(level)));
}
