// The next person who signs in in this tab has other keys.
import { forget } from "./tab_key.js";

forget();
