/** Talks with the server: requests, uploads with progress, the events of a job. Whatever fails is a `Problem`. */

/** What went wrong, in words for people. `code` is the server's own, or "offline", "session", "stopped". */
export class Problem extends Error {
  /** @param {{title: string, detail?: string, hint?: string, code: string, status?: number}} said */
  constructor({ title, detail = "", hint = "", code, status = 0 }) {
    super(title);
    Object.assign(this, { title, detail, hint, code, status });
  }
}

const OFFLINE = {
  code: "offline",
  title: "The server does not answer",
  hint: "Is `rushes serve` still running? This page goes on by itself when it is back.",
};
const SESSION = {
  code: "session",
  title: "This page is locked",
  hint: "Open the address that `rushes serve` printed when it started; the token is in it.",
};

/** The problem that an answer tells. @param {number} status @param {any} told */
function problemOf(status, told) {
  if (status === 401) return new Problem({ ...SESSION, status });
  if (told && typeof told === "object" && told.title) {
    return new Problem({ ...told, status, code: told.code ?? String(status), hint: told.hint ?? "" });
  }
  return new Problem({ status, code: String(status), title: `The server answered with an error (${status})` });
}

/**
 * One request, its JSON answer.
 * @param {string} path
 * @param {{method?: string, body?: any, signal?: AbortSignal}} [options]
 * @returns {Promise<any>}
 */
export async function ask(path, { method = "GET", body, signal } = {}) {
  let answer;
  try {
    answer = await fetch(path, {
      method,
      signal,
      headers: body === undefined ? {} : { "Content-Type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (signal?.aborted) throw new Problem({ code: "stopped", title: "Stopped" });
    throw lost(new Problem(OFFLINE));
  }
  const told = answer.status === 204 ? null : await answer.json().catch(() => null);
  if (answer.ok) return told;
  const problem = problemOf(answer.status, told);
  throw problem.code === "session" ? lost(problem) : problem;
}

const id = encodeURIComponent;
export const post = (path, body = {}, signal = undefined) => ask(path, { method: "POST", body, signal });
export const search = (body, signal) => post("/v1/search", body, signal);
export const matches = (video, body, signal) => post(`/v1/videos/${id(video)}/matches`, body, signal);
export const explain = (segment, text, signal) => post("/v1/explain", { segment, text }, signal);
export const library = () => ask("/v1/library");
export const video = (name, signal) => ask(`/v1/videos/${id(name)}`, { signal });
export const tag = (name, changes) => ask(`/v1/videos/${id(name)}/tags`, { method: "PUT", body: changes });
export const failures = () => ask("/v1/failures");
export const jobs = () => ask("/v1/jobs");
export const job = (name) => ask(`/v1/jobs/${id(name)}`);
export const index = (retryFailed = false) => post("/v1/jobs", { kind: "index", retry_failed: retryFailed });
export const order = (name, what) => post(`/v1/jobs/${id(name)}/${what}`);
export const forget = (upload) => ask(`/v1/uploads/${id(upload)}`, { method: "DELETE" });

/** A page of the list of videos. @param {Record<string, string | number | null>} asked */
export function videos(asked) {
  const said = Object.entries(asked).filter(([, value]) => value !== null && value !== "");
  return ask(`/v1/videos?${new URLSearchParams(said.map(([name, value]) => [name, String(value)]))}`);
}

export const streamOf = (name) => `/v1/videos/${id(name)}/stream`;
export const clipOf = (name, start, end) => `/v1/videos/${id(name)}/clip?start=${start.toFixed(3)}&end=${end.toFixed(3)}`;
export const frameOf = (name, t, width) => `/v1/videos/${id(name)}/frame?t=${t.toFixed(3)}&width=${width}`;

/**
 * Send a file to search with. fetch tells nothing of its progress; XMLHttpRequest does.
 * @param {File} file
 * @param {(share: number) => void} onProgress
 * @param {AbortSignal} signal
 * @returns {Promise<{id: string, kind: "image" | "video", seconds: number | null, width: number, height: number}>}
 */
export function upload(file, onProgress, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const form = new FormData();
    form.append("file", file);
    request.open("POST", "/v1/uploads");
    request.responseType = "json";
    request.upload.addEventListener("progress", (event) => event.lengthComputable && onProgress(event.loaded / event.total));
    request.addEventListener("load", () => {
      if (request.status === 201) resolve(request.response);
      else reject(problemOf(request.status, request.response));
    });
    // a server that refuses a large file closes the connection before it has read all of it
    request.addEventListener("error", () => reject(new Problem({ ...OFFLINE, title: "The file could not be sent",
      hint: "It may be too large for this server, or the server is gone." })));
    request.addEventListener("abort", () => reject(new Problem({ code: "stopped", title: "Stopped" })));
    signal.addEventListener("abort", () => request.abort());
    request.send(form);
  });
}

/**
 * Follow a job until it ends, or until the returned function is called.
 * @param {string} name
 * @param {(job: any) => void} onJob
 * @param {(gone: boolean) => void} onSilence   the line broke; the browser tries again by itself unless it is `gone`
 * @returns {() => void}
 */
export function follow(name, onJob, onSilence) {
  const source = new EventSource(`/v1/jobs/${id(name)}/events`);
  const read = (event) => onJob(JSON.parse(event.data));
  source.addEventListener("progress", read);
  source.addEventListener("end", (event) => {
    source.close();
    if (event.data) read(event);
  });
  source.addEventListener("error", () => onSilence(source.readyState === EventSource.CLOSED));
  return () => source.close();
}

// ---------------------------------------------------------------- a server that is gone, a page that is locked

const watchers = [];
let waiting = false;

/** Call `listener(problem)` when the server is lost, and `listener(null)` when it is back. @param {(problem: Problem | null) => void} listener */
export const onLost = (listener) => watchers.push(listener);

function lost(problem) {
  for (const watcher of watchers) watcher(problem);
  if (problem.code === "offline" && !waiting) {
    waiting = true;
    setTimeout(knock, 2000);
  }
  return problem;
}

async function knock() {
  const back = await fetch("/healthz").then((answer) => answer.ok, () => false);
  if (!back) {
    setTimeout(knock, 2000);
    return;
  }
  waiting = false;
  for (const watcher of watchers) watcher(null);
}
