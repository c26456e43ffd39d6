() => {
  const problems = [];
  // Colours are judged as they will stay. What inherits one only then begins its own change.
  const changes = () => document.getAnimations().filter((a) => a instanceof CSSTransition);
  for (let left = changes(); left.length; left = changes()) for (const change of left) change.finish();

  const shown = (e) => e.checkVisibility({checkOpacity: true, checkVisibilityCSS: true});
  const describe = (e) => `${e.tagName.toLowerCase()}#${e.id}.${e.className} ` +
    e.textContent.trim().slice(0, 40);

  if (!document.documentElement.lang) problems.push("no lang");
  if (!document.title) problems.push("no title");
  if (document.querySelectorAll("main, [role=main]").length !== 1) problems.push("not one main");
  const h1 = [...document.querySelectorAll("h1")].filter(shown);
  if (h1.length !== 1) problems.push(`${h1.length} h1`);
  // A menu before the page's own heading has headings of its own.
  let last = 1;
  for (const heading of document.querySelectorAll("h1, h2, h3, h4")) {
    const level = Number(heading.getAttribute("aria-level") ?? heading.tagName[1]);
    if (level > last + 1) problems.push("heading skips a level: " + describe(heading));
    last = level;
  }
  const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
  for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) problems.push("id twice: " + id);
  for (const name of ["aria-describedby", "aria-labelledby"])
    for (const e of document.querySelectorAll(`[${name}]`))
      for (const id of e.getAttribute(name).split(/\s+/))
        if (!document.getElementById(id)) problems.push(`${name} to nothing: ${id}`);

  for (const e of document.querySelectorAll("input, select, textarea")) {
    if (e.type === "hidden" || !shown(e)) continue;
    const named = e.labels?.length || e.getAttribute("aria-label");
    if (!named) problems.push("no label: " + describe(e));
  }
  // What is hidden from a screen reader, like the ligatures of icons, names nothing.
  const read = (e) => e.getAttribute("aria-hidden") === "true" ? "" :
    [...e.childNodes].map((n) => n.nodeType === Node.TEXT_NODE ? n.textContent :
      n.nodeType === Node.ELEMENT_NODE ? n.getAttribute("aria-label") ?? n.alt ?? read(n) : "").join("");
  for (const e of document.querySelectorAll("a, button, summary")) {
    if (!shown(e)) continue;
    const name = e.getAttribute("aria-label") || e.getAttribute("title") || read(e).trim();
    if (!name) problems.push("no name: " + describe(e));
  }
  for (const e of document.querySelectorAll("img")) if (!e.hasAttribute("alt")) problems.push("no alt: " + e.src);
  for (const e of document.querySelectorAll("progress, [role=img]"))
    if (!e.hasAttribute("aria-hidden") && !e.hasAttribute("aria-label") && !e.hasAttribute("aria-labelledby"))
      problems.push("no name: " + describe(e));

  // Painted, because colours come in many notations: rgb(), oklch(), with alpha or without.
  const paint = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const known = {};
  const parse = (colour) => {
    if (!known[colour]) {
      paint.clearRect(0, 0, 1, 1);
      paint.fillStyle = colour;
      paint.fillRect(0, 0, 1, 1);
      const [r, g, b, a] = paint.getImageData(0, 0, 1, 1).data;
      known[colour] = [r, g, b, a / 255];
    }
    return known[colour];
  };
  const over = ([r, g, b, a], below) =>
    [r, g, b].map((v, i) => v * a + below[i] * (1 - a)).concat(1);
  const luminance = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const ground = (e) => {
    const layers = [];
    for (; e; e = e.parentElement) {
      const colour = parse(getComputedStyle(e).backgroundColor);
      if (colour[3] > 0) layers.push(colour);
      if (colour[3] === 1) break;
    }
    return layers.reduceRight((below, colour) => over(colour, below), [255, 255, 255, 1]);
  };
  let measured = 0;
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some((n) => n.nodeType === Node.TEXT_NODE && n.textContent.trim());
    if (!own || !shown(e) || e.closest("svg, script, noscript, progress, .hidden")) continue;
    const style = getComputedStyle(e);
    const below = ground(e);
    const text = over(parse(style.color), below);
    const [a, b] = [luminance(text), luminance(below)].sort((x, y) => y - x);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700) ||
      e.matches(".material-symbols-outlined");
    const ratio = (a + 0.05) / (b + 0.05);
    measured += 1;
    if (ratio < (large ? 3 : 4.5)) problems.push(`contrast ${ratio.toFixed(2)}: ${describe(e)}`);
  }
  if (measured < 3) problems.push("nothing measured");
  return problems;
}
