// Fills the key that the portal remembered for this tab into the API docs.
/* global ui */
import { recall } from "./tab_key.js";

const key = recall();
if (key) {
  const timer = setInterval(() => {
    // There is no scheme to fill in until the document is loaded.
    if (ui.preauthorizeApiKey("bearer", key) !== null) clearInterval(timer);
  }, 100);
}
