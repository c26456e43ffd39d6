// Fills the key that the portal remembered for this tab into the API docs.
/* global ui */
import { recall } from "./tab_key.js";

const key = recall();
if (key) {
  const timer = setInterval(() => {
    // Until the document is loaded there is no scheme to fill it into.
    if (ui.preauthorizeApiKey("bearer", key) !== null) clearInterval(timer);
  }, 100);
}
