// Calls one version, or two, through the public API, and shows their answers.
import { compare, summarise } from "./compare_answers.js";
import * as json from "./exact_json.js";

const data = json.parse(document.getElementById("try-data").textContent);
const at = (id) => document.getElementById(id);
const form = at("try");
const source = at("try-source");
const status = at("try-status");
const SHOWN = 100;
const LONGEST = 300;
// A new key reaches gateways within a moment.
const PATIENCE_MS = 10_000;
// The promise of a token, and when it was asked for.
let key = null;
let sending = null;

class Trouble extends Error {
  constructor(message, details = []) {
    super(message);
    this.details = details;
  }
}

function make(tag, text = "", look = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  made.className = look;
  return made;
}

function show(element, visible = true) {
  element.hidden = !visible;
}

// Rows

async function valueOf(field) {
  const { kind, name } = field.dataset;
  if (kind === "image") {
    if (!field.files.length) throw new Trouble("Choose an image.");
    return { b64: await asBase64(field.files[0]) };
  }
  if (kind === "text") {
    return field.value === "" && "optional" in field.dataset ? undefined : field.value;
  }
  if (field.validity.badInput) throw new Trouble(`${name || "The row"}: not a value of its type.`);
  if (field.value.trim() === "") return undefined;
  if (kind === "time") return `${field.value}Z`;
  return parse(field.value, name || "The row");
}

function asBase64(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(new Trouble("The file cannot be read."));
    reader.readAsDataURL(file);
  });
}

function parse(text, where) {
  try {
    return json.parse(text);
  } catch (error) {
    throw new Trouble(`${where}: ${error.message}`);
  }
}

async function rowOfForm() {
  const fields = [...form.querySelectorAll("[data-kind]")];
  if (!data.named) {
    const value = await valueOf(fields[0]);
    if (value === undefined) throw new Trouble("The row is empty.");
    return [value];
  }
  const row = {};
  for (const field of fields) {
    const value = await valueOf(field);
    if (value !== undefined) row[field.dataset.name] = value;
  }
  return [row];
}

async function rowsOfFile() {
  const [file] = at("try-file").files;
  if (!file) throw new Trouble("Choose a file.");
  const body = new FormData();
  body.append("file", file);
  const response = await post(data.rowsUrl, body);
  const answer = await response.text().then(json.parse).catch(() => ({}));
  if (!answer.instances) {
    throw new Trouble(answer.problem ?? "The file cannot be read now. Sign in again.", answer.details);
  }
  return answer.instances;
}

function rowsOfJson() {
  const given = parse(at("try-json").value, "JSON");
  const rows = Array.isArray(given) ? given : given?.instances;
  if (!Array.isArray(rows)) throw new Trouble("Write a list of rows, or an object with “instances”.");
  return rows;
}

async function readRows() {
  const rows = await {
    form: rowOfForm,
    file: rowsOfFile,
    json: rowsOfJson,
    example: () => data.example,
  }[source.value]();
  if (rows.length === 0) throw new Trouble("There are no rows.");
  if (rows.length > data.most) {
    throw new Trouble(`There are ${rows.length} rows; at most ${data.most} can be tried at once.`);
  }
  return rows;
}

// Calls

function post(url, body, signal) {
  const token = form.querySelector("[name=csrfmiddlewaretoken]").value;
  return fetch(url, { method: "POST", body, signal, headers: { "X-CSRFToken": token } });
}

async function newKey(signal) {
  const response = await post(data.keyUrl, undefined, signal);
  const answer = await response.json().catch(() => ({}));
  // Who is signed out meanwhile gets a page instead.
  if (!answer.token) throw new Trouble(answer.problem ?? "No key could be made. Sign in again.");
  return answer.token;
}

// Calls that find out together that a key has ended share the next one.
function keyInPlaceOf(old, signal) {
  if (key === old) {
    const next = { token: newKey(signal), madeAt: performance.now() };
    next.token.catch(() => {
      if (key === next) key = null;
    });
    key = next;
  }
  return key;
}

async function hasEnded(used, response) {
  if (performance.now() - used.madeAt > PATIENCE_MS) return true;
  const { error } = await response.clone().json().catch(() => ({}));
  return ["expired", "revoked"].includes(error?.reason);
}

