// Whoever signs in next in this tab has keys of their own.
import { forget } from "./tab_key.js";

forget();
