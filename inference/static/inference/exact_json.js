// Reads and writes JSON without rounding whole numbers beyond 2^53, which JavaScript's
// numbers cannot hold. Browsers without JSON.rawJSON (before 2025) round as ever.

export function parse(text) {
  return JSON.parse(text, exact);
}

export function isExact(value) {
  return JSON.isRawJSON?.(value) ?? false;
}

function exact(_, value, context) {
  if (typeof value !== "number" || Number.isSafeInteger(value)) return value;
  // "1e20" and "0.5" are numbers with a point for everybody.
  const digits = context?.source ?? "";
  return JSON.rawJSON && /^-?\d+$/.test(digits) ? JSON.rawJSON(digits) : value;
}