async function call(version, operation, body, accept, signal) {
  const model = encodeURIComponent(data.model);
  const path = `/api/v1/models/${model}/versions/${version}/${operation}`;
  let used = keyInPlaceOf(null, signal);
  const send = async () =>
    fetch(path, {
      method: "POST",
      body,
      signal,
      credentials: "omit",
      headers: {
        Authorization: `Bearer ${await used.token}`,
        "Content-Type": "application/json",
        Accept: accept,
      },
    });
  await used.token;
  let began = performance.now();
  let response = await send();
  if (response.status === 401 && (await hasEnded(used, response))) {
    used = keyInPlaceOf(used, signal);
    await used.token;
    began = performance.now();
    response = await send();
  }
  for (const until = began + PATIENCE_MS; response.status === 401 && began < until; ) {
    await new Promise((resolve) => setTimeout(resolve, 300));
    began = performance.now();
    response = await send();
  }
  if (response.status === 401 && key === used) key = null;
  const text = await response.text();
  const took = Math.round(performance.now() - began);
  const id = response.headers.get("X-Request-Id") ?? "";
  if (response.ok) return { ok: true, text, took, id, version };
  return { ok: false, took, id, version, ...refused(response.status, text) };
}

function refused(code, text) {
  try {
    const { error } = JSON.parse(text);
    const details = (error.details ?? []).slice(0, 10).map(
      ({ index, field, issue }) =>
        [index === undefined ? "" : `row ${index}`, field ?? "", issue].filter(Boolean).join(" "),
    );
    return { message: `${code} ${error.code}: ${error.message}`, details };
  } catch {
    return { message: `${code}: the answer cannot be read.`, details: [] };
  }
}

async function run(signal) {
  const rows = await readRows();
  const body = { instances: rows };
  const params = at("try-params")?.value.trim();
  if (params) body.parameters = parse(params, "Parameters");
  const versions = [data.version, at("try-beside").value].filter(Boolean);
  const text = JSON.stringify(body);
  const calls = await Promise.all(
    versions.map((version) => call(version, "predict", text, "application/json", signal)),
  );
  drawCalls(calls, rows);
  if (at("try-explain")?.checked && calls[0].ok) {
    await explain({ ...body, instances: rows.slice(0, 1) }, signal);
  }
  const refusals = calls.filter(({ ok }) => !ok);
  if (refusals.length) throw new Trouble(refusals.map(({ version, message }) => `v${version}: ${message}`).join(" "), refusals[0].details);
  return `${rows.length} ${rows.length === 1 ? "row" : "rows"} answered.`;
}

// What is shown

function drawCalls(calls, rows) {
  show(at("try-answers"));
  at("try-calls").replaceChildren(
    ...calls.map(({ ok, version, took, id, message }) =>
      make("p", `v${version}: ${ok ? "answered" : message} in ${took} ms` + (id ? `, request id ${id}` : "")),
    ),
  );
  for (const line of at("try-calls").children) line.style.overflowWrap = "anywhere";
  const answers = calls.filter(({ ok }) => ok).map(({ version, text }) => ({
    version,
    predictions: predictionsOf(json.parse(text)),
  }));
  const both = answers.length === 2;
  const compared = both
    ? rows.map((_, row) => compare(answers[0].predictions[row], answers[1].predictions[row]))
    : [];
  show(at("try-difference"), both);
  if (both) at("try-difference").textContent = inWords(summarise(compared), rows.length);
  drawTable(answers, compared, rows);
}

function predictionsOf(answer) {
  return answer.predictions ?? [answer.prediction];
}

function inWords({ differing, largest }, rows) {
  const many = `${differing} of ${rows} ${rows === 1 ? "row differs" : "rows differ"}`;
  if (!largest) return `${many}.`;
  return `${many}; the largest difference is ${largest.distance.toPrecision(4)}, in row ${largest.row + 1}.`;
}

