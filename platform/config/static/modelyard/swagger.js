// Configure Swagger UI: dark like the reader's system, and no links within buttons.
// Runs before the script that draws the page.
/* global SwaggerUIBundle */
const dark = matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", follow);
follow();

const plain = (system) => ({
  wrapComponents: {
    // The button around it opens the operation and sets the address.
    DeepLink: () => ({ path, text }) =>
      system.React.createElement("span", { className: "nostyle", title: path }, text),
  },
});
const bundle = SwaggerUIBundle;
window.SwaggerUIBundle = Object.assign(
  (options) => bundle({ ...options, plugins: [...options.plugins, plain] }),
  bundle,
);
