"""The project's own JSON: predict, embed, stream, and rows from an uploaded file."""
