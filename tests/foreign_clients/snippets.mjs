// Prints the portal's snippets for the call that the test names.
import { snippets } from "./portal/snippets.js";

const call = JSON.parse(process.env.MODELYARD_CALL);
const made = Object.entries(snippets).map(([language, write]) => [language, write(call)]);
console.log(JSON.stringify(Object.fromEntries(made)));
