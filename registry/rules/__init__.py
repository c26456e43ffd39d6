"""Check a version's metadata and the rules for its columns. Without I/O."""
