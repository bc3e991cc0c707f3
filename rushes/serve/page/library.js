/** The library tab: what is there, what is being indexed, what could not be, and the list of videos. */

import * as api from "./api.js";
import { showFailures } from "./failures.js";
import { byId, fill, h } from "./dom.js";
import { showJob } from "./job.js";
import { problemCard } from "./problems.js";
import { count, size } from "./words.js";
import { showVideos } from "./videos.js";

let fresh = 0; // the last time the counts were asked for, so that a running job does not ask all the time
const EVERY = 4000;

/** Bring the whole tab up to date. @param {(library: any) => void} onLibrary told what the library holds now */
export async function showLibrary(onLibrary) {
  const again = () => void showLibrary(onLibrary);
  const library = await counts(onLibrary);
  if (!library) return;
  await Promise.all([
    part("job-body", () => showJob(library.indexed, { onProgress: () => void sometimes(onLibrary), onEnd: again }), again),
    library.indexed && part("failures-body", showFailures, again),
    part("videos-body", () => list(library.indexed), again),
  ]);
}

/** The videos, unless someone is at work in the list just now. */
async function list(indexed) {
  const place = byId("videos-body");
  if (!indexed) fill(place, h("p", { class: "quiet" }, "None yet."));
  else await showVideos(true);
}

async function part(place, show, again) {
  try {
    await show();
  } catch (problem) {
    fill(byId(place), problemCard(problem, again));
  }
}

/** What the library holds, shown and told; null where that cannot be known. */
async function counts(onLibrary) {
  fresh = Date.now();
  let library = null;
  await part("counts", async () => {
    library = await api.library();
    onLibrary(library);
    fill(byId("counts"), said(library));
  }, () => void showLibrary(onLibrary));
  return library;
}

async function sometimes(onLibrary) {
  if (Date.now() - fresh < EVERY) return;
  const library = await counts(onLibrary);
  if (library?.indexed) await part("failures-body", showFailures, () => {});
}

function said(library) {
  if (!library.indexed) return h("p", { class: "lead" }, `“${library.name}” has not been indexed yet.`);
  const fact = (term, text) => h("div", {}, h("dt", {}, term), h("dd", {}, text));
  const length = library.hours >= 1 ? `${library.hours.toFixed(1)} h` : `${Math.round(60 * library.hours)} min`;
  return [
    h("dl", { class: "facts" },
      fact("Folder", library.name),
      fact("Videos", library.videos.toLocaleString("en")),
      fact("Length", length),
      fact("Moments", library.segments.toLocaleString("en")),
      fact("Index", size(library.size_bytes)),
      fact("Model", library.model)),
    library.unfinished > 0 && h("p", { class: "note" }, `${count(library.unfinished, "video")} not finished yet; indexing goes on where it stopped.`),
    library.indexed && !library.ready && h("p", { class: "note" }, library.reason ?? "Not ready to be searched yet."),
  ];
}
