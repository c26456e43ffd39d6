// Calls the public API with the key in the form, and shows the same call as code.
import { snippets } from "./snippets.js";
import { remember } from "./tab_key.js";

const form = document.getElementById("try");
const key = document.getElementById("try-key");
const operation = document.getElementById("try-operation");
const model = document.getElementById("try-model");
const body = document.getElementById("try-body");
const language = document.getElementById("try-language");
const code = document.getElementById("try-code");
const docs = document.getElementById("try-docs");
const status = document.getElementById("try-status");
const answer = document.getElementById("try-answer");
const examples = new Map();
const explainable = new Map();
const explain = operation.querySelector("[value=explain]");
let knownKey = null;

function call() {
  if (operation.value === "me") return { method: "GET", path: "/api/v1/me" };
  const name = encodeURIComponent(model.value);
  return {
    method: "POST",
    path: `/api/v1/models/${name}/${operation.value}`,
    body: body.value,
  };
}

function show() {
  const predicting = operation.value !== "me";
  document.getElementById("try-model-field").hidden = !predicting;
  document.getElementById("try-body-field").hidden = !predicting;
  const { method, path, body: sent } = call();
  code.textContent = snippets[language.value]({
    method,
    url: form.dataset.base + path,
    key: key.value.trim() || "YOUR_API_KEY",
    body: sent,
  });
  docs.hidden = !key.value.trim();
}

function fetchWithKey(path, options = {}) {
  const headers = { Authorization: `Bearer ${key.value.trim()}`, ...options.headers };
  return fetch(path, { ...options, headers, credentials: "omit" });
}

async function loadModels() {
  const asked = key.value.trim();
  if (!asked || asked === knownKey) return;
  knownKey = asked;
  const response = await fetchWithKey("/api/v1/models");
  if (asked !== key.value.trim()) return;
  model.replaceChildren();
  if (!response.ok) {
    operation.value = "me";
    status.textContent = response.status === 401
      ? "This key is not valid: it may be mistyped, revoked or expired."
      : "This key may not list models (it lacks the scope models:read). “About this key” works.";
    return show();
  }
  const { data } = await response.json();
  for (const { name } of data) model.add(new Option(name, name));
  status.textContent = data.length
    ? `This key may call ${data.length} ${data.length === 1 ? "model" : "models"}.`
    : "This key is valid, and there is no model that it may call yet.";
  operation.value = data.length ? "predict" : "me";
  await loadExample();
}

async function loadExample() {
  const name = model.value;
  if (!name) return show();
  if (!examples.has(name)) {
    const response = await fetchWithKey(`/api/v1/models/${encodeURIComponent(name)}`);
    const card = response.ok ? await response.json() : {};
    examples.set(name, asBody(card.example));
    explainable.set(name, Boolean(card.explainable));
  }
  if (name !== model.value) return;
  body.value = examples.get(name);
  // Offer only what the model can do.
  explain.disabled = !explainable.get(name);
  explain.hidden = explain.disabled;
  if (explain.disabled && operation.value === "explain") operation.value = "predict";
  show();
}

function asBody(example) {
  const rows = Array.isArray(example) ? example.slice(0, 1) : example ? [example] : [];
  return JSON.stringify({ instances: rows }, null, 2);
}

async function send(event) {
  event.preventDefault();
  const { method, path, body: sent } = call();
  status.textContent = "Sending…";
  const started = performance.now();
  try {
    const response = await fetchWithKey(path, {
      method,
      body: sent,
      headers: sent === undefined ? {} : { "Content-Type": "application/json" },
    });
    const text = await response.text();
    const took = Math.round(performance.now() - started);
    const id = response.headers.get("X-Request-Id");
    status.textContent =
      `${response.status} ${response.ok ? "answered" : "refused"} in ${took} ms` +
      (id ? `, request id ${id}` : "");
    answer.textContent = pretty(text);
  } catch {
    status.textContent = "No answer: the server cannot be reached.";
    answer.textContent = "";
  }
  answer.hidden = !answer.textContent;
}

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

key.addEventListener("input", show);
key.addEventListener("change", loadModels);
operation.addEventListener("change", show);
model.addEventListener("change", loadExample);
body.addEventListener("input", show);
language.addEventListener("change", show);
docs.querySelector("button").addEventListener("click", ({ target }) => {
  remember(key.value.trim());
  location.assign(target.dataset.docs);
});
form.addEventListener("submit", send);
show();
loadModels();
