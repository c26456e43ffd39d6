"""Speak the project's own JSON: predict, explain, embed, stream, uploaded files."""
