/** What the page shows lives in the address, behind the #, so that links lead to it and "back" goes back. */

/**
 * @typedef {object} State
 * @property {"search" | "library"} tab
 * @property {string} q        what was typed
 * @property {string} avoid    with commas
 * @property {string} then
 * @property {number} within   seconds
 * @property {"with" | "only" | "without"} spoken
 * @property {string} folder
 * @property {number | null} least   seconds that a video must last
 * @property {number | null} most
 * @property {string} after    a date
 * @property {string} before
 * @property {string} tags     with commas
 * @property {boolean} group   one result a video
 * @property {"relevance" | "time"} sort
 * @property {boolean} sure    likely ones only
 * @property {string} like     a segment's id
 * @property {string} image    an upload's id
 * @property {string} video    an upload's id
 * @property {string} play     the video that the player shows
 * @property {string} segment  and which segment of it
 * @property {number | null} from  seconds: the moment that plays
 * @property {number | null} to
 */

/** @type {State} */
export const NOTHING = Object.freeze({
  tab: "search", q: "", avoid: "", then: "", within: 30, spoken: "with", folder: "", least: null, most: null,
  after: "", before: "", tags: "", group: false, sort: "relevance", sure: false, like: "", image: "", video: "",
  play: "", segment: "", from: null, to: null,
});

/** What asks nothing by itself, but narrows or orders what is found. */
export const NARROWING = ["avoid", "then", "within", "spoken", "folder", "least", "most", "after", "before", "tags", "group", "sort", "sure"];
const CHOICES = { spoken: ["with", "only", "without"], sort: ["relevance", "time"] };
const SECONDS = ["least", "most", "from", "to"];

/** The state in an address' fragment. What it does not know or cannot read is left as it is at first. @param {string} fragment @returns {State} */
export function read(fragment) {
  const [, path, query] = fragment.match(/^#?\/?([^?]*)\??(.*)$/) ?? ["", "", ""];
  const state = { ...NOTHING, tab: path === "library" ? "library" : "search" };
  for (const [name, value] of new URLSearchParams(query)) {
    if (name === "tab" || !(name in NOTHING)) continue;
    if (name in CHOICES) state[name] = CHOICES[name].includes(value) ? value : NOTHING[name];
    else if (SECONDS.includes(name)) state[name] = value !== "" && Number(value) >= 0 ? Number(value) : null;
    else if (name === "within") state.within = Number(value) > 0 ? Number(value) : NOTHING.within;
    else if (typeof NOTHING[name] === "boolean") state[name] = value === "1";
    else state[name] = value;
  }
  return state;
}

/** The fragment of a state: only what differs from nothing. @param {State} state */
export function write(state) {
  const said = new URLSearchParams();
  for (const [name, value] of Object.entries(state)) {
    if (name !== "tab" && value !== NOTHING[name]) said.set(name, value === true ? "1" : String(value));
  }
  return `#/${state.tab}${said.size ? `?${said}` : ""}`;
}

/** The state without a player. @param {State} state @returns {State} */
export const closed = (state) => ({ ...state, play: "", segment: "", from: null, to: null });

const listeners = [];
/** @type {State} */
let current = NOTHING;
let depth = 0; // how many steps of history are our own, so that closing may go back instead of forward

/** The state now. */
export const now = () => current;

/** Call `listener(state, before)` at every change, and once at the start. @param {(state: State, before: State) => void} listener */
export const onChange = (listener) => listeners.push(listener);

/**
 * Go to another state. @param {Partial<State>} changes
 * @param {{replace?: boolean}} [how] replace: "back" does not come here again
 */
export function go(changes, { replace = false } = {}) {
  const next = { ...current, ...changes };
  if (write(next) === write(current)) return;
  depth = replace ? depth : depth + 1;
  history[replace ? "replaceState" : "pushState"]({ depth }, "", write(next));
  settle(next);
}

/** Leave the player: one step back where that is where we came from, so that "back" does not open it again. */
export function leave() {
  if (history.state?.opened) history.back();
  else go(closed(current), { replace: true });
}

/** Open the player on a moment. @param {{play: string, segment: string, from: number, to: number}} moment */
export function open(moment) {
  const next = { ...current, ...moment };
  const within = Boolean(current.play);
  history[within ? "replaceState" : "pushState"]({ opened: within ? Boolean(history.state?.opened) : true }, "", write(next));
  settle(next);
}

/** The whole address of a state, to be given to others. @param {State} state */
export const address = (state) => location.href.replace(/#.*$/, "") + write(state);

/** Begin: read the address, and again whenever it changes. */
export function start() {
  addEventListener("hashchange", () => settle(read(location.hash)));
  settle(read(location.hash));
}

function settle(next) {
  const before = current;
  current = next;
  for (const listener of listeners) listener(next, before);
}
