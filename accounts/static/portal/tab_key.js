// Remembers a key in this tab until it is closed or its user signs out, to fill it into
// the API docs. No request sends it along.
const NAME = "modelyard-key";

export function remember(key) {
  sessionStorage.setItem(NAME, key);
}

export function recall() {
  return sessionStorage.getItem(NAME) ?? "";
}

export function forget() {
  sessionStorage.removeItem(NAME);
}
