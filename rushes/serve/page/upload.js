/** Searching with an image or a clip: chosen, dropped on the page, or pasted. */

import * as api from "./api.js";
import { byId, fill, h } from "./dom.js";
import { plain } from "./problems.js";
import { call } from "./search.js";
import { closed, go, now } from "./state.js";
import { size } from "./words.js";

const SMALL = 44; // pixels of the picture on a chip
let stop = new AbortController();

export function startUpload() {
  const file = byId("file");
  byId("choose").addEventListener("click", () => file.click());
  file.addEventListener("change", () => {
    if (file.files[0]) void send(file.files[0]);
    file.value = ""; // so that the same file can be chosen again
  });
  byId("sending-stop").addEventListener("click", () => stop.abort());
  addEventListener("paste", (event) => {
    const [pasted] = event.clipboardData?.files ?? [];
    if (!pasted) return; // a text goes where it is pasted
    event.preventDefault();
    void send(pasted);
  });
  startDrop();
}

function startDrop() {
  const carries = (event) => event.dataTransfer?.types.includes("Files");
  const show = (on) => (byId("drop").hidden = !on);
  addEventListener("dragenter", (event) => carries(event) && show(true));
  addEventListener("dragover", (event) => carries(event) && event.preventDefault());
  addEventListener("dragleave", (event) => event.relatedTarget === null && show(false));
  addEventListener("drop", (event) => {
    show(false);
    if (!carries(event)) return;
    event.preventDefault();
    if (event.dataTransfer.files[0]) void send(event.dataTransfer.files[0]);
  });
}

/** Send a file, then ask with it beside whatever text there is. @param {File} file */
async function send(file) {
  stop.abort();
  const mine = (stop = new AbortController());
  const bar = byId("sending-progress");
  fill(byId("sending-name"), `Sending ${file.name || "the picture"} (${size(file.size)}) …`);
  bar.value = 0;
  byId("sending").hidden = false;
  try {
    const sent = await api.upload(file, (share) => {
      bar.value = share;
      if (share === 1) fill(byId("sending-name"), "Looking at it …");
    }, mine.signal);
    call(sent.id, file.name || "pasted picture", sent.kind === "image" ? await small(file) : undefined);
    const old = now();
    drop(old.image);
    drop(old.video);
    // an image may stand beside a text; a clip is a question of its own
    const kept = sent.kind === "video" ? { q: "", avoid: "", then: "" } : {};
    go({ ...closed(old), ...kept, tab: "search", like: "", image: "", video: "", [sent.kind]: sent.id });
    byId("q").focus();
  } catch (problem) {
    if (problem.code !== "stopped") refuse(file, problem);
  } finally {
    if (stop === mine) byId("sending").hidden = true;
  }
}

/** Tell the server that an upload is needed no longer; that it has forgotten it already is as well. @param {string} id */
export function drop(id) {
  if (id) api.forget(id).catch(() => {});
}

function refuse(file, problem) {
  const notice = byId("notice");
  const name = file.name ? `“${file.name}”: ` : "";
  const { title, hint, detail } = plain(problem);
  fill(notice, h("p", {}, h("b", {}, `${name}${title}.`), detail && ` ${detail}`, hint && ` ${hint}`),
    h("button", { type: "button", onclick: () => (notice.hidden = true) }, "All right"));
  notice.hidden = false;
}

/** The image as a small drawing; none where the browser cannot read what the server can. */
async function small(file) {
  const bitmap = await createImageBitmap(file).catch(() => null);
  if (!bitmap) return undefined;
  const canvas = h("canvas", { width: SMALL, height: SMALL, "aria-hidden": "true" });
  const side = Math.min(bitmap.width, bitmap.height);
  canvas.getContext("2d").drawImage(bitmap, (bitmap.width - side) / 2, (bitmap.height - side) / 2, side, side, 0, 0, SMALL, SMALL);
  bitmap.close();
  return canvas;
}
