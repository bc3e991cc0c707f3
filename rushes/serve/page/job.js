/** The indexing job: begins it, follows it, and lets it be paused, gone on with or stopped. */

import * as api from "./api.js";
import { byId, fill, h } from "./dom.js";
import { problemCard } from "./problems.js";
import { count, duration, size } from "./words.js";

const ALIVE = ["queued", "running", "paused"];
const SILENT = 20_000; // milliseconds without news after which that is said
const LOOK = "Look for new videos";
const AGAIN = 5_000; // milliseconds until a job is watched again
const TITLE = {
  queued: "About to begin", running: "Indexing", paused: "Paused", done: "Up to date", failed: "Indexing stopped", cancelled: "Stopped",
};

let unfollow = () => {};
let news = 0; // when the job was last heard of
let told = -1; // the tenth of progress that screen readers heard of
/** @type {any} */
let shown = null;
let heard = { onProgress: () => {}, onEnd: () => {} };

setInterval(() => {
  const silence = byId("job-silence");
  if (silence) silence.hidden = !(shown?.state === "running" && Date.now() - news > SILENT);
}, 5000);

/**
 * Show the latest job and follow it if it runs. @param {boolean} indexed whether there is an index, by whatever run
 * @param {{onProgress: () => void, onEnd: () => void}} listeners
 */
export async function showJob(indexed, listeners) {
  heard = listeners;
  const { jobs } = await api.jobs();
  const latest = jobs.toSorted((a, b) => Date.parse(b.created) - Date.parse(a.created))[0] ?? null;
  if (latest && shown && latest.id === shown.id && ALIVE.includes(shown.state) && ALIVE.includes(latest.state)) return; // followed already
  shown = null;
  if (latest) show(latest);
  else fill(byId("job-body"), indexed ? h("p", {}, "Everything that was there at the last run is indexed.")
    : h("p", {}, "Rushes looks at every video once; after that you can ask for what is in it."), start(indexed ? LOOK : "Start indexing"));
  watch(latest);
}

/** Begin to index. @param {boolean} retryFailed also what failed before */
export async function index(retryFailed) {
  try {
    const job = await api.index(retryFailed);
    shown = null;
    show(job);
    watch(job);
    byId("job-title").scrollIntoView({ block: "nearest" });
  } catch (problem) {
    fill(byId("job-body"), problemCard(problem, () => index(retryFailed)));
  }
}

function watch(job) {
  unfollow();
  news = Date.now();
  if (!job || !ALIVE.includes(job.state)) return;
  unfollow = api.follow(job.id, (next) => {
    news = Date.now();
    show(next);
    if (ALIVE.includes(next.state)) heard.onProgress();
    else finish();
  }, (gone) => void look(job, gone));
}

/** The line broke: it may have been the end of the job, or too many watch it, and this page has to come again. */
async function look(job, gone) {
  const { state } = shown ?? {};
  const now = await api.job(job.id).catch(() => job);
  if (shown?.id !== job.id || !ALIVE.includes(state)) return;
  if (!ALIVE.includes(now.state)) {
    show(now);
    finish();
  } else if (gone) {
    const timer = setTimeout(() => watch(now), AGAIN);
    unfollow = () => clearTimeout(timer);
  }
}

function finish() {
  unfollow();
  heard.onEnd();
}

function show(job) {
  byId("busy").hidden = job.state !== "running";
  const place = byId("job-body");
  if (shown?.id !== job.id || shown.state !== job.state) build(place, job); // else the buttons keep the focus
  update(job);
  shown = job;
}

function start(text, retryFailed = false) {
  return h("button", { type: "button", class: "main", id: "index", onclick: (event) => {
    event.target.disabled = true;
    void index(retryFailed);
  } }, text);
}

function build(place, job) {
  const order = (text, what) => h("button", { type: "button", onclick: (event) => send(job, what, event.target) }, text);
  const hadFocus = place.contains(document.activeElement);
  fill(place,
    h("p", { class: "job-state" }, h("b", {}, TITLE[job.state]), h("span", { id: "job-video" })),
    ALIVE.includes(job.state) && [
      h("progress", { id: "job-progress", "aria-label": "Progress of indexing" }),
      h("p", { id: "job-numbers" }),
      h("p", { id: "job-silence", class: "note", hidden: true }, "No news for a while. A long or damaged video can take minutes; what is done already is kept."),
    ],
    job.report && h("p", {}, reported(job.report)),
    job.state === "cancelled" && h("p", { class: "quiet" }, "What was indexed so far is kept, and the next run goes on from there."),
    job.state === "failed" && problemCard(job.error ?? { title: "Indexing failed" }),
    h("p", { class: "row" },
      job.state === "running" && order("Pause", "pause"),
      job.state === "paused" && order("Go on", "resume"),
      ALIVE.includes(job.state) && order("Stop", "cancel"),
      job.state === "done" && start(LOOK),
      job.state === "cancelled" && start("Go on"),
      job.state === "failed" && start("Try again")));
  if (hadFocus) place.querySelector("button")?.focus();
  fill(byId("job-said"), `${TITLE[job.state]}.`);
  told = -1;
}

function update(job) {
  const [bar, numbers] = [byId("job-progress"), byId("job-numbers")];
  fill(byId("job-video") ?? h("span"), job.state === "running" && job.video ? `: ${job.video}` : "");
  if (!bar) return;
  const share = job.total_bytes > 0 ? Math.min(1, job.done_bytes / job.total_bytes) : null;
  if (share === null) bar.removeAttribute("value");
  else bar.value = share;
  fill(numbers, progress(job, share));
  const tenth = share === null ? -1 : Math.floor(10 * share);
  if (tenth > told && told >= 0) fill(byId("job-said"), `${10 * tenth} percent.`);
  told = Math.max(told, tenth);
}

/** Where a job is, in numbers: share, bytes, speed, time left. */
function progress(job, share) {
  if (job.state === "queued") return "Waiting for its turn.";
  if (share === null) return "Looking at what is new …";
  const left = job.seconds_left === null ? "time left not known yet" : job.seconds_left < 1 ? "nearly done" : `about ${duration(job.seconds_left)} left`;
  return [
    `${Math.floor(100 * share)} %`,
    `${size(job.done_bytes)} of ${size(job.total_bytes)}`,
    count(job.segments, "moment"),
    job.state === "running" && job.frames_per_second > 0 && `${Math.round(job.frames_per_second)} frames a second`,
    job.state === "running" && left,
  ].filter(Boolean).join(" · ");
}

/** What a run did, in a sentence. */
export function reported(report) {
  const parts = [
    report.videos > 0 ? `${count(report.videos, "video")} indexed` : "nothing new",
    report.unchanged > 0 && `${report.unchanged} unchanged`,
    report.moved > 0 && `${report.moved} moved`,
    report.removed > 0 && `${report.removed} gone`,
    report.failed > 0 && `${report.failed} not readable (see below)`,
    report.ignored > 0 && `${count(report.ignored, "file")} passed over, because by their names they are no videos`,
  ].filter(Boolean);
  return `Last run: ${parts.join(", ")}; it took ${duration(report.seconds)}.`;
}

async function send(job, what, button) {
  button.disabled = true;
  try {
    const next = await api.order(job.id, what);
    if (next?.state) show(next);
    if (next?.state && !ALIVE.includes(next.state)) finish();
  } catch (problem) {
    if (problem.code === "job-state") void look(job, false);
    else fill(byId("job-numbers") ?? byId("job-body"), `${problem.title}. ${problem.hint}`);
  } finally {
    button.disabled = false;
  }
}