function drawTable(answers, compared, rows) {
  const order = rows.map((_, row) => row);
  // What differs comes first.
  if (compared.length) order.sort((one, other) => compared[one].same - compared[other].same);
  const head = make("tr");
  const titles = answers.map(({ version }) => `v${version}`);
  // On a phone the first columns are seen.
  if (compared.length) titles.unshift("Compared");
  titles.unshift("Row");
  for (const title of titles) head.append(make("th", title, "font-semibold px-3 py-3 text-left"));
  const body = make("tbody");
  for (const row of order.slice(0, SHOWN)) {
    const line = make("tr", "", "align-top border-t border-base-200 dark:border-base-800");
    line.append(make("td", String(row + 1), "px-3 py-3"));
    if (compared.length) {
      const { same, words } = compared[row];
      line.append(cell(same ? "same" : words.join(", ")));
      if (!same) line.classList.add("font-semibold");
    }
    for (const { predictions } of answers) line.append(cell(shown(predictions[row])));
    body.append(line);
  }
  const top = make("thead");
  top.append(head);
  at("try-table").replaceChildren(...(answers.length ? [top, body] : []));
  const rest = rows.length - SHOWN;
  show(at("try-rest"), answers.length > 0 && rest > 0);
  at("try-rest").textContent = `${rest} more rows are not shown.`;
}

function cell(text) {
  const made = make("td", text, "px-3 py-3");
  made.style.overflowWrap = "anywhere";
  made.style.minWidth = "8rem";
  return made;
}

function shown(prediction) {
  if (prediction?.label !== undefined && typeof prediction.score === "number") {
    return `${prediction.label} (${Number(prediction.score.toPrecision(6))})${prediction.low_confidence ? ", low confidence" : ""}`;
  }
  const text = JSON.stringify(prediction) ?? "–";
  return text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text;
}

async function explain(body, signal) {
  const text = JSON.stringify(body);
  const [numbers, plot] = await Promise.all([
    call(data.version, "explain", text, "application/json", signal),
    call(data.version, "explain", text, "image/svg+xml", signal),
  ]);
  const parts = [];
  if (plot.ok) {
    const image = make("img");
    image.alt = "Waterfall plot of what moved the prediction; the numbers follow it.";
    image.src = `data:image/svg+xml,${encodeURIComponent(plot.text)}`;
    image.style.maxWidth = "100%";
    image.style.background = "#fff";
    parts.push(image);
  }
  if (numbers.ok) {
    const { explanations, explanation } = json.parse(numbers.text);
    const details = make("details");
    details.append(make("summary", "Numbers", "cursor-pointer font-semibold"));
    const code = make("pre", JSON.stringify((explanations ?? [explanation])[0], null, 2), "overflow-x-auto mt-2 text-xs");
    code.tabIndex = 0;
    details.append(code);
    parts.push(details);
  } else {
    parts.push(make("p", numbers.message));
  }
  at("try-explained").replaceChildren(...parts);
  show(at("try-explanation"));
}

async function send(event) {
  event.preventDefault();
  sending?.abort();
  const mine = (sending = new AbortController());
  const began = performance.now();
  show(at("try-explanation"), false);
  show(at("try-answers"), false);
  show(at("try-problems"), false);
  show(at("try-cancel"));
  status.textContent = "Sending…";
  const clock = setInterval(() => {
    status.textContent = `Waiting for ${Math.round((performance.now() - began) / 1000)} s…`;
  }, 1000);
  let said;
  let details = [];
  try {
    said = await run(mine.signal);
  } catch (error) {
    if (error.name === "AbortError") said = "Cancelled.";
    else if (error instanceof Trouble) ({ message: said, details } = error);
    else if (error instanceof TypeError) said = "No answer: the server cannot be reached.";
    else throw error;
  } finally {
    clearInterval(clock);
  }
  if (mine !== sending) return;
  status.textContent = said;
  at("try-problems").replaceChildren(...(details ?? []).map((detail) => make("li", detail)));
  show(at("try-problems"), Boolean(details?.length));
  show(at("try-cancel"), false);
}

function chooseSource() {
  for (const part of form.querySelectorAll("[data-source]")) {
    show(part, part.dataset.source === source.value);
  }
}

at("try-json").value = JSON.stringify({ instances: data.example.slice(0, 2) }, null, 2);
// Unfold's listener expects the markup of its own file fields.
for (const input of form.querySelectorAll("[type=file]")) input.hasChangeListener = true;
source.addEventListener("change", chooseSource);
at("try-cancel").addEventListener("click", () => sending?.abort());
form.addEventListener("submit", send);
chooseSource();
