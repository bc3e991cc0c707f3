// Puts the remembered colours on before anything is drawn, so that no dark page flashes white.
try {
  const theme = localStorage.getItem("rushes-theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // a browser that keeps nothing follows the system's colours
}
