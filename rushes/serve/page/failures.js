/** The failure ledger: what could not be indexed, why, and another try. */

import * as api from "./api.js";
import { byId, fill, h } from "./dom.js";
import { index } from "./job.js";
import { clock, count, reasonOf, span } from "./words.js";

/** @param {{video: string, start: number | null}[]} failures @returns {Map<string, any[]>} by video, in the order they come */
export function byVideo(failures) {
  const groups = new Map();
  for (const failure of failures) groups.set(failure.video, [...(groups.get(failure.video) ?? []), failure]);
  return groups;
}

export async function showFailures() {
  const { failures } = await api.failures();
  const groups = byVideo(failures);
  byId("failures").hidden = !groups.size;
  if (!groups.size) return;
  const again = h("button", { type: "button", onclick: () => index(true) }, "Try again");
  fill(byId("failures-body"),
    h("p", {}, `${count(groups.size, "file")} could not be read, wholly or in part; all others are not affected.`),
    h("ul", { class: "ledger" }, [...groups].map(([name, those]) => h("li", {}, h("b", {}, name), h("ul", {}, those.map(line))))),
    h("p", { class: "row" }, again));
}

function line(failure) {
  const { start, end } = failure;
  const where = !start && !end ? "" : end > start ? `${span(start, end)}: ` : `From ${clock(start)} on: `; // else the whole file
  return h("li", { title: failure.reason }, where, reasonOf(failure.code, failure.reason), " ", h("code", {}, failure.code));
}
