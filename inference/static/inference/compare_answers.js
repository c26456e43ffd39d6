// Compares the predictions of two versions for the same rows.
import { isExact } from "./exact_json.js";

// Numbers that differ by less than a millionth of their size count as the same: two
// batches of one model may differ by as much. Whole numbers beyond 2^53 are compared
// digit by digit.
const NEAR = 1e-6;

// Returns whether two predictions are the same, in words what differs, and the largest
// difference of two numbers at the same place (null: there is none).
export function compare(one, other) {
  const found = { words: [], distance: null };
  walk(one, other, "", found);
  return { same: found.words.length === 0, words: found.words, distance: found.distance };
}

function walk(one, other, place, found) {
  if (typeof one === "number" && typeof other === "number") {
    const distance = Math.abs(one - other);
    if (distance > NEAR * Math.max(Math.abs(one), Math.abs(other))) {
      note(found, place, "differs by " + distance.toPrecision(3));
      found.distance = Math.max(found.distance ?? 0, distance);
    }
    return;
  }
  if (isObject(one) && isObject(other)) {
    // Scores of different labels cannot be compared.
    const keys = "label" in one && one.label !== other.label
      ? ["label"]
      : [...new Set([...Object.keys(one), ...Object.keys(other)])];
    for (const key of keys) walk(one[key], other[key], place ? `${place}.${key}` : key, found);
    return;
  }
  if (Array.isArray(one) && Array.isArray(other) && one.length === other.length) {
    one.forEach((value, index) => walk(value, other[index], `${place}[${index}]`, found));
    return;
  }
  if (JSON.stringify(one) !== JSON.stringify(other)) note(found, place, "differs");
}

function note(found, place, words) {
  // The first three places say enough.
  if (found.words.length < 3) found.words.push(place ? `${place} ${words}` : words);
}

function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !isExact(value);
}

// Returns the number of rows that differ, and the largest difference with its row.
export function summarise(compared) {
  let differing = 0;
  let largest = null;
  compared.forEach(({ same, distance }, row) => {
    if (!same) differing += 1;
    if (distance !== null && (largest === null || distance > largest.distance)) {
      largest = { distance, row };
    }
  });
  return { differing, largest };
}
