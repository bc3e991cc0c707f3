/** The question: the search box, the chips of its parts, and the panel of more ways to ask. */

import { byId, fill, h, hidden, icon } from "./dom.js";
import { asks, list, parse, without } from "./query.js";
import { NARROWING, NOTHING, closed, go, now } from "./state.js";
import { clock, secondsOf } from "./words.js";

const names = new Map(); // of uploads and chosen moments, by id: what their chips say
const pictures = new Map(); // small drawings of uploaded images, by id

/** Remember what an upload or a chosen moment is called. @param {string} id @param {string} name @param {HTMLCanvasElement} [picture] */
export function call(id, name, picture) {
  names.set(id, name);
  if (picture) pictures.set(id, picture);
}

/** Make the form work. @param {(id: string) => void} onDropUpload called when an upload's chip is removed */
export function startSearch(onDropUpload) {
  const form = byId("search");
  byId("choose").append(icon("picture"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (submit()) byId("more").open = false; // what was said in it is on the chips
  });
  // a text field waits for Enter: what a change adds above the panel would move it away under the pointer
  byId("more").addEventListener("change", (event) => event.target.matches("select, [type=checkbox]") && asks(typed()) && submit({ quiet: true }));
  byId("clear").addEventListener("click", () => {
    go({ ...closed(now()), ...Object.fromEntries(NARROWING.map((name) => [name, NOTHING[name]])) });
    form.elements.avoid.focus();
  });
  byId("chips").addEventListener("removed", (event) => onDropUpload(event.detail));
}

/** Ask what the form says; whether it could be asked. A length that is none is pointed at, instead of being ignored. */
function submit({ quiet = false } = {}) {
  const form = byId("search");
  for (const name of ["least", "most"]) {
    const bad = Number.isNaN(secondsOf(form.elements[name].value));
    form.elements[name].setCustomValidity(bad ? "A length is seconds, or minutes and seconds as 1:30" : "");
  }
  if (!form.checkValidity()) {
    if (!quiet) byId("more").open = true;
    if (!quiet) form.reportValidity();
    return false;
  }
  const question = typed();
  // a clip is a question of its own: what is typed now takes its place
  const video = parse(question.q).text || question.then || question.avoid ? "" : question.video;
  go({ ...closed(question), tab: "search", video });
  return true;
}

/** The state that the form's fields say, beside what is not in fields. @returns {import("./state.js").State} */
function typed() {
  const fields = byId("search").elements;
  return {
    ...now(),
    q: fields.q.value.trim(),
    avoid: list(fields.avoid.value).join(", "),
    then: fields.then.value.trim(),
    within: Number(fields.within.value) > 0 ? Number(fields.within.value) : NOTHING.within,
    spoken: fields.spoken.value,
    folder: fields.folder.value.trim(),
    least: secondsOf(fields.least.value) || null,
    most: secondsOf(fields.most.value) || null,
    after: fields.after.value,
    before: fields.before.value,
    tags: list(fields.tags.value).join(", "),
    group: fields.group.checked,
    sort: fields.sort.value,
    sure: fields.sure.checked,
  };
}

/** Bring fields and chips in line with the state. @param {import("./state.js").State} state */
export function showQuestion(state) {
  const fields = byId("search").elements;
  const values = { ...state, least: said(state.least), most: said(state.most) };
  for (const name of ["q", ...NARROWING]) {
    const field = fields[name];
    if (field.type === "checkbox") field.checked = Boolean(values[name]);
    else if (field.value !== String(values[name])) field.value = values[name];
  }
  const used = NARROWING.filter((name) => name !== "within" && state[name] !== NOTHING[name]).length;
  fill(byId("more-count"), used ? String(used) : "", used ? hidden(" in use") : null);
  byId("more-count").hidden = !used;
  fill(byId("chips"), ...chipsOf(state));
}

const said = (seconds) => (seconds === null ? "" : clock(seconds));

/** One chip for each part of the question that is not plain text. */
function chipsOf(state) {
  const pieces = parse(state.q).pieces.filter((piece) => piece.kind !== "text");
  const typed = pieces.map((piece) =>
    chip(piece.kind === "avoid" ? "without" : "then", piece.text, () => go({ ...closed(now()), q: without(state.q, piece) })),
  );
  const avoided = list(state.avoid).map((one) =>
    chip("without", one, () => go({ ...closed(now()), avoid: list(state.avoid).filter((other) => other !== one).join(", ") })),
  );
  const gone = (name) => () => go({ ...closed(now()), [name]: NOTHING[name] });
  const upload = (name) => () => {
    const id = now()[name];
    go({ ...closed(now()), [name]: "" });
    byId("chips").dispatchEvent(new CustomEvent("removed", { detail: id }));
  };
  const tags = list(state.tags).map((tag) =>
    chip("tag", tag, () => go({ ...closed(now()), tags: list(state.tags).filter((other) => other !== tag).join(", ") })),
  );
  return [
    state.image && chip("image", names.get(state.image) ?? "your image", upload("image"), pictures.get(state.image)),
    state.video && chip("clip", names.get(state.video) ?? "your clip", upload("video"), pictures.get(state.video)),
    state.like && chip("like", names.get(state.like) ?? "a moment you chose", gone("like")),
    ...typed,
    ...avoided,
    state.then && chip("then", `${state.then} (within ${state.within} s)`, gone("then")),
    state.spoken !== "with" && chip("in", state.spoken === "only" ? "subtitles only" : "pictures only", gone("spoken")),
    state.folder && chip("folder", state.folder, gone("folder")),
    state.least !== null && chip("longer than", clock(state.least), gone("least")),
    state.most !== null && chip("shorter than", clock(state.most), gone("most")),
    state.after && chip("from", state.after, gone("after")),
    state.before && chip("to", state.before, gone("before")),
    ...tags,
    state.group && chip("show", "one result a video", gone("group")),
    state.sort === "time" && chip("order", "by time", gone("sort")),
    state.sure && chip("show", "likely ones only", gone("sure")),
  ].filter(Boolean);
}

/** A part of the question with its cross. When it goes, the focus must not go with it. */
function chip(kind, text, onRemove, picture) {
  const remove = () => {
    onRemove();
    byId("q").focus();
  };
  return h("li", { class: "chip" }, picture, h("span", { class: "kind" }, kind), " ", h("span", { class: "text" }, text),
    h("button", { type: "button", class: "plain square", "aria-label": `Remove: ${kind} ${text}`, onclick: remove }, icon("close")));
}

/** Offer these folders where one can be typed. @param {string[]} folders */
export function learnFolders(folders) {
  const known = new Set([...byId("folders").options].map((option) => option.value));
  const fresh = [...new Set(folders)].filter((folder) => folder && !known.has(folder));
  byId("folders").append(...fresh.map((folder) => h("option", { value: folder })));
}
