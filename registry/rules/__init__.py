"""What a version says of itself, and the rules for its columns."""
