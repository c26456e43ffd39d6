"""Error codes, their facts, words and rendering: the same in every protocol."""
