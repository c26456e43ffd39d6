/* Add names and roles that Unfold lacks, for people who use screen readers. */

const NAMES = {
  "#searchbar": "Search this list",
  "#searchbar-submit": "Search",
  ".vDateField": "Date",
  ".vTimeField": "Time",
  "a[id^=calendarlink]": "Choose a date",
  "a[id^=clocklink]": "Choose a time",
};
// Names of links and buttons that contain only this icon.
const ICONS = {
  computer: "Colour scheme",
  dark_mode: "Colour scheme",
  deployed_code: "Dashboard",
  light_mode: "Colour scheme",
};

function complete() {
  for (const cell of document.querySelectorAll("[data-label]"))
    cell.dataset.label = cell.dataset.label.replace(/^./, (letter) => letter.toUpperCase());
  const main = document.getElementById("main") ?? document.getElementById("page");
  main?.setAttribute("role", "main");
  for (const [selector, name] of Object.entries(NAMES))
    for (const element of document.querySelectorAll(selector))
      if (!element.labels?.length) nameIt(element, name);
  for (const icon of document.querySelectorAll(".material-symbols-outlined")) {
    // Icons are words in an icon font; screen readers must not read them.
    icon.setAttribute("aria-hidden", "true");
    const word = icon.textContent.trim();
    const control = icon.closest("a, button");
    if (control?.innerText.trim() === word)
      nameIt(control, control.title || ICONS[word] || word.replaceAll("_", " "));
  }
  for (const heading of document.querySelectorAll("#changelist-filter h3"))
    heading.setAttribute("aria-level", "2");
}

function nameIt(element, name) {
  if (!element.hasAttribute("aria-label")) element.setAttribute("aria-label", name);
}

// Django adds its calendars when the page is loaded.
addEventListener("load", () => setTimeout(complete));
