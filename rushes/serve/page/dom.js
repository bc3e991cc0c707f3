/** Builds elements: attributes are set, texts become text nodes, so nothing that came from a file is ever read as HTML. */

const SVG = "http://www.w3.org/2000/svg";
const ICONS = {
  search: "M10.5 4a6.5 6.5 0 1 0 0 13a6.5 6.5 0 0 0 0-13zM15.5 15.5L20 20",
  picture: "M4 5h16v14H4zM4 16l5-5l4 4l3-3l4 4M15.5 9h.01",
  close: "M6 6l12 12M18 6L6 18",
  link: "M10 14a4 4 0 0 0 6 .5l3-3a4 4 0 0 0-5.7-5.7l-1.5 1.5M14 10a4 4 0 0 0-6-.5l-3 3a4 4 0 0 0 5.7 5.7l1.5-1.5",
  like: "M8 4h12v12H8zM4 8v12h12M14 7.5v5M11.5 10h5",
  sun: "M12 8a4 4 0 1 0 0 8a4 4 0 0 0 0-8zM12 2.5v2M12 19.5v2M2.5 12h2M19.5 12h2M5.3 5.3l1.4 1.4M17.3 17.3l1.4 1.4M5.3 18.7l1.4-1.4M17.3 6.7l1.4-1.4",
  moon: "M20 14.5A8.5 8.5 0 0 1 9.5 4a8.5 8.5 0 1 0 10.5 10.5z",
  system: "M12 4a8 8 0 1 0 0 16a8 8 0 0 0 0-16zM12 4v16M14.5 5v14M17 7v10",
};

/** The element with this id, which index.html has. @param {string} id @returns {any} */
export const byId = (id) => document.getElementById(id);

/**
 * An element. `on…` attributes are listeners; null, undefined and false ones are left out; `children` are nodes or texts.
 * @param {string} tag
 * @param {Record<string, any>} [attributes]
 * @param {...(Node | string | number | null | undefined | false | Array<any>)} children
 * @returns {any}
 */
export function h(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...texts(children));
  return node;
}

/** Puts these in the place of all that `node` held. @param {Element} node @param {...any} children */
export function fill(node, ...children) {
  node.replaceChildren(...texts(children));
}

function texts(children) {
  return children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
}

/** A drawing that screen readers pass over: what stands beside it says the same. @param {keyof typeof ICONS} name */
export function icon(name) {
  const drawing = svg("svg", { viewBox: "0 0 24 24", class: "icon", "aria-hidden": "true", focusable: "false" });
  drawing.append(svg("path", { d: ICONS[name] }));
  return drawing;
}

/** An element of a drawing. @param {string} tag @param {Record<string, any>} attributes */
export function svg(tag, attributes) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, String(value));
  return node;
}

/** Text for screen readers alone. @param {string} text */
export const hidden = (text) => h("span", { class: "hidden" }, text);

/** Whether someone types there, so that single keys must be left alone. @param {any} target */
export const isTyping = (target) => target instanceof HTMLElement && target.matches("input, textarea, select, [contenteditable]");

/** Whether the person asked the system for less motion. */
export const wantsCalm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

/** Put a text on the clipboard; false where the browser allows it in no way. @param {string} text */
export async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // http on another machine is no secure context: select the text in a field and copy that
    const field = h("textarea", { class: "hidden", "aria-hidden": "true" });
    field.value = text;
    const dialog = document.querySelector("dialog[open]");
    (dialog ?? document.body).append(field);
    const before = document.activeElement;
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    if (before instanceof HTMLElement) before.focus();
    return done;
  }
}
