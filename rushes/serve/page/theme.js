/** The switch between the system's colours, light and dark; what was chosen is remembered. */

import { fill, icon } from "./dom.js";

const NEXT = { system: "light", light: "dark", dark: "system" };
const ICON = { system: "system", light: "sun", dark: "moon" };

/** @param {HTMLButtonElement} button */
export function startTheme(button) {
  const show = () => {
    const theme = document.documentElement.dataset.theme ?? "system";
    fill(button, icon(ICON[theme]));
    button.setAttribute("aria-label", `Colours: ${theme}. Change to ${NEXT[theme]}`);
    button.title = `Colours: ${theme}`;
  };
  button.addEventListener("click", () => {
    const theme = NEXT[document.documentElement.dataset.theme ?? "system"];
    if (theme === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    try {
      if (theme === "system") localStorage.removeItem("rushes-theme");
      else localStorage.setItem("rushes-theme", theme);
    } catch {
      // a browser that keeps nothing forgets it with the tab
    }
    show();
  });
  show();
}
