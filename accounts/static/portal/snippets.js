// One call as code that works when pasted: { method, url, key, body } with body as text.
export const snippets = {
  curl({ url, key, body }) {
    const lines = [`curl ${shell(url)}`, `-H ${shell(`Authorization: Bearer ${key}`)}`];
    if (body !== undefined) lines.push(`--json ${shell(compact(body))}`);
    return lines.join(" \\\n  ");
  },

  python({ method, url, key, body }) {
    const sent = [
      `    ${text(url)},`,
      `    headers={"Authorization": ${text(`Bearer ${key}`)}},`,
    ];
    if (body !== undefined) sent.push(`    json=${python(body)},`);
    sent.push("    timeout=30,");
    return [
      "import httpx",
      "",
      `response = httpx.${method.toLowerCase()}(`,
      ...sent,
      ")",
      "print(response.status_code, response.json())",
    ].join("\n");
  },

  javascript({ method, url, key, body }) {
    const lines = [
      `const response = await fetch(${text(url)}, {`,
      `  method: ${text(method)},`,
      "  headers: {",
      `    Authorization: ${text(`Bearer ${key}`)},`,
    ];
    if (body !== undefined) lines.push('    "Content-Type": "application/json",');
    lines.push("  },");
    if (body !== undefined) lines.push(`  body: JSON.stringify(${compact(body)}),`);
    return [...lines, "});", "console.log(response.status, await response.json());"].join("\n");
  },
};

export function compact(body) {
  try {
    return JSON.stringify(JSON.parse(body));
  } catch {
    return body;
  }
}

function python(body) {
  try {
    return literal(JSON.parse(body));
  } catch {
    return "...";
  }
}

function literal(value) {
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value !== "object") return text(value);
  const pairs = Object.entries(value).map(([name, each]) => `${text(name)}: ${literal(each)}`);
  return `{${pairs.join(", ")}}`;
}

// Within single quotes a shell reads everything but the quote itself.
const shell = (value) => `'${value.replaceAll("'", "'\\''")}'`;
// Strings of JSON are strings of Python and JavaScript as well.
const text = (value) => JSON.stringify(value);
