// A key that this tab remembers until it is closed or its user signs out, so that the
// API docs have it filled in. Only here: it is not sent along with any request.
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
