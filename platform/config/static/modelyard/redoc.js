// Draw ReDoc in the colours of our pages, light or dark like the reader's system.
/* global Redoc */
const dark = matchMedia("(prefers-color-scheme: dark)");
const root = getComputedStyle(document.documentElement);
const colour = (name) => root.getPropertyValue(`--${name}`).trim();

const text = colour("text");
const subtle = colour("subtle");
const theme = {
  colors: {
    primary: { main: colour("accent") },
    text: { primary: text, secondary: subtle },
    border: { dark: colour("line"), light: colour("line") },
    success: { main: dark.matches ? "#7ee2a8" : "#14683c" },
    error: { main: dark.matches ? "#ffb4ab" : "#a3221a" },
    warning: { main: dark.matches ? "#f3cf7a" : "#7a5300" },
    responses: {
      success: { color: dark.matches ? "#7ee2a8" : "#14683c", backgroundColor: colour("raised") },
      error: { color: dark.matches ? "#ffb4ab" : "#a3221a", backgroundColor: colour("raised") },
      redirect: { color: subtle, backgroundColor: colour("raised") },
      info: { color: subtle, backgroundColor: colour("raised") },
    },
    http: { get: "#1d63ad", post: "#1b7043", put: "#8a5200", delete: "#b3261e" },
  },
  schema: {
    nestedBackground: colour("raised"),
    linesColor: colour("line"),
    typeNameColor: subtle,
    typeTitleColor: subtle,
    requireLabelColor: dark.matches ? "#ffb4ab" : "#a3221a",
  },
  typography: {
    code: { color: text, backgroundColor: colour("raised") },
    links: { color: colour("accent"), visited: colour("accent"), hover: colour("accent") },
  },
  sidebar: { backgroundColor: colour("raised"), textColor: text, activeTextColor: colour("accent") },
  rightPanel: { backgroundColor: "#263238" },
};

const place = document.querySelector("#redoc");
Redoc.init(
  place.dataset.document,
  { theme, scrollYOffset: ".bar", hideDownloadButton: true, jsonSampleExpandLevel: 2 },
  place,
);
// ReDoc cannot change its colours after drawing.
dark.addEventListener("change", () => location.reload());
