/** The list of videos: page by page, narrowed by folder or tag, with tags to edit. */

import * as api from "./api.js";
import { byId, fill, h, icon } from "./dom.js";
import { plain } from "./problems.js";
import { learnFolders } from "./search.js";
import { open } from "./state.js";
import { clock, count, day, size } from "./words.js";

const PAGE = 50;
const narrowed = { folder: "", tag: "" };
const STATUS = { partial: "not finished yet", failed: "not indexed" };

let edits = 0; // of tags, so far: a list that was asked for before one may be older than it is
let atWork = 0; // edits that the server has not answered yet

/**
 * Show the list from its beginning. @param {boolean} [calmly] not while someone is at work in it: what they see is
 * right, and what comes may be older
 */
export async function showVideos(calmly = false) {
  const place = byId("videos-body");
  const before = edits;
  const first = await api.videos({ ...narrowed, limit: PAGE });
  if (calmly && (place.contains(document.activeElement) || edits !== before || atWork > 0)) return;
  learnFolders(first.videos.map((video) => video.folder));
  const list = h("ul", { class: "videos" }, first.videos.map(row));
  const more = h("div", { class: "after" });
  fill(place, filters(), h("p", { role: "status", class: "quiet" }, count(first.total, "video")), list, more);
  further(list, more, first.cursor);
}

function filters() {
  const field = (name, text, placeholder) =>
    h("label", {}, text, " ", h("input", { name, type: "text", value: narrowed[name], placeholder, list: name === "folder" ? "folders" : null }));
  const form = h("form", { class: "row narrow", "aria-label": "Narrow the list" }, field("folder", "Folder", "all"), field("tag", "Tag", "any"),
    h("button", { type: "submit" }, "Show"));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    narrowed.folder = form.elements.folder.value.trim();
    narrowed.tag = form.elements.tag.value.trim();
    await again();
    byId("videos-body").querySelector("button[type=submit]")?.focus();
  });
  return form;
}

async function again() {
  try {
    await showVideos();
  } catch (problem) {
    const { title, hint } = plain(problem);
    byId("videos-body").querySelector("[role=status]").textContent = `${title}. ${hint}`;
  }
}

function further(list, place, cursor) {
  if (!cursor) {
    fill(place);
    return;
  }
  const button = h("button", { type: "button" }, "Show more");
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      const next = await api.videos({ ...narrowed, limit: PAGE, cursor });
      const rows = next.videos.map(row);
      list.append(...rows);
      further(list, place, next.cursor);
      rows[0]?.querySelector("button")?.focus();
    } catch (problem) {
      if (problem.code.startsWith("cursor")) await again();
      else button.disabled = false;
    }
  });
  fill(place, button);
}

function row(video) {
  const shows = video.seconds > 0 && video.status !== "failed";
  const about = [video.folder?.replace(/\/$/, ""), video.seconds > 0 && clock(video.seconds), day(video.date), size(video.size_bytes)].filter(Boolean).join(" · ");
  const play = () => open({ play: video.id, segment: "", from: 0, to: null });
  return h("li", {},
    h("div", { class: "still" }, shows && still(video)),
    h("div", { class: "about" },
      shows ? h("button", { type: "button", class: "plain name", onclick: play }, video.name) : h("b", { class: "name" }, video.name),
      h("p", { class: "quiet" }, about, STATUS[video.status] && h("b", {}, ` · ${STATUS[video.status]}`),
        video.copies?.length > 1 && ` · ${count(video.copies.length - 1, "copy", "copies")}`),
      tagsOf(video)));
}

/** A picture from early on, but not the very first, which is often black. */
function still(video) {
  const image = h("img", { src: api.frameOf(video.id, video.seconds * 0.2, 160), alt: "", loading: "lazy", width: 96, height: 54 });
  image.addEventListener("error", () => image.remove());
  return image;
}

/** The tags of a video, each with a cross, and a button that makes room for another. */
function tagsOf(video) {
  const place = h("div", { class: "tags" });
  const change = async (changes, focus) => {
    edits += 1;
    atWork += 1;
    try {
      const told = await api.tag(video.id, changes);
      show(told?.tags ?? (await api.video(video.id)).tags);
      focus();
    } catch (problem) {
      const { title, hint } = plain(problem);
      place.querySelector("[role=alert]").textContent = `${title}. ${problem.detail || hint}`;
    } finally {
      atWork -= 1;
    }
  };
  const show = (tags) => {
    const field = h("input", { type: "text", maxlength: 60, placeholder: "a tag", "aria-label": `A tag for ${video.name}` });
    const form = h("form", { hidden: true }, field, h("button", { type: "submit", class: "small" }, "Add"));
    const more = h("button", { type: "button", class: "plain small", "aria-label": `Add a tag to ${video.name}`, onclick: () => {
      form.hidden = false;
      more.hidden = true;
      field.focus();
    } }, "+ tag");
    const back = () => place.querySelector("form + button").focus();
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const tag = field.value.trim();
      if (tag) void change({ add: [tag] }, back);
    });
    form.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      form.hidden = true;
      more.hidden = false;
      more.focus();
    });
    const remove = (tag) => h("button", { type: "button", class: "plain square", "aria-label": `Remove the tag ${tag} from ${video.name}`,
      onclick: () => change({ remove: [tag] }, back) }, icon("close"));
    fill(place, h("ul", { class: "chips", "aria-label": `Tags of ${video.name}` }, tags.map((tag) => h("li", { class: "chip" }, h("span", { class: "text" }, tag), remove(tag)))),
      form, more, h("span", { role: "alert", class: "problem-line" }));
  };
  show(video.tags ?? []);
  return place;
}
